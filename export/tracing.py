"""A PyTorch net in, an exported program out that takes pictures as they are, of any size.

Nothing but torch and its own neighbours is imported here, so that it also works where the rest of segserve cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .adaptive import AnySize
from .answers import choose

LARGEST_SIDE = 16_384
"""The longest side in pixels that the exported graph promises to take."""


class ServedNet(nn.Module):
    """A net with its preprocessing: pictures uint8 (N, H, W, depth) to scores float32 (N, classes, h, w).

    The arithmetic is training's, operation for operation; zero means and unit deviations are left out.
    """

    def __init__(
        self,
        net: nn.Module,
        scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        depth: int = 3,
        fourth: float | None = None,
        output: str | None = None,
    ) -> None:
        """The net's input is (value / scale - mean) / std, with a further channel of `fourth` everywhere if it is not
        None; `output` names the scores in the net's answer."""
        super().__init__()
        self.net = net
        self.scale = scale
        self.depth = depth
        self.fourth = fourth
        self.output = output
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
        if self.fourth is not None:
            x = torch.cat([x, torch.full_like(x[:, :1], self.fourth)], dim=1)
        return choose(self.net(x), self.output)


@dataclass(frozen=True)
class Plan:
    """What an exported program promises: sides that are any multiples of `multiple_of` from twice `smallest` on, or,
    where it is 0, those of `example` (height, width); and any batch, or a batch of 1.

    `derived`: torch is told of the multiples. Some nets cannot be followed without, but such a program does not
    outlive a file: it has to be traced again from what was read. `least`: torch is told that no side is shorter, which
    the graph does not need.
    """

    multiple_of: int
    example: tuple[int, int]
    smallest: int = 1
    batch: bool = True
    derived: bool = False
    least: int = 1

    def export(self, net: nn.Module, depth: int = 3) -> ExportedProgram:
        """`net` (in eval mode, taking uint8 (N, H, W, depth)) as such a program.

        Raises what `torch.export` raises where it cannot follow the net.
        """
        image = torch.zeros((2 if self.batch else 1, *self.example, depth), dtype=torch.uint8)
        # Comparisons that always hold but that the symbolic engine cannot prove (2 * (H // 2) <= H) become assertions
        # at run time, which ONNX leaves out, instead of errors.
        with AnySize():
            return torch.export.export(
                net,
                (image,),
                dynamic_shapes=({axis: dim for axis, dim in enumerate(self._dims()) if dim is not None},),
                prefer_deferred_runtime_asserts_over_guards=True,
            )

    def __str__(self) -> str:
        sides = "sides free" if self.multiple_of == 1 else f"sides multiples of {self.multiple_of}"
        height, width = self.example
        return f"{sides if self.multiple_of else f'{height}x{width} alone'}, batch {'free' if self.batch else '1'}"

    @property
    def free(self) -> frozenset[str]:
        """Which of batch, height and width it leaves free."""
        return frozenset(["batch"] * self.batch + ["height", "width"] * bool(self.multiple_of))

    def _dims(self) -> tuple[Dim | None, ...]:
        """Batch, height and width; None is constant."""
        batch = Dim("batch") if self.batch else None
        if not self.multiple_of:
            return batch, None, None
        # PyTorch treats sides of 0 and 1 as constants: at twice the smallest size every feature map has at least 2.
        unit = self.multiple_of if self.derived else 1
        least = min(max(2 * self.smallest, self.least), *self.example) // unit
        sides = (Dim(name, min=least, max=LARGEST_SIDE // unit) for name in ("height", "width"))
        return batch, *(unit * side if self.derived else side for side in sides)


def trace(net: ServedNet, smallest: int, example: tuple[int, int]) -> ExportedProgram:
    """`net` (in eval mode) as a program with dynamic batch, height and width.

    `smallest` is the shortest side that the net takes, `example` a height and width to trace it at. Raises what
    `torch.export` raises where it cannot follow the net.
    """
    return Plan(1, example, smallest).export(net)
