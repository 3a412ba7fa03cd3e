"""A reduced graph in, how fast it is and how far its answer may change on another machine out."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.geometry import place
from service.graph import Graph
from service.manifest import InputSpec, Manifest
from service.segmenter import Segmenter, prepare

ROUNDS = 7
STRICT, SLACK = 0.999, 0.001


def speedup(reference: Graph, graph: Graph, spec: InputSpec, picture: NDArray[np.uint8]) -> float:
    """How many times as fast as the reference the graph answers a picture: the median of interleaved rounds."""
    tensor = prepare(picture, place(spec, picture.shape[0], picture.shape[1])[0], spec)

    def seconds(one: Graph) -> float:
        start = perf_counter()
        one(tensor)
        return perf_counter() - start

    seconds(reference), seconds(graph)
    return median(seconds(reference) / seconds(graph) for _ in range(ROUNDS))


class _Unfused(Graph):
    """A graph whose operations run one by one in float, as it is written: none joined to an int8 kernel."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        super().__init__(path, manifest, ("cpu",))
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def golden_min(graph: Graph, path: Path, manifest: Manifest, picture: NDArray[np.uint8]) -> float:
    """What another machine has to reach: twice the pixels by which this one's kernels differ from the same graph run
    operation by operation in float, and a little more. A CPU whose kernels saturate differs by far more."""
    masks = [Segmenter(manifest, one)(picture).coarse for one in (graph, _Unfused(path, manifest))]
    differing = float((masks[0] != masks[1]).mean())
    return math.floor(1e4 * max(0.0, min(STRICT, 1 - 2 * differing - SLACK))) / 1e4
