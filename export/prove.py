"""A PyTorch net and its ONNX graph in, how far they agree on pictures out: the graph runs in the service's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from export.tracing import ServedNet
from service.geometry import place
from service.graph import Answer, Graph, Stop, Tensor
from service.manifest import Check, InputSpec
from service.segmenter import prepare

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


class TorchNet:
    """A served PyTorch net as the service sees a net: `tensor` is uint8 (1, h, w, 3)."""

    def __init__(self, net: ServedNet) -> None:
        self._net = net

    @torch.inference_mode()
    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """Logits float32 (classes, h, w)."""
        return Answer(self._net(torch.tensor(tensor))[0].numpy())


@dataclass(frozen=True)
class Proof:
    """How far two nets agreed: pixels compared at the nets' resolution, pixels with the same class, and the largest
    difference of a logit."""

    pixels: int
    agreeing: int
    max_abs_diff: float
    pictures: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def agreement(self) -> float:
        """Share of the pixels with the same class, 0 to 1."""
        return self.agreeing / self.pixels

    def check(self, min_agreement: float, warnings: Sequence[str]) -> Check:
        """The record that the manifest keeps."""
        return Check(
            argmax_agreement=self.agreement,
            max_abs_diff=self.max_abs_diff,
            images=self.pictures,
            sizes=self.sizes,
            versions={package: version(package) for package in PACKAGES},
            min_agreement=min_agreement,
            warnings=tuple(warnings),
        )


def prove(net: TorchNet, graph: Graph, spec: InputSpec, pictures: Sequence[NDArray[np.uint8]]) -> Proof:
    """Run both nets over `pictures` (uint8 (H, W, 3)), prepared as the service prepares them, the first one also at odd
    sizes."""
    pixels = agreeing = 0
    largest = 0.0
    sizes = []
    for picture, as_spec in _cases(pictures, spec):
        for placement in place(as_spec, *picture.shape[:2]):
            tensor = prepare(picture, placement, as_spec)
            wanted, found = net(tensor).scores, graph(tensor).scores
            assert wanted is not None and found is not None
            same = wanted.argmax(axis=0) == found.argmax(axis=0)
            pixels += same.size
            agreeing += int(same.sum())
            largest = max(largest, float(np.abs(wanted - found).max()))
            sizes.append((placement.y.canvas, placement.x.canvas))
    return Proof(pixels, agreeing, largest, len(pictures), tuple(dict.fromkeys(sizes)))


def _cases(pictures: Sequence[NDArray[np.uint8]], spec: InputSpec) -> Iterator[tuple[NDArray[np.uint8], InputSpec]]:
    for picture in pictures:
        yield picture, spec
    height, width = spec.height or pictures[0].shape[0], spec.width or pictures[0].shape[1]
    smallest = 2 * spec.multiple_of
    for odd in ((height + 1, width + 1), (max(height // 4 | 1, smallest), max(width // 4 | 1, smallest))):
        yield pictures[0], spec.model_copy(update={"fit": "stretch", "height": odd[0], "width": odd[1]})
