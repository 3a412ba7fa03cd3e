"""The Dockerfile is executed and what it makes is run: not as root, on a read-only root, without capabilities."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from numpy.typing import NDArray
from PIL import Image as Picture

from service.bundle import open_bundle
from tests.container.image import ROOT, Builder, Container, Image

MODEL = "camvid-enet"
GOLDEN = (ROOT / "export" / "golden.png").read_bytes()
READY_SECONDS = 60

WRITE = """
from pathlib import Path
for folder in ("/tmp", "/", "/opt/segserve", "/models", "/etc", "/var/tmp", "/run", "/home", "/dev", "/sys"):
    try:
        Path(folder, "file").write_text("x")
    except OSError:
        continue
    print(folder)
"""

FIND = """
from importlib.util import find_spec
print([name for name in ("fastapi", "torch", "onnx", "onnxscript", "pip", "setuptools") if find_spec(name)])
"""


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    with TemporaryDirectory() as folder:
        yield Builder(Path(folder))


@pytest.fixture(scope="module")
def image(builder: Builder) -> Image:
    """The image with the shipped model."""
    return builder.build(MODELS=MODEL, VERSION="1.2.3", REVISION="abc")


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container of it that is ready."""
    with image.running(tmp_path_factory.mktemp("container") / "log") as container:
        wait_for(container, "ready")
        yield container


def wait_for(container: Container, state: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        try:
            if httpx.get(f"{container.url}/health/{state}").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the container is not {state}:\n{container.log.read_text()}")


def segment(container: Container, output: str) -> httpx.Response:
    answer = httpx.post(f"{container.url}/segment", params={"output": output}, files={"image": GOLDEN})
    assert answer.status_code == 200, answer.text
    return answer


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Picture.open(BytesIO(data)) as picture:
        return np.array(picture)


def test_the_health_check_passes_once_the_container_is_ready(image: Image, tmp_path: Path) -> None:
    with image.running(tmp_path / "log") as container:
        first = container.health()
        wait_for(container, "ready")
        then = container.health()
    assert (first.code, first.output.count("\n")) == (1, 1)
    assert (then.code, then.output) == (0, "")


def test_a_picture_gets_the_mask_that_the_checkouts_own_code_gives(container: Container) -> None:
    mask, picture = pixels(segment(container, "mask").content), pixels(GOLDEN)
    own = open_bundle(ROOT / "models" / MODEL / "2", providers=("cpu",)).segmenter(picture).mask
    assert mask.shape == own.shape == picture.shape[:2]
    assert np.mean(mask == own) >= 0.9999
    assert len(np.unique(mask)) >= 3


def test_json_and_an_overlay_answer_too(container: Container) -> None:
    assert segment(container, "json").json()["model"] == {"name": MODEL, "version": 2, "variant": "fp32"}
    overlay, picture = pixels(segment(container, "overlay").content), pixels(GOLDEN)
    assert overlay.shape == picture.shape
    assert np.any(overlay != picture)


def test_it_runs_as_another_user_than_root_without_any_capability(container: Container) -> None:
    lines = Path(f"/proc/{container.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1"


def test_nothing_can_be_written_but_in_tmp(image: Image) -> None:
    assert image.run("python3", "-c", WRITE).output == "/tmp\n"


def test_its_log_holds_no_warning_and_names_the_licence(container: Container) -> None:
    log = container.log.read_text()
    assert "licence: LicenseRef-CamVid-research-only" in log
    assert "warn" not in log.lower()
    assert "telemetry" not in log.lower()


def test_it_writes_nothing_but_results_and_those_for_itself_alone(container: Container) -> None:
    (folder,) = Path(f"/proc/{container.pid}/root/tmp").iterdir()
    assert folder.name.startswith("segserve-")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {inner.name for inner in folder.iterdir()} == {"results", "state", "metrics"}
    assert {file.suffix for file in (folder / "results").iterdir()} <= {".result"}


def test_its_bill_of_materials_lists_what_is_in_it(image: Image) -> None:
    text = image.run("cat", "/opt/segserve/sbom.cdx.json").output
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["name"] == "segserve"
    parts = {part["name"]: part for part in bill["components"]}
    assert {"python3", "libexpat1", "numpy", "onnxruntime", MODEL} <= set(parts)
    assert parts[MODEL]["licenses"] == [{"license": {"name": "LicenseRef-CamVid-research-only"}}]
    installed = image.run("dpkg-query", "--show", "--showformat", "${Package}\\n").output.split()
    assert {name for name, part in parts.items() if part.get("purl", "").startswith("pkg:deb/")} == set(installed)


def test_it_holds_what_serves_and_neither_torch_onnx_nor_build_tools(image: Image) -> None:
    assert image.run("python3", "-c", FIND).output == "['fastapi']\n"
    for name in ("torch", "onnx"):
        done = image.run("python3", "-c", f"import {name}")
        assert (done.code, f"No module named '{name}'" in done.output) == (1, True)


def test_every_module_of_the_project_is_compiled(image: Image) -> None:
    packages = next(image.root.glob("opt/segserve/lib/python3*/site-packages"))
    modules = [path for room in ("segserve", "service") for path in (packages / room).rglob("*.py")]
    compiled = {path.name.split(".")[0] for path in packages.rglob("*.pyc")}
    assert modules
    assert {path.stem for path in modules} <= compiled


def test_machine_code_is_found_on_the_read_only_root_and_nothing_is_compiled(image: Image) -> None:
    done = image.run("/opt/segserve/bin/python", "-m", "service.warm", settings={"NUMBA_DEBUG_CACHE": "1"})
    assert done.code == 0, done.output
    assert "data loaded from" in done.output
    assert "data saved to" not in done.output


def test_a_model_comes_with_its_licence_and_without_its_training_weights(image: Image) -> None:
    files = {path.name for path in (image.root / "models" / MODEL / "2").iterdir()}
    assert files == {"LICENSE", "README.md", "golden.npz", "model.json", "model.onnx"}
    assert not (image.root / "models" / "repository.json").exists()  # the default that it names is not in the image


def test_nothing_of_the_build_stays(image: Image) -> None:
    for path in ("build", "source", "choose_models.py", "run/secrets", "etc/ssl", "root/.cache"):
        assert not (image.root / path).exists(), path
    for folder in ("var/lib/apt/lists", "var/cache/apt", "tmp"):
        assert list((image.root / folder).iterdir()) == [], folder


def test_its_labels_say_what_it_is(image: Image) -> None:
    labels = {name.rpartition(".")[2]: value for name, value in image.config["Labels"].items()}
    assert labels["title"] == "segserve"
    assert (labels["licenses"], labels["version"], labels["revision"]) == ("Apache-2.0", "1.2.3", "abc")
    assert list(image.config["ExposedPorts"]) == ["8000/tcp"]


def test_the_stop_signal_ends_it_with_exit_code_0(image: Image, tmp_path: Path) -> None:
    with image.running(tmp_path / "log") as container:
        wait_for(container, "ready")
        assert container.stop() == 0
    assert "Application shutdown complete" in container.log.read_text()


def test_the_default_build_holds_what_is_free_for_any_use(builder: Builder) -> None:
    image = builder.build()
    licences = {path: json.loads(path.read_text())["license"] for path in image.root.glob("models/*/*/model.json")}
    assert [path.parent.parent.name for path in licences] == ["nuclei-unet"]
    assert set(licences.values()) == {"CC0-1.0"}


def test_without_models_it_is_live_and_says_what_it_lacks(builder: Builder, tmp_path: Path) -> None:
    image = builder.build(MODELS="")
    assert list((image.root / "models").iterdir()) == []
    with image.running(tmp_path / "log") as container:
        wait_for(container, "startup")
        assert httpx.get(f"{container.url}/health/live").status_code == 200
        ready = httpx.get(f"{container.url}/health/ready")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["the folder /models holds no models (<name>/<version>/model.json)"]
        health = container.health()
    assert health.code == 1
    assert "the folder /models holds no models" in health.output
    assert "Traceback" not in health.output


def test_an_unknown_model_fails_the_build_and_is_named(builder: Builder) -> None:
    done = builder.attempt(MODELS="camvid-enet nosuch")
    assert done.code != 0
    assert "MODELS: there is no model nosuch in models/; there are: camvid-enet" in done.output
