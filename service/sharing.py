"""A graph's sessions in, how its runs share the cores out: alone with all, beside others with one each, or joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from service.batching import Batcher, BatchLimits
from service.graph import Graph, Net, Tensor

WORTH_IT = 0.9
"""Joined runs must take at most this share of the time that others take a picture."""


@dataclass(frozen=True)
class Sharing:
    """The cores that pictures are worked on with, one picture a core, and the limits of a joined run.

    `cores` 0 leaves the threads to onnxruntime, for who asks from one thread. `beside`: others are served while a net
    is opened; it is proved on one core with a low priority, and nothing is measured that a busy machine would falsify.
    """

    cores: int = 0
    batch: BatchLimits = field(default_factory=BatchLimits)
    beside: bool = False

    @property
    def largest_batch(self) -> int:
        """No more pictures than are worked on at once can be joined."""
        return min(self.batch.pictures, self.cores)


def joined(graph: Graph, narrow: Graph | None, tensor: Tensor, sharing: Sharing) -> Net | None:
    """The graph with calls joined, where a picture of `tensor`'s size then takes less time; else None.

    `narrow` is the same graph on one core, if there is one: what it takes is shared among the cores.
    """
    count = sharing.largest_batch
    if count < 2 or isinstance(graph.shape[0], int):
        return None
    try:
        together = _seconds(lambda: graph.batch([tensor] * count)) / count
    except Exception:  # a graph may name its batch axis and yet take one picture only: it is asked one by one
        return None
    apart = _seconds(lambda: narrow(tensor)) / sharing.cores if narrow else _seconds(lambda: graph(tensor))
    if together > WORTH_IT * apart:
        return None
    return Batcher(graph, BatchLimits(count, sharing.batch.milliseconds))


def _seconds(run: Callable[[], object]) -> float:
    """The faster of two runs: the first one may allocate."""

    def once() -> float:
        start = perf_counter()
        run()
        return perf_counter() - start

    return min(once(), once())
