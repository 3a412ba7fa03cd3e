"""A PyTorch net in, an exported program out that takes pictures as they are, of any size.

Nothing but torch is imported here, so that it also works where the rest of segserve cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

LARGEST_SIDE = 16_384
"""The longest side in pixels that the exported graph promises to take."""


class ServedNet(nn.Module):
    """A net with its preprocessing: pictures uint8 (N, H, W, 3) to logits float32 (N, classes, H, W).

    The arithmetic is training's, operation for operation; zero means and unit deviations are left out.
    """

    def __init__(self, net: nn.Module, scale: float, mean: Sequence[float], std: Sequence[float]) -> None:
        """The net's input is (value / scale - mean) / std."""
        super().__init__()
        self.net = net
        self.scale = scale
        self.shift = any(mean)
        self.stretch = any(value != 1 for value in std)
        self.mean = nn.Buffer(torch.tensor(mean).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """As the class says."""
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        if self.scale != 1:
            x = x / self.scale
        if self.shift:
            x = x - self.mean
        if self.stretch:
            x = x / self.std
        logits: Tensor = self.net(x)
        return logits


def trace(net: ServedNet, smallest: int, example: tuple[int, int]) -> ExportedProgram:
    """`net` (in eval mode) as a program with dynamic batch, height and width.

    `smallest` is the shortest side that the net takes, `example` a height and width to trace it at. Raises what
    `torch.export` raises where it cannot follow the net.
    """
    # PyTorch treats sides of 0 and 1 as constants: at twice the smallest size every feature map has at least 2.
    sides = {axis: Dim(name, min=2 * smallest, max=LARGEST_SIDE) for axis, name in ((1, "height"), (2, "width"))}
    image = torch.zeros((2, *example, 3), dtype=torch.uint8)
    # Comparisons that always hold but that the symbolic engine cannot prove (2 * (H // 2) <= H) become assertions at
    # run time, which ONNX leaves out, instead of errors.
    return torch.export.export(
        net,
        (image,),
        dynamic_shapes=({0: Dim("batch"), **sides},),
        prefer_deferred_runtime_asserts_over_guards=True,
    )
