"""schemathesis, with every check that it has, finds nothing to say about a server on its default settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import write_bundle
from tests.server import Server, running

ROOT = Path(__file__).parent.parent

EXAMPLES, SEED = 8, 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("schemathesis")
    write_bundle(folder / "models", classes=("road", "car", "sky"))  # those of the document's examples
    with running(folder / "models", folder / "log") as started:
        yield started


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    command: list[str | Path] = [
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", ROOT / "schemathesis.toml", "run"),
        *(f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(EXAMPLES), "--seed", str(SEED)),
        *("--phases", "examples,coverage,fuzzing,stateful", "--no-color"),
    ]
    # The current folder is where it keeps what it found; the hooks are looked for from the project's.
    found = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout[-10_000:] + found.stderr
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
