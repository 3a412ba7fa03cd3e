"""Around every request and stream that is work: it counts as inside, and once the process drains no more is taken."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Draining
from service.lifecycle import Lifecycle
from service.problems import respond
from service.visit import QUESTIONS

STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
"""After one of these there can be no other answer."""


class Drain:
    """Refuses work while the process drains, and says `Connection: close`: nobody then sends into a closing door.

    A stream that is inside when time is over ends with its connection, which the server closes.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        started = False

        async def send_last(message: Message) -> None:
            nonlocal started
            started |= message["type"] in STARTS
            if message["type"] == "http.response.start" and self._lifecycle.is_draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if scope["path"].startswith(QUESTIONS):  # answered to the end, and keeps nothing from ending
            await self._app(scope, receive, send_last)
            return
        try:
            async with self._lifecycle.inside():
                await self._app(scope, receive, send_last)
        except Draining as error:
            if not started:
                await respond(scope["path"], error)(scope, receive, send_last)
