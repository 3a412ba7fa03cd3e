"""Every request and websocket in; those that need a key and have no right one are refused, before any body is read."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Forbidden, RequestError
from service.keys import Keys
from service.problems import respond

OPEN = ("/health/", "/v2/health/", "/ui/")
"""What needs no key: what orchestrators ask, and the parts of the web page."""

MODEL_PAGE = re.compile("/models/[^/]+/page")
"""Where the web page of a model is to be found."""

SUBPROTOCOL = "segserve"
"""What is spoken over a websocket, for clients that want a name for it."""

OFFERED_KEY = f"{SUBPROTOCOL}.bearer."
"""Begins the subprotocol that is a key: browsers send no other header with a websocket."""


SHOWN = 100
"""Characters of an origin that are repeated."""


def is_open(path: str) -> bool:
    """Whether a path, decoded as the router sees it and no further, is for everybody."""
    return path == "/" or path.startswith(OPEN) or MODEL_PAGE.fullmatch(path) is not None


def key_of(headers: Headers) -> bytes | None:
    """The key that came as `Authorization: Bearer KEY`, else as `X-API-Key: KEY`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return (bearer or headers.get("x-api-key", "")).encode("latin-1") or None


def key_offered(subprotocols: Sequence[str]) -> bytes | None:
    """The key that is offered as a subprotocol, in base64url without padding."""
    for name in subprotocols:
        if name.startswith(OFFERED_KEY):
            code = name.removeprefix(OFFERED_KEY)
            with suppress(ValueError):
                return base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)) or None
    return None


def check_origin(headers: Headers, allowed: Sequence[str]) -> None:
    """Raise Forbidden where a page of another origin, which may not ask here, opens a websocket: browsers let it."""
    origin = headers.get("origin")
    if origin is None or origin in allowed or "*" in allowed:
        return
    if origin.partition("://")[2].lower() != headers.get("host", "").lower() or origin == "null":
        raise Forbidden(
            f"pages of {origin[:SHOWN]} may not open a websocket here: the operator can list that origin in "
            "SEGSERVE_CORS_ORIGINS"
        )


class Access:
    """Lets through what is open, and what comes with a key that may segment.

    Loading and unloading need more: their routes ask for it (routes/dependencies.py).
    """

    def __init__(self, app: ASGIApp, keys: Keys, origins: Sequence[str] = ()) -> None:
        """`origins`: whose pages may open websockets, besides the server's own."""
        self._app = app
        self._keys = keys
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "lifespan" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except RequestError as error:
            await respond(scope["path"], error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        key = key_of(headers)
        if scope["type"] == "websocket":
            check_origin(headers, self._origins)
            key = key or key_offered(scope["subprotocols"])
        self._keys.check_segment(key)
