"""An Inference and a model in, named tensors out: raw ones through the graph, pictures through the whole service."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bundle import Model
from service.cost import Cost, inferring, segmenting
from service.errors import PictureTooLarge, TensorError
from service.graph import Tensor
from service.oip import Encoded, Inference, write
from service.settings import Settings
from service.task import look, segmented, work_by
from service.tensors import BYTES, Input, datatype_of
from service.turn import Turn
from service.visit import Segmented, Work

FEW = 16
"""Pictures of a request that are looked at to say how much work all of them are."""

PICTURE = "picture"
MASK = "mask"

TYPES: Mapping[str, str] = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(uint8)": "UINT8",
    "tensor(int8)": "INT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
}
"""onnxruntime's words for element types, and the protocol's."""


class _Found(NamedTuple):
    """Tensors by name, the milliseconds that each step took, and what was seen in the pictures, if there were any."""

    tensors: Mapping[str, NDArray[np.generic]]
    steps: Mapping[str, float]
    pictures: tuple[Segmented, ...] = ()


@dataclass(frozen=True)
class Infer:
    """One request's way through the house."""

    asked: Inference
    model: Model
    settings: Settings
    submitted: float

    @property
    def cost(self) -> Cost:
        """What it is estimated to take; of many pictures, the first few stand for all."""
        given = self.asked.inputs[0]
        if given.datatype != BYTES:
            return inferring(math.prod(given.shape) // self.model.manifest.input.depth, self.model)
        few = [segmenting(data, self.model, "json", self.settings, store=False) for data in given.elements[:FEW]]
        mean = sum(cost.milliseconds for cost in few) / max(len(few), 1)
        return replace(few[0], milliseconds=mean * len(given.elements)) if few else inferring(0, self.model)

    def __call__(self, turn: Turn) -> tuple[Encoded, Work]:
        """The answer's body, and what was done for it.

        Raises TensorError, a PictureError, BundleError or DeadlineExceeded.
        """
        begun = perf_counter()
        given = self.asked.inputs[0]
        if len(self.asked.inputs) > 1:
            names = ", ".join(tensor.name for tensor in self.asked.inputs)
            raise TensorError(f"{self.model.name} takes one input, not {len(self.asked.inputs)}: {names}")
        there = {MASK} if given.datatype == BYTES else set(self.model.graph.outputs)
        strange = [name for name in self.asked.outputs if name not in there]
        if strange:
            raise TensorError(
                f"from {given.datatype}, {self.model.name} gives {', '.join(sorted(there))}, not {', '.join(strange)}"
            )
        found = self._masks(given, turn) if given.datatype == BYTES else self._run(given, turn)
        start = perf_counter()
        wanted = self.asked.outputs or tuple(found.tensors)
        head = {"model_name": self.model.name, "model_version": str(self.model.version)}
        encoded = write(head, {name: found.tensors[name] for name in wanted}, self.asked, turn.stop.check)
        steps = {"queue": (begun - self.submitted) * 1e3, **found.steps, "encode": (perf_counter() - start) * 1e3}
        return encoded, work_by(self.model.snapshot, self.submitted, steps, found.pictures)

    def _run(self, given: Input, turn: Turn) -> _Found:
        tensor = _checked(given, self.model, self.settings.max_pixels)
        start = perf_counter()
        return _Found(self.model.run(tensor, turn), {"infer": (perf_counter() - start) * 1e3})

    def _masks(self, given: Input, turn: Turn) -> _Found:
        """The class mask of each picture."""
        if not given.elements:
            raise TensorError(f"the input {given.name!r} holds no picture")
        masks: list[NDArray[np.uint8]] = []
        pictures: list[Segmented] = []
        steps: dict[str, float] = {}
        for data in given.elements:
            turn.stop.check()
            seen = look(data, self.model, self.settings, turn, whole=False, confidence=False)
            mask = seen.segmentation.mask
            if masks and mask.shape != masks[0].shape:
                raise TensorError(
                    f"the pictures have different sizes, {_size(masks[0])} and {_size(mask)}: send them one by one"
                )
            masks.append(mask)
            _check_pixels(mask.size * len(given.elements), self.settings.max_pixels)
            pictures.append(segmented(seen.segmentation, self.model.snapshot))
            steps = {step: steps.get(step, 0.0) + milliseconds for step, milliseconds in seen.steps.items()}
        return _Found({MASK: np.stack(masks)}, steps, tuple(pictures))


def metadata(model: Model, versions: list[int]) -> dict[str, Any]:
    """What the protocol says of a model: its tensors, with -1 for sides that are free."""
    spec = model.manifest.input
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": spec.name, "datatype": _datatype(model), "shape": _shape(model)}],
        "outputs": [
            {"name": name, "datatype": TYPES.get(kind, kind), "shape": [_side(side) for side in shape]}
            for name, (kind, shape) in model.graph.outputs.items()
        ],
        "parameters": {PICTURE: f"or BYTES [n], image files; gives {MASK}, UINT8 [n, height, width]"},
    }


def _checked(given: Input, model: Model, max_pixels: int) -> Tensor:
    """The tensor, if it is one that the model takes."""
    name, datatype, shape = model.manifest.input.name, _datatype(model), _shape(model)
    fits = len(given.shape) == 4 and all(want in (-1, have) for want, have in zip(shape, given.shape, strict=True))
    if given.name != name or given.datatype != datatype or not fits or 0 in given.shape or given.array is None:
        raise TensorError(
            f"{model.name} takes {name!r}, {datatype} {shape} (-1: any), or BYTES with image files, "
            f"not {given.name!r}, {given.datatype} {list(given.shape)}"
        )
    spec = model.manifest.input
    sides = given.shape[1:3] if spec.layout == "NHWC" else given.shape[2:4]
    if any(side % spec.multiple_of for side in sides):
        raise TensorError(f"{model.name} takes sides that are multiples of {spec.multiple_of}, not {list(sides)}")
    # Of a net without a size of its own, max_pixels is before the padding to multiples.
    least = math.prod(side - spec.multiple_of + 1 for side in sides)
    if spec.fit == "native" and least > spec.max_pixels:
        raise TensorError(f"{model.name} takes pictures of about {spec.max_pixels} pixels at most, not {list(sides)}")
    _check_pixels(given.shape[0] * math.prod(sides), max_pixels)
    tensor: Tensor = np.asarray(given.array)
    return tensor


def _check_pixels(pixels: int, limit: int) -> None:
    if pixels > limit:
        raise PictureTooLarge(
            f"the request has {pixels} pixels in all, the limit is {limit}: send fewer or smaller pictures",
            limit=limit,
            actual=pixels,
        )


def _datatype(model: Model) -> str:
    return datatype_of(np.dtype(model.manifest.input.dtype))


def _shape(model: Model) -> list[int]:
    """The input's axes; where the graph takes any side but the model does not, the model's."""
    spec = model.manifest.input
    height, width = spec.height or -1, spec.width or -1
    sides = [height, width, spec.depth] if spec.layout == "NHWC" else [spec.depth, height, width]
    return [_side(model.graph.shape[0]), *sides]


def _side(side: int | str | None) -> int:
    return side if isinstance(side, int) else -1


def _size(mask: NDArray[np.uint8]) -> str:
    return f"{mask.shape[1]}x{mask.shape[0]}"
