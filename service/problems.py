"""An error in, the documented body out: `application/problem+json` (RFC 9457), one table from errors to statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match

from service import errors
from service.visit import note_problem

STATUS: Mapping[type[errors.SegserveError], HTTPStatus] = {
    errors.SegserveError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.PictureMissing: HTTPStatus.BAD_REQUEST,
    errors.MalformedBody: HTTPStatus.BAD_REQUEST,
    errors.TensorError: HTTPStatus.BAD_REQUEST,
    errors.MalformedRequest: HTTPStatus.BAD_REQUEST,
    errors.UpgradeRequired: HTTPStatus.UPGRADE_REQUIRED,
    errors.KeyMissing: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.ModelRequired: HTTPStatus.BAD_REQUEST,
    errors.UnknownModel: HTTPStatus.NOT_FOUND,
    errors.UnknownCard: HTTPStatus.NOT_FOUND,
    errors.UnknownResult: HTTPStatus.NOT_FOUND,
    errors.NotPossible: HTTPStatus.CONFLICT,
    errors.ResultsOff: HTTPStatus.CONFLICT,
    errors.StoreFull: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.SlowUpload: HTTPStatus.REQUEST_TIMEOUT,
    errors.SlowHead: HTTPStatus.REQUEST_TIMEOUT,
    errors.HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.PictureTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BodyTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.PictureFormatError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.PictureCorrupt: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ParameterError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ModelUnloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelNotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StateUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TooManyConnections: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Draining: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
}
"""The status of each error; a class that is not listed has its nearest ancestor's."""

LOADING_RETRY_SECONDS = 5
"""What a client is told to wait for a model that is not ready."""


READING = ("GET", "HEAD")
METHODS = (*READING, "POST", "PUT", "PATCH", "DELETE")

INTERNAL = "internal-error"
"""What metrics call the error that has no code: a fault of ours."""

SHOWN, ITEMS = 2_000, 10
"""Characters of a detail, and parameters of which an error speaks, at most: a request repeated is no help."""

PLAIN = ("/v2/", "/hf/")
"""Where errors have the form that other people's clients expect: `{"error": "..."}`."""


def problem(
    path: str,
    status: HTTPStatus,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """The error of a request to `path`: `application/problem+json` with its extension `members`, or the plain form."""
    note_problem((members or {}).get("code", INTERNAL))
    detail = _cut(detail, SHOWN)
    if f"{path}/".startswith(PLAIN):
        return JSONResponse({"error": detail}, status, headers)
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **(members or {})}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def status_of(error: type[errors.SegserveError]) -> HTTPStatus:
    """The status that the table gives a class of errors."""
    return next(STATUS[ancestor] for ancestor in error.__mro__ if ancestor in STATUS)


def code_of(error: type[errors.SegserveError]) -> str:
    """The class's name as words, for programs to decide by: PictureTooLarge is picture-too-large."""
    return re.sub("(?<!^)(?=[A-Z])", "-", error.__name__).lower()


def respond(path: str, error: errors.SegserveError) -> JSONResponse:
    """The response of a request to `path` for a domain error."""
    status = status_of(type(error))
    members: dict[str, Any] = {"code": code_of(type(error))}
    headers = {}
    if isinstance(error, errors.PictureTooLarge):
        members |= {"limit": error.limit, "actual": error.actual}
    if isinstance(error, errors.Overloaded):
        headers["Retry-After"] = str(error.retry_after)
    elif status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(LOADING_RETRY_SECONDS)
    elif status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    elif status is HTTPStatus.UPGRADE_REQUIRED:
        headers |= {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13"}
    return problem(path, status, str(error), headers, members)


def internal_error(path: str) -> JSONResponse:
    """The response of a request to `path` for a fault of ours: it says nothing of the inside."""
    detail = "the server failed on this request; its log has the details under this answer's X-Request-ID"
    return problem(path, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def install(app: FastAPI) -> None:
    """Make every error of `app`, FastAPI's own included, answer with a problem body."""
    app.add_exception_handler(errors.SegserveError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(WebSocketRequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


async def _domain(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.SegserveError)
    if status_of(type(error)) is HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error  # a fault of ours, whatever the type: logged and answered like any other
    return respond(request.scope["path"], error)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    items = [
        {
            "parameter": _cut(str(item["loc"][-1]), SHOWN // ITEMS),
            "message": item["msg"],
            "value": _cut(repr(item.get("input")), SHOWN // ITEMS),
        }
        for item in error.errors()[:ITEMS]
    ]
    detail = "; ".join(f"{item['parameter']}={item['value']}: {item['message']}" for item in items)
    members = {"code": code_of(errors.ParameterError), "errors": items}
    return problem(request.scope["path"], HTTPStatus.UNPROCESSABLE_ENTITY, detail, members=members)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail, headers = error.detail, error.headers
    if status is HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.scope['path']} here; /docs lists what there is"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {**(headers or {}), "Allow": _allowed(request)}
        detail = f"{request.scope['path']} does not take {request.method}, only {headers['Allow']}; /docs shows how"
    code = status.phrase.lower().replace(" ", "-")
    return problem(request.scope["path"], status, detail, headers, {"code": code})


def _allowed(request: Request) -> str:
    """The methods that the request's path takes, of all its routes; the framework names those of one route."""
    root = request.scope.get("app_root_path", request.scope.get("root_path", ""))

    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": method, "root_path": root}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    # A folder of files matches whatever the method is.
    methods = READING if is_taken(request.method) else filter(is_taken, METHODS)
    return ", ".join(methods)
