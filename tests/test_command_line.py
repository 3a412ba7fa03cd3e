"""`segserve` as users type it: options and environment, exit codes, bundles that are refused, a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from segserve import __version__
from tests.bundles import write_bundle
from tests.server import running


def segserve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segserve", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=60
    )


def test_version_and_help() -> None:
    assert __version__ in segserve("--version").stdout
    shown = segserve("serve", "--help").stdout
    for word in ("--max-bytes", "SEGSERVE_MAX_BYTES", "--providers", "default: 8000"):
        assert word in shown


def test_a_room_runs_as_a_module_too() -> None:
    for room in ("service", "export", "training"):
        done = subprocess.run([sys.executable, "-m", room, "--help"], capture_output=True, text=True, check=False)
        assert (done.returncode, f"python -m {room}" in done.stdout) == (0, True)


def test_a_wrong_setting_exits_with_2_and_one_clear_line() -> None:
    for arguments, word in (
        (["--port", "http"], "port"),
        (["--providers", "abacus"], "cpu, openvino, cuda, tensorrt"),
        (["--formats", "png,psd"], "PSD"),
        (["--max-bytes", "much"], "max_bytes"),
        (["--nonsense"], "--nonsense"),
    ):
        done = segserve("serve", *arguments)
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr
    assert segserve("serve", SEGSERVE_ALPHA="1", SEGSERVE_TIMEOUT="-1").returncode == 2


def test_a_folder_without_models_is_live_but_not_ready(tmp_path: Path) -> None:
    with running(tmp_path / "nothing", tmp_path / "log", ready=False) as server:
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        answer = httpx.get(f"{server.url}/health/ready")
        assert answer.status_code == 503
        assert str(tmp_path / "nothing") in answer.json()["reasons"][0]
        assert int(answer.headers["retry-after"]) >= 1


def test_a_refused_bundle_is_named_and_the_others_serve(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models, name="good")
    bad = write_bundle(models, name="bad")
    (bad / "model.onnx").write_bytes(b"damaged")
    with running(models, tmp_path / "log", {"READY": "any", "DEFAULT_MODEL": "good"}) as server:
        body = httpx.get(f"{server.url}/health/ready").json()
        (refused,) = body["degraded"]
        assert (refused["model"], "sha256" in refused["reason"]) == ("bad", True)
        assert [entry["name"] for entry in httpx.get(f"{server.url}/models").json()["models"]] == ["good"]
        answer = httpx.post(f"{server.url}/segment?model=bad", files={"image": b"x"})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
    with running(models, tmp_path / "log", ready=False) as server:
        assert httpx.get(f"{server.url}/health/ready").status_code == 503


def test_with_two_models_and_no_default_a_request_must_say_which(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_bundle(tmp_path / "models", name=name)
    with running(tmp_path / "models", tmp_path / "log") as server:
        answer = httpx.post(f"{server.url}/segment", files={"image": b"x"})
        assert (answer.status_code, answer.json()["code"]) == (400, "model-required")
        assert "one, two" in answer.json()["detail"]


def test_the_log_names_each_licence(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log") as server:
        licence = httpx.get(f"{server.url}/models/rgb").json()["license"]
        assert f"licence: {licence}" in server.log.read_text()


def test_sigterm_ends_the_server_cleanly(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log") as server:
        os.kill(server.pid, signal.SIGTERM)
    assert "Finished server process" in server.log.read_text()


def test_several_workers_serve_one_port(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log", {"WORKERS": "2"}) as server:
        assert httpx.get(f"{server.url}/models").status_code == 200


def test_a_port_in_use_exits_with_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = segserve("serve", "--models", str(tmp_path), "--port", str(port))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr


def test_onnxruntime_reports_to_nobody_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):  # any of these would hide what is looked for
        monkeypatch.delenv(name, raising=False)
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log"):
        pass
    assert list(home.rglob("*")) == []
