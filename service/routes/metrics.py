"""`GET /metrics`: what was measured, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.exposition import CONTENT_TYPE
from service.routes.dependencies import TelemetryHere
from service.routes.documented import EVERY, Responses

router = APIRouter(tags=["metrics"])

MEASURED: Responses = {
    200: {
        "description": "Prometheus's text format",
        "headers": EVERY,
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@router.get("/metrics", response_class=Response, responses=MEASURED)
@router.head("/metrics", include_in_schema=False)
async def metrics(telemetry: TelemetryHere) -> Response:
    """Counters, gauges and histograms since the start; of all worker processes, whichever answers."""
    return Response(await telemetry.scraped(), media_type=CONTENT_TYPE)
