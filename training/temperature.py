"""A checkpoint in, the same out with the temperature at which its confidence is as often right as it says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from service.geometry import place
from service.manifest import InputSpec
from service.scores import calibration, calibration_error
from service.segmenter import prepare
from training.checkpoint import Checkpoint
from training.dataset import IGNORED, DataFolder, Pair
from training.evaluate import Segment, as_float, of_net
from training.loss import brought_to

EVERY = 4
"""Of the pixels of a picture, one in so many rows and columns is looked at: neighbours say nearly the same."""

LOWEST, HIGHEST = 0.05, 20.0
"""Of temperatures: a net that is always right, or no better than chance, would have none, or an endless one."""

MOST = 2_000_000
"""Pixels that are looked at in all, about."""


def calibrated(checkpoint: Checkpoint, folder: DataFolder, pairs: list[Pair]) -> Checkpoint:
    """The checkpoint with three more metrics: `temperature`, and the expected calibration error over `pairs` without it
    and with it (`calibration_error`, `calibration_error_raw`). It changes no class. Nothing is fitted where no pixel of
    `pairs` is labelled."""
    net, spec = checkpoint.build(), checkpoint.recipe.input
    logits, labels = _sample(net, as_float(spec), folder, pairs)
    if not len(labels):
        return checkpoint
    temperature = fit_temperature(logits, labels)
    channels = folder.classes.channels
    raw, fitted = (_error(of_net(net, spec, channels, degrees), folder, pairs) for degrees in (1.0, temperature))
    found = {"temperature": temperature, "calibration_error_raw": raw, "calibration_error": fitted}
    return replace(checkpoint, metrics=checkpoint.metrics | found)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, from LOWEST to HIGHEST, at which softmax(logits / T) gives the labels the highest likelihood
    (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599).

    Logits float32 (M, classes), labels int64 (M), M > 0.
    """
    position = torch.zeros((), requires_grad=True)  # of its logarithm, in which the loss has one valley
    search = torch.optim.LBFGS([position], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(logits / position.exp(), labels)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    found = float(position.detach().exp())
    return round(min(max(found, LOWEST), HIGHEST), 3) if math.isfinite(found) else HIGHEST


@torch.no_grad()
def _sample(net: nn.Module, spec: InputSpec, folder: DataFolder, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """What `net` answers for labelled pixels: logits (M, classes) and labels (M)."""
    logits, labels = [], []
    each = max(1, MOST // len(pairs))
    for pair in pairs:
        picture, own = pair.picture(), folder.labels(pair)
        placement = place(spec, *own.shape)[0]
        y, x = placement.y, placement.x
        scores = net(torch.from_numpy(prepare(picture, placement, spec)))
        brought = brought_to(scores, (y.canvas, x.canvas))[0]
        size = (x.content.length, y.content.length)
        true = np.asarray(Image.fromarray(own).resize(size, Image.Resampling.NEAREST))[::EVERY, ::EVERY]
        counted = torch.from_numpy(true != IGNORED)
        seen = brought[:, y.content.slice, x.content.slice][:, ::EVERY, ::EVERY][:, counted].T
        step = max(1, len(seen) // each)
        logits.append(seen[::step])
        labels.append(torch.from_numpy(true.astype(np.int64))[counted][::step])
    return torch.cat(logits), torch.cat(labels)


def _error(segment: Segment, folder: DataFolder, pairs: list[Pair]) -> float:
    levels = np.zeros((2, 256), np.int64)
    for pair in pairs:
        seen = segment(pair.picture())
        assert seen.confidence is not None
        levels += calibration(seen.confidence, folder.labels(pair), seen.mask, ignore=(IGNORED,))
    return round(calibration_error(levels), 4)
