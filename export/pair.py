"""A net, its graph and pictures in, comparisons of their answers out: at several sizes, alone and in a batch.

Both are fed as the service feeds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from export.compare import PLAIN, TOLERANCE, Comparison, Mask, Picture, compare
from export.errors import ExportError
from export.feeding import sides_of, step_of
from service.errors import SegserveError
from service.geometry import Placement, place
from service.graph import Graph, Net, Tensor
from service.manifest import InputSpec, OutputSpec
from service.segmenter import Segmenter, prepare

BATCH = 3
"""How many pictures a graph with a free batch is asked about at once."""


@dataclass(frozen=True)
class Pair:
    """A net (the reference), the graph that is to answer like it, and what both take and answer.

    `elsewhere` is the graph as it is asked at other sizes, where `graph` knows only the one at which it is served.
    """

    net: Net
    graph: Graph
    spec: InputSpec
    output: OutputSpec = PLAIN
    tolerance: float = TOLERANCE["fp32"]
    elsewhere: Graph | None = None

    def over(self, pictures: Mapping[str, Picture]) -> Iterator[Comparison]:
        """Compared on all `pictures` (by name, uint8 (H, W, 3)); on the first one also at other sizes, on the first few
        in one batch, where the graph leaves these free.

        Raises ExportError where either fails at what the service would give it.
        """
        for name, picture in pictures.items():
            yield from self._at(name, picture, self.spec, self.graph)
        name, picture = next(iter(pictures.items()))
        for size in self._other_sizes(picture):
            yield from self._odd_or_rounded(name, picture, size)
        if self._any_batch:
            yield from self._in_one_batch(pictures)

    def _at(self, name: str, picture: Picture, spec: InputSpec, graph: Graph) -> list[Comparison]:
        runs = place(spec, *picture.shape[:2])
        try:
            return [
                compare(name, _seen(picture, run, spec), self.net(tensor), graph(tensor), *self._terms)
                for run in runs
                for tensor in [prepare(picture, run, spec)]
            ]
        except ExportError:
            raise
        except Exception as error:  # whatever a net may do
            size = f"{runs[0].y.canvas}x{runs[0].x.canvas}"
            raise ExportError(f"{name}: fails at an input of {size} (height x width): {_line(error)}") from error

    def _odd_or_rounded(self, name: str, picture: Picture, size: tuple[int, int]) -> list[Comparison]:
        """At an odd size, or, where either cannot (it halves its input, say), at the next one that the service would
        give it."""
        try:
            return self._resized(name, picture, size)
        except ExportError:
            height, width = (_up(side, self.spec.multiple_of) for side in size)
            return self._resized(name, picture, (height, width))

    def _resized(self, name: str, picture: Picture, size: tuple[int, int]) -> list[Comparison]:
        return self._at(f"{name} at {size[0]}x{size[1]}", picture, _stretched(self.spec, size), self._anywhere)

    def _other_sizes(self, picture: Picture) -> Iterator[tuple[int, int]]:
        """An odd size above the usual one and one of a quarter, along the sides that the graph leaves free."""
        usual = self.spec.height or picture.shape[0], self.spec.width or picture.shape[1]
        if any(self._steps):
            smallest = 2 * self.spec.multiple_of
            for odd in ([side + 1 for side in usual], [max(side // 4 | 1, smallest) for side in usual]):
                height, width = (
                    _up(new, step) if step else old for new, step, old in zip(odd, self._steps, usual, strict=True)
                )
                yield height, width

    def _in_one_batch(self, pictures: Mapping[str, Picture]) -> Iterator[Comparison]:
        """The first pictures in one batch of the graph, each against the reference's answer to it alone."""
        first = next(iter(pictures.values()))
        run = place(self.spec, *first.shape[:2])[0]
        spec = _stretched(self.spec, (run.y.canvas, run.x.canvas))
        named = {**pictures, "mirrored": first[:, ::-1], "upside down": first[::-1]}
        members = [(name, np.ascontiguousarray(picture)) for name, picture in list(named.items())[:BATCH]]
        runs = [place(spec, *picture.shape[:2])[0] for _, picture in members]
        tensors = [prepare(picture, run, spec) for (_, picture), run in zip(members, runs, strict=True)]
        try:
            answers = self.graph.batch(tensors)
        except Exception as error:
            raise ExportError(
                f"the graph says it takes any batch, but fails at {BATCH} pictures: {_line(error)}"
            ) from error
        for (name, picture), run, tensor, found in zip(members, runs, tensors, answers, strict=True):
            title = f"{name}, one of {BATCH} in a batch"
            yield compare(title, _seen(picture, run, spec), self.net(tensor), found, *self._terms, BATCH)

    @property
    def _anywhere(self) -> Graph:
        return self.elsewhere or self.graph

    @property
    def _terms(self) -> tuple[OutputSpec, float]:
        return self.output, self.tolerance

    @property
    def _any_batch(self) -> bool:
        return not isinstance(self.graph.shape[0], int)

    @property
    def _steps(self) -> tuple[int, int]:
        """What the graph's height and width may be any multiples of; 0 where they are fixed."""
        height, width = sides_of(self._anywhere.shape, self.spec.layout)
        return step_of(height), step_of(width)


def mask_of(segmenter: Segmenter, picture: Picture) -> Mask:
    """The class mask of a picture at the net's resolution. Raises ExportError where the graph fails."""
    try:
        return segmenter(picture).coarse
    except SegserveError:
        raise
    except Exception as error:  # whatever a graph may do
        raise ExportError(f"the graph fails on the golden picture: {_line(error)}") from error


def _seen(picture: Picture, run: Placement, spec: InputSpec) -> Picture:
    """The picture on the net's canvas, as people see it."""
    as_picture = {"dtype": "uint8", "layout": "NHWC", "channels": "RGB"}
    seen: Tensor = prepare(picture, run, spec.model_copy(update=as_picture))
    return np.asarray(seen[0], np.uint8)


def _stretched(spec: InputSpec, size: tuple[int, int]) -> InputSpec:
    return spec.model_copy(update={"fit": "stretch", "height": size[0], "width": size[1]})


def _up(side: int, step: int) -> int:
    return math.ceil(side / step) * step


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
