"""Anything that segments and a data split in, the confusion matrix over all its pictures out.

A net in training, a checkpoint, a bundle and a server are scored by the same code, on masks of the pictures' own size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from service.bundle import open_bundle
from service.drawing import stretched
from service.graph import Answer, Tensor
from service.manifest import ClassSpec, InputSpec, Manifest, OutputSpec, Variant
from service.scores import confusion
from service.segmenter import Segmentation, Segmenter
from service.turn import Stop
from training.dataset import IGNORED, DataFolder, Pair


@dataclass(frozen=True)
class Seen:
    """What a net sees in a picture: class ids, uint8 (H, W), and 255 x its confidence at each pixel, of the same shape;
    None where it has none."""

    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, segmentation: Segmentation) -> Seen:
        """As the service shows it."""
        mask, confidence = segmentation.mask, segmentation.confidence
        return cls(mask, None if confidence is None else stretched(confidence, (mask.shape[0], mask.shape[1])))


Segment = Callable[[NDArray[np.uint8]], Seen]
"""A picture, uint8 (H, W, 3), to what is seen in it."""


class TorchNet:
    """A PyTorch net (in eval mode) as the service sees a net."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._device = next(net.parameters()).device

    @torch.inference_mode()
    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """`tensor` is float32 (1, 3, h, w), normalised."""
        logits = self._net(torch.from_numpy(tensor).to(self._device, memory_format=torch.channels_last))
        return Answer(logits[0].float().cpu().numpy())


def of_net(net: nn.Module, spec: InputSpec, channels: tuple[ClassSpec, ...], temperature: float = 1.0) -> Segment:
    """The service's own way from a picture to a mask, around a PyTorch net that takes `spec` and scores `channels`."""
    manifest = Manifest(
        name="in-training",
        version=1,
        license="LicenseRef-none",
        input=as_float(spec),
        output=OutputSpec(temperature=temperature),
        classes=channels,
        variants=(Variant(id="torch", file="none"),),
    )
    segmenter = Segmenter(manifest, TorchNet(net))
    return lambda rgb: Seen.of(segmenter(rgb))


def as_float(spec: InputSpec) -> InputSpec:
    """The same input as a PyTorch net takes it: normalised, float32 (1, 3, h, w)."""
    return spec.model_copy(update={"dtype": "float32", "layout": "NCHW"})


def of_bundle(folder: Path) -> Segment:
    """The bundle in `folder`, opened as the service opens it. Raises BundleError where it is refused."""
    segmenter = open_bundle(folder.absolute(), providers=("cpu",)).segmenter
    return lambda rgb: Seen.of(segmenter(rgb))


@contextmanager
def of_server(url: str, model: str | None, confidence: bool = True) -> Iterator[Segment]:
    """A running server's `POST /segment`; asked a second time for its confidence, unless that is not wanted. Calls
    raise httpx.HTTPError where it cannot be reached, ValueError with its words where it refuses."""
    named = {"model": model} if model else {}
    with httpx.Client(base_url=url, timeout=120) as client:

        def view(name: str, file: bytes) -> NDArray[np.uint8] | None:
            answer = client.post("/segment", params={"output": name, **named}, files={"image": file})
            if answer.status_code == 422 and name == "confidence":
                return None  # the model answers class ids without scores
            if answer.is_error:
                raise ValueError(f"{url} answered {answer.status_code}: {answer.text}")
            return np.asarray(Image.open(BytesIO(answer.content)))

        def segment(rgb: NDArray[np.uint8]) -> Seen:
            file = BytesIO()
            Image.fromarray(rgb).save(file, "PNG", compress_level=1)
            mask = view("mask", file.getvalue())
            assert mask is not None
            return Seen(mask, view("confidence", file.getvalue()) if confidence else None)

        yield segment


def evaluate(segment: Segment, folder: DataFolder, pairs: list[Pair]) -> NDArray[np.int64]:
    """The confusion matrix over `pairs`, int64 (classes, classes), rows true, for all classes that the folder lists;
    ignored pixels are not counted. Raises ValueError where all of them are."""
    classes = len(folder.classes.classes)
    total = np.zeros((classes, classes), np.int64)
    for pair in pairs:
        total += confusion(folder.labels(pair), segment(pair.picture()).mask, classes, ignore=(IGNORED,))
    if not total.any():
        raise ValueError(f"every pixel of the {len(pairs)} masks is ignored: there is nothing to score")
    return total
