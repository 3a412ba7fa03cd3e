"""Work in, its result out, from a bounded set of threads: admission, deadlines, and an end to work nobody waits for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

from service.cores import CorePool
from service.errors import DeadlineExceeded, Overloaded
from service.turn import Turn

T = TypeVar("T")

SMOOTHING = 0.2
"""The share of the newest measurement in the running mean of how long work takes."""


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


class Gate:
    """Runs blocking work in its own threads, one a core, which share the cores; lives in one event loop.

    The running mean of how long work took gives the wait that a newcomer would have; one that could not be answered
    before its deadline is turned away at once.
    """

    def __init__(self, cores: int) -> None:
        self.threads = cores
        self._pool = CorePool(cores)
        self._executor = ThreadPoolExecutor(cores, thread_name_prefix="segment")
        self._measuring = Lock()
        self._mean_seconds = 0.0

    async def run(self, work: Callable[[Turn], T], deadline: Deadline) -> T:
        """The result of `work`, which ends early where its turn's stop is set.

        Raises Overloaded where the estimated wait exceeds the deadline, DeadlineExceeded where it passed; a caller that
        is cancelled takes its work with it.
        """
        self._admit(deadline)
        job = _Job(work, self._pool)
        del work  # only the job holds it now: this frame may outlive the wait, in the traceback of its own end
        self._pool.expect()
        future = self._executor.submit(job)
        future.add_done_callback(lambda _: self._leave(job.seconds))
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

    def close(self) -> None:
        """Take no more work and wait for what is running."""
        self._executor.shutdown(cancel_futures=True)
        self._pool.close()

    def _admit(self, deadline: Deadline) -> None:
        inside = self._pool.expected
        wait = self._mean_seconds * inside / self.threads
        if inside >= self.threads and wait > deadline.left:
            raise Overloaded(
                f"{inside} requests are being worked on: the wait would be about {wait:.1f} s, the deadline is "
                f"{deadline.seconds:g} s; try again later, or with a longer timeout=",
                retry_after=max(1, math.ceil(wait - deadline.left)),
            )

    def _leave(self, seconds: float | None) -> None:
        """A job has ended, after so many seconds of work; None where it never began or failed by itself. Called in the
        job's thread, or in the one that gave it up."""
        self._pool.forget()
        if seconds is not None:
            with self._measuring:
                share = SMOOTHING if self._mean_seconds else 1.0
                self._mean_seconds += share * (seconds - self._mean_seconds)
