"""Worker processes that are killed, hang or cannot start, and servers that are told to end, under load."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.bundles import ENDLESS, Net, write_bundle
from tests.load import CLIENTS, picture, under_load, wait_for
from tests.server import Server, running

SLOW = Net(turns=150_000)
"""Takes some tenths of a second."""


def replaced(server: Server, killed: int, count: int) -> Callable[[], bool]:
    """Whether there are so many workers again, without the one that was killed, and all have loaded their models."""

    def look() -> bool:
        there = server.workers
        ready = [line for line in server.log.read_text().splitlines() if "is ready" in line]
        loaded = [pid for pid in there if any(f"[{pid}]" in line for line in ready)]
        return killed not in there and len(loaded) == count

    return look


def test_a_worker_that_dies_is_replaced_and_only_its_own_requests_break(tmp_path: Path) -> None:
    """SIGSEGV is what a decoder's or a runtime's fault looks like."""
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log", {"WORKERS": "2"}) as server:
        wait_for(replaced(server, 0, 2), "two workers")
        for number in (signal.SIGKILL, signal.SIGSEGV):
            victim, other = server.workers
            with under_load(server) as load:
                load.wait_for_answers()
                os.kill(victim, number)
                while not replaced(server, victim, 2)():
                    # Asked over a fresh connection, which a living worker takes.
                    for word in ("live", "ready"):
                        assert httpx.get(f"{server.url}/health/{word}", timeout=30).status_code == 200
                load.wait_for_answers()
            assert set(load.seen) <= {"200", "broken"}
            assert load.seen["broken"] <= CLIENTS
            assert other in server.workers
            assert f"worker process {victim} was ended by {number.name}" in server.log.read_text()


def test_where_the_machine_has_room_for_no_other_worker_those_that_live_go_on(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log", {"WORKERS": "2"}) as server:
        wait_for(replaced(server, 0, 2), "two workers")
        victim, other = server.workers
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # three are always open
        os.kill(victim, signal.SIGKILL)
        said = "a worker process could not be started (Too many open files); the next one starts in"
        wait_for(lambda: said in server.log.read_text(), "a failed start")
        assert httpx.post(f"{server.url}/segment", files={"image": picture()}, timeout=30).status_code == 200
        assert server.workers == [other]
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        wait_for(replaced(server, victim, 2), "a replacement")


def test_a_worker_alone_is_replaced_and_ready_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log") as server:
        (victim,) = server.workers
        os.kill(victim, signal.SIGKILL)
        wait_for(replaced(server, victim, 1), "a replacement")
        wait_for(lambda: httpx.get(f"{server.url}/health/ready", timeout=30).status_code == 200, "ready")
        assert httpx.post(f"{server.url}/segment", files={"image": picture()}).status_code == 200


def test_what_is_in_hand_is_answered_after_sigterm_and_new_work_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", nets=SLOW, golden=False)
    with running(tmp_path / "models", tmp_path / "log", {"THREADS": "1"}) as server:
        asking = 4
        with ThreadPoolExecutor(asking) as pool, httpx.Client(base_url=server.url, timeout=30) as client:
            assert client.get("/health/ready").status_code == 200
            answers = [pool.submit(post, server.url) for _ in range(asking)]
            wait_for(lambda: admitted(client) == asking, "all of them to be inside")
            os.kill(server.pid, signal.SIGTERM)
            wait_for(lambda: client.get("/health/ready").status_code == 503, "draining")
            ready, live = client.get("/health/ready"), client.get("/health/live")
            assert "about to end" in ready.json()["reasons"][0]
            assert live.status_code == 200
            late = client.post("/segment", files={"image": picture()})
            assert late.status_code == 503
            assert late.json()["code"] == "draining"
            assert late.headers["connection"] == "close"
            assert int(late.headers["retry-after"]) >= 1
            assert [answer.result().status_code for answer in answers] == [200] * asking
        assert ended(server) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health/live")


def admitted(client: httpx.Client) -> int:
    """The requests that were let in so far."""
    samples = [line for line in client.get("/metrics").text.splitlines() if line.startswith("segserve_admitted_total")]
    return sum(round(float(sample.split()[-1])) for sample in samples)


def post(url: str) -> httpx.Response:
    return httpx.post(f"{url}/segment?output=mask", files={"image": picture()}, timeout=60)


def ended(server: Server) -> int | None:
    """The exit code of a server that has been told to end."""
    return psutil.Process(server.pid).wait(60) if psutil.pid_exists(server.pid) else 0


@pytest.mark.parametrize(("workers", "number"), [("2", signal.SIGTERM), ("1", signal.SIGINT)])
def test_no_connection_breaks_while_a_server_under_load_ends(
    tmp_path: Path, workers: str, number: signal.Signals
) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log", {"WORKERS": workers}) as server:
        with under_load(server, until=lambda answer: answer.status_code == 503) as load:
            load.wait_for_answers()
            os.kill(server.pid, number)
            ended(server)
        assert set(load.seen) <= {"200", "503", "nobody listens"}


def test_work_beyond_the_bound_is_cut_off(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", nets=Net(turns=ENDLESS), golden=False)
    with (
        running(tmp_path / "models", tmp_path / "log", {"DRAIN_SECONDS": "0.5"}) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        endless: Future[httpx.Response] = pool.submit(post, server.url)
        with httpx.Client(base_url=server.url, timeout=30) as client:
            wait_for(lambda: admitted(client) == 1, "it to be inside")
        os.kill(server.pid, signal.SIGTERM)
        ended(server)
        assert endless.result().status_code == 503
        assert endless.result().json()["code"] == "draining"


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    sooner = "import service.supervisor; service.supervisor.HANGING_SECONDS = 3.0"
    with running(tmp_path / "models", tmp_path / "log", before=sooner) as server:
        (victim,) = server.workers
        os.kill(victim, signal.SIGSTOP)
        wait_for(replaced(server, victim, 1), "a replacement")
        assert f"worker process {victim} hangs" in server.log.read_text()
        assert post(server.url).status_code == 200


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log", {"WORKERS": "2"}) as server:
        orphans = server.workers
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in orphans), "the workers' end")


def test_a_server_whose_workers_cannot_start_ends_with_1(tmp_path: Path) -> None:
    """As with a broken installation: trying again would not help."""
    broken = "import service.supervisor; service.supervisor.PROGRAM = 'raise SystemExit(7)'; "
    command = [sys.executable, "-c", broken + "import segserve.cli; segserve.cli.main()", "serve", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "exit code 7 before it could serve" in done.stderr
