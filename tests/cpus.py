"""Nothing in, the CPUs that the tests may use out, and what skips a test where there is no choice among them."""

from __future__ import annotations

import os

import pytest

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

on_several_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="there are no two CPUs to choose from")
