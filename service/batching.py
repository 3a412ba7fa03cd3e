"""A net in, the same for several threads out: asked once for all of them that wait with pictures of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition
from typing import Protocol
from weakref import ref

from service.graph import Answer, Tensor
from service.turn import Stop


class BatchNet(Protocol):
    """A net that answers several prepared tensors of one shape at once."""

    def batch(self, tensors: Sequence[Tensor], stop: Stop | None = None) -> list[Answer]:
        """As `Graph.batch`."""


@dataclass(frozen=True)
class BatchLimits:
    """How many pictures are asked for at once at most, and how many milliseconds the first of them waits for others."""

    pictures: int = 1
    milliseconds: float = 2.0


@dataclass
class _Batch:
    """Tensors that are asked for together, each with its caller's stop, and what came of it."""

    tensors: list[Tensor] = field(default_factory=list)
    callers: list[Stop] = field(default_factory=list)
    stop: Stop = field(default_factory=Stop)
    answers: list[Answer] | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.answers is not None or self.error is not None


class Batcher:
    """Joins the calls of several threads; each gets its own answer. A `Net`.

    The first caller of a batch waits for others and asks the net. A caller whose stop is set leaves; the net is ended
    once all have.
    """

    def __init__(self, net: BatchNet, limits: BatchLimits) -> None:
        self._net = net
        self._limits = limits
        self._changed = Condition()
        self._open: dict[tuple[int, ...], _Batch] = {}

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """The answer to one tensor, (1, ...). Raises DeadlineExceeded once `stop` is set, and what the net raises."""
        own = stop or Stop()
        batch, place = self._join(tensor, own)
        if place == 0:
            self._ask(tensor.shape, batch)
        else:
            self._wait(batch, own)
        own.check()
        if batch.error is not None:
            raise batch.error
        assert batch.answers is not None
        return batch.answers[place]

    def _join(self, tensor: Tensor, stop: Stop) -> tuple[_Batch, int]:
        """The batch that takes the tensor, and its place in it."""
        with self._changed:
            batch = self._open.setdefault(tensor.shape, _Batch())
            batch.tensors.append(tensor)
            batch.callers.append(stop)
            if len(batch.tensors) == self._limits.pictures:
                self._close(tensor.shape, batch)
        # The stop lives as long as its request, which may make hundreds of calls: their answers do not.
        stop.then(partial(self._look_after, ref(batch)))
        return batch, batch.callers.index(stop)

    def _close(self, shape: tuple[int, ...], batch: _Batch) -> None:
        """No more tensors for this batch."""
        if self._open.get(shape) is batch:
            del self._open[shape]
            self._changed.notify_all()

    def _ask(self, shape: tuple[int, ...], batch: _Batch) -> None:
        """Wait for others, then ask the net for all of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._open.get(shape) is not batch, self._limits.milliseconds / 1e3)
            self._close(shape, batch)
        try:
            batch.answers = self._net.batch(batch.tensors, batch.stop)
        except Exception as error:  # every caller gets to know what happened
            batch.error = error
        with self._changed:
            self._changed.notify_all()

    def _wait(self, batch: _Batch, own: Stop) -> None:
        """Until the batch is done, or `own` is set."""
        with self._changed:
            self._changed.wait_for(lambda: batch.is_done or own.is_set)

    def _look_after(self, joined: ref[_Batch]) -> None:
        """A caller's stop was set: it leaves, and the net ends once all have left."""
        batch = joined()
        if batch is None:
            return  # nobody is left in it
        with self._changed:
            if all(caller.is_set for caller in batch.callers):
                batch.stop.set()
            self._changed.notify_all()
