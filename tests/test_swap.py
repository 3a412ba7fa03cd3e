"""Models that come, change and go while a server with two worker processes is asked without pause."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.bundles import ROLLED, Net, write_bundle
from tests.load import picture, under_load, wait_for
from tests.server import Server, running

KEY = "an administrator's key, of no use elsewhere"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "a")
    return tmp_path / "models"


@pytest.fixture
def server(tmp_path: Path, models: Path) -> Iterator[Server]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    settings = {"WORKERS": "2", "WATCH": "0.2", "ADMIN_KEYS": f"sha256:{digest}", "DEFAULT_MODEL": "a"}
    with running(models, tmp_path / "log", settings) as started:
        wait_for(lambda: started.log.read_text().count("a version 1 is ready") == 2, "two workers")
        yield started


def move_in(made: Path, models: Path) -> None:
    """Put a bundle into the folder as a whole: the rename is the commit."""
    (models / made.parent.name).mkdir(exist_ok=True)
    made.rename(models / made.parent.name / made.name)


def versions(server: Server) -> set[int]:
    """Those that answer a dozen requests, each over a connection of its own."""
    asked = [httpx.post(f"{server.url}/segment", files={"image": picture()}) for _ in range(12)]
    return {answer.json()["model"]["version"] for answer in asked}


def test_a_new_version_takes_over_and_a_wrong_one_never_does(tmp_path: Path, models: Path, server: Server) -> None:
    elsewhere = tmp_path / "elsewhere"
    wrong = write_bundle(elsewhere, "a", 3)
    Net(weights=ROLLED).save(wrong / "model.onnx")
    forged = hashlib.sha256((wrong / "model.onnx").read_bytes()).hexdigest()
    right = hashlib.sha256((write_bundle(elsewhere / "twin", "a", 3) / "model.onnx").read_bytes()).hexdigest()
    manifest = wrong / "model.json"
    manifest.write_text(manifest.read_text().replace(right, forged))  # only the golden picture can tell
    with under_load(server) as load:
        load.wait_for_answers()
        move_in(write_bundle(elsewhere, "a", 2), models)
        wait_for(lambda: versions(server) == {2}, "version 2 everywhere")
        move_in(wrong, models)
        wait_for(lambda: server.log.read_text().count("a version 3 refused") == 2, "a refusal by each worker")
        load.wait_for_answers()
        ready = httpx.get(f"{server.url}/health/ready")
        assert ready.status_code == 200
        assert "golden" in ready.json()["degraded"][0]["reason"]
        shutil.rmtree(models / "a" / "2")
        wait_for(lambda: versions(server) == {1}, "version 1 again")
        load.wait_for_answers()
    assert set(load.seen) == {"200"}
    assert set(load.versions) == {1, 2}


def test_a_model_is_unloaded_and_loaded_in_all_workers_before_the_answer(
    tmp_path: Path, models: Path, server: Server
) -> None:
    move_in(write_bundle(tmp_path / "elsewhere", "b"), models)
    triton = InferenceServerClient(server.url.removeprefix("http://"))
    key = {"Authorization": f"Bearer {KEY}"}

    def statuses(name: str) -> set[int]:
        url = f"{server.url}/segment?model={name}"
        return {httpx.post(url, files={"image": picture()}).status_code for _ in range(12)}

    triton.load_model("b", headers=key)  # at once: nobody waits for the next look at the folder
    assert statuses("b") == {200}
    with under_load(server) as load:
        triton.unload_model("b", headers=key)
        assert statuses("b") == {503}
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        states = {entry["name"]: entry["state"] for entry in triton.get_model_repository_index()}
        assert states == {"a": "READY", "b": "UNAVAILABLE"}
        triton.load_model("b", headers=key)
        assert statuses("b") == {200}
        load.wait_for_answers()
    assert set(load.seen) == {"200"}
    with pytest.raises(InferenceServerException, match="no model 'c'"):
        triton.load_model("c", headers=key)
    with pytest.raises(InferenceServerException, match="no model 'c'"):
        triton.unload_model("c", headers=key)
    with pytest.raises(InferenceServerException, match="config cannot be given"):
        triton.load_model("b", headers=key, config="{}")
    with pytest.raises(InferenceServerException, match="key"):
        triton.unload_model("b")
