"""What a net consists of, as the structure of an encoder and a decoder has it: stages, and what is passed across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

ScaleChange = Literal[
    "max-pooling", "average pooling", "strided convolution", "space-to-depth", "subsampling",
    "max-unpooling", "transposed convolution", "interpolation", "depth-to-space", "another way",
]  # fmt: skip
FIRST: Sequence[ScaleChange] = ("max-pooling", "max-unpooling")
"""The ways that are named first where there are several."""

Across = Literal["indices", "added", "concatenated", "multiplied"]
Layer = Literal["convolution", "transposed convolution", "linear"]


@dataclass(frozen=True)
class Stage:
    """What happens at one scale: `scale` is its sides' share of the input's, `by` how it was come by (nothing: it is
    the input's own); `layers` by kind; `channels`: of its blocks' sums, or of its widest layer."""

    scale: Fraction
    height: int | None
    width: int | None
    channels: int | None
    direction: Literal["down", "same", "up"]
    by: tuple[ScaleChange, ...]
    layers: Mapping[Layer, int]


@dataclass(frozen=True)
class Pass:
    """What one stage hands to a later one past those between, by their places in the list: how many maps, each of
    `channels`; `layers`: on the way."""

    source: int
    target: int
    how: Across
    channels: int | None
    layers: int
    maps: int = 1


@dataclass(frozen=True)
class Structure:
    """A net's stages in order and the passes across; where they could not be told apart, `problem` says why.

    `size` is the input's height and width, for which the stages' are; `operators` counts the graph's nodes by type,
    `inner` the graphs and functions inside it, which are not looked into.
    """

    size: tuple[int, int]
    channels: int
    stages: tuple[Stage, ...] = ()
    passes: tuple[Pass, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    inner: int = 0
    problem: str | None = None

    @property
    def deepest(self) -> int:
        """The first of the stages of the smallest scale: where the encoder ends."""
        scales = [stage.scale for stage in self.stages]
        return scales.index(min(scales)) if scales else 0
