"""How every test runs: on one core, so that tests beside each other do not spin while they wait for cores."""

from __future__ import annotations

import os


def pytest_configure() -> None:
    """Before torch is imported here, or in a process that a test starts."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
