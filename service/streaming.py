"""Frames as fast as they come in, the newest one whenever there is time for it out; and places for so many streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from service.errors import Overloaded, SegserveError

RETRY_SECONDS = 5
"""What a client is told to wait for a place."""


@dataclass(frozen=True)
class Frame:
    """A message of a stream.

    `number`: how many came before it. `dropped`: how many of these were neither answered nor refused. `content`: its
    bytes, or why they are not looked at. `room`: the memory that it takes, until that is closed.
    """

    number: int
    dropped: int
    content: bytes | SegserveError
    room: ExitStack = field(default_factory=ExitStack)
    submitted: float = field(default_factory=perf_counter)

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return len(self.content) if isinstance(self.content, bytes) else 0


class Newest:
    """One place for a frame that waits, which the next one takes; lives in one event loop."""

    def __init__(self, when_dropped: Callable[[Frame], None]) -> None:
        self._when_dropped = when_dropped
        self._received = self._dropped = 0
        self._waiting: Frame | None = None
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, content: bytes | SegserveError, room: ExitStack) -> None:
        """A frame has come; one that waits is dropped."""
        self._drop()
        self._waiting = Frame(self._received, self._dropped, content, room)
        self._received += 1
        self._changed.set()
        if self._closed:
            self._drop()

    async def take(self) -> Frame | None:
        """The newest frame, as soon as there is one; None once this is closed."""
        while self._waiting is None and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        frame, self._waiting = self._waiting, None
        return frame

    def close(self) -> None:
        """Give out no more frames."""
        self._closed = True
        self._drop()
        self._changed.set()

    def _drop(self) -> None:
        if self._waiting is not None:
            self._waiting.room.close()
            self._when_dropped(self._waiting)
            self._waiting = None
            self._dropped += 1


class Places:
    """So many streams at once; lives in one event loop."""

    def __init__(self, limit: int, observe: Callable[[int], None]) -> None:
        """`observe` is told how many there are."""
        self._limit = limit
        self._observe = observe
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A stream, from its beginning to its end. Raises Overloaded where there are too many."""
        if self._taken >= self._limit:
            raise Overloaded(
                f"{self._taken} streams are open, the limit is {self._limit}: try again later, or send single pictures "
                "to /segment",
                retry_after=RETRY_SECONDS,
            )
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._taken += change
        self._observe(self._taken)
