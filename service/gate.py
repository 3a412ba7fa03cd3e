"""Work in, its result out, from a bounded set of threads: admission, deadlines, and an end to work nobody waits for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Generic, Protocol, TypeVar

from service.cores import CorePool
from service.cost import Cost
from service.errors import DeadlineExceeded, Overloaded
from service.turn import Turn

T = TypeVar("T")

SMOOTHING = 0.2
"""The share of the newest measurement in the running mean of how much longer work takes than was estimated."""

SHARE = 0.8
"""Of the time until the deadline: what a newcomer's answer may take by estimate. Estimates err; who is admitted shall
be answered in time, not end as work for nothing."""


class Observer(Protocol):
    """Who is told what the gate does."""

    def admitted(self, milliseconds: float) -> None:
        """So much work was taken in."""

    def shed(self, reason: str) -> None:
        """A request was turned away."""

    def queued(self, milliseconds: float) -> None:
        """So much work is in the house now."""


class Nobody:
    """An observer that does nothing with it."""

    def admitted(self, milliseconds: float) -> None:
        """As in `Observer`."""

    def shed(self, reason: str) -> None:
        """As in `Observer`."""

    def queued(self, milliseconds: float) -> None:
        """As in `Observer`."""


@dataclass(frozen=True)
class Deadline:
    """The moment until which a request may take."""

    seconds: float
    end: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """`seconds` from now."""
        return cls(seconds, monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then; 0 once it has passed."""
        return max(self.end - monotonic(), 0.0)


class _Job(Generic[T]):
    """Work on its way through a thread; `drop` lets go of what it holds, wherever it is by then."""

    def __init__(self, work: Callable[[Turn], T], pool: CorePool) -> None:
        self.seconds: float | None = None
        self._pool = pool
        self._turn = Turn(pool=pool)
        self._work: Callable[[Turn], T] | None = work

    def __call__(self) -> T:
        """Do the work, in a thread, and measure it."""
        work = self._work
        if work is None:
            raise DeadlineExceeded("the work was given up before it began")
        with self._pool.inside():
            start = monotonic()
            try:
                result = work(self._turn)
            except DeadlineExceeded:
                self.seconds = monotonic() - start  # at least
                raise
            self.seconds = monotonic() - start
            return result

    def drop(self) -> None:
        """Nobody waits any more: end the work, and free its picture even while the executor still lists the job."""
        self._turn.stop.set()
        self._work = None


class Room:
    """Bytes of memory that a request's body takes, by what is known of it so far."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._count = 0

    def hold(self, count: int) -> None:
        """Take so many bytes in all. Raises Overloaded where the bodies of others leave too few."""
        self._gate.take_bytes(self._count, count)
        self._count = count


class Gate:
    """Runs blocking work in its own threads, one a core, which share the cores; lives in one event loop.

    Admission is counted in estimated milliseconds of work: all that is in the house, shared among the cores, is the
    wait that a newcomer would have; one that could not be answered before its deadline is turned away at once.
    """

    def __init__(self, cores: int, max_bytes: int = 2**29, observer: Observer | None = None) -> None:
        """`max_bytes`: of bodies in memory, from before they are read to the end of their work."""
        self.threads = cores
        self._max_bytes = max_bytes
        self._observer = observer or Nobody()
        self._pool = CorePool(cores)
        self._executor = ThreadPoolExecutor(cores, thread_name_prefix="segment")
        self._counting = Lock()
        self._bytes = 0
        self._queued = 0.0
        self._factors: dict[str, float] = {}

    async def run(self, work: Callable[[Turn], T], deadline: Deadline, cost: Cost) -> T:
        """The result of `work`, which ends early where its turn's stop is set.

        Raises Overloaded where the estimated wait exceeds the deadline, DeadlineExceeded where it passed; a caller that
        is cancelled takes its work with it.
        """
        milliseconds = self.check(deadline, cost)
        job = _Job(work, self._pool)
        del work  # only the job holds it now: this frame may outlive the wait, in the traceback of its own end
        self._count(milliseconds)
        self._observer.admitted(milliseconds)
        self._pool.expect()
        future = self._executor.submit(copy_context().run, job)  # what the job logs names its request
        future.add_done_callback(lambda _: self._leave(job.seconds, milliseconds, cost))
        try:
            async with asyncio.timeout(deadline.left):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the answer was not there within {deadline.seconds:g} s: ask for more with timeout=, or send a "
                "smaller picture"
            ) from None
        finally:
            job.drop()

    @property
    def is_busy(self) -> bool:
        """Whether no core is free."""
        return self._pool.expected >= self.threads

    def check(self, deadline: Deadline, cost: Cost) -> float:
        """The milliseconds that work will take, as far as is known by now.

        Raises Overloaded where it could not be done before the deadline, on top of all that is in the house. Where a
        core is free, it is tried all the same.
        """
        milliseconds = cost.milliseconds * self._factors.get(cost.kind, 1.0)
        wait = (self._queued / self.threads + milliseconds) / 1e3
        spare = wait - deadline.left * SHARE
        if self.is_busy and spare > 0:
            self._observer.shed("wait")
            raise Overloaded(
                f"{self._pool.expected} requests are being worked on: the answer would take about {wait:.1f} s, too "
                f"much for the deadline of {deadline.seconds:g} s; try again later, or with a longer timeout=",
                retry_after=max(1, math.ceil(spare)),
            )
        return milliseconds

    @contextmanager
    def room(self, count: int) -> Iterator[Room]:
        """Room for a body of which so many bytes are there; the holder says when more are.

        Raises Overloaded where there is none: then the bodies of others must be worked on first.
        """
        room = Room(self)
        room.hold(count)
        try:
            yield room
        finally:
            room.hold(0)

    def take_bytes(self, held: int, count: int) -> None:
        """One body takes `count` bytes instead of the `held` ones; a body that is alone is always taken."""
        others = self._bytes - held
        if count > held and others and others + count > self._max_bytes:
            self._observer.shed("bytes")
            raise Overloaded(
                f"other requests hold {others} bytes of pictures in memory, the limit is {self._max_bytes}, and this "
                f"body takes {count}; try again later",
                retry_after=max(1, math.ceil(self._queued / self.threads / 1e3)),
            )
        self._bytes = others + count

    def close(self) -> None:
        """Take no more work and wait for what is running."""
        self._executor.shutdown(cancel_futures=True)
        self._pool.close()

    def _count(self, milliseconds: float) -> None:
        with self._counting:
            self._queued += milliseconds
            queued = self._queued
        self._observer.queued(queued)

    def _leave(self, seconds: float | None, estimated: float, cost: Cost) -> None:
        """A job has ended, after so many seconds of work; None where it never began or failed by itself. Called in the
        job's thread, or in the one that gave it up."""
        busy = self.is_busy
        self._pool.forget()
        self._count(-estimated)
        # A job that had all cores for itself says little about what one core takes.
        if seconds is not None and cost.milliseconds > 0 and busy:
            with self._counting:
                factor = self._factors.get(cost.kind, 1.0)
                self._factors[cost.kind] = factor + SMOOTHING * (seconds * 1e3 / cost.milliseconds - factor)
