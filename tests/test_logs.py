"""What the log says, as text and as JSON, from real servers; and what no client can make it say."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from service.logs import JsonFormatter, TextFormatter
from service.visit import CURRENT, Visit
from tests.bundles import BLUE, RED, bands, encoded, write_bundle
from tests.server import Server, running

PICTURE = encoded(bands(RED, BLUE))
PNG = {"Content-Type": "image/png"}

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[\d+\] [A-Z]+ [\w.]+: .*|    .*")
"""A record as text, or where its exception came from."""

FORGED = "/x\n2026-01-01 00:00:00,000 [1] INFO service: all is well\r\x1b[2K\u2028\u202e"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "models"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def as_json(models: Path) -> Iterator[Server]:
    with running(models, models.parent / "json.log", {"LOG_FORMAT": "json"}) as started:
        yield started


@pytest.fixture(scope="module")
def as_text(models: Path) -> Iterator[Server]:
    with running(models, models.parent / "text.log", {"LOG_LEVEL": "debug"}) as started:
        yield started


def text(server: Server) -> str:
    """The log so far: a request's line is there at the latest when the next one is answered."""
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    return server.log.read_bytes().decode()


def records(server: Server) -> list[dict[str, Any]]:
    """Every line of the log so far: each must be one object."""
    return [json.loads(line) for line in text(server).splitlines()]


def of_request(server: Server, id: str) -> list[dict[str, Any]]:
    return [record for record in records(server) if record.get("request_id") == id]


def forge(url: str) -> None:
    """Ask for a path that would like to be a line of its own."""
    assert httpx.get(f"{url}/{quote(FORGED[1:])}").status_code == 404


def test_a_request_is_one_object_with_all_that_is_known_of_it(as_json: Server) -> None:
    headers = {**PNG, "X-Request-ID": "one-object"}
    assert httpx.post(f"{as_json.url}/segment?alpha=0.5", content=PICTURE, headers=headers).status_code == 200
    (record,) = of_request(as_json, "one-object")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record.pop("pid") in as_json.workers
    took = record.pop("milliseconds")
    assert took > 0
    assert record == {
        "level": "info",
        "logger": "service.middleware",
        "message": f"POST /segment 200 {took:.1f} ms",
        "request_id": "one-object",
        "method": "POST",
        "path": "/segment",
        "route": "/segment",
        "status": 200,
        "model": "rgb",
        "version": 1,
    }


def test_an_error_says_its_code_and_a_long_path_is_cut(as_json: Server) -> None:
    headers = {"X-Request-ID": "long-path"}
    httpx.get(f"{as_json.url}/results/{'x' * 5000}/mask", headers=headers)
    (record,) = of_request(as_json, "long-path")
    assert (record["code"], record["status"]) == ("unknown-result", 404)
    assert (record["path"], record["route"]) == ("/results/" + "x" * 191, "/results/{id}/{view}")


def test_every_line_is_an_object_whoever_wrote_it(as_json: Server) -> None:
    assert {"service.cli", "service.repository", "uvicorn.error"} <= {record["logger"] for record in records(as_json)}


def test_scrapes_and_health_checks_are_logged_for_debugging_only(as_json: Server, as_text: Server) -> None:
    for server in (as_json, as_text):
        for path in ("/metrics", "/health/live", "/v2/health/ready"):
            assert httpx.get(f"{server.url}{path}").status_code == 200
    assert not {"/metrics", "/health/live", "/v2/health/ready"} & {record.get("path") for record in records(as_json)}
    assert text(as_text).count("DEBUG service.middleware: GET /metrics 200") == 1


def test_for_debugging_a_line_says_that_a_request_begins(as_json: Server, as_text: Server) -> None:
    for server in (as_json, as_text):
        httpx.get(f"{server.url}/models", headers={"X-Request-ID": "begins"})
    lines = [line.split("service.middleware: ")[1] for line in text(as_text).splitlines() if "request begins" in line]
    assert lines[0] == "GET /models begins, request begins"
    assert lines[1].startswith("GET /models 200 ")
    assert len(lines) == 2
    assert len(of_request(as_json, "begins")) == 1


@pytest.mark.parametrize("form", ["as_json", "as_text"])
def test_no_path_breaks_a_line(form: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(form)
    forge(server.url)
    log = text(server)
    assert "all is well" in log
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", log)
    assert not any(line.startswith("2026-01-01") for line in log.split("\n"))
    if form == "as_text":
        assert all(LINE.fullmatch(line) for line in log.rstrip("\n").split("\n"))


def test_a_line_of_text_ends_with_the_request_that_it_belongs_to(as_text: Server) -> None:
    httpx.post(f"{as_text.url}/segment?output=mask", content=PICTURE, headers={**PNG, "X-Request-ID": "as-text"})
    lines = [line for line in text(as_text).splitlines() if line.endswith(", request as-text")]
    assert re.search(r" INFO service\.middleware: POST /segment 200 [\d.]+ ms, request as-text$", lines[-1])


def test_neither_keys_nor_queries_nor_pictures_are_logged(as_json: Server, as_text: Server) -> None:
    for server in (as_json, as_text):
        headers = {**PNG, "Authorization": "Bearer very-secret", "X-API-Key": "very-secret", "Cookie": "very-secret"}
        url = f"{server.url}/segment?model=very-secret"
        assert httpx.post(url, content=b"very-secret", headers=headers).status_code == 404
        assert httpx.post(f"{server.url}/segment", content=b"very-secret", headers=headers).status_code == 415
        assert "very-secret" not in text(server)


def failing() -> logging.LogRecord:
    """A record with an exception whose message would like to be a line of its own."""
    try:
        raise ValueError(FORGED)
    except ValueError:
        return logging.LogRecord("service.test", logging.ERROR, __file__, 1, "%s failed", ("it",), sys.exc_info())


def test_an_exception_is_one_member_and_in_text_indented() -> None:
    token = CURRENT.set(Visit("its-id", "GET", "/models"))
    try:
        record = json.loads(JsonFormatter().format(failing()))
        lines = TextFormatter().format(failing()).split("\n")
    finally:
        CURRENT.reset(token)
    assert (record["message"], record["request_id"], record["path"]) == ("it failed", "its-id", "/models")
    assert "status" not in record, "it is not known yet"
    assert record["exception"].startswith("Traceback")
    assert FORGED in record["exception"]
    assert lines[0].endswith(" ERROR service.test: it failed, request its-id")
    assert all(LINE.fullmatch(line) for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


def test_lines_outside_of_requests_belong_to_none() -> None:
    record = logging.LogRecord("service.test", logging.INFO, __file__, 1, "ready \ud800", (), None)
    assert "request_id" not in json.loads(JsonFormatter().format(record))
    assert TextFormatter().format(record).endswith(r": ready \ud800")
