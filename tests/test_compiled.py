"""Machine code is made once and kept, also for an image in which nothing can be written later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMAGE = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_LOCATOR_CLASSES": "service.compiled.BuiltIn"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of the service, without machine code."""
    shutil.copytree(ROOT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def warm(folder: Path, environment: dict[str, str]) -> Counter[str]:
    """Warm the copy up in a process of its own; how often machine code was found on disk ("loaded") and put there
    ("saved")."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-m", "service.warm"],
        cwd=folder,
        env=inherited | environment | {"NUMBA_DEBUG_CACHE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "machine code of all compiled functions after" in done.stdout
    return Counter(word for line in done.stdout.splitlines() for word in ("loaded", "saved") if f"data {word}" in line)


@pytest.mark.parametrize("environment", [{}, IMAGE], ids=["a machine", "an image"])
def test_what_was_compiled_once_is_found_again(folder: Path, environment: dict[str, str]) -> None:
    first = warm(folder, environment)
    assert first["saved"] >= 4
    assert warm(folder, environment) == {"loaded": 4}


def test_where_there_is_no_place_to_keep_it_it_is_compiled_all_the_same(folder: Path) -> None:
    (folder / "service" / "__pycache__").write_text("a file where the folder would be")
    (folder / "home").write_text("likewise")
    environment = {"HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert warm(folder, environment) == {}
