"""The environment that users of the service get: a real one, with the base dependencies only.

It is made from the package index, so this is no part of the suite: `make test-environment`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest

from tests.server import running

pytestmark = pytest.mark.environment

ROOT = Path(__file__).parent.parent
LARGE = 20 * 2**20


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh virtual environment into which segserve was installed."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    # From a copy: building in the checkout would leave files there.
    source = folder.parent / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "models"))
    interpreter = folder / "bin" / "python"
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", source], check=True, timeout=500)
    return interpreter


def bytes_of(path: Path) -> int:
    """What the files of a folder, or a file, take on disk."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def mask(url: str) -> bytes:
    picture = (ROOT / "export" / "golden.png").read_bytes()
    answer = httpx.post(f"{url}/segment?output=mask", files={"image": picture})
    assert answer.status_code == 200, answer.text
    return answer.content


def test_it_serves_the_same_masks_as_the_development_environment(python: Path, tmp_path: Path) -> None:
    with running(ROOT / "models", tmp_path / "log", python=python) as server:
        served = mask(server.url)
    with running(ROOT / "models", tmp_path / "log") as server:
        assert served == mask(server.url)


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript", "matplotlib", "pyarrow"])
def test_it_holds_nothing_that_only_training_export_and_tests_need(package: str, python: Path) -> None:
    done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("words", [("segserve-train",), ("segserve-export", "net"), ("segserve-export", "adopt")])
def test_its_tools_say_how_to_install_what_they_need(words: tuple[str, ...], python: Path) -> None:
    command = [str(python.parent / words[0]), *words[1:], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "segserve[export]" in done.stderr


def test_each_of_its_large_parts_is_justified(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packages,) = (python.parent.parent / "lib").glob("python*/site-packages")
    sizes = {part.name: bytes_of(part) for part in packages.iterdir()}
    justified = (ROOT / "docs" / "dependencies.md").read_text().split("## Size")[1]
    named = set(re.findall(r"^\| `([\w.]+)`", justified, re.MULTILINE))
    with capsys.disabled():
        total = bytes_of(python.parent.parent)
        sys.stdout.write(f"\n{total / 2**20:8.1f} MiB in all, Python {sys.version.split()[0]}\n")
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:8]:
            sys.stdout.write(f"{size / 2**20:8.1f} MiB {name}\n")
    assert {name for name, size in sizes.items() if size > LARGE} <= named
