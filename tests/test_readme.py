"""README.md as a newcomer runs it: every block, in order, in a folder like a fresh checkout, with real servers.

The lines run as they stand, but for the port, the number of scenes and of epochs (2 instead of 20), and what sets the
project up, which has happened where this test runs and is only asked of make.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.server import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SET_UP = ("make test", "make tools")
SERVERS = ("make serve", ".venv/bin/segserve serve")


@dataclass
class Newcomer:
    """Somebody with a checkout in `home`, who types what README says."""

    home: Path
    port: int
    server: subprocess.Popen[bytes] | None = None
    printed: dict[str, str] = field(default_factory=dict)

    def types(self, line: str) -> None:
        """Run one command line; what it printed is kept in `printed`."""
        if line.startswith(SET_UP):
            line = line.replace("make", "make --dry-run", 1)
        if line.startswith(SERVERS):
            self._serves(line)
            return
        line = re.sub(r"--epochs \d+", "--epochs 2", line.replace("localhost:8000", f"localhost:{self.port}"))
        line = re.sub(r"(segserve-train scenes \S+)", r"\1 --train 40 --val 10", line)
        line = re.sub(r"\bcurl\b", "curl --silent --show-error --fail-with-body", line)
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.home, env=self._environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        self.printed[line] = done.stdout

    def leaves(self) -> None:
        """Stop the server."""
        if self.server:
            self.server.terminate()
            self.server.wait(30)
            self.server = None

    def _serves(self, line: str) -> None:
        self.leaves()
        with (self.home / "server.log").open("w") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.home, env=self._environment(), stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while time.monotonic() < end and self.server.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"{line} did not become ready:\n{(self.home / 'server.log').read_text()}")

    def _environment(self) -> dict[str, str]:
        return os.environ | {"SEGSERVE_PORT": str(self.port)}


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    environment = Path(sys.prefix)
    if not (environment / ".serve").exists():
        pytest.skip(f"{environment} was not made by make: its commands would install into it")
    for name in ("Makefile", "export"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(environment)
    # What is installed counts as up to date, whatever the time of the checkout's own file.
    (tmp_path / "pyproject.toml").touch()
    os.utime(tmp_path / "pyproject.toml", (0, 0))
    (tmp_path / "models").mkdir()
    for model in (ROOT / "models").iterdir():
        (tmp_path / "models" / model.name).symlink_to(model)
    with Image.open(ROOT / "export" / "golden.png") as picture:
        picture.convert("RGB").save(tmp_path / "photo.jpg")
    someone = Newcomer(tmp_path, free_port())
    yield someone
    someone.leaves()


def blocks() -> list[tuple[str, str]]:
    """Language and text of every code block of README."""
    return re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def lines(block: str) -> list[str]:
    """A shell block's commands, continued lines joined, comments left out."""
    joined = block.replace("\\\n", " ").splitlines()
    return [command for line in joined if (command := re.sub(r"\s+#.*", "", line).strip())]


@pytest.mark.long
def test_a_newcomer_who_types_what_the_readme_says_gets_what_it_promises(newcomer: Newcomer) -> None:
    for language, block in blocks():
        if language == "json":
            (newcomer.home / "classes.json").write_text(json.dumps(json.loads(block)))
        elif language == "python":
            subprocess.run([sys.executable, "-c", block], cwd=newcomer.home, check=True)
        else:
            assert language == "sh"
            for line in lines(block):
                newcomer.types(line)
    home = newcomer.home
    for name, mode in (("overlay.jpg", "RGB"), ("color.png", "P"), ("mask.png", "L")):
        with Image.open(home / name) as answer:
            assert (answer.mode, answer.size) == (mode, (480, 360))
    answers = [json.loads(text) for line, text in newcomer.printed.items() if line.endswith(("segment'", "models'"))]
    assert [spec["name"] for spec in answers[0]["classes"]][:1]
    assert answers[1]["models"][0]["name"] == "camvid-enet"
    assert re.search(r"mIoU +0\.\d+", "".join(newcomer.printed.values()))
    for model in ("runs/models/scenes-unet", "models/streets"):
        assert (home / model / "1" / "model.json").is_file()
