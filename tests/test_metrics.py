"""What `/metrics` says of requests, work, pictures and models, from a real server; and what is made of it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from service.app import create_app
from service.exposition import FOLDER, retire
from service.settings import Settings
from service.telemetry import Telemetry
from tests.bundles import BLUE, ENDLESS, GREEN, RED, Net, bands, encoded, write_bundle
from tests.metrics import Metrics
from tests.server import Server, running

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 60
PICTURE = encoded(bands(RED, RED, GREEN, BLUE, height=40, width=80))
PNG = {"Content-Type": "image/png"}
WORDS = {
    "inputs": [{"name": "picture", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(PICTURE).decode()]}]
}
NUMBERS = {"inputs": [{"name": "image", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [7] * 48}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("metrics")
    write_bundle(folder / "models")
    write_bundle(folder / "models", name="endless", nets=Net(turns=ENDLESS), golden=False)
    settings = {"THREADS": "1", "DEFAULT_MODEL": "rgb"}
    with running(folder / "models", folder / "log", settings) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


def test_requests_are_counted_by_method_route_and_status(server: Server, client: httpx.Client) -> None:
    before = Metrics.of(server.url)
    id = client.post("/segment", content=PICTURE, headers=PNG).json()["id"]
    client.get(f"/results/{id}/mask")
    client.get(f"/results/{id}/color")
    client.put("/segment")
    after = Metrics.of(server.url)
    for method, route, status, count in [
        ("POST", "/segment", "200", 1),
        ("GET", "/results/{id}/{view}", "200", 2),
        ("PUT", "/segment", "405", 1),
    ]:
        labels = {"method": method, "route": route, "status": status}
        assert after("segserve_requests_total", **labels) - before("segserve_requests_total", **labels) == count
    counted = "segserve_request_seconds_count"
    assert after(counted, route="/segment") - before(counted, route="/segment") == 2
    assert after("segserve_requests_in_progress") == 1, "the scrape itself"


def test_what_clients_make_up_becomes_no_series(server: Server, client: httpx.Client) -> None:
    for index in range(5):
        assert client.get(f"/made/up/{index}").status_code == 404
        assert client.get(f"/results/{index:040x}/mask").status_code == 404
        assert client.post("/segment", params={"model": f"made-up-{index}"}, content=PICTURE).status_code == 404
        assert client.request("PROPFIND", f"/{index}").status_code == 404
    after = Metrics.of(server.url)
    assert "made" not in " ".join(value for sample in after.samples for value in sample.labels.values())
    assert after("segserve_requests_total", route="other", method="GET") >= 5
    assert after("segserve_requests_total", route="other", method="other") >= 5


@pytest.mark.parametrize(
    ("path", "body", "stages"),
    [
        ("/segment?output=mask", PICTURE, {"queue", "decode", "infer", "upsample", "encode"}),
        ("/hf/rgb", PICTURE, {"queue", "decode", "infer", "upsample", "encode"}),
        ("/v2/models/rgb/infer", WORDS, {"queue", "decode", "infer", "upsample", "encode"}),
        ("/v2/models/rgb/infer", NUMBERS, {"queue", "infer", "encode"}),
        ("/results", None, {"queue", "decode", "encode"}),
    ],
    ids=["segment", "hf", "v2 picture", "v2 tensor", "results"],
)
def test_the_stages_of_every_route_are_measured(
    server: Server, client: httpx.Client, path: str, body: bytes | dict[str, Any] | None, stages: set[str]
) -> None:
    if path == "/results":
        path += "/" + client.post("/segment", content=PICTURE, headers=PNG).json()["id"] + "/mask"
    before = Metrics.of(server.url)
    if body is None:
        answer = client.get(path)
    else:
        answer = (
            client.post(path, json=body) if isinstance(body, dict) else client.post(path, content=body, headers=PNG)
        )
    assert answer.status_code == 200, answer.text
    said = {step: float(took) for step, took in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])}
    after = Metrics.of(server.url)
    assert stages == set(said) - {"total"}
    for stage in ("queue", "decode", "infer", "upsample", "encode"):
        labels = {"stage": stage, "model": "rgb"}
        counted, summed = "segserve_stage_seconds_count", "segserve_stage_seconds_sum"
        assert after(counted, **labels) - before(counted, **labels) == (stage in stages)
        seconds = after(summed, **labels) - before(summed, **labels)
        assert seconds * 1e3 == pytest.approx(said.get(stage, 0.0), abs=0.051)


def test_the_pixels_of_each_class_are_counted_for_each_picture_that_a_net_saw(
    server: Server, client: httpx.Client
) -> None:
    before = Metrics.of(server.url)
    answer = client.post("/segment", content=PICTURE, headers=PNG).json()
    client.get(f"/results/{answer['id']}/mask")  # nothing is seen anew
    client.post("/hf/rgb", content=PICTURE, headers=PNG)
    client.post("/v2/models/rgb/infer", json=WORDS)
    after = Metrics.of(server.url)
    for name, pixels in {"red": 1600, "green": 800, "blue": 800}.items():
        labels = {"model": "rgb", "class": name}
        counted = "segserve_mask_class_pixels_total"
        assert after(counted, **labels) - before(counted, **labels) == 3 * pixels
    assert {item["name"]: item["pixels"] for item in answer["classes"]} == {"red": 1600, "green": 800, "blue": 800}
    assert after("segserve_pictures_total", model="rgb") - before("segserve_pictures_total", model="rgb") == 3
    summed = "segserve_picture_megapixels_sum"
    assert after(summed) - before(summed) == pytest.approx(3 * 0.0032)


def test_errors_are_counted_by_their_code_on_every_route(server: Server, client: httpx.Client) -> None:
    before = Metrics.of(server.url)
    client.post("/segment", content=b"GIF89a broken", headers=PNG)
    client.post("/segment?alpha=7", content=PICTURE, headers=PNG)
    client.post("/hf/rgb", content=b"GIF89a broken", headers=PNG)
    client.post("/v2/models/nobody/infer", json=WORDS)
    after = Metrics.of(server.url)
    for code, count in {"picture-corrupt": 2, "parameter-error": 1, "unknown-model": 1}.items():
        assert after("segserve_errors_total", code=code) - before("segserve_errors_total", code=code) == count


def test_bytes_of_uploads_are_counted_as_far_as_they_were_received(server: Server, client: httpx.Client) -> None:
    before = Metrics.of(server.url)
    client.post("/segment?output=mask", content=PICTURE, headers=PNG)
    after = Metrics.of(server.url)
    assert after("segserve_upload_bytes_total") - before("segserve_upload_bytes_total") == len(PICTURE)


def test_results_are_counted_whether_stored_or_not(server: Server, client: httpx.Client) -> None:
    before = Metrics.of(server.url)
    client.post("/segment", content=PICTURE, headers=PNG)
    client.post("/segment?output=mask", content=PICTURE, headers=PNG)
    after = Metrics.of(server.url)
    assert after("segserve_results_stored_total") - before("segserve_results_stored_total") == 1
    counted, reason = "segserve_results_not_stored_total", "not requested"
    assert after(counted, reason=reason) - before(counted, reason=reason) == 1


def overload(server: Server) -> Metrics:
    """Three requests that end only at their deadline, and one that is turned away; what was measured meanwhile."""
    admitted = Metrics.of(server.url)("segserve_admitted_total")
    url = f"{server.url}/segment?model=endless&output=mask&timeout="
    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(httpx.post, f"{url}2", content=PICTURE, headers=PNG, timeout=60) for _ in range(3)]
        while (full := Metrics.of(server.url))("segserve_admitted_total") < admitted + 3:
            assert not any(future.done() for future in waiting), "the server was asked and answered meanwhile"
        assert httpx.post(f"{url}0.0001", content=PICTURE, headers=PNG).status_code == 429
        assert {future.result().status_code for future in waiting} == {504}
    return full


def test_a_full_server_answers_and_says_how_full_it_is(server: Server) -> None:
    before = Metrics.of(server.url)
    full = overload(server)
    assert full("segserve_work_queued_seconds") > 0
    assert full("segserve_requests_in_progress") >= 4
    after = Metrics.of(server.url)
    assert after("segserve_shed_total") - before("segserve_shed_total") == 1
    assert after("segserve_errors_total", code="overloaded") - before("segserve_errors_total", code="overloaded") == 1
    assert after("segserve_work_queued_seconds") == pytest.approx(0, abs=1e-9)
    counted = "segserve_admitted_work_seconds_total"
    assert after(counted) > before(counted)


def test_it_says_what_serves_and_what_runs(server: Server) -> None:
    found = Metrics.of(server.url)
    assert found("segserve_model_info", model="rgb", version="1", variant="fp32", default="true") == 1
    assert found("segserve_model_info", model="endless", version="1", variant="fp32", default="false") == 1
    assert found("segserve_model_ready", model="rgb") == found("segserve_ready") == found("segserve_cores") == 1
    assert found("segserve_draining") == 0
    assert found("segserve_worker_starts_total") == 1
    assert found("segserve_memory_bytes") > 20e6
    assert found("segserve_cpu_seconds_total") > 0.1
    assert found("segserve_build_info", version=httpx.get(f"{server.url}/v2").json()["version"]) == 1


def test_versions_that_are_gone_become_zero() -> None:
    telemetry = Telemetry()
    telemetry.ready(True)
    telemetry.models([("streets", 1, "fp32", True), ("rooms", 3, "int8", False)])
    telemetry.models([("streets", 2, "fp32", True)])
    found = Metrics.read(telemetry.exposition().decode())
    serving = [sample.labels for sample in found.matching("segserve_model_info", {}) if sample.value]
    assert serving == [{"model": "streets", "version": "2", "variant": "fp32", "default": "true"}]
    assert (found("segserve_model_ready", model="streets"), found("segserve_model_ready", model="rooms")) == (1, 0)
    telemetry.draining()
    found = Metrics.read(telemetry.exposition().decode())
    assert (found("segserve_ready"), found("segserve_draining")) == (0, 1)


def test_what_cannot_be_measured_is_said_once_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    for _ in range(3):
        telemetry.shed(["no", "label"])  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_two_apps_in_one_process_do_not_meet(tmp_path: Path) -> None:
    async def scraped() -> list[Metrics]:
        texts = []
        apps = [create_app(Settings(models=tmp_path)) for _ in range(2)]
        for app in apps:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                await client.get("/health/live")
                texts.append((await client.get("/metrics")).text)
        return [Metrics.read(text) for text in texts]

    for found in asyncio.run(scraped()):
        assert found("segserve_requests_total", route="/health/live") == 1


PROCESS = """
import sys
from service.telemetry import Telemetry
from service.visit import Visit

telemetry = Telemetry(cores=2)
telemetry.ready(True)
telemetry.models([("streets", 1, "fp32", True)])
telemetry.queued(1500)
for _ in range(int(sys.argv[1])):
    telemetry.began()
    visit = Visit("id", "GET", "/", status=200)
    visit.end("/")
    telemetry.ended(visit)
telemetry.began()
for _ in sys.stdin:
    sys.stdout.buffer.write(telemetry.exposition() + b"# EOF\\n")
    sys.stdout.flush()
"""


def process(folder: Path, requests: int, before: str = "") -> subprocess.Popen[str]:
    """A process that has ended so many requests, is answering another, and writes what is measured when it is asked."""
    command = [sys.executable, "-c", before + PROCESS, str(requests)]
    return subprocess.Popen(
        command, env={FOLDER: str(folder)}, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def scrape(asked: subprocess.Popen[str]) -> Metrics:
    assert asked.stdin is not None
    assert asked.stdout is not None
    asked.stdin.write("\n")
    asked.stdin.flush()
    return Metrics.read("".join(iter(asked.stdout.readline, "# EOF\n")))


def test_whichever_process_is_asked_answers_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with process(tmp_path, 3) as one, process(tmp_path, 4) as other:
        scrape(one), scrape(other)
        for found in (scrape(one), scrape(other)):
            assert found("segserve_requests_total", route="/", status="200") == 7
            assert found("segserve_request_seconds_count", route="/") == 7
            assert found("segserve_requests_in_progress") == 2
            assert found("segserve_work_queued_seconds") == 3
            assert (found("segserve_ready"), found("segserve_cores"), found("segserve_worker_starts_total")) == (
                2,
                4,
                2,
            )
            assert found("segserve_model_info", model="streets") == 1
            assert "pid" not in {name for sample in found.samples for name in sample.labels}
        assert sum(path.stat().st_blocks for path in tmp_path.glob(f"*_{one.pid}.db")) * 512 > 2**21, "room is reserved"
        other.kill()
        other.wait()
        monkeypatch.setenv(FOLDER, str(tmp_path))
        retire(other.pid)
        assert not list(tmp_path.glob(f"*_{other.pid}.db"))
        found = scrape(one)
        assert (found("segserve_requests_in_progress"), found("segserve_ready"), found("segserve_cores")) == (1, 1, 2)
        assert found("segserve_requests_total", route="/", status="200") == 7, "what was counted stays counted"
        assert found("segserve_request_seconds_bucket", route="/", le="+Inf") == 7
        one.kill()
        one.wait()
        retire(one.pid)
    with process(tmp_path, 5) as third:
        assert scrape(third)("segserve_requests_total", route="/", status="200") == 12
        third.kill()


def test_where_there_is_no_room_for_the_folders_files_a_process_answers_for_itself(tmp_path: Path) -> None:
    with process(
        tmp_path, 3, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    ) as only:
        found = scrape(only)
        assert found("segserve_requests_total", route="/", status="200") == 3
        assert not list(tmp_path.iterdir())
        only.kill()


def measured_until(url: str, is_so: Callable[[Metrics], bool]) -> Metrics:
    """What is measured as soon as it is so; a worker may end meanwhile, and connections with it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < end
        with suppress(httpx.TransportError):
            found = Metrics.of(url)
            if is_so(found):
                return found
        time.sleep(0.05)


def test_workers_are_measured_together_also_when_one_was_killed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log", {"WORKERS": "2"}) as server:
        measured_until(server.url, lambda found: found("segserve_ready") == 2)
        for _ in range(8):
            assert httpx.post(f"{server.url}/segment", content=PICTURE, headers=PNG).status_code == 200
        answered = {"route": "/segment", "status": "200"}  # counted after the answer's last byte
        measured_until(server.url, lambda found: found("segserve_requests_total", **answered) == 8)
        os.kill(server.workers[0], signal.SIGKILL)
        measured_until(server.url, lambda found: found("segserve_worker_starts_total") == 3)
        found = measured_until(server.url, lambda found: found("segserve_ready") == 2)
        assert found("segserve_requests_total", **answered) == 8
        assert found("segserve_mask_class_pixels_total", model="rgb") == 8 * 3200
        assert found("segserve_model_ready", model="rgb") == 2
        assert found("segserve_model_info", model="rgb", default="true") == 1


def instruments() -> set[str]:
    """The names that the service has series of."""
    return set(re.findall("^# TYPE (segserve_\\w+) ", Telemetry().exposition().decode(), re.MULTILINE))


def test_the_table_of_metrics_is_complete() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    assert set(re.findall(r"^\| `(segserve_\w+)` \|", page, re.MULTILINE)) == instruments()


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "segserve.json").read_text())
    return found


def queries() -> list[str]:
    """Every expression of the dashboard and the rules."""
    targets = [target for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    shown = [target["expr"].replace("$__rate_interval", "5m") for target in targets]
    return [*shown, *(rule["expr"] for rule in rules())]


def selectors(expression: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    """The series that an expression names."""
    found: list[promql_parser.VectorSelector] = []
    promql_parser.walk(
        expression, lambda node: found.append(node) if isinstance(node, promql_parser.VectorSelector) else None
    )
    yield from found


def test_the_dashboard_and_the_rules_name_what_a_server_has(server: Server, client: httpx.Client) -> None:
    client.post("/segment", content=PICTURE, headers=PNG)
    client.post("/segment?output=mask", content=PICTURE, headers=PNG)
    client.get("/nowhere")
    overload(server)
    found = Metrics.of(server.url)
    there = {sample.name: set(sample.labels) | {"job", "instance"} for sample in found.samples}
    ours = {rule["record"] for rule in rules() if "record" in rule} | {"up"}
    named = [selector for query in queries() for selector in selectors(promql_parser.parse(query))]
    assert len(named) > 40
    for selector in named:
        assert selector.name is not None
        assert selector.name in there.keys() | ours, selector.name
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert selector.name in ours or labels <= there[selector.name], selector
    for variable in dashboard()["templating"]["list"]:
        for name, label in re.findall(r"label_values\((\w+), (\w+)\)", str(variable["query"])):
            assert label in there[name]


def test_the_page_lists_every_alert_and_each_says_what_happened() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert set(re.findall(r"^\| `(Segserve\w+)` \|", page, re.MULTILINE)) == set(alerts)
    for rule in alerts.values():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["summary"]


def test_prometheus_is_told_where_the_rules_and_the_server_are() -> None:
    told = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert told["rule_files"] == ["alerts.yml"]
    assert told["scrape_configs"][0]["static_configs"] == [{"targets": ["segserve:8000"]}]
    assert told["scrape_configs"][0]["job_name"] == "segserve", "the rules and the dashboard name it"


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
