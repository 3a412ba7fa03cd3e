"""Anything that segments and a data split in, the confusion matrix over all its pictures out.

A net in training, a checkpoint, a bundle and a server are scored by the same code, on masks of the pictures' own size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from service.bundle import open_bundle
from service.graph import Answer, Tensor
from service.manifest import ClassList, InputSpec, Manifest, OutputSpec, Variant
from service.scores import confusion
from service.segmenter import Segmenter
from service.turn import Stop
from training.dataset import IGNORED, DataFolder, Pair

Segment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""A picture, uint8 (H, W, 3), to its class mask, uint8 (H, W)."""


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


def of_net(net: nn.Module, spec: InputSpec, classes: ClassList) -> Segment:
    """The service's own way from a picture to a mask, around a PyTorch net that takes `spec`."""
    manifest = Manifest(
        name="in-training",
        version=1,
        license="LicenseRef-none",
        input=spec.model_copy(update={"dtype": "float32", "layout": "NCHW"}),
        output=OutputSpec(),
        classes=classes.channels,
        variants=(Variant(id="torch", file="none"),),
    )
    segmenter = Segmenter(manifest, TorchNet(net))
    return lambda rgb: segmenter(rgb).mask


def of_bundle(folder: Path) -> Segment:
    """The bundle in `folder`, opened as the service opens it. Raises BundleError where it is refused."""
    segmenter = open_bundle(folder.absolute(), providers=("cpu",)).segmenter
    return lambda rgb: segmenter(rgb).mask


@contextmanager
def of_server(url: str, model: str | None) -> Iterator[Segment]:
    """A running server's `POST /segment`. Calls raise httpx.HTTPError where it cannot be reached, ValueError with its
    words where it refuses."""
    parameters = {"output": "mask"} | ({"model": model} if model else {})
    with httpx.Client(base_url=url, timeout=120) as client:

        def segment(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
            file = BytesIO()
            Image.fromarray(rgb).save(file, "PNG", compress_level=1)
            answer = client.post("/segment", params=parameters, files={"image": file.getvalue()})
            if answer.is_error:
                raise ValueError(f"{url} answered {answer.status_code}: {answer.json().get('detail', answer.text)}")
            return np.asarray(Image.open(BytesIO(answer.content)))

        yield segment


def evaluate(segment: Segment, folder: DataFolder, pairs: list[Pair]) -> NDArray[np.int64]:
    """The confusion matrix over `pairs`, int64 (classes, classes), rows true, for all classes that the folder lists;
    ignored pixels are not counted. Raises ValueError where all of them are."""
    classes = len(folder.classes.classes)
    total = np.zeros((classes, classes), np.int64)
    for pair in pairs:
        total += confusion(folder.labels(pair), segment(pair.picture()), classes, ignore=(IGNORED,))
    if not total.any():
        raise ValueError(f"every pixel of the {len(pairs)} masks is ignored: there is nothing to score")
    return total
