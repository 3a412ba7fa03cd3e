"""A picture's size in, the net's runs over it out: what is read, where it lies on the net's canvas, what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.manifest import InputSpec


@dataclass(frozen=True)
class Span:
    """Pixels from `start` up to, not including, `stop`, along one side."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """In pixels."""
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """For indexing an array."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Axis:
    """One side of one run of the net.

    The picture's pixels `source` are scaled onto the pixels `content` of a canvas of `canvas` pixels, the net's input;
    the answer fills the pixels `target` of the mask.
    """

    source: Span
    content: Span
    canvas: int
    target: Span

    def cells(self, length: int, count: int) -> Span:
        """Which of `count` equal cells (pixels, or coarser ones) along a side of `length` pixels this run answers:
        those whose middle is in the target."""
        edges = (math.ceil(edge * count / length - 0.5) for edge in (self.target.start, self.target.stop))
        return Span(*edges)

    def resolution(self, length: int, scores: int) -> int:
        """How many cells a side of `length` pixels has at the net's resolution, `scores` samples along the canvas."""
        return max(1, round(length * self.content.length / self.source.length * scores / self.canvas))

    def score_positions(self, length: int, count: int, scores: int, align_corners: bool) -> NDArray[np.float64]:
        """Where, among `scores` samples along the canvas, the middles of `cells(length, count)` lie.

        From 0 to scores - 1, fractions between samples, never beyond the content's outermost samples.
        """
        cells = self.cells(length, count)
        middles = (np.arange(cells.start, cells.stop) + 0.5) * (length / count) - self.source.start
        first, last = self.content.start, self.content.stop - 1
        if align_corners:
            stride = (scores - 1) / max(self.canvas - 1, 1)
            positions = (first + (middles - 0.5) * ((last - first) / max(self.source.length - 1, 1))) * stride
            low, high = first * stride, last * stride
        else:
            stride = scores / self.canvas
            positions = (first + middles * (self.content.length / self.source.length)) * stride - 0.5
            low, high = math.ceil(first * stride - 0.5), math.floor((last + 1) * stride - 0.5)
        low = max(low, 0)
        return np.clip(positions, low, max(min(high, scores - 1), low))


@dataclass(frozen=True)
class Placement:
    """One run of the net: its two axes."""

    y: Axis
    x: Axis

    @property
    def is_whole(self) -> bool:
        """Whether the run sees the whole picture, on the whole canvas."""
        return all(
            axis.source == axis.target and axis.source.start == 0 and axis.content == Span(0, axis.canvas)
            for axis in (self.y, self.x)
        )

    @property
    def of_thumbnail(self) -> Placement:
        """The same run over a picture that has been scaled to what the canvas takes of it."""
        y, x = (replace(axis, source=Span(0, axis.content.length)) for axis in (self.y, self.x))
        return Placement(y, x)


def place(spec: InputSpec, height: int, width: int) -> tuple[Placement, ...]:
    """How a picture of `height` x `width` pixels is fed to a net that takes `spec`: one run, or one for each tile.

    The targets of all runs together cover the picture once.
    """
    if spec.fit == "tile":
        assert spec.height is not None and spec.width is not None
        rows = _tiles(height, spec.height, spec.overlap)
        columns = _tiles(width, spec.width, spec.overlap)
        return tuple(Placement(y, x) for y in rows for x in columns)
    if spec.fit == "native":
        return (_native(spec, height, width),)
    assert spec.height is not None and spec.width is not None
    if spec.fit == "stretch":
        return (Placement(_whole(height, spec.height, spec.height), _whole(width, spec.width, spec.width)),)
    ratio = min(spec.height / height, spec.width / width)
    inner_height = min(max(round(height * ratio), 1), spec.height)
    inner_width = min(max(round(width * ratio), 1), spec.width)
    center = spec.anchor == "center"
    return (
        Placement(
            _whole(height, inner_height, spec.height, (spec.height - inner_height) // 2 if center else 0),
            _whole(width, inner_width, spec.width, (spec.width - inner_width) // 2 if center else 0),
        ),
    )


def net_pixels(spec: InputSpec, height: int, width: int) -> int:
    """The pixels that a net which takes `spec` sees of a picture of that size, over all its runs, padding included."""
    if spec.fit == "tile":
        assert spec.height is not None and spec.width is not None
        rows = _tile_count(height, spec.height, spec.overlap)
        return rows * _tile_count(width, spec.width, spec.overlap) * spec.height * spec.width
    run = place(spec, height, width)[0]
    return run.y.canvas * run.x.canvas


def _whole(length: int, inner: int, canvas: int, start: int = 0) -> Axis:
    """The whole side of a picture on `inner` pixels of the canvas."""
    side = Span(0, length)
    return Axis(source=side, content=Span(start, start + inner), canvas=canvas, target=side)


def _native(spec: InputSpec, height: int, width: int) -> Placement:
    """The picture's own size, or, above max_pixels, the largest of the same aspect below it; padded to multiple_of."""
    ratio = min(1.0, math.sqrt(spec.max_pixels / (height * width)))
    inner_height, inner_width = (max(math.floor(length * ratio), 1) for length in (height, width))
    # A hair line is mostly padding: there the padded canvas is what max_pixels bounds, and the long side gives way.
    if min(height, width) * ratio < spec.multiple_of:
        longest = max(spec.max_pixels // spec.multiple_of, 1)
        inner_height, inner_width = min(inner_height, longest), min(inner_width, longest)
    return Placement(
        _whole(height, inner_height, _padded(inner_height, spec.multiple_of)),
        _whole(width, inner_width, _padded(inner_width, spec.multiple_of)),
    )


def _padded(length: int, multiple_of: int) -> int:
    return math.ceil(length / multiple_of) * multiple_of


def _tile_count(length: int, tile: int, overlap: int) -> int:
    return 1 if length <= tile else math.ceil((length - overlap) / (tile - overlap))


def _tiles(length: int, tile: int, overlap: int) -> list[Axis]:
    """Tiles along one side, evenly spread; neighbours meet in the middle of their overlap."""
    if length <= tile:
        return [_whole(length, length, tile)]
    count = _tile_count(length, tile, overlap)
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    cuts = [0, *((left + tile + right) // 2 for left, right in pairwise(starts)), length]
    return [
        Axis(source=Span(start, start + tile), content=Span(0, tile), canvas=tile, target=Span(*cut))
        for start, cut in zip(starts, pairwise(cuts), strict=True)
    ]
