"""The spans that a real collector gets, and what a server does whose collector is not there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.bundles import BLUE, RED, bands, encoded, write_bundle
from tests.server import Server, free_port, running

PICTURE = encoded(bands(RED, BLUE, height=24, width=32))
PNG = {"Content-Type": "image/png"}
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Collector:
    """Takes spans at `url`."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """All that have come."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, request_id: str) -> tuple[Span, list[Span]]:
        """The span of a request, and those in it by their start; they are waited for."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            for span in self.spans:
                if attributes(span).get("segserve.request_id") == request_id:
                    inside = [other for other in self.spans if other.parent_span_id == span.span_id]
                    return span, sorted(inside, key=lambda other: other.start_time_unix_nano)
            time.sleep(0.02)
        raise AssertionError(f"no span of {request_id}")


def attributes(holder: Span) -> dict[str, object]:
    return values(holder.attributes)


def values(pairs: object) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in pairs:  # type: ignore[attr-defined]
        assert isinstance(pair, KeyValue)
        found[pair.key] = getattr(pair.value, pair.value.WhichOneof("value") or "")
    return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        taken = Collector(f"http://127.0.0.1:{listening.server_port}/v1/traces")
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield taken
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracing") / "models"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, collector: Collector) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with running(models, models.parent / "log", {"TRACES": collector.url}) as started:
            yield started


Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def until() -> Until:
    """Waits for something to become true."""

    def wait(is_true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_true():
            assert time.monotonic() < end
            time.sleep(0.02)

    return wait


def ask(server: Server, id: str, path: str = "/segment?output=mask", **headers: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}{path}", content=PICTURE, headers={**PNG, "X-Request-ID": id, **headers}, timeout=60
    )


def test_a_request_is_a_span_that_says_what_it_was(server: Server, collector: Collector) -> None:
    assert ask(server, "a-span").status_code == 200
    span, _ = collector.of("a-span")
    assert (span.name, span.kind, span.parent_span_id) == ("POST /segment", Span.SpanKind.SPAN_KIND_SERVER, b"")
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/segment",
        "http.response.status_code": 200,
        "url.path": "/segment",
        "segserve.request_id": "a-span",
        "segserve.model.name": "rgb",
        "segserve.model.version": 1,
        "segserve.model.variant": "fp32",
        "segserve.view": "mask",
        "segserve.picture.width": 32,
        "segserve.picture.height": 24,
    }
    resource = values(collector.requests[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "segserve"


def test_the_stages_are_spans_in_it_one_after_another(server: Server, collector: Collector) -> None:
    answer = ask(server, "stages")
    span, inside = collector.of("stages")
    assert [stage.name for stage in inside] == ["queue", "decode", "infer", "upsample", "encode"]
    moment = span.start_time_unix_nano
    for stage in inside:
        assert moment <= stage.start_time_unix_nano
        took = (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e6
        assert f"{stage.name};dur={took:.1f}" in answer.headers["server-timing"]
        moment = stage.end_time_unix_nano
    assert moment <= span.end_time_unix_nano
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < PATIENCE_SECONDS


def test_the_callers_trace_is_gone_on_with(server: Server, collector: Collector) -> None:
    ask(server, "has-parent", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    span, inside = collector.of("has-parent")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert {stage.trace_id for stage in inside} == {span.trace_id}


def test_what_the_caller_does_not_sample_is_not_sent(server: Server, collector: Collector) -> None:
    ask(server, "not-sampled", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
    ask(server, "broken-parent", traceparent="00-nonsense")
    assert collector.of("broken-parent")[0].parent_span_id == b""
    assert "not-sampled" not in {attributes(span).get("segserve.request_id") for span in collector.spans}


def test_errors_say_their_code_and_only_the_servers_own_are_errors_of_the_span(
    server: Server, collector: Collector
) -> None:
    assert ask(server, "refused", "/segment?alpha=9").status_code == 422
    assert ask(server, "too-late", "/segment?timeout=0.000001").status_code in (429, 504)
    assert ask(server, "nowhere", "/no/such/place").status_code == 404
    refused, late, nowhere = (collector.of(id)[0] for id in ("refused", "too-late", "nowhere"))
    assert attributes(refused)["error.type"] == "parameter-error"
    assert refused.status.code == Status.StatusCode.STATUS_CODE_UNSET
    is_error = late.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert is_error == (attributes(late)["error.type"] == "deadline-exceeded")
    assert nowhere.name == "POST"
    assert "http.route" not in attributes(nowhere)


def test_other_routes_have_their_stages_and_health_checks_no_span(server: Server, collector: Collector) -> None:
    for path in ("/health/ready", "/metrics"):
        assert httpx.get(f"{server.url}{path}", headers={"X-Request-ID": "quiet"}).status_code == 200
    id = ask(server, "stored", "/segment").json()["id"]
    httpx.get(f"{server.url}/results/{id}/overlay", headers={"X-Request-ID": "again"})
    ask(server, "hugging", "/hf/rgb")
    assert [stage.name for stage in collector.of("again")[1]] == ["queue", "decode", "encode"]
    assert attributes(collector.of("again")[0])["segserve.view"] == "overlay"
    assert len(collector.of("hugging")[1]) == 5
    assert "quiet" not in {attributes(span).get("segserve.request_id") for span in collector.spans}


def test_what_is_left_is_sent_when_the_server_ends(models: Path, collector: Collector, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"TRACES": collector.url}) as server:
        ask(server, "the-last-one")
    assert "the-last-one" in {attributes(span).get("segserve.request_id") for span in collector.spans}


def test_a_collector_that_is_not_there_costs_one_line(models: Path, tmp_path: Path, until: Until) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1/traces"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        with running(models, tmp_path / "log", {"TRACES": url}) as server:
            for index in range(20):
                assert ask(server, f"lost-{index}").status_code == 200
            until(lambda: "traces do not reach" in server.log.read_text())
            assert ask(server, "lost-too").status_code == 200
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(": ", 1)[1] for line in lines if "traces" in line or "opentelemetry" in line] == [
        f"traces do not reach {url}: they are lost until they do"
    ]


WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
from service.cli import serve
serve(sys.argv[1:], prog_name="segserve serve")
"""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://collector:4318/v1/traces", "pip install 'segserve[otel]'"),
        ("collector:4318", "OTLP/HTTP endpoint"),
        ("http://collector:4318", "OTLP/HTTP endpoint"),
        ("http://me:hunter2@collector:4318/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
    ids=["not installed", "no scheme", "no path", "password"],
)
def test_traces_that_cannot_be_sent_are_a_clear_error_at_the_start(url: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "--traces", url], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr
