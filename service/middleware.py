"""Around every request and handshake: an id in the answer and the log, the time it took, and a body for any crash."""

from __future__ import annotations

import logging
import re
import secrets
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from service.problems import internal_error
from service.telemetry import Telemetry
from service.visit import CURRENT, QUESTIONS, UNROUTED, Visit

if TYPE_CHECKING:
    from service.tracing import Tracing

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

TRACE_PARENT = ("traceparent", "tracestate")


ANSWERS = ("http.response.start", "websocket.accept", "websocket.http.response.start")

SWITCHING_PROTOCOLS = 101
"""The status of a handshake that opens a websocket."""


class RequestContext:
    """Adds `X-Request-ID` (the caller's where it is well formed), `Server-Timing` and `Vary` to every answer, and tells
    the log, the metrics and the traces of each request (health checks and scrapes: the log only at level DEBUG, the
    traces not at all)."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, tracing: Tracing | None = None) -> None:
        self._app = app
        self._telemetry = telemetry
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        visit = _visit(scope)
        answering = False

        async def receive_counted() -> Message:
            message = await receive()
            visit.received += len(message.get("body", b""))
            return message

        async def send_with_context(message: Message) -> None:
            nonlocal answering
            if message["type"] in ANSWERS:
                answering = True
                visit.status = message.get("status", SWITCHING_PROTOCOLS)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = visit.id
                headers.add_vary_header("Accept")
                headers["Server-Timing"] = _timing(visit)
            await send(message)
            if message["type"] == "websocket.accept":
                self._end(visit, scope)  # what comes is no request

        token = CURRENT.set(visit)
        self._telemetry.began()
        logger.debug("%s %s begins", visit.method, visit.path)
        try:
            await self._app(scope, receive_counted, send_with_context)
        except ClientDisconnected:
            logger.debug("%s %s: the client is gone", visit.method, visit.path)
        except Exception:
            logger.exception("%s %s failed", visit.method, visit.path)
            if answering:
                raise
            await internal_error(visit.path)(scope, receive, send_with_context)
        finally:
            if visit.seconds is None:
                self._end(visit, scope)
            CURRENT.reset(token)

    def _end(self, visit: Visit, scope: Scope) -> None:
        visit.end(getattr(scope.get("route"), "path", UNROUTED))
        self._telemetry.ended(visit)
        quiet = visit.route.startswith(QUESTIONS)
        took = (visit.seconds or 0.0) * 1e3
        level = logging.DEBUG if quiet else logging.INFO
        logger.log(level, "%s %s %d %.1f ms", visit.method, visit.path, visit.status, took)
        if self._tracing is not None and not quiet:
            try:
                self._tracing.record(visit)
            except Exception:
                logger.exception("%s %s was not traced", visit.method, visit.path)


def _visit(scope: Scope) -> Visit:
    headers = Headers(scope=scope)
    given = headers.get("x-request-id", "")
    request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    parent = {name: headers[name] for name in TRACE_PARENT if name in headers}
    return Visit(request_id, scope.get("method", "GET"), scope["path"], parent)


def _timing(visit: Visit) -> str:
    """`Server-Timing`: the milliseconds of each step, and so far in all."""
    steps = visit.work.steps if visit.work else {}
    total = (perf_counter() - visit.begun) * 1e3
    return ", ".join(f"{step};dur={milliseconds:.1f}" for step, milliseconds in {**steps, "total": total}.items())
