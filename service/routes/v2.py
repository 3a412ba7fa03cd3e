"""`/v2`: the Open Inference Protocol, for clients that speak it, on the same models, gate and limits."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import oip
from service.bundle import Model
from service.errors import MalformedBody
from service.gate import Deadline, Gate
from service.inference import Infer, metadata
from service.routes.connection import unless_gone
from service.routes.dependencies import AdminOnly, GateHere, KeeperHere, LifecycleHere, RepositoryHere, SettingsHere
from service.routes.documented import BINARY, KEY, Responses, plain, schema_of
from service.routes.upload import ENVELOPE, SMALL, read_body, read_options
from service.settings import Settings
from service.visit import note_work

router, inferring = (
    APIRouter(prefix="/v2", tags=["open inference protocol"], responses=plain(404, 422, 503)) for _ in range(2)
)
"""Those of `inferring` run a net."""

HEADER_LENGTH = "Inference-Header-Content-Length"
LENGTH_DIGITS = 18
"""Digits of a length, at most; Python refuses to read thousands of them."""

EXTENSIONS = ["binary_tensor_data", "model_repository"]

Name = Annotated[str, Path(description="The model.")]
Version = Annotated[int, Path(gt=0, description="Its version.")]


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": schema_of(oip.Request),
                "example": {
                    "inputs": [
                        {"name": "picture", "shape": [1], "datatype": "BYTES", "data": ["an image file, in base64"]}
                    ]
                },
            },
            "application/octet-stream": BINARY,
        },
    }
}

INFERRED: Responses = {
    200: {
        "description": "The outputs: JSON, or binary tensors after it",
        "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": BINARY},
    },
    **plain(400, 408, 413, 415, 429, 500, 504),
}


CHANGED = plain(400, 403, 404, 409, 500, 503, 504)

WITH_KEY: dict[str, Any] = {"security": list(KEY)}


class Change(BaseModel):
    """The body of a load, which may be left out."""

    parameters: dict[str, Any] = {}


class Wanted(BaseModel):
    """Which models an index lists."""

    model_config = ConfigDict(strict=True)

    ready: bool = False


def takes(kind: type[BaseModel]) -> dict[str, Any]:
    """The description of a body that may be left out. FastAPI is not told of it: it would read any, however large."""
    return {"requestBody": {"content": {"application/json": {"schema": schema_of(kind)}}}}


@router.get("")
@router.head("", include_in_schema=False)
async def about(request: Request) -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "segserve", "version": request.app.version, "extensions": EXTENSIONS}


@router.get("/health/live")
@router.head("/health/live", include_in_schema=False)
async def live() -> dict[str, bool]:
    """200 while the event loop turns."""
    return {"live": True}


@router.get("/health/ready")
@router.head("/health/ready", include_in_schema=False)
async def ready(repository: RepositoryHere, lifecycle: LifecycleHere) -> JSONResponse:
    """As `/health/ready`: 200 or 503."""
    reasons = lifecycle.problems() + repository.problems()
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return JSONResponse({"ready": not reasons, **({"error": "; ".join(reasons)} if reasons else {})}, status)


@router.get("/models/{name}")
@router.head("/models/{name}", include_in_schema=False)
async def model(name: Name, repository: RepositoryHere) -> dict[str, Any]:
    """A model's inputs and outputs."""
    return metadata(repository.get(name), repository.versions(name))


@router.get("/models/{name}/versions/{version}")
@router.head("/models/{name}/versions/{version}", include_in_schema=False)
async def model_version(name: Name, version: Version, repository: RepositoryHere) -> dict[str, Any]:
    """The inputs and outputs of a model in that version."""
    return metadata(repository.get(name, version), repository.versions(name))


@router.get("/models/{name}/ready")
@router.head("/models/{name}/ready", include_in_schema=False)
async def model_ready(name: Name, repository: RepositoryHere) -> dict[str, Any]:
    """200 where the model can be asked; else 404 or 503."""
    return _ready(repository.get(name))


@router.get("/models/{name}/versions/{version}/ready")
@router.head("/models/{name}/versions/{version}/ready", include_in_schema=False)
async def version_ready(name: Name, version: Version, repository: RepositoryHere) -> dict[str, Any]:
    """200 where that version of the model can be asked; else 404 or 503."""
    return _ready(repository.get(name, version))


@inferring.post("/models/{name}/infer", response_class=Response, openapi_extra=BODY, responses=INFERRED)
async def infer(
    request: Request, name: Name, settings: SettingsHere, repository: RepositoryHere, gate: GateHere
) -> Response:
    """Run the net on a tensor, or segment pictures that come as BYTES; JSON, or binary tensors after it."""
    return await _infer(request, repository.get(name), settings, gate)


@inferring.post(
    "/models/{name}/versions/{version}/infer", response_class=Response, openapi_extra=BODY, responses=INFERRED
)
async def infer_version(
    request: Request, name: Name, version: Version, settings: SettingsHere, repository: RepositoryHere, gate: GateHere
) -> Response:
    """The same with that version of the model."""
    return await _infer(request, repository.get(name, version), settings, gate)


@router.post("/repository/index", openapi_extra=takes(Wanted), responses=plain(400, 408, 413))
async def index(request: Request, settings: SettingsHere, repository: RepositoryHere) -> list[dict[str, str]]:
    """Every version of every model, and whether it can be asked."""
    wanted = await read_options(request, Wanted, settings.upload_timeout)
    catalog = repository.loaded_catalog()
    usable = [
        {"name": name, "version": str(version), "state": "READY", "reason": ""}
        for name, versions in catalog.models.items()
        for version in sorted(versions)
    ]
    refused = [
        {"name": item.name, "version": str(item.version), "state": "UNAVAILABLE", "reason": item.reason}
        for item in catalog.refused
    ]
    unloaded = [
        {"name": name, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"} for name in sorted(catalog.unloaded)
    ]
    return usable if wanted.ready else usable + refused + unloaded


@router.post(
    "/repository/models/{name}/load",
    dependencies=[AdminOnly],
    openapi_extra=WITH_KEY | takes(Change),
    responses=CHANGED | plain(408, 413),
)
async def load(
    request: Request, name: Name, settings: SettingsHere, keeper: KeeperHere, repository: RepositoryHere
) -> dict[str, str]:
    """For administrators: serve a model again, or look now for a new version of it; answers when all processes do."""
    asked = await read_options(request, Change, settings.upload_timeout)
    if asked.parameters:
        strange = ", ".join(asked.parameters)
        raise MalformedBody(f"a model is loaded from the model folder as it is there: {strange} cannot be given")
    await keeper.change(name, load=True)
    repository.get(name)
    return {}


@router.post("/repository/models/{name}/unload", dependencies=[AdminOnly], openapi_extra=WITH_KEY, responses=CHANGED)
async def unload(name: Name, keeper: KeeperHere, repository: RepositoryHere) -> dict[str, str]:
    """For administrators: serve a model no more; answers when no process does."""
    if name not in repository.loaded_catalog().names:
        repository.get(name)
    await keeper.change(name, load=False)
    return {}


def _ready(model: Model) -> dict[str, Any]:
    return {"name": model.name, "version": str(model.version), "ready": True}


async def _infer(request: Request, model: Model, settings: Settings, gate: Gate) -> Response:
    length = _header_length(request)
    with gate.room(0) as room:
        body = await read_body(request, room, settings.max_bytes, settings.upload_timeout, ENVELOPE)
        asked = oip.read(body, length) if len(body) <= SMALL else await asyncio.to_thread(oip.read, body, length)
        task = Infer(asked, model, settings, submitted=perf_counter())
        return await unless_gone(request, _answered(gate, task, settings.timeout))


async def _answered(gate: Gate, task: Infer, seconds: float) -> Response:
    encoded, work = await gate.run(task, Deadline.after(seconds), task.cost)
    note_work(work)
    if encoded.header_length is None:
        return Response(encoded.content, media_type="application/json")
    headers = {HEADER_LENGTH: str(encoded.header_length)}
    return Response(encoded.content, headers=headers, media_type="application/octet-stream")


def _header_length(request: Request) -> int | None:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not given.isdecimal() or len(given) > LENGTH_DIGITS:
        raise MalformedBody(f"{HEADER_LENGTH} is {given[:40]!r}: it must be a number of bytes")
    return int(given)
