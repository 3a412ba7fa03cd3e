"""A request whose body is not read yet in, room in memory for that body out, or a refusal before it is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.cost import least
from service.errors import Overloaded
from service.gate import Deadline, Gate, Room
from service.problems import respond
from service.settings import Settings

LENGTH_DIGITS = 18
"""Digits of a Content-Length, at most; Python refuses to read thousands of them."""


class NetRoute(APIRoute):
    """A route that runs a net. What the house has no time for, however small the picture is, is refused before anything
    of the request is looked at: under overload that is most of what comes, and what it costs others do not get."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI calls it."""
        handler = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            state = request.app.state
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


@contextmanager
def room_for(request: Request, gate: Gate, limit: int) -> Iterator[Room]:
    """Room for the body, at most `limit` bytes of it, until its work is done; the holder says how many bytes came.

    Raises Overloaded where too many bytes are in memory.
    """
    declared = request.headers.get("content-length", "")
    known = declared.isdecimal() and len(declared) <= LENGTH_DIGITS
    with gate.room(min(int(declared), limit) if known else limit) as room:
        yield room
