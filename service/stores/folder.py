"""Results in, files of a folder out, which several processes use at once without a server or a lock.

`<id>.result` is a result, and the time of its last change is that of its last use. `<id>.part` is being written.
`<id>.forgotten` and `<id>.evicted` are empty and say where a result went.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from service.errors import StoreFull, StoreUnavailable, UnknownResult
from service.stores.base import RESULT_ID, Gone, Store, birth, refuse_junk, unknown

RESULT = "result"
PART = "part"
TRACES = {"forgotten": Gone.FORGOTTEN, "evicted": Gone.EVICTED}
"""What is left of a result, the stronger reason first."""

SPARE = 0.1
"""How much of the room is made free once it is too small."""

COUNT_SECONDS = 1
"""How long the room that was left is trusted; to look at ten thousand files takes some 50 ms."""

PART_SECONDS = 60
"""A part that has not grown for so long has no writer any more."""


@dataclass(frozen=True)
class Kept:
    """A result's file: its size, and when it was last used in nanoseconds."""

    id: str
    bytes: int
    used: int


@dataclass(frozen=True)
class _Count:
    """How many bytes there was room for, and until when that is trusted, by `time.monotonic`."""

    room: int
    until: float


class FolderStore(Store):
    """Results as files that only their owner may read, together at most `max_bytes`: the least recently used ones go
    first, a tenth of the room at a time. What other processes wrote in the last second may come on top."""

    def __init__(self, folder: Path, seconds: float, max_bytes: int) -> None:
        self.seconds = seconds
        self.folder = folder
        self._max_bytes = max_bytes
        self._count = _Count(0, 0)
        self._lock = Lock()

    def put(self, id: str, data: bytes) -> None:
        """Keep a new result, and make room for it."""
        part, path = self._path(id, PART), self._path(id, RESULT)
        if len(data) > self._max_bytes:
            raise StoreFull(
                f"a result of {len(data):,} bytes is larger than the room for all of them, {self._max_bytes:,} bytes"
            )
        with self._told():
            self._take_room(len(data))
            _write(data, part, path)

    def get(self, id: str) -> bytes:
        """A result that is kept; it becomes the most recently used one."""
        self.check(id)
        path = self._path(id, RESULT)
        with self._told():
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise self._unknown(id) from None
        with suppress(OSError):  # evicted meanwhile, or kept in a folder that can only be read
            _use(path)
        return data

    def forget(self, id: str) -> None:
        """Drop a result now."""
        self.check(id)
        path = self._path(id, RESULT)
        with self._told():
            if not path.exists() or not self._drop(id, "forgotten"):
                raise self._unknown(id)

    def sweep(self) -> None:
        """Drop what has expired, what crashed writers left, and what exceeds the limit."""
        with self._told():
            self._make_room(0)

    def _take_room(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._count.until or size > self._count.room:
                self._count = _Count(self._make_room(size), now + COUNT_SECONDS)
            self._count = replace(self._count, room=self._count.room - size)

    def _make_room(self, size: int) -> int:
        """The room for a result and for others; where it is too small, evict some more than it takes: counting all of
        them for every result would cost more than to keep it."""
        kept = self._tidy()
        used = sum(result.bytes for result in kept)
        if used + size <= self._max_bytes:
            return self._max_bytes - used
        for result in sorted(kept, key=lambda result: result.used):
            if used + size <= self._max_bytes * (1 - SPARE):
                break
            if self._drop(result.id, "evicted"):  # else another process did, to make room for a result of its own
                used -= result.bytes
        return self._max_bytes - used

    def _tidy(self) -> list[Kept]:
        """The results that are kept, without anything that has had its time: that is removed."""
        now = time.time()
        kept = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                id, _, kind = entry.name.partition(".")
                if not RESULT_ID.fullmatch(id):
                    continue
                with suppress(FileNotFoundError):  # removed meanwhile by another process
                    if kind in {RESULT, *TRACES} and birth(id) + self.seconds <= now:
                        Path(entry).unlink()
                    elif kind == RESULT:
                        status = entry.stat(follow_symlinks=False)
                        kept.append(Kept(id, status.st_size, status.st_mtime_ns))
                    elif kind == PART and entry.stat(follow_symlinks=False).st_mtime < now - PART_SECONDS:
                        Path(entry).unlink()
        return kept

    def _drop(self, id: str, trace: str) -> bool:
        """Remove a result and leave a trace, first, so that nobody finds neither; whether it was still there."""
        with suppress(OSError):  # the trace is a courtesy: a full disk must not keep the result
            self._path(id, trace).touch(0o600)
        try:
            self._path(id, RESULT).unlink()
        except FileNotFoundError:
            return False
        return True

    def _unknown(self, id: str) -> UnknownResult:
        why = next((why for trace, why in TRACES.items() if self._path(id, trace).exists()), None)
        if why is None and not self.folder.is_dir():  # then nobody knows
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder any more")
        return unknown(id, why or Gone.NEVER, self.seconds)

    def _path(self, id: str, kind: str) -> Path:
        refuse_junk(id)
        return self.folder / f"{id}.{kind}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the system refuses, as an error of ours."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise StoreFull(
                    f"no room for a result in {self.folder}: {reason}; free some, or lower the limit"
                ) from error
            raise StoreUnavailable(
                f"the folder for results, {self.folder}, cannot be used: {reason}; this process must own it"
            ) from error


def _write(data: bytes, part: Path, path: Path) -> None:
    try:
        part.touch(0o600, exist_ok=False)
        part.write_bytes(data)
        _use(part)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def _use(path: Path) -> None:
    now = time.time_ns()  # the system's own time of change is coarser: it would not tell who was last
    os.utime(path, ns=(now, now))


def open_folder(folder: Path, seconds: float, max_bytes: int) -> FolderStore:
    """A store in a folder, which is made where it is absent; StoreUnavailable where it cannot be used."""
    folder = folder.absolute()
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        reason = None if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "it cannot be written"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise StoreUnavailable(
            f"the folder for results, {folder}, cannot be used: {reason}; name a folder that this process may write"
        )
    return FolderStore(folder, seconds, max_bytes)
