"""A trained net and what it needs to be understood in, one `.safetensors` file out, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from service.manifest import explain
from training.nets import build_net
from training.recipe import Recipe

BUNDLED = "weights.safetensors"
"""The checkpoint in the bundle of a net of ours."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights, the recipe behind them, and what was measured when they were written."""

    recipe: Recipe
    classes: int
    state: dict[str, Tensor]
    metrics: dict[str, Any]

    @property
    def temperature(self) -> float:
        """What its logits are divided by for confidence; 1 where it was not fitted."""
        return float(self.metrics.get("temperature", 1.0))

    def build(self) -> nn.Module:
        """The net with these weights, in eval mode. Raises ValueError where they are of another version of it."""
        net = build_net(self.recipe.net, self.classes, self.recipe.net_width)
        try:
            net.load_state_dict(self.state)
        except RuntimeError as error:
            raise ValueError(
                f"these are weights of another version of {self.recipe.net}: train it again, or use the segserve that "
                "they are from"
            ) from error
        return net.eval()

    def save(self, path: Path) -> None:
        """Write the file; it appears whole or not at all."""
        metadata = {
            "recipe": self.recipe.model_dump_json(),
            "input": self.recipe.input.model_dump_json(),
            "classes": str(self.classes),
            "metrics": json.dumps(self.metrics),
        }
        draft = path.with_suffix(".partial")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state.items()}
        draft.write_bytes(save(tensors, metadata))
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a file that `save` wrote, or the one that lies in a bundle's folder. Raises ValueError where it is
        something else."""
        if path.is_dir():
            path = path / BUNDLED
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except (OSError, SafetensorError):
            metadata = {}
        if "recipe" not in metadata:
            raise ValueError(f"{path} was not written by segserve-train: it carries no recipe")
        try:
            recipe = Recipe.model_validate_json(metadata["recipe"])
        except ValidationError as error:
            raise ValueError(f"{path} was written by another version of segserve-train: {explain(error)}") from error
        return cls(
            recipe=recipe,
            classes=int(metadata["classes"]),
            state=load_file(path),
            metrics=json.loads(metadata["metrics"]),
        )
