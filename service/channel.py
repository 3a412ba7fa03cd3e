"""One byte at a time between a worker process and its supervisor: what it has reached, and that it may go on."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

ALIVE = b"."
"""From the worker, every second: its event loop turns."""

LOADED = b"L"
"""From the worker: its models are loaded, as far as they can be."""

GO = b"G"
"""From the supervisor: take connections."""

BEAT_SECONDS = 1.0


class Channel:
    """One end of the line; both ends notice when the other process is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, line: socket.socket) -> Channel:
        """The end that `line`, one of a pair of connected sockets, leads to."""
        line.setblocking(False)
        return cls(*await asyncio.open_connection(sock=line))

    def say(self, word: bytes) -> None:
        """Send a word; to nobody, if the other process is gone."""
        with suppress(OSError):
            self._writer.write(word)

    async def hear(self) -> bytes:
        """The next word; empty once the other process is gone."""
        with suppress(OSError):
            return await self._reader.read(1)
        return b""

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
