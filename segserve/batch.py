"""Pictures and an engine in, files and a report out: several at once, each whole or not at all, until told to stop."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from segserve.answers import File
from segserve.engine import Engine, Wanted
from segserve.errors import SegserveClientError, Unreachable
from segserve.inputs import Item
from segserve.journal import Entry, Journal, Source
from segserve.views import file_name

AHEAD = 2
"""Pictures that are handed out for each one that is worked on, so that no thread waits for the next."""

SILENT = 3
"""After so many more pictures in a row than are in work at once that a server did not answer, it has gone."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What will not let any further file be written."""


@dataclass(frozen=True)
class Failure:
    """A picture or folder of which nothing came, and why."""

    path: str
    reason: str
    error: Exception | None = None


@dataclass(frozen=True)
class Work:
    """What is done to each picture, in any thread."""

    engine: Engine
    wanted: Wanted
    out: Path
    stop: Event

    def __call__(self, item: Item) -> Entry | Failure | None:
        """The entry of a picture whose files are in place, or why it failed; None once a stop was asked for."""
        if self.stop.is_set():
            return None
        try:
            source = Source.of(item.path)
            outcome = self.engine(item.path.read_bytes(), self.wanted)
            named = {view: (file_name(item.stem, view, file), file) for view, file in outcome.files.items()}
            _write(self.out, dict(named.values()))
        except SegserveClientError as error:
            return Failure(str(item.path), str(error), error)
        except OSError as error:
            where = f" ({error.filename})" if error.filename and error.filename != str(item.path) else ""
            return Failure(str(item.path), f"{error.strerror or error}{where}", error)
        except Exception as error:  # whatever a foreign graph may do, it does to one picture
            return Failure(str(item.path), repr(error), error)
        files = {view: name for view, (name, _) in named.items()}
        return Entry(str(item.path), outcome.width, outcome.height, outcome.shares, source, files)


@dataclass(frozen=True)
class Ran:
    """How it went: pictures `done` in this run, and those that `failed`; `trouble` is why it ended early, if it did by
    itself, and `dropped` whether threads are still at work that nobody waits for."""

    done: int
    failed: tuple[Failure, ...]
    trouble: str | None
    dropped: bool


class Batch:
    """One run over many pictures; lives in the main thread, which alone writes the journal."""

    def __init__(self, work: Work, journal: Journal, jobs: int, tick: Callable[[], object]) -> None:
        self._work = work
        self._journal = journal
        self._jobs = jobs
        self._tick = tick
        self._done = 0
        self._failed: list[Failure] = []
        self._silent = 0
        self._trouble: str | None = None

    def run(self, items: Sequence[Item]) -> Ran:
        """Segment the pictures; ends early when the work's stop is set, a second Ctrl-C comes, or nothing more can be
        done."""
        pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="picture")
        dropped = False
        try:
            self._feed(pool, items)
        except KeyboardInterrupt:
            dropped = True
        finally:
            self._work.stop.set()
            pool.shutdown(wait=not dropped, cancel_futures=True)
        return Ran(self._done, tuple(self._failed), self._trouble, dropped)

    def _feed(self, pool: ThreadPoolExecutor, items: Sequence[Item]) -> None:
        pending: dict[Future[Entry | Failure | None], Item] = {}
        for item in items:
            if self._work.stop.is_set():
                break
            other = self._journal.foreign(item, self._work.wanted.views)
            if other is not None:
                reason = f"{self._work.out / other} is there and not of this picture: --overwrite replaces it"
                self._settle(item, Failure(str(item.path), reason))
                continue
            self._journal.begin(item)
            pending[pool.submit(self._work, item)] = item
            if len(pending) >= self._jobs * AHEAD:
                self._collect(pending)
        while pending:
            self._collect(pending)

    def _collect(self, pending: dict[Future[Entry | Failure | None], Item]) -> None:
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            self._settle(pending.pop(future), future.result())

    def _settle(self, item: Item, came: Entry | Failure | None) -> None:
        if came is None:
            return
        self._tick()
        if isinstance(came, Entry):
            self._journal.finish(item, came)
            self._done += 1
            self._silent = 0
            return
        self._failed.append(came)
        self._silent = self._silent + 1 if isinstance(came.error, Unreachable) else 0
        if self._silent >= self._jobs + SILENT:
            self._give_up("the server has gone")
        if isinstance(came.error, OSError) and came.error.errno in FULL:
            self._give_up("nothing more can be written")

    def _give_up(self, why: str) -> None:
        self._trouble = self._trouble or why
        self._work.stop.set()


def _write(out: Path, files: dict[str, File]) -> None:
    """Write files under `out`, each under another name first: none is ever there in part. Raises OSError."""
    parts: list[tuple[Path, Path]] = []
    try:
        for name, file in files.items():
            path = out / name
            part = path.with_name(f".{path.name}.part")
            path.parent.mkdir(parents=True, exist_ok=True)
            parts.append((part, path))
            part.write_bytes(file.content)
        for part, path in parts:
            part.replace(path)
    except OSError:
        for part, _ in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        raise
