"""Requests that have ended in, spans to an OpenTelemetry collector out. Needs the extra `otel`: import it only then."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from importlib.metadata import version
from threading import Thread
from time import perf_counter

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from service.visit import PATH_SHOWN, UNROUTED, Visit, Work

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
"""How long the end of the service waits for a collector that does not answer."""


class Tracing:
    """One server span for each request, and in it one for each step of its work. They are made when the request has
    ended, from what was measured, and sent by a thread of their own."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: the collector's URL for traces; headers and the like as OpenTelemetry's own variables say."""
        # Of a collector that does not answer the exporter says so once for all of its lines.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create({"service.name": "segserve", "service.version": version("segserve")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(endpoint)))
        self._tracer = self._provider.get_tracer("segserve")
        self._propagator = TraceContextTextMapPropagator()

    def record(self, visit: Visit) -> None:
        """Make the spans of a request that has ended, in the caller's trace where it names one."""
        # Spans are dated by the clock, steps were measured by another one.
        epoch = time.time_ns() - int(perf_counter() * 1e9)
        end = epoch + int((visit.begun + (visit.seconds or 0.0)) * 1e9)
        span = self._tracer.start_span(
            visit.method if visit.route == UNROUTED else f"{visit.method} {visit.route}",
            self._propagator.extract(visit.parent),
            SpanKind.SERVER,
            _attributes(visit),
            start_time=epoch + int(visit.begun * 1e9),
        )
        if visit.status >= 500:
            span.set_status(StatusCode.ERROR)
        if visit.work is not None:
            self._steps(span, visit.work, epoch)
        span.end(end)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        sending = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)

    def _steps(self, parent: Span, work: Work, epoch: int) -> None:
        context = set_span_in_context(parent)
        moment = epoch + int(work.submitted * 1e9)
        for step, milliseconds in work.steps.items():
            span = self._tracer.start_span(step, context, start_time=moment)
            moment += int(milliseconds * 1e6)
            span.end(moment)


def _attributes(visit: Visit) -> dict[str, AttributeValue]:
    """What the server span says: OpenTelemetry's names where it has them."""
    known: dict[str, AttributeValue | None] = {
        "http.request.method": visit.method,
        "http.response.status_code": visit.status,
        "http.route": None if visit.route == UNROUTED else visit.route,
        "url.path": visit.path[:PATH_SHOWN],
        "error.type": visit.code,
        "segserve.request_id": visit.id,
    }
    if work := visit.work:
        known |= {
            "segserve.model.name": work.model,
            "segserve.model.version": work.version,
            "segserve.model.variant": work.variant,
            "segserve.view": work.view,
        }
        if len(work.pictures) == 1:
            known |= {
                "segserve.picture.width": work.pictures[0].width,
                "segserve.picture.height": work.pictures[0].height,
            }
    return {name: value for name, value in known.items() if value is not None}


class _Exporter(SpanExporter):
    """Sends to the collector. Of one that does not take the spans it says so once, and again when it does."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint)
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called in the thread that sends."""
        result = self._exporter.export(spans)
        works = result is SpanExportResult.SUCCESS
        if works != self._works:
            self._works = works
            if works:
                logger.warning("traces reach %s again", self._endpoint)
            else:
                logger.warning("traces do not reach %s: they are lost until they do", self._endpoint)
        return result

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
