"""`POST /segment`: a picture in, its class mask, palette picture, overlay or summary out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.bundle import Model
from service.errors import ParameterError
from service.gate import Deadline
from service.image import Picture, decode
from service.problems import STATUS
from service.render import ImageFormat, Options, View, render_image, summary
from service.routes.connection import unless_gone
from service.routes.dependencies import GateHere, RepositoryHere, SettingsHere
from service.routes.negotiation import Choice, negotiate
from service.routes.upload import read_picture
from service.segmenter import Segmentation
from service.settings import Settings
from service.turn import Turn

router = APIRouter(tags=["segment"])

BINARY = {"schema": {"type": "string", "format": "binary"}}

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
            }
        },
        "image/*": BINARY,
        "application/octet-stream": BINARY,
    },
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status.value: {"description": status.phrase, "content": {"application/problem+json": {}}}
    for status in sorted(set(STATUS.values()))
}

ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The view that was asked for",
        "content": {"application/json": {}, "image/png": BINARY, "image/jpeg": BINARY, "image/webp": BINARY},
    }
}


class SegmentQuery(BaseModel):
    """The parameters of `POST /segment`; a misspelt one is an error, not a default."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The model; by default the repository's default one.")
    version: int | None = Field(None, gt=0, description="Its version; by default the pinned or highest usable one.")
    output: View | None = Field(None, description="The view; by default what Accept asks for.")
    alpha: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="The palette's share of the overlay.")
    format: ImageFormat | None = Field(None, description="The overlay's format; by default JPEG for JPEG, else PNG.")
    classes: str | None = Field(None, description="Names or ids, comma-separated: the classes to list or to tint.")
    store: bool | None = Field(None, description="Whether the result may be fetched again later.")
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False, description="Seconds the answer may take.")


DECODE_MS = 8.0
"""About what decoding a megapixel of a JPEG takes."""


@dataclass(frozen=True)
class Task:
    """One picture's way through the house, all of it in one of the gate's threads."""

    data: bytes
    model: Model
    view: View
    options: Options
    stored: str
    settings: Settings
    submitted: float

    def __call__(self, turn: Turn) -> Response:
        """The answer. Raises a PictureError, ParameterError or DeadlineExceeded."""
        begun = perf_counter()
        segmenter, settings = self.model.segmenter, self.settings
        needed = segmenter.thumbnail if settings.thumbnails else None
        picture = decode(self.data, settings.max_pixels, settings.formats, needed)
        decoded = perf_counter()
        if self.view == "overlay" and picture.is_thumbnail:
            work = partial(decode, self.data, settings.max_pixels, settings.formats)
            with turn.beside(work, partial(_is_lighter, self.model, picture)) as (own, whole):
                segmentation = segmenter(picture.rgb, own, picture.size, confidence=False)
                segmented = perf_counter()
                picture = whole()
        else:
            segmentation = segmenter(picture.rgb, turn, picture.size, confidence=self.view == "json")
            segmented = perf_counter()
        turn.stop.check()
        again = perf_counter()
        response = self._rendered(picture, segmentation, turn)
        steps = {
            "queue": begun - self.submitted,
            "decode": decoded - begun + again - segmented,
            "infer": segmentation.infer_ms / 1e3,
            "upsample": segmentation.upsample_ms / 1e3,
            "encode": perf_counter() - again,
        }
        timing = ", ".join(f"{step};dur={seconds * 1e3:.1f}" for step, seconds in steps.items())
        response.headers["Server-Timing"] = timing
        return response

    def _rendered(self, picture: Picture, segmentation: Segmentation, turn: Turn) -> Response:
        manifest = self.model.manifest
        if self.view != "json":
            body = render_image(self.view, manifest, picture, segmentation, self.options, turn)
            return Response(body.content, media_type=body.media_type)
        facts = summary(manifest, self.model.variant.id, segmentation, self.options.classes)
        return JSONResponse({"id": None, "stored": self.stored, **facts, "links": {}})


def _is_lighter(model: Model, picture: Picture, cores: int) -> bool:
    """Whether the net loses less on one core instead of `cores` than is won by decoding the picture meanwhile."""
    decoding = DECODE_MS * picture.height * picture.width / 1e6
    return model.ms is not None and model.ms * (cores - 1) < decoding


@router.post("/segment", openapi_extra={"requestBody": REQUEST_BODY}, responses=ANSWER | PROBLEMS)
async def segment(
    request: Request,
    query: Annotated[SegmentQuery, Query()],
    settings: SettingsHere,
    repository: RepositoryHere,
    gate: GateHere,
) -> Response:
    """Segment a picture.

    Send it as the multipart file part `image`, or as the raw body with `Content-Type: image/*`. What comes back is
    chosen by `output`, else by the Accept header: a summary with the classes present (`json`), a grey PNG of class ids
    (`mask`), the same with the palette (`color`), or the picture tinted by class (`overlay`).
    """
    choice = Choice(query.output) if query.output else negotiate(", ".join(request.headers.getlist("accept")))
    model = repository.get(query.model, query.version)
    options = _options(query, choice, model)
    data = await read_picture(request, settings.max_bytes, settings.upload_timeout)
    stored = "not requested" if query.store is False else "off"
    task = Task(data, model, choice.view, options, stored, settings, submitted=perf_counter())
    seconds = min(query.timeout or settings.timeout, settings.max_timeout)
    return await unless_gone(request, gate.run(task, Deadline.after(seconds)))


def _options(query: SegmentQuery, choice: Choice, model: Model) -> Options:
    """Raises ParameterError where a parameter has no meaning for the view, or names a class that is none."""
    words = [word.strip() for word in (query.classes or "").split(",") if word.strip()]
    if query.classes is not None and not words:
        raise ParameterError("classes= is empty: name classes, comma-separated, or leave it away")
    classes = model.manifest.class_ids(words) if words else None
    options = Options(alpha=query.alpha, format=query.format or choice.format, classes=classes)
    options.check(choice.view)
    return options
