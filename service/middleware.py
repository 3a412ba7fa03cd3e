"""Around every request: an id that travels in the answer and the log, the time it took, and a body for any crash."""

from __future__ import annotations

import logging
import re
import secrets
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import internal_error

logger = logging.getLogger(__name__)

QUIET = ("/health/", "/v2/health/")
"""What orchestrators ask every few seconds."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Adds `X-Request-ID` (the caller's where it is well formed), `Server-Timing` and `Vary` to every answer,
    and writes one line to the log for each (health checks only at level DEBUG)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        start = perf_counter()
        status = 0

        async def send_with_context(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.add_vary_header("Accept")
                total = f"total;dur={(perf_counter() - start) * 1e3:.1f}"
                headers["Server-Timing"] = ", ".join(filter(None, [headers.get("Server-Timing"), total]))
            await send(message)

        try:
            await self._app(scope, receive, send_with_context)
        except Exception:
            logger.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            if status:
                raise
            await internal_error(scope["path"])(scope, receive, send_with_context)
        level = logging.DEBUG if scope["path"].startswith(QUIET) else logging.INFO
        took = (perf_counter() - start) * 1e3
        logger.log(level, "%s %s %d %.1f ms, request %s", scope["method"], scope["path"], status, took, request_id)
