"""Logits and labels in, the loss out; and the class weights that go into it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.dataset import IGNORED

SOFTENING = 1.10
"""The constant in 1 / ln(SOFTENING + share). ENet's paper has 1.02, which weighs the rarest class 13 times the most
frequent one; 1.10 weighs it 4 times, which costs the frequent classes less."""

KEPT = 1 / 16
"""Of a batch's labelled pixels, the share that hard-example mining keeps at least, so that a net that has learnt much
still has something to learn from."""


@dataclass(frozen=True)
class Loss:
    """Cross entropy, weighted by class, over the labelled pixels.

    `smoothing` spreads that share of each target evenly over all classes (Szegedy et al., "Rethinking the Inception
    Architecture", 2016). `ohem` above 0 keeps only the hard pixels: those whose own class gets a probability below
    `ohem`, and at least the hardest sixteenth (Shrivastava et al., "Training Region-based Object Detectors with Online
    Hard Example Mining", 2016, applied to pixels).
    """

    weights: Tensor
    smoothing: float = 0.0
    ohem: float = 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits float32 (N, classes, H, W) and labels int64 (N, H, W), IGNORED where there is none; the mean over the
        pixels that count, as a scalar. At least one pixel must be labelled."""
        if not self.ohem:
            return F.cross_entropy(logits, labels, self.weights, ignore_index=IGNORED, label_smoothing=self.smoothing)
        losses = F.cross_entropy(
            logits, labels, self.weights, ignore_index=IGNORED, label_smoothing=self.smoothing, reduction="none"
        )
        kept = self._hard(logits.detach(), labels)
        return losses[kept].sum() / self.weights[labels[kept]].sum()

    def _hard(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Which pixels to learn from, bool (N, H, W)."""
        labelled = labels != IGNORED
        hardness = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")[labelled]
        fewest = max(1, round(KEPT * hardness.numel()))
        threshold = hardness.topk(fewest).values[-1].clamp(max=-math.log(self.ohem))
        hard = torch.zeros_like(labelled)
        hard[labelled] = hardness >= threshold
        return hard


def class_weights(counts: NDArray[np.int64], how: Literal["none", "log", "median"]) -> Tensor:
    """One float32 weight a class, from the number of its pixels; their mean is 1.

    Raises ValueError where no pixel is labelled.
    """
    if not counts.any():
        raise ValueError(f"every pixel of the training masks is ignored (label {IGNORED}): there is nothing to learn")
    share = counts / counts.sum()
    if how == "log":
        weights = 1 / np.log(SOFTENING + share)
    elif how == "median":
        present = share[share > 0]
        weights = np.divide(np.median(present), share, out=np.ones_like(share), where=share > 0)
    else:
        weights = np.ones_like(share)
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)
