"""`POST /segment`: a picture in, a view of what the net sees in it out."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.gate import Deadline
from service.routes.connection import unless_gone
from service.routes.dependencies import GateHere, RepositoryHere, ResultsHere, SettingsHere
from service.routes.documented import BINARY, LOCATION, answers, problems
from service.routes.negotiation import Choice, negotiate
from service.routes.query import Once, SegmentQuery
from service.routes.upload import read_picture
from service.task import Answer, Segment
from service.visit import note_work

router = APIRouter(tags=["segment"])

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
            },
            "encoding": {"image": {"contentType": "image/*"}},
        },
        "image/*": BINARY,
        "application/octet-stream": BINARY,
    },
}

RESPONSES = answers(LOCATION) | problems(400, 404, 406, 408, 409, 413, 415, 422, 429, 500, 503, 504)


@router.post(
    "/segment",
    dependencies=[Once],
    response_class=Response,
    openapi_extra={"requestBody": REQUEST_BODY},
    responses=RESPONSES,
)
async def segment(
    request: Request,
    query: Annotated[SegmentQuery, Query()],
    settings: SettingsHere,
    repository: RepositoryHere,
    results: ResultsHere,
    gate: GateHere,
) -> Response:
    """Segment a picture.

    Send it as the multipart file part `image`, or as the raw body with `Content-Type: image/*`. What comes back is
    chosen by `output`, else by the Accept header: a summary with the classes present (`json`), a grey PNG of class ids
    (`mask`), the same with the palette (`color`), the picture tinted by class (`overlay`), how sure the net is
    (`confidence`), outlines (`polygons`, `geojson`), run lengths (`rle`), or a PNG a class (`zip`).
    """
    choice = Choice(query.output) if query.output else negotiate(", ".join(request.headers.getlist("accept")))
    model = repository.get(query.model, query.version)
    options = query.options(choice.view, choice.format, model.snapshot)
    store = query.store if query.store is not None else choice.view == "json"
    seconds = min(query.timeout or settings.timeout, settings.max_timeout)
    with gate.room(0) as room:
        data = await read_picture(request, room, settings.max_bytes, settings.upload_timeout)
        task = Segment(
            data,
            model,
            choice.view,
            options,
            settings,
            submitted=perf_counter(),
            store=results.store if store else None,
            unstored=results.reason if store else "not requested",
        )

        async def answered() -> Response:
            return respond(await gate.run(task, Deadline.after(seconds), task.cost))

        return await unless_gone(request, answered())


def respond(answer: Answer) -> Response:
    """The answer as a response, with where it can be had again; what was done for it is noted."""
    note_work(answer.work)
    headers = {} if answer.id is None else {"Content-Location": f"/results/{answer.id}"}
    return Response(answer.body.content, headers=headers, media_type=answer.body.media_type)
