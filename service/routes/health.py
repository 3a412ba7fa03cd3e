"""`GET /health/*`: is the process alive, may it get traffic, has it started."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.problems import LOADING_RETRY_SECONDS
from service.routes.dependencies import LifecycleHere, RepositoryHere
from service.routes.documented import EVERY, RETRY, Responses

router = APIRouter(prefix="/health", tags=["health"])

NOT_NOW: Responses = {
    503: {
        "description": "Not yet, or no more; with the reasons",
        "headers": {**EVERY, **RETRY},
        "content": {"application/json": {"schema": {"type": "object", "required": ["status", "reasons"]}}},
    }
}


@router.get("/live")
@router.head("/live", include_in_schema=False)
async def live() -> dict[str, str]:
    """200 while the event loop turns."""
    return {"status": "live"}


@router.get("/ready", responses=NOT_NOW)
@router.head("/ready", include_in_schema=False)
async def ready(repository: RepositoryHere, lifecycle: LifecycleHere) -> JSONResponse:
    """200 when every model (or, with `SEGSERVE_READY=any`, one) has a usable version; else, or while the server ends,
    503 with the reasons."""
    degraded = [
        {"model": refusal.name, "version": refusal.version, "reason": refusal.reason}
        for refusal in repository.catalog.refused
    ]
    return _health("ready", lifecycle.problems() + repository.problems(), {"degraded": degraded})


@router.get("/startup", responses=NOT_NOW)
@router.head("/startup", include_in_schema=False)
async def startup(repository: RepositoryHere) -> JSONResponse:
    """200 once loading has ended, however it went."""
    return _health("started", [] if repository.catalog.loaded else ["the models are still loading"], {})


def _health(word: str, reasons: list[str], more: dict[str, object]) -> JSONResponse:
    if not reasons:
        return JSONResponse({"status": word, **more})
    headers = {"Retry-After": str(LOADING_RETRY_SECONDS)}
    return JSONResponse({"status": f"not {word}", "reasons": reasons, **more}, HTTPStatus.SERVICE_UNAVAILABLE, headers)
