"""A request for a net in, a refusal out where the house has no time for it, before anything of it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.cost import least
from service.errors import Overloaded
from service.gate import Deadline
from service.problems import respond
from service.settings import Settings


class NetRoute(APIRoute):
    """A route that runs a net. What the house has no time for, however small the picture is, is refused before anything
    of the request is looked at: under overload that is most of what comes, and what it costs others do not get."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI calls it."""
        handler = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            state = request.app.state
            if state.gate.is_busy:
                versions = (model for models in state.repository.catalog.models.values() for model in models.values())
                try:
                    state.gate.check(Deadline.after(_seconds(request)), least(versions))
                except Overloaded as error:
                    return respond(request.scope["path"], error)
            return await handler(request)

        return admitted


def _seconds(request: Request) -> float:
    """How long the answer may take; what is no number is the route's to refuse."""
    settings: Settings = request.app.state.settings
    try:
        seconds = float(request.query_params.get("timeout", settings.timeout))
    except ValueError:
        seconds = settings.max_timeout
    return min(seconds, settings.max_timeout)
