"""Work in, its result out, from a bounded set of threads: admission, deadlines, and an end to work nobody waits for."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from service.errors import DeadlineExceeded, Overloaded
from service.graph import Stop

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


class Gate:
    """Runs blocking work in its own threads, as many at once as there are; lives in one event loop.

    The running mean of how long work took gives the wait that a newcomer would have; one that could not be answered
    before its deadline is turned away at once.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="segment")
        self._inside = 0
        self._mean_seconds = 0.0

    @property
    def waiting(self) -> int:
        """How much work waits for a thread."""
        return max(self._inside - self.threads, 0)

    async def run(self, work: Callable[[Stop], T], deadline: Deadline) -> T:
        """The result of `work`, which ends early where its `Stop` is set.

        Raises Overloaded where the estimated wait exceeds the deadline, DeadlineExceeded where it passed; a caller that
        is cancelled takes its work with it.
        """
        wait = self._mean_seconds * self._inside / self.threads
        if self._inside >= self.threads and wait > deadline.left:
            raise Overloaded(
                f"{self._inside} requests are being worked on: the wait would be about {wait:.1f} s, the deadline is "
                f"{deadline.seconds:g} s; try again later, or with a longer timeout=",
                retry_after=max(1, math.ceil(wait - deadline.left)),
            )
        stop = Stop()
        future = self._executor.submit(self._timed, work, stop)
        self._inside += 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda done: _call(loop, self._leave, done))
        try:
            async with asyncio.timeout(deadline.left):
                result, _ = await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the answer was not there within {deadline.seconds:g} s: ask for more with timeout=, or send a "
                "smaller picture"
            ) from None
        finally:
            if not future.done():
                stop.set()
                future.cancel()
        return result

    def close(self) -> None:
        """Take no more work and wait for what is running."""
        self._executor.shutdown(cancel_futures=True)

    @staticmethod
    def _timed(work: Callable[[Stop], T], stop: Stop) -> tuple[T, float]:
        start = monotonic()
        result = work(stop)
        return result, monotonic() - start

    def _leave(self, future: Future[tuple[Any, float]]) -> None:
        self._inside -= 1
        if future.cancelled() or future.exception() is not None:
            return
        seconds = future.result()[1]
        share = SMOOTHING if self._mean_seconds else 1.0
        self._mean_seconds += share * (seconds - self._mean_seconds)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[T], None], value: T) -> None:
    """Call `function` in the loop's thread; not at all once the loop has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, value)
