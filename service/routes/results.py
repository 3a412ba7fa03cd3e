"""`/results/{id}`: a stored result again, in any view, without running the net; and an end to it."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from service.gate import Deadline
from service.render import View
from service.routes.connection import unless_gone
from service.routes.dependencies import GateHere, ResultsHere, SettingsHere
from service.routes.documented import CACHING, LOCATION, answers, problems
from service.routes.query import Once, ViewQuery
from service.routes.segment import respond
from service.task import ShowAgain

router = APIRouter(prefix="/results", tags=["results"])

Id = Annotated[str, Path(description="As `POST /segment` gave it: `id`, or the end of Content-Location.")]

SHOWN = {
    **answers({**CACHING, **LOCATION}),
    304: {"description": "The client has this answer already"},
    **problems(404, 409, 422, 429, 500, 503, 504),
}


@router.get("/{id}", dependencies=[Once], response_class=Response, responses=SHOWN)
@router.head("/{id}", dependencies=[Once], include_in_schema=False)
async def result(
    request: Request,
    id: Id,
    query: Annotated[ViewQuery, Query()],
    settings: SettingsHere,
    results: ResultsHere,
    gate: GateHere,
) -> Response:
    """A stored result's summary."""
    return await show(request, id, "json", query, settings, results, gate)


@router.get("/{id}/{view}", dependencies=[Once], response_class=Response, responses=SHOWN)
@router.head("/{id}/{view}", dependencies=[Once], include_in_schema=False)
async def show(
    request: Request,
    id: Id,
    view: View,
    query: Annotated[ViewQuery, Query()],
    settings: SettingsHere,
    results: ResultsHere,
    gate: GateHere,
) -> Response:
    """A stored result in a view, with any options."""
    store = results.require()
    tag = _tag(id, view, query)
    known = is_known(request.headers.get("if-none-match", ""), tag)
    options = partial(query.options, view, None)
    task = ShowAgain(store, id, view, options, settings, submitted=perf_counter(), known=known)

    async def answered() -> Response:
        answer = await gate.run(task, Deadline.after(settings.timeout), task.cost)
        response = Response(status_code=HTTPStatus.NOT_MODIFIED) if answer is None else respond(answer)
        response.headers["ETag"] = tag
        response.headers["Cache-Control"] = f"private, max-age={int(store.seconds_left(id))}"
        return response

    return await unless_gone(request, answered())


@router.delete("/{id}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404, 409, 422, 503))
async def forget(id: Id, results: ResultsHere) -> None:
    """Forget a stored result."""
    await asyncio.to_thread(results.require().forget, id)


def _tag(id: str, view: View, query: ViewQuery) -> str:
    """The same for the same answer: what is stored under an id never changes."""
    asked = f"{id} {view} {query.model_dump_json()}"
    return f'"{hashlib.sha256(asked.encode()).hexdigest()[:32]}"'


def is_known(if_none_match: str, tag: str) -> bool:
    """Whether the client says, in If-None-Match, that it has the answer of this tag."""
    tags = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return tag in tags or "*" in tags
