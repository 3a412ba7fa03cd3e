"""Deadlines and overload, from a real server whose nets take their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO

import httpx
import pytest
from PIL import Image

from tests.bundles import ENDLESS, Net, write_bundle
from tests.server import Server, running

SLOW = Net(turns=300_000)
"""Takes a good part of a second."""


def photo() -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 24), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gate")
    write_bundle(folder / "models", name="slow", nets=SLOW, golden=False)
    write_bundle(folder / "models", name="endless", nets=replace(SLOW, turns=ENDLESS), golden=False)
    with running(folder / "models", folder / "log", {"THREADS": "1"}) as started:
        yield started


def ask(server: Server, model: str, timeout: float) -> httpx.Response:
    parameters: dict[str, str | float] = {"model": model, "timeout": timeout}
    return httpx.post(f"{server.url}/segment", params=parameters, files={"image": photo()}, timeout=60)


def test_a_net_that_misses_the_deadline_is_stopped_and_frees_its_thread(server: Server) -> None:
    answer = ask(server, "endless", timeout=0.5)
    assert answer.status_code == 504
    assert answer.json()["code"] == "deadline-exceeded"
    assert ask(server, "slow", timeout=30).status_code == 200


def test_waiting_work_ends_at_its_deadline(server: Server) -> None:
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(ask, server, "endless", 8)
        time.sleep(0.5)  # the only thread is taken
        second = clients.submit(ask, server, "endless", 0.5).result()
        assert second.status_code in {429, 504}
        assert not first.done()
        assert first.result().status_code == 504


def test_overload_is_429_with_retry_after_and_health_still_answers(server: Server) -> None:
    assert ask(server, "slow", timeout=30).status_code == 200  # now the server knows how long it takes
    with ThreadPoolExecutor(24) as clients:
        answers = [clients.submit(ask, server, "slow", 2) for _ in range(24)]
        time.sleep(0.5)
        assert httpx.get(f"{server.url}/health/ready", timeout=5).status_code == 200
        codes = [answer.result().status_code for answer in answers]
        refused = next(answer.result() for answer in answers if answer.result().status_code == 429)
    assert set(codes) <= {200, 429, 504}
    assert 200 in codes
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert ask(server, "slow", timeout=30).status_code == 200


def test_a_timeout_above_the_limit_is_lowered(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("limit")
    write_bundle(folder / "models", name="endless", nets=replace(SLOW, turns=ENDLESS), golden=False)
    with running(folder / "models", folder / "log", {"MAX_TIMEOUT": "1"}) as started:
        answer = ask(started, "endless", timeout=60)
        assert answer.status_code == 504
        assert "within 1 s" in answer.json()["detail"]
