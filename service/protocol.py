"""A connection's bytes in, requests to the application out: uvicorn's protocol, within bounds of size and time.

What is refused here never reaches the application: heads that are too large or too slow, requests that two readers
could understand differently, and connections beyond the limit.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.errors import MalformedRequest, SegserveError, SlowHead, TooManyConnections
from service.handshake import check_handshake, is_handshake
from service.head import HEAD_BYTES, check_head, too_large
from service.headers import CAREFUL
from service.problems import respond
from service.settings import Settings

logger = logging.getLogger(__name__)

PIPELINED = 32
"""Requests of one connection that wait for the answer to an earlier one, at most."""

SEND_SECONDS = 30
"""How long a client may take none of its answer, before the connection is cut."""

LATE_SECONDS = 30
"""How long the body of a request that has been answered may still arrive; the client then reads the answer."""

REFUSED_SECONDS = 2
"""How long a refused connection stays open, so that the client reads why."""

TICK_SECONDS = 0.5
"""How often each connection is looked at."""


@dataclass(frozen=True)
class Limits:
    """What an operator may set: seconds for a request's head, and how many connections may be open."""

    head_seconds: float
    connections: int


def protocol(settings: Settings) -> type[asyncio.Protocol]:
    """What uvicorn makes for each connection, as its argument `http`."""
    limits = Limits(settings.header_timeout, settings.connections)
    return cast("type[asyncio.Protocol]", partial(BoundedProtocol, limits=limits))


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    It waits for a request's head, receives its body, answers, and waits again. Once it is `deaf` it listens to nothing
    more and ends with the answers that are due.
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
        self.url = b""
        self._limits = limits
        self._waiting_since: float | None = None
        self._receiving = False
        self._answered = 0.0
        self._unframed = 0
        self._deaf_since: float | None = None
        self._ending = False
        self._unsent, self._unsent_since = 0, 0.0
        self._ticking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it; where there are too many, the connection that has waited longest gives way."""
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._tick()
        if len(self.connections) > self._limits.connections:
            others = {c for c in self.connections if isinstance(c, BoundedProtocol) and c._waiting_since is not None}
            oldest = min(others - {self}, key=lambda other: other._waiting_since or 0.0, default=None)
            if oldest is not None:
                oldest.transport.abort()
            else:
                self._refuse(TooManyConnections(f"this server has {self._limits.connections} connections: try later"))

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        if self._ticking is not None:
            self._ticking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        if self._deaf_since is not None:
            return
        self._unset_keepalive_if_required()
        self._unframed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._should_upgrade():
                self._become_websocket(rest)
            else:
                self._go_on_without_upgrade(rest)
        except httptools.HttpParserCallbackError as error:
            reason = error.__context__
            self._refuse(
                reason if isinstance(reason, SegserveError) else MalformedRequest("the request's target is no path")
            )
        except httptools.HttpParserError as error:
            self._refuse(MalformedRequest(f"the request is not HTTP/1.1 as this server takes it: {error}"))
        else:
            if self._unframed > HEAD_BYTES:
                self._refuse(too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        """As the parser calls it; a header after the body is nobody's."""
        if not self._receiving:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """As the parser calls it. Raises MalformedRequest or HeadTooLarge."""
        check_head(self.parser.get_method(), self.parser.get_http_version(), self.url, self.headers)
        if len(self.pipeline) >= PIPELINED:
            raise MalformedRequest(f"more than {PIPELINED} requests wait on this connection: wait for the answers")
        if self.parser.should_upgrade():
            if self._should_upgrade():
                self._check_handshake()
                super().on_headers_complete()
        else:
            self._waiting_since, self._receiving, self._unframed = None, True, 0
            super().on_headers_complete()
            self.cycle.transport = _Answering(self.transport, self._end)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """As the parser calls it."""
        self._unframed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As the parser calls it."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._receiving, self._unframed = False, 0
        if self._ending:
            self.transport.close()
        elif self.cycle.response_complete:
            self._waiting_since = self.loop.time()

    def on_response_complete(self) -> None:
        """As the request's cycle calls it."""
        is_last = not self.pipeline
        super().on_response_complete()
        self._answered = self.loop.time()
        if is_last and self._deaf_since is not None:
            self.transport.close()
        elif is_last and not self._receiving:
            self._waiting_since = self._answered

    def _should_upgrade(self) -> bool:
        """Whether the request is a websocket's handshake; no other protocol is spoken here."""
        return is_handshake(self.parser.get_method(), self.parser.get_http_version(), self.headers)

    def _check_handshake(self) -> None:
        if self._is_answering:
            raise MalformedRequest("a websocket's handshake comes before the answer to an earlier request: wait for it")
        check_handshake(self.url, self.headers)

    def _become_websocket(self, rest: bytes) -> None:
        """The connection is the other protocol's from here on."""
        if rest:
            self._refuse(MalformedRequest("the websocket's handshake has not been answered: send after that"))
            return
        if self._ticking is not None:
            self._ticking.cancel()
        self.handle_websocket_upgrade()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """What else is offered is not spoken here: the request is read again, as one that does not offer any.

        The parser would leave out its body; Java's client sends pictures so.
        """
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _tick(self) -> None:
        """Look whether the client still does its part; every half second, until the connection is gone."""
        now = self.loop.time()
        self._ticking = self.loop.call_later(TICK_SECONDS, self._tick)
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._unsent_since = unsent, now
        if now - self._unsent_since > SEND_SECONDS:
            self.transport.abort()
        elif self._deaf_since is not None:
            if not self._is_answering and now - self._deaf_since > REFUSED_SECONDS:
                self.transport.close()
        elif self._waiting_since is not None:
            if not self._is_answering and now - self._waiting_since > self._limits.head_seconds:
                self._give_up_waiting()
        elif self._receiving and not self._is_answering and now - self._answered > LATE_SECONDS:
            self.transport.close()

    def _give_up_waiting(self) -> None:
        if self._unframed:
            self._refuse(SlowHead(f"the request's head did not arrive within {self._limits.head_seconds:g} s"))
        else:
            self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end(self) -> None:
        """The last answer has been given; where its request's body is still on its way, the connection ends behind it:
        who is cut off while sending does not read the answer."""
        if self._receiving and self.transport.can_write_eof():
            self._ending = True
            self.transport.write_eof()
        else:
            self.transport.close()

    def _refuse(self, error: SegserveError) -> None:
        """Listen to nothing more; say why, where no answer to an earlier request is due."""
        self._deaf_since = self.loop.time()
        if self._is_answering and not self.pipeline and not self.cycle.more_body:
            self.cycle.keep_alive = False  # what cannot be understood comes after a whole request
        elif self._is_answering and (self.pipeline or self.cycle.response_started):
            self.transport.close()
        else:
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: SegserveError) -> None:
        request_id = secrets.token_hex(16)
        response = respond(self.url.decode("ascii", "replace"), error)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            *((name.encode(), value.encode()) for name, value in CAREFUL.items()),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
            (b"server-timing", b"total;dur=0.0"),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[response.status_code] + lines + b"\r\n" + bytes(response.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        client = self.client[0] if self.client else "?"
        logger.info("refused %s: %d %s, request %s", client, response.status_code, error, request_id)


class _Answering:
    """What the cycle of a request knows of its connection; only its end is not the transport's own."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = end
