"""A websocket's bytes in, its messages to the application out: uvicorn's protocol, bounded in size, time and memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode

from service.errors import Overloaded
from service.gate import Gate
from service.settings import Settings

SLICE = 16_384
"""Bytes that are taken apart at once."""

FRAMES = 500
"""Of a websocket, in one slice, at most: a picture comes in larger ones, and each takes time."""

SEND_SECONDS = 30
"""How long a client may take none of its answers, before the connection is cut."""

FAILED_SECONDS = 2
"""How long a connection that was closed for a fault stays open, so that the client reads why."""

TICK_SECONDS = 0.5
"""How often each connection is looked at."""


@dataclass(frozen=True)
class Limits:
    """Seconds within which a message must have arrived, and who counts the bytes in memory."""

    message_seconds: float
    gate: Callable[[], Gate]


def websocket(settings: Settings, gate: Callable[[], Gate]) -> type[asyncio.Protocol]:
    """What uvicorn makes for each websocket, as its argument `ws`."""
    limits = Limits(settings.upload_timeout, gate)
    return cast("type[asyncio.Protocol]", partial(BoundedWebSocket, limits=limits))


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One websocket, from its handshake on.

    What has arrived of a message counts as memory in use.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Its lines at INFO would repeat ours, with the query.
        self.logger = logging.Logger("uvicorn.error", logging.WARNING)
        self.logger.parent = logging.getLogger("uvicorn.error")
        self.conn.logger = self.logger
        self._limits = limits
        self._leaving = ExitStack()
        self._room = self._leaving.enter_context(limits.gate().room(0))
        self._arrived, self._arriving_since = 0, 0.0
        self._failed = False
        self._unsent, self._unsent_since = 0, 0.0
        self._ticking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As uvicorn calls it."""
        super().connection_made(transport)
        self._tick()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._leaving.close()
        if self._ticking is not None:
            self._ticking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        if not self.handshake_initiated:
            super().data_received(data)  # the whole head
            if not self.handshake_initiated:
                self.transport.abort()  # it was not understood
        elif not self.handshake_complete:
            self.transport.abort()  # who sends before it was answered does not speak this protocol
        else:
            self._take_in(data)

    def handle_events(self) -> None:
        """As uvicorn calls it."""
        if len(self.conn.events) > FRAMES:
            self._fail(CloseCode.POLICY_VIOLATION, f"more than {FRAMES} websocket frames in {SLICE} bytes")
        else:
            super().handle_events()

    async def send(self, message: Any) -> None:
        """As the application calls it."""
        await super().send(message)
        # A handshake is complete where it was refused, too.
        self.handshake_complete |= self.initial_response is not None and self.close_sent

    def send_receive_event_to_app(self) -> None:
        """As uvicorn calls it, with a whole message: the application counts it from here on."""
        self._arrived = 0
        self._room.hold(0)
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._fail(CloseCode.INVALID_DATA, "a text message is not UTF-8")
            return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """As uvicorn calls it: the connection has been failed, with a code and a reason."""
        self._failed = True
        self._leaving.close()
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if not self.transport.is_closing():
            self.transport.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.close_timer = self.loop.call_later(FAILED_SECONDS, self.transport.close)

    def handle_ping(self) -> None:
        """As uvicorn calls it; who does not read would let the answers pile up."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)

    def _take_in(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            piece = data[start : start + SLICE]
            if not self._failed and self._has_room(len(piece)):
                super().data_received(piece)

    def _has_room(self, count: int) -> bool:
        """Count so many bytes more of a message; where there is no memory for them, the connection ends."""
        if not self._arrived:
            self._arriving_since = self.loop.time()
        try:
            self._room.hold(self._arrived + count)
            self._arrived += count
        except Overloaded:
            self._fail(CloseCode.TRY_AGAIN_LATER, "too many bytes of pictures are in memory: try again later")
            return False
        return True

    def _tick(self) -> None:
        """Look whether the client still does its part; every half second, until the connection is gone."""
        now = self.loop.time()
        self._ticking = self.loop.call_later(TICK_SECONDS, self._tick)
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._unsent_since = unsent, now
        if now - self._unsent_since > SEND_SECONDS:
            self.transport.abort()
        elif self._arrived and not self._failed and now - self._arriving_since > self._limits.message_seconds:
            seconds = self._limits.message_seconds
            self._fail(CloseCode.POLICY_VIOLATION, f"the message did not arrive within {seconds:g} s")

    def _fail(self, code: CloseCode, reason: str) -> None:
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
