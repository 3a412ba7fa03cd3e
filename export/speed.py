"""A graph and a picture in, what the net takes for it on this machine out, for the model card."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from shutil import which
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from service.cores import usable_cores
from service.geometry import place
from service.graph import Graph
from service.manifest import InputSpec
from service.segmenter import prepare

RUNS = 7


@dataclass(frozen=True)
class Speed:
    """The median milliseconds of the net alone, for an input of that height and width, and on what."""

    ms: float
    height: int
    width: int
    cores: int
    processor: str

    @classmethod
    def of(cls, graph: Graph, spec: InputSpec, picture: NDArray[np.uint8]) -> Speed:
        """Of a graph that is open with all cores, for a picture, uint8 (H, W, 3), as the service prepares it."""
        placement = place(spec, picture.shape[0], picture.shape[1])[0]
        tensor = prepare(picture, placement, spec)
        graph(tensor)  # the first run allocates
        times = []
        for _ in range(RUNS):
            start = perf_counter()
            graph(tensor)
            times.append((perf_counter() - start) * 1e3)
        canvas = placement.y.canvas, placement.x.canvas
        return cls(round(median(times), 1), *canvas, usable_cores(), processor())


def processor() -> str:
    """What the processor calls itself, as far as the system tells."""
    lscpu = which("lscpu")
    told = ""
    if lscpu is not None:
        english = os.environ | {"LC_ALL": "C"}
        told = subprocess.run([lscpu], capture_output=True, text=True, check=False, env=english).stdout  # noqa: S603
    named = (line.split(":")[1].strip() for line in told.splitlines() if line.startswith("Model name"))
    return next(named, platform.processor() or platform.machine())
