"""A tensor in, the net's answer for one picture out: an ONNX file opened in onnxruntime and held to its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.cores import cpus_for
from service.errors import BundleError, DeadlineExceeded
from service.manifest import InputSpec, Manifest
from service.onnxfile import axis_names, has_external_data
from service.settings import PROVIDERS
from service.turn import Stop

DTYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}

Tensor = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What a net says about one picture: scores float32 (C, h, w), class ids uint8 (h, w), or both."""

    scores: NDArray[np.float32] | None
    labels: NDArray[np.uint8] | None = None


class Net(Protocol):
    """Anything that answers a prepared tensor: an ONNX graph, or a PyTorch net at training and export."""

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """`tensor` is one picture as `InputSpec` describes it, with a leading batch axis of 1."""


class Graph:
    """An ONNX file in an onnxruntime session; may be called by several threads at once."""

    def __init__(
        self, path: Path, manifest: Manifest, providers: Sequence[str], threads: int = 0, *, any_size: bool = False
    ) -> None:
        """Open `path` with the execution `providers` ("cpu", "cuda", ...); `threads` 0 leaves it to onnxruntime.

        With `any_size` it may be asked at every size that the file allows, not only at the manifest's, and is slower.

        Raises BundleError where the file cannot be opened, a provider is not in use, or the graph is not what the
        manifest says.
        """
        self._session = _open(path, providers, threads, manifest.input, any_size)
        self._output = manifest.output
        self._classes = len(manifest.classes)
        self._path = path
        self._input = manifest.input.name
        self._shape = self._check_input(manifest.input)
        outputs = {output.name: output for output in self._session.get_outputs()}
        self._names = [name for name in (manifest.output.logits, manifest.output.labels) if name is not None]
        for name in self._names:
            if name not in outputs:
                raise BundleError(f"{path}: the graph has no output {name!r}, only {', '.join(outputs)}")
        if manifest.output.logits is not None:
            self._check_scores(outputs[manifest.output.logits].shape, manifest)

    @property
    def shape(self) -> list[int | str | None]:
        """The input's axes: a number where one is fixed, else its name."""
        return list(self._shape)

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """Run the net on one picture. Raises DeadlineExceeded where `stop` was set before it ended."""
        return self.batch([tensor], stop)[0]

    def batch(self, tensors: Sequence[Tensor], stop: Stop | None = None) -> list[Answer]:
        """Run the net on pictures of one size at once; a larger fixed batch is filled up with black ones.

        Raises DeadlineExceeded where `stop` was set before it ended.
        """
        batch = self._shape[0] if isinstance(self._shape[0], int) else len(tensors)
        filling = [np.zeros_like(tensors[0])] * (batch - len(tensors))
        found = self.run(np.concatenate([*tensors, *filling]) if batch > 1 else tensors[0], stop)
        return [self._answer(found, index) for index in range(len(tensors))]

    def run(self, tensor: Tensor, stop: Stop | None = None) -> dict[str, NDArray[np.generic]]:
        """The outputs that the manifest names, by name, as the graph gives them for a batch.

        Raises DeadlineExceeded where `stop` was set before it ended.
        """
        try:
            results = self._session.run(self._names, {self._input: tensor}, stop and stop.options)
        except Exception:
            if stop is not None and stop.is_set:
                raise DeadlineExceeded("the deadline passed while the net was running") from None
            raise
        return {name: np.asarray(result) for name, result in zip(self._names, results, strict=True)}

    @property
    def outputs(self) -> dict[str, tuple[str, list[int | str | None]]]:
        """The outputs that the manifest names: onnxruntime's word for their type, and their axes as in `shape`."""
        known = {output.name: output for output in self._session.get_outputs()}
        return {name: (known[name].type, list(known[name].shape)) for name in self._names}

    def _answer(self, found: Mapping[str, NDArray[np.generic]], index: int) -> Answer:
        """What the outputs say about one picture of the batch."""
        scores = labels = None
        if self._output.logits is not None:
            scores = self._scores(found[self._output.logits][index])
        if self._output.labels is not None:
            labels = self._labels(found[self._output.labels][index])
        return Answer(scores, labels)

    def _scores(self, scores: NDArray[np.generic]) -> NDArray[np.float32]:
        """One picture's scores as float32 (C, h, w)."""
        if scores.ndim != 3:
            raise BundleError(
                f"{self._path}: {self._output.logits!r} has {scores.ndim + 1} axes; scores have 4: batch, class, "
                "height and width"
            )
        planes = scores.transpose(2, 0, 1) if self._output.layout == "NHWC" else scores
        return np.ascontiguousarray(planes, np.float32)

    def _labels(self, labels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """One picture's class ids as uint8 (h, w)."""
        if labels.ndim == 3:
            labels = labels[..., 0] if self._output.layout == "NHWC" else labels[0]
        if labels.ndim != 2 or labels.min() < 0 or labels.max() >= self._classes:
            raise BundleError(
                f"{self._path}: {self._output.labels!r} must be class ids from 0 to {self._classes - 1} (batch, "
                f"height, width), not {labels.shape} from {labels.min()} to {labels.max()}"
            )
        return labels.astype(np.uint8)

    def _check_scores(self, shape: list[int | str | None], manifest: Manifest) -> None:
        """Compare the scores' shape, as far as the graph states it, with the manifest."""
        axis = 3 if manifest.output.layout == "NHWC" else 1
        if len(shape) != 4 or (isinstance(shape[axis], int) and shape[axis] not in manifest.score_channels):
            raise BundleError(
                f"{self._path}: the output {manifest.output.logits!r} has the shape {shape}; {manifest.output.layout} "
                f"scores of {self._classes} classes are expected"
            )

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
        free = shape[1:3] if spec.layout == "NHWC" else shape[2:4]
        if not fits or (spec.fit == "native" and any(isinstance(side, int) for side in free)):
            raise BundleError(
                f"{self._path}: the input {spec.name!r} has the shape {shape}, the manifest says {wanted}"
            )
        return shape


def _open(path: Path, providers: Sequence[str], threads: int, spec: InputSpec, any_size: bool) -> ort.InferenceSession:
    wanted = [PROVIDERS[provider] for provider in providers]
    missing = [name for name in wanted if name not in ort.get_available_providers()]
    if missing:
        available = ", ".join(ort.get_available_providers())
        raise BundleError(f"{path}: {', '.join(missing)} is not in this build of onnxruntime (it has {available})")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # After a run its threads would wait for the next one in a loop that keeps a core busy for 50 ms and more, while the
    # mask is still to be made, and others want to use that core.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if others := cpus_for(threads)[1:]:  # the caller's own is not among its threads
        affinities = ";".join(str(cpu + 1) for cpu in others)
        options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
    if spec.fit == "native":
        # The arena and the memory patterns grow with every new size of picture, and are never given back.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    # What goes wrong is raised as an exception; onnxruntime need not print it as well.
    options.log_severity_level = 4
    try:
        outside = has_external_data(path)
        for name, side in () if any_size else _fixed_sides(path, spec).items():
            options.add_free_dimension_override_by_name(name, side)
        session = None if outside else ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:
        raise BundleError(f"{path}: cannot be opened: {error}") from error
    if session is None:
        raise BundleError(f"{path}: keeps weights in other files; save the model as one file")
    if session.get_providers()[0] != wanted[0]:
        raise BundleError(f"{path}: {wanted[0]} was asked for, but {session.get_providers()[0]} is in use")
    return session


def _fixed_sides(path: Path, spec: InputSpec) -> dict[str, int]:
    """The sides that the graph leaves open, by the graph's names, but the manifest does not: where onnxruntime knows
    them, it plans memory and layouts once, and ENet runs 1.1 to 1.15 times as fast."""
    names = axis_names(path, spec.name)
    sides = (None, spec.height, spec.width, None) if spec.layout == "NHWC" else (None, None, spec.height, spec.width)
    if len(names) != len(sides):
        return {}
    # A name that stands for two axes says nothing of either.
    return {name: side for name, side in zip(names, sides, strict=True) if name and side and names.count(name) == 1}
