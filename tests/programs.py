"""The name of a system program in, its path out; where it is absent, the test skips, and says so.

Under `SEGSERVE_TEST_STRICT=1`, which `.ci/run` sets after installing what the tests need, an absent program fails the
test instead: nothing is left out unnoticed.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

STRICT = "SEGSERVE_TEST_STRICT"


def program(name: str, package: str) -> str:
    """The path of the program `name`, which Debian's `package` holds; skips or fails the test where it is absent."""
    path = shutil.which(name)
    if path is None:
        absent(f"{name} is not installed (Debian, Ubuntu: apt install {package})")
    return path


def absent(reason: str) -> NoReturn:
    """End the test because something outside the project is missing: skipped, or failed where nothing may be."""
    if os.environ.get(STRICT) == "1":
        pytest.fail(f"{reason}, and {STRICT}=1 allows no skipping", pytrace=False)
    pytest.skip(reason)
