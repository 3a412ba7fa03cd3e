"""`/v2`: the Open Inference Protocol, for clients that speak it, on the same models, gate and limits."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import BodyTypeError, Forbidden, MalformedBody
from service.gate import Deadline
from service.inference import Infer, metadata
from service.oip import read
from service.routes.connection import unless_gone
from service.routes.dependencies import GateHere, RepositoryHere, SettingsHere
from service.routes.documented import BINARY, Responses, plain
from service.routes.upload import ENVELOPE, SMALL, read_body

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=plain(404, 422, 503))

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
                "schema": {"type": "object", "required": ["inputs"]},
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


class Wanted(BaseModel):
    """Which models an index lists."""

    ready: bool = False


@router.get("")
async def about(request: Request) -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "segserve", "version": request.app.version, "extensions": EXTENSIONS}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """200 while the event loop turns."""
    return {"live": True}


@router.get("/health/ready")
async def ready(repository: RepositoryHere) -> JSONResponse:
    """As `/health/ready`: 200 or 503."""
    reasons = repository.problems()
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return JSONResponse({"ready": not reasons, **({"error": "; ".join(reasons)} if reasons else {})}, status)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model(name: Name, repository: RepositoryHere, version: Version | None = None) -> dict[str, Any]:
    """A model's inputs and outputs."""
    return metadata(repository.get(name, version), sorted(repository.catalog.models[name]))


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(name: Name, repository: RepositoryHere, version: Version | None = None) -> dict[str, Any]:
    """200 where the model, or that version of it, can be asked; else 404 or 503."""
    found = repository.get(name, version)
    return {"name": found.name, "version": str(found.version), "ready": True}


@router.post("/models/{name}/infer", response_class=Response, openapi_extra=BODY, responses=INFERRED)
@router.post("/models/{name}/versions/{version}/infer", response_class=Response, openapi_extra=BODY, responses=INFERRED)
async def infer(
    request: Request,
    name: Name,
    settings: SettingsHere,
    repository: RepositoryHere,
    gate: GateHere,
    version: Version | None = None,
) -> Response:
    """Run the net on a tensor, or segment pictures that come as BYTES; JSON, or binary tensors after it."""
    found = repository.get(name, version)
    encoding = request.headers.get("content-encoding", "")
    if encoding.lower() not in ("", "identity"):
        raise BodyTypeError(f"Content-Encoding {encoding} is not taken: send the body as it is")
    length = _header_length(request)
    body = await read_body(request, settings.max_bytes, settings.upload_timeout, ENVELOPE)
    asked = read(body, length) if len(body) <= SMALL else await asyncio.to_thread(read, body, length)
    return await unless_gone(request, _answered(gate, Infer(asked, found, settings), settings.timeout))


@router.post("/repository/index")
async def index(repository: RepositoryHere, wanted: Annotated[Wanted | None, Body()] = None) -> list[dict[str, str]]:
    """Every version of every model, and whether it can be asked."""
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
    return usable if wanted is not None and wanted.ready else usable + refused


@router.post("/repository/models/{name}/load", responses=plain(403))
@router.post("/repository/models/{name}/unload", responses=plain(403))
async def change(name: Name) -> None:
    """Not for everybody: without administrators' keys nobody may load or unload."""
    raise Forbidden(
        f"{name} cannot be loaded or unloaded over HTTP: no key of an administrator is set up. Put the bundle into the "
        "model folder, or take it out, and start the server again"
    )


async def _answered(gate: GateHere, task: Infer, seconds: float) -> Response:
    encoded = await gate.run(task, Deadline.after(seconds))
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
