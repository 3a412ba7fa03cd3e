"""A tensor in, the net's answer for one picture out: an ONNX file opened in onnxruntime and held to its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import BundleError, DeadlineExceeded
from service.manifest import InputSpec, Manifest
from service.settings import PROVIDERS

DTYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}

Tensor = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What a net says about one picture: scores float32 (C, h, w), class ids uint8 (h, w), or both."""

    scores: NDArray[np.float32] | None
    labels: NDArray[np.uint8] | None = None


class Stop:
    """A request's deadline as a running net sees it: `set` ends the run."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def set(self) -> None:
        """End the run that uses this stop, and any that begins with it."""
        self.options.terminate = True

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return bool(self.options.terminate)


class Net(Protocol):
    """Anything that answers a prepared tensor: an ONNX graph, or a PyTorch net at training and export."""

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """`tensor` is one picture as `InputSpec` describes it, with a leading batch axis of 1."""


class Graph:
    """An ONNX file in an onnxruntime session; may be called by several threads at once."""

    def __init__(self, path: Path, manifest: Manifest, providers: Sequence[str], threads: int = 0) -> None:
        """Open `path` with the execution `providers` ("cpu", "cuda", ...); `threads` 0 leaves it to onnxruntime.

        Raises BundleError where the file cannot be opened, a provider is not in use, or the graph is not what the
        manifest says.
        """
        self._session = _open(path, providers, threads)
        self._output = manifest.output
        self._path = path
        self._input = manifest.input.name
        shape = self._check_input(manifest.input)
        self._batch = shape[0] if isinstance(shape[0], int) else 1
        outputs = {output.name: output for output in self._session.get_outputs()}
        self._names = [name for name in (manifest.output.logits, manifest.output.labels) if name is not None]
        for name in self._names:
            if name not in outputs:
                raise BundleError(f"{path}: the graph has no output {name!r}, only {', '.join(outputs)}")

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """Run the net. Raises DeadlineExceeded where `stop` was set before it ended."""
        if self._batch > 1:
            tensor = np.concatenate([tensor, np.zeros((self._batch - 1, *tensor.shape[1:]), tensor.dtype)])
        try:
            results = self._session.run(self._names, {self._input: tensor}, stop and stop.options)
        except Exception:
            if stop is not None and stop.is_set:
                raise DeadlineExceeded("the deadline passed while the net was running") from None
            raise
        found = dict(zip(self._names, results, strict=True))
        scores = labels = None
        if self._output.logits is not None:
            scores = np.asarray(found[self._output.logits])[0].astype(np.float32, copy=False)
            scores = np.ascontiguousarray(scores.transpose(2, 0, 1)) if self._output.layout == "NHWC" else scores
        if self._output.labels is not None:
            labels = np.asarray(found[self._output.labels])[0].squeeze().astype(np.uint8)
        return Answer(scores, labels)

    def _check_input(self, spec: InputSpec) -> list[int | str | None]:
        """The graph's input shape, after comparing it with the manifest."""
        inputs = {node.name: node for node in self._session.get_inputs()}
        if list(inputs) != [spec.name]:
            raise BundleError(f"{self._path}: the graph's inputs are {list(inputs)}, the manifest names {spec.name!r}")
        node = inputs[spec.name]
        if node.type != DTYPES[spec.dtype]:
            raise BundleError(f"{self._path}: the input {spec.name!r} is {node.type}, the manifest says {spec.dtype}")
        sides = (spec.height, spec.width)
        wanted = [None, *sides, spec.depth] if spec.layout == "NHWC" else [None, spec.depth, *sides]
        shape: list[int | str | None] = node.shape
        fits = len(shape) == 4 and all(
            not (isinstance(have, int) and isinstance(want, int)) or have == want
            for have, want in zip(shape, wanted, strict=True)
        )
        static = any(isinstance(side, int) for side in shape[1:] if side != spec.depth)
        if not fits or (spec.fit == "native" and static):
            raise BundleError(
                f"{self._path}: the input {spec.name!r} has the shape {shape}, the manifest says {wanted}"
            )
        return shape


def _open(path: Path, providers: Sequence[str], threads: int) -> ort.InferenceSession:
    wanted = [PROVIDERS[provider] for provider in providers]
    missing = [name for name in wanted if name not in ort.get_available_providers()]
    if missing:
        available = ", ".join(ort.get_available_providers())
        raise BundleError(f"{path}: {', '.join(missing)} is not in this build of onnxruntime (it has {available})")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:
        raise BundleError(f"{path}: onnxruntime cannot open it: {error}") from error
    if session.get_providers()[0] != wanted[0]:
        raise BundleError(f"{path}: {wanted[0]} was asked for, but {session.get_providers()[0]} is in use")
    return session
