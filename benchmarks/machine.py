"""Nothing in, one line that says what was measured on out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version


def machine() -> str:
    """The processor, its cores, and the versions that matter."""
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout.splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("Model name")), platform.processor())
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numba", "pillow", "uvicorn", "fastapi"))
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}, {packages}"
