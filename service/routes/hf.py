"""`POST /hf/{model}`: Hugging Face's image-segmentation task, for clients that speak it."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import png
from service.bundle import Model
from service.cost import Cost, segmenting
from service.errors import MalformedBody, ParameterError, PictureMissing
from service.gate import Deadline
from service.manifest import explain
from service.routes.connection import unless_gone
from service.routes.dependencies import GateHere, RepositoryHere, SettingsHere
from service.routes.documented import BINARY, Responses, plain
from service.routes.upload import ENVELOPE, read_body
from service.segmenter import Segmentation
from service.settings import Settings
from service.task import look, segmented, work_by
from service.turn import Turn
from service.visit import Work, note_work

router = APIRouter(prefix="/hf", tags=["hugging face"])

MEMBERS = 100
"""Values in a JSON body, at most: the task has seven, and base64 has none of the signs that part them."""

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": BINARY,
            "application/json": {
                "schema": {"type": "object", "required": ["inputs"]},
                "example": {"inputs": "an image file, in base64", "parameters": {"threshold": 0.5}},
            },
        },
    }
}

ANSWERS: Responses = {
    200: {
        "description": "The classes present, largest first",
        "content": {"application/json": {"example": [{"label": "road", "score": 0.98, "mask": "a PNG, in base64"}]}},
    },
    **plain(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
}


class Parameters(BaseModel):
    """The task's parameters; the last two belong to instance segmentation and change nothing here."""

    model_config = ConfigDict(extra="forbid")

    threshold: float = Field(0.0, ge=0, le=1)
    subtask: Literal["semantic"] | None = None
    mask_threshold: float | None = None
    overlap_mask_area_threshold: float | None = None


class Task(BaseModel):
    """The JSON form: the picture in base64."""

    model_config = ConfigDict(extra="forbid")

    inputs: str
    parameters: Parameters | None = None


@dataclass(frozen=True)
class Segments:
    """One picture's way through the house."""

    data: bytes
    model: Model
    threshold: float
    settings: Settings
    submitted: float

    @property
    def cost(self) -> Cost:
        """What it is estimated to take; a PNG a class is what the zip has."""
        return segmenting(self.data, self.model, "zip", self.settings, store=False)

    def __call__(self, turn: Turn) -> tuple[list[dict[str, Any]], Work]:
        """The classes present, largest first, each with its mean confidence and its mask, a PNG of 0 and 255; and what
        was done for it."""
        begun = perf_counter()
        looked = look(self.data, self.model, self.settings, turn, whole=False, confidence=True)
        start, model = perf_counter(), self.model.snapshot
        found = self._areas(looked.segmentation, turn)
        steps = {"queue": (begun - self.submitted) * 1e3, **looked.steps, "encode": (perf_counter() - start) * 1e3}
        return found, work_by(model, self.submitted, steps, (segmented(looked.segmentation, model),))

    def _areas(self, seen: Segmentation, turn: Turn) -> list[dict[str, Any]]:
        counts, found = seen.tally.pixels, []
        for spec in sorted(self.model.manifest.classes, key=lambda spec: -int(counts[spec.id])):
            confidence = seen.class_confidence(spec.id)
            # Of a class that is there only between the net's own samples, it is not sure at all.
            score = confidence or (1.0 if seen.confidence is None else 0.0)
            if counts[spec.id] and score >= self.threshold:
                turn.stop.check()
                mask = png.stencil(seen.mask, spec.id)
                found.append({"label": spec.name, "score": score, "mask": base64.b64encode(mask).decode()})
        return found


@router.post("/{model}", response_class=Response, openapi_extra=BODY, responses=ANSWERS)
async def segments(
    request: Request,
    model: Annotated[str, Path(description="The model.")],
    settings: SettingsHere,
    repository: RepositoryHere,
    gate: GateHere,
) -> Response:
    """Segment a picture, sent as raw bytes, or in JSON as base64: `{"inputs": "...", "parameters": {}}`."""
    found = repository.get(model)
    is_json = request.headers.get("content-type", "").lower().startswith("application/json")
    # In base64 a picture takes a third more.
    limit = settings.max_bytes * 4 // 3 + ENVELOPE if is_json else settings.max_bytes
    with gate.room(0) as room:
        body = await read_body(request, room, limit, settings.upload_timeout)
        data, parameters = await asyncio.to_thread(_read, body) if is_json else (body, Parameters())
        if not data:
            raise PictureMissing("the request has no picture: send its bytes, or as base64 in JSON under inputs")
        task = Segments(data, found, parameters.threshold, settings, submitted=perf_counter())

        async def answered() -> Response:
            areas, work = await gate.run(task, Deadline.after(settings.timeout), task.cost)
            note_work(work)
            return JSONResponse(areas)

        return await unless_gone(request, answered())


def _read(body: bytes) -> tuple[bytes, Parameters]:
    """The picture and the parameters in a JSON body."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MEMBERS:
        raise MalformedBody('the body has more values than the task: {"inputs": "<base64>", "parameters": {}}')
    try:
        task = Task.model_validate_json(body)
        return base64.b64decode(task.inputs, validate=True), task.parameters or Parameters()
    except ValidationError as error:
        if any(item["loc"][:1] == ("parameters",) for item in error.errors()):
            raise ParameterError(explain(error)) from error
        raise MalformedBody(f"the body is not what the task says: {explain(error)}") from error
    except ValueError as error:
        raise MalformedBody(f"inputs is not base64: {error}") from error
