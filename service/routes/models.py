"""`GET /models`: the models that are served, how they were proved, and their palettes."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from service import drawing
from service.bundle import Model
from service.repository import Repository
from service.routes.dependencies import RepositoryHere
from service.routes.documented import BINARY, EVERY, Responses, problems

router = APIRouter(prefix="/models", tags=["models"])

PICTURE: Responses = {200: {"description": "A PNG", "headers": EVERY, "content": {"image/png": BINARY}}}
ANSWERS: Responses = {200: {"headers": EVERY}}


@router.get("", responses=ANSWERS | problems(503))
@router.head("", include_in_schema=False)
async def models(repository: RepositoryHere) -> dict[str, list[dict[str, Any]]]:
    """Every model with a usable version."""
    return {"models": [describe(repository, model) for model in repository.serving()]}


@router.get("/{name}", responses=ANSWERS | problems(404, 422, 503))
@router.head("/{name}", include_in_schema=False)
async def model(name: str, repository: RepositoryHere) -> dict[str, Any]:
    """One model."""
    return describe(repository, repository.get(name))


@router.get("/{name}/legend.png", response_class=Response, responses=PICTURE | problems(404, 422, 503))
@router.head("/{name}/legend.png", include_in_schema=False)
async def legend(name: str, repository: RepositoryHere) -> Response:
    """A model's palette as a picture: each class's colour, id and name."""
    body = await asyncio.to_thread(drawing.legend, repository.get(name).snapshot)
    return Response(body.content, media_type=body.media_type)


def describe(repository: Repository, model: Model) -> dict[str, Any]:
    """What the API says of a model."""
    manifest = model.manifest
    return {
        "name": model.name,
        "version": model.version,
        "versions": repository.versions(model.name),
        "default": model.name == repository.default(),
        "description": manifest.description,
        "input": manifest.input.model_dump(mode="json"),
        "classes": [spec.model_dump() for spec in manifest.classes],
        "ignore": list(manifest.ignore),
        "license": manifest.license,
        "proved": model.proved,
        "variant": model.variant.id,
        "variants": [item.model_dump(mode="json", exclude={"file"}) for item in manifest.variants],
        "trials": [asdict(trial) for trial in model.trials],
        "check": model.variant.check and model.variant.check.model_dump(mode="json"),
        "metrics": manifest.metrics,
    }
