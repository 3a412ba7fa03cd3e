"""Pictures in, what a trained net sees in them out: for another net to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoint
from training.normalise import normalise
from training.recipe import Recipe


@dataclass(frozen=True)
class Teacher:
    """A trained net in eval mode. `flip`: it sees each picture mirrored as well, and its answer is the mean."""

    net: nn.Module
    recipe: Recipe
    flip: bool = False

    @classmethod
    def open(cls, path: Path, classes: int, device: torch.device, flip: bool = False) -> Self:
        """Of a bundle's folder or a checkpoint. Raises ValueError where it is neither, or tells other classes apart."""
        checkpoint = Checkpoint.load(path)
        if checkpoint.classes != classes:
            raise ValueError(f"the teacher {path} tells {checkpoint.classes} classes apart, the data has {classes}")
        net = checkpoint.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(net, checkpoint.recipe, flip)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) to logits, float32 (N, classes, h, w), at the net's stride."""
        image = normalise(pictures, self.recipe)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            logits: Tensor = self.net(image)
            if self.flip:
                logits = (logits + self.net(image.flip(-1)).flip(-1)) / 2
        return logits.float()
