"""A request for a net in, a refusal out where the house has no time for it, before anything of it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.cost import Cost, least
from service.errors import Overloaded
from service.gate import Deadline, Gate
from service.problems import respond
from service.repository import Repository
from service.settings import Settings


class Intake:
    """Refuses what the house has no time for, however small the picture is: under overload that is most of what comes,
    and what it costs others do not get. So it stands before the framework, which would first find the route."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        """`routes`: those that run a net."""
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        try:
            if scope["type"] == "http" and scope["method"] == "POST":
                self._check(scope)
        except Overloaded as error:
            await respond(scope["path"], error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises Overloaded."""
        state = scope["app"].state
        gate: Gate = state.gate
        if not gate.is_busy:
            return
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                scope["route"] = route  # what metrics and logs call it
                gate.check(Deadline.after(_seconds(scope, state.settings)), _smallest(state.repository))


def _smallest(repository: Repository) -> Cost:
    return least(model for versions in repository.catalog.models.values() for model in versions.values())


def _seconds(scope: Scope, settings: Settings) -> float:
    """How long the answer may take; what is no number is the route's to refuse."""
    given = parse_qs(scope["query_string"].decode("latin-1")).get("timeout") if scope["query_string"] else None
    try:
        seconds = float(given[-1]) if given else settings.timeout
    except ValueError:
        seconds = settings.max_timeout
    return min(seconds, settings.max_timeout)
