"""Nothing in, one line that says what was measured on out."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

from export.speed import processor


def machine() -> str:
    """The processor, its cores, and the versions that matter."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numba", "pillow", "uvicorn", "fastapi"))
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}, {packages}"
