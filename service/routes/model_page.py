"""`GET /models/{name}/...`: what the page of a model shows of it besides numbers: its card and its own structure."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from service.bundle import Model
from service.routes.dependencies import RepositoryHere
from service.routes.documented import EVERY, Responses, problems
from service.structure import drawing
from service.structure.parts import Pass, Stage, Structure
from service.structure.words import part, sentence

router = APIRouter(prefix="/models", tags=["models"])

TEXT: dict[str, Any] = {"schema": {"type": "string"}}
CARD: Responses = {200: {"description": "Markdown", "headers": EVERY, "content": {"text/markdown": TEXT}}}
DRAWING: Responses = {200: {"description": "An SVG", "headers": EVERY, "content": {"image/svg+xml": TEXT}}}
ANSWERS: Responses = {200: {"headers": EVERY}}


@router.get("/{name}/card", response_class=Response, responses=CARD | problems(404, 422, 503))
@router.head("/{name}/card", include_in_schema=False)
async def card(name: str, repository: RepositoryHere) -> Response:
    """A model's card: what it was trained on, how good it is, what it may be used for."""
    text = await asyncio.to_thread(repository.get(name).card)
    return Response(text, media_type="text/markdown")


@router.get("/{name}/structure", responses=ANSWERS | problems(404, 422, 503))
@router.head("/{name}/structure", include_in_schema=False)
async def structure(name: str, repository: RepositoryHere) -> dict[str, Any]:
    """A model's encoder and decoder, as its graph has them: stages, and what is passed across between them."""
    model = repository.get(name)
    return describe(model, await asyncio.to_thread(lambda: model.structure))


@router.get("/{name}/structure.svg", response_class=Response, responses=DRAWING | problems(404, 422, 503))
@router.head("/{name}/structure.svg", include_in_schema=False)
async def structure_svg(name: str, repository: RepositoryHere) -> Response:
    """The same as a drawing, in light and dark."""
    model = repository.get(name)
    drawn = await asyncio.to_thread(lambda: drawing.svg(model.structure, model.name))
    return Response(drawn, media_type="image/svg+xml", headers={"Content-Security-Policy": drawing.POLICY})


@router.get("/{name}/page", include_in_schema=False)
@router.head("/{name}/page", include_in_schema=False)
async def page(name: str) -> RedirectResponse:
    """The page of a model, which is a part of the web page."""
    return RedirectResponse(f"../../ui/model.html?model={quote(name, safe='')}")


def describe(model: Model, structure: Structure) -> dict[str, Any]:
    """What the API says of a structure; stages are named by their places in the list."""
    height, width = structure.size
    return {
        "model": {"name": model.name, "version": model.version},
        "summary": sentence(structure),
        "problem": structure.problem,
        "input": {"width": width, "height": height, "channels": structure.channels},
        "stages": [_stage(structure, index, stage) for index, stage in enumerate(structure.stages)],
        "passes": [_pass(one) for one in structure.passes],
        "operators": dict(structure.operators),
        "inner": structure.inner,
    }


def _stage(structure: Structure, index: int, stage: Stage) -> dict[str, Any]:
    return {
        "part": part(structure, index),
        "scale": str(stage.scale),
        "width": stage.width,
        "height": stage.height,
        "channels": stage.channels,
        "direction": stage.direction,
        "by": list(stage.by),
        "layers": dict(stage.layers),
    }


def _pass(one: Pass) -> dict[str, Any]:
    return {
        "from": one.source,
        "to": one.target,
        "how": one.how,
        "maps": one.maps,
        "channels": one.channels,
        "layers": one.layers,
    }
