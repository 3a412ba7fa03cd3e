"""What the API docs say of answers, as FastAPI takes it: bodies, headers, and the one form of every error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from service.access import is_open
from service.problems import PLAIN

Responses = dict[int | str, dict[str, Any]]

BINARY: Mapping[str, Any] = {"schema": {"type": "string", "format": "binary"}}


class Problem(BaseModel):
    """An error, as RFC 9457 has it; docs/errors.md lists the codes."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What was wrong, the rule, and the way out.")
    code: str | None = Field(None, description="Stable, for programs to decide by.")


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


EVERY: Mapping[str, Any] = {
    "X-Request-ID": _header("The request's own where it is well formed, else a fresh one; the server's log names it."),
    "Server-Timing": _header("Milliseconds: total, and of a picture queue, decode, infer, upsample and encode."),
}
"""Headers of every answer."""

LOCATION: Mapping[str, Any] = {"Content-Location": _header("Where the result is stored, if it is.")}
CACHING: Mapping[str, Any] = {
    "ETag": _header("For If-None-Match."),
    "Cache-Control": _header("Private, until the result expires."),
}
RETRY: Mapping[str, Any] = {"Retry-After": _header("Seconds.", "integer")}

WHEN: Mapping[int, str] = {
    400: "No picture, a broken body, or no model where one must be named",
    401: "No key, where one is needed",
    403: "A key that is wrong, or not enough for this",
    404: "No such model, version or result; the detail says why",
    406: "Accept names nothing that is offered",
    408: "The body did not arrive in time",
    409: "Not possible in this deployment",
    413: "More bytes or pixels than the limits",
    415: "A Content-Type that holds no picture, or bytes of no accepted picture format",
    426: "This is a websocket",
    422: "A parameter of the wrong type or range or without meaning for the view, or a broken picture",
    429: "Overloaded",
    500: "The server's fault; its log has the details",
    503: "Loading, no usable model, or a store that does not answer",
    504: "The deadline passed",
}


def problems(*statuses: int) -> Responses:
    """The errors that a route answers with."""
    described: Responses = {}
    for status in statuses:
        described[status] = {
            "description": WHEN[status],
            "headers": {**EVERY, **(RETRY if status in (HTTPStatus.TOO_MANY_REQUESTS, 503) else {})},
            "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
        }
    return described


def plain(*statuses: int) -> Responses:
    """The errors of routes that other people's clients ask, in the form that these expect."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        status: {"description": WHEN[status], "headers": EVERY, "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


KEY: Sequence[Mapping[str, Any]] = ({"bearer": []}, {"header": []})
"""How a key may be sent, as OpenAPI's security requirements."""


def describe_keys(app: FastAPI, needed: bool) -> None:
    """Make the description of `app` say where a key belongs, and whether this server needs one to segment."""
    without = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        document = without()
        document.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [*([] if needed else [{}]), *KEY]
        for path, operations in document["paths"].items():
            refusals = plain if f"{path}/".startswith(PLAIN) else problems
            for operation in operations.values():
                if is_open(path):
                    operation["security"] = []
                else:
                    operation["responses"] |= {str(status): answer for status, answer in refusals(401, 403).items()}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """What a body's JSON is, in one piece: OpenAPI's references would not find the definitions beside it."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/$defs/")
            return whole(definitions[name]) if name else {key: whole(value) for key, value in node.items()}
        return [whole(item) for item in node] if isinstance(node, list) else node

    found: dict[str, Any] = whole(schema)
    return found


def answers(headers: Mapping[str, Any]) -> Responses:
    """A view of a segmentation, whichever it is."""
    pictures = {f"image/{kind}": BINARY for kind in ("png", "jpeg", "webp")}
    geojson = {"application/geo+json": {"schema": {"type": "object"}}}
    content = {"application/json": {"example": SUMMARY}, **geojson, "application/zip": BINARY, **pictures}
    return {200: {"description": "The view that was asked for", "headers": {**EVERY, **headers}, "content": content}}


SUMMARY: Mapping[str, Any] = {
    "id": None,
    "stored": "not requested",
    "links": {},
    "model": {"name": "camvid-lite", "version": 1, "variant": "fp32"},
    "image": {"width": 480, "height": 360},
    "classes": [
        {
            "id": 3,
            "name": "road",
            "color": "#804080",
            "pixels": 49427,
            "fraction": 0.28603587,
            "bbox": [22, 190, 480, 360],
            "confidence": 0.97901155,
        }
    ],
}
"""An answer in JSON that was not to be stored."""
