"""Pictures and a crew in, results and a report out: several at once, each whole or not at all, until told to stop."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Protocol, TypeAlias

from segserve.errors import Unreachable
from segserve.inputs import Item
from segserve.work import Done, Failure, Work

AHEAD = 2
"""Pictures that are handed out for each one that is worked on, so that no thread waits for the next."""

SILENT = 3
"""After so many more pictures in a row than are in work at once that a server did not answer, it has gone."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What will not let any further file be written."""

Came: TypeAlias = Done | Failure | None
"""What came of a picture; None where a stop was asked for first."""


class CrewLost(Exception):
    """Nobody is left to work; the message says why."""


class Crew(Protocol):
    """Works on `jobs` pictures at once."""

    @property
    def jobs(self) -> int:
        """How many."""

    def run(self, items: Iterable[Item]) -> Iterator[tuple[Item, Came]]:
        """What came of each picture, in any order, while it goes on. Raises CrewLost."""

    def close(self, wait: bool) -> None:
        """End, with the pictures in work done or, without `wait`, dropped."""


class Threads:
    """A crew of threads of this process."""

    def __init__(self, work: Work, jobs: int) -> None:
        self.jobs = jobs
        self._work = work
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="picture")

    def run(self, items: Iterable[Item]) -> Iterator[tuple[Item, Came]]:
        """As in `Crew`; pictures are taken up as threads come free."""
        pending: dict[Future[Came], Item] = {}
        for item in items:
            pending[self._pool.submit(self._work, item)] = item
            if len(pending) >= self.jobs * AHEAD:
                yield from _ended(pending)
        while pending:
            yield from _ended(pending)

    def close(self, wait: bool) -> None:
        """As in `Crew`."""
        self._pool.shutdown(wait=wait, cancel_futures=True)


class Ledger(Protocol):
    """Where it is written down what was done; used by one thread."""

    def obstacle(self, item: Item) -> str | None:
        """Why the picture's results may not be written, if so."""

    def begin(self, item: Item) -> None:
        """The picture is going to be worked on."""

    def finish(self, item: Item, done: Done) -> None:
        """All of it came. Raises OSError."""


@dataclass(frozen=True)
class Ran:
    """How it went: pictures `done` in this run, and those that `failed`; `trouble` is why it ended early, if it did by
    itself, and `dropped` whether threads are still at work that nobody waits for."""

    done: int
    failed: tuple[Failure, ...]
    trouble: str | None
    dropped: bool


class Batch:
    """One run over many pictures; lives in the main thread, which alone writes the ledger."""

    def __init__(self, crew: Crew, ledger: Ledger, stop: Event, tick: Callable[[], object]) -> None:
        """`stop`: set by whoever wants it to end; the crew's work looks at it too."""
        self._crew = crew
        self._ledger = ledger
        self._stop = stop
        self._tick = tick
        self._done = 0
        self._failed: list[Failure] = []
        self._silent = 0
        self._trouble: str | None = None

    def run(self, items: Sequence[Item]) -> Ran:
        """Segment the pictures; ends early when the stop is set, a second Ctrl-C comes, or nothing more can be done."""
        dropped = False
        try:
            for item, came in self._crew.run(self._begun(items)):
                self._settle(item, came)
        except CrewLost as error:
            self._give_up(str(error))
        except KeyboardInterrupt:
            dropped = True
        finally:
            self._stop.set()
            self._crew.close(wait=not dropped)
        return Ran(self._done, tuple(self._failed), self._trouble, dropped)

    def _begun(self, items: Sequence[Item]) -> Iterator[Item]:
        """Those that may be worked on, each written down as begun when it is asked for."""
        for item in items:
            if self._stop.is_set():
                return
            obstacle = self._ledger.obstacle(item)
            if obstacle is None:
                self._ledger.begin(item)
                yield item
            else:
                self._settle(item, Failure(item.label, obstacle))

    def _settle(self, item: Item, came: Came) -> None:
        if came is None:
            return
        self._tick()
        if isinstance(came, Done):
            self._ledger.finish(item, came)
            self._done += 1
            self._silent = 0
            return
        self._failed.append(came)
        self._silent = self._silent + 1 if isinstance(came.error, Unreachable) else 0
        if self._silent >= self._crew.jobs + SILENT:
            self._give_up("the server has gone")
        if isinstance(came.error, OSError) and came.error.errno in FULL:
            self._give_up("nothing more can be written")

    def _give_up(self, why: str) -> None:
        self._trouble = self._trouble or why
        self._stop.set()


def _ended(pending: dict[Future[Came], Item]) -> Iterator[tuple[Item, Came]]:
    """Those that are done, once one is; they are pending no more."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        yield pending.pop(future), future.result()
