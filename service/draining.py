"""Around every request that is work: it counts as inside, and once the process drains its connection ends with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Draining
from service.lifecycle import Lifecycle
from service.problems import respond

QUESTIONS = ("/health/", "/v2/health/", "/metrics")
"""What is answered to the end, and keeps nothing from ending."""


class Drain:
    """Refuses work while the process drains, and says `Connection: close`: nobody then sends into a closing door."""

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
            if message["type"] == "http.response.start":
                started = True
                if self._lifecycle.is_draining:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if scope["path"].startswith(QUESTIONS):
            await self._app(scope, receive, send_last)
            return
        try:
            async with self._lifecycle.inside():
                await self._app(scope, receive, send_last)
        except Draining as error:
            if not started:
                await respond(scope["path"], error)(scope, receive, send_last)
