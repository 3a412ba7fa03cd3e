"""Every request in; those that need a key and have no right one are answered here, before any of their body is read."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import RequestError
from service.keys import Keys
from service.problems import respond

OPEN = ("/health/", "/v2/health/", "/ui/")
"""What needs no key: what orchestrators ask, and the parts of the web page."""

POLICY_VIOLATION = 1008
"""A websocket's close code; before the handshake it becomes a 403."""


def is_open(path: str) -> bool:
    """Whether a path, decoded as the router sees it and no further, is for everybody."""
    return path == "/" or path.startswith(OPEN)


def key_of(headers: Headers) -> bytes | None:
    """The key that came as `Authorization: Bearer KEY`, else as `X-API-Key: KEY`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return (bearer or headers.get("x-api-key", "")).encode("latin-1") or None


class Access:
    """Lets through what is open, and what comes with a key that may segment.

    Loading and unloading need more: their routes ask for it (routes/dependencies.py).
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "lifespan" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            self._keys.check_segment(key_of(Headers(scope=scope)))
        except RequestError as error:
            if scope["type"] == "http":
                await respond(scope["path"], error)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        await self._app(scope, receive, send)
