"""A prebuilt HTTP request in, the reply and its times out: a client that costs next to nothing, so that many fit beside
the server on its own cores. Closed loop: clients that wait for each answer. Open loop: requests on a schedule."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
END = b"\r\n\r\n"

BROKEN = 0
"""The status of a request whose connection ended before its answer."""

IDLE_SECONDS = 2.0
"""A connection that rested longer is not used again: the server may just be closing it."""


@dataclass(frozen=True)
class Reply:
    """An answer, and by `perf_counter` when its request was due, had been sent, was first heard of and was over."""

    status: int
    due: float
    sent: float
    heard: float
    ended: float
    body: bytes


@dataclass(frozen=True)
class Target:
    """A server's address, and the request in bytes."""

    host: str
    port: int
    request: bytes

    @classmethod
    def post(cls, url: str, body: bytes, media_type: str) -> Target:
        """A POST of the body to the URL."""
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {media_type}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        return cls(parts.hostname, parts.port, request)

    async def connect(self) -> Connection:
        """A connection of its own. Raises OSError."""
        return (await asyncio.get_running_loop().create_connection(Connection, self.host, self.port))[1]


class Connection(asyncio.Protocol):
    """A connection that is kept from one request to the next."""

    def __init__(self) -> None:
        self.closed = False
        self.rested = perf_counter()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._received = b""
        self._due = self._sent = self._heard = 0.0

    async def ask(self, request: bytes, due: float) -> Reply:
        """Send it and wait for the whole answer."""
        if self.closed or self._transport is None:
            return Reply(BROKEN, due, due, due, due, b"")
        self._answer = asyncio.get_running_loop().create_future()
        self._received, self._due, self._heard = b"", due, 0.0
        self._transport.write(request)
        self._sent = perf_counter()
        try:
            return await self._answer
        finally:
            self.rested = perf_counter()

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio calls it."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        self._heard = self._heard or perf_counter()
        self._received += data
        end = self._received.find(END)
        length = LENGTH.search(self._received, 0, end + 2) if end >= 0 else None
        if length is not None and len(self._received) >= end + len(END) + int(length[1]):
            self._answered(int(self._received[9:12]), self._received[end + len(END) :])

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self.closed = True
        self._answered(BROKEN, b"")

    def _answered(self, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Reply(status, self._due, self._sent, self._heard, perf_counter(), body))


async def closed_loop(
    target: Target, clients: int, going_on: Callable[[], bool], replies: list[Reply] | None = None
) -> list[Reply]:
    """What so many clients are answered, each asking one request after the other, while `going_on` says so.

    `replies`: where they are put as they come.
    """
    replies = [] if replies is None else replies

    async def client() -> None:
        connection = await target.connect()
        while going_on():
            replies.append(await connection.ask(target.request, perf_counter()))
            if connection.closed:
                connection = await target.connect()
        connection.close()

    async with asyncio.TaskGroup() as asking:
        for _ in range(clients):
            asking.create_task(client())
    return replies


async def open_loop(target: Target, rate: float, seconds: float) -> list[Reply]:
    """What requests are answered that are sent on a schedule, so many a second, whatever became of those before."""
    replies: list[Reply] = []
    idle: list[Connection] = []

    async def one(due: float) -> None:
        while idle:
            connection = idle.pop()
            if not connection.closed and perf_counter() < connection.rested + IDLE_SECONDS:
                break
            connection.close()
        else:
            connection = await target.connect()
        replies.append(await connection.ask(target.request, due))
        idle.append(connection)

    start = perf_counter()
    async with asyncio.TaskGroup() as asking:
        for number in range(round(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(due - perf_counter(), 0.0))
            asking.create_task(one(due))
    for connection in idle:
        connection.close()
    return replies


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many of them do not exceed; 0 where there are none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0
