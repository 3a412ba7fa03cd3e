"""Logits and labels in, the loss out; and the class weights that go into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

SOFTNESS = 2.0
"""The temperature at which a teacher is imitated: what it thinks second likeliest shows."""


@dataclass(frozen=True)
class Loss:
    """Cross entropy, weighted by class, over the labelled pixels.

    `smoothing` spreads that share of each target evenly over all classes (Szegedy et al., "Rethinking the Inception
    Architecture", 2016). `ohem` above 0 keeps only the hard pixels: those whose own class gets a probability below
    `ohem`, and at least the hardest sixteenth (Shrivastava et al., "Training Region-based Object Detectors with Online
    Hard Example Mining", 2016, applied to pixels). `jaccard` is the weight of `soft_jaccard`, which is added.
    """

    weights: Tensor
    smoothing: float = 0.0
    ohem: float = 0.0
    jaccard: float = 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits float32 (N, classes, h, w), of any size, and labels int64 (N, H, W), IGNORED where there is none; the
        mean over the pixels that count, as a scalar. At least one pixel must be labelled."""
        scores = brought_to(logits, labels.shape[-2:])
        loss = self._cross_entropy(scores, labels)
        return loss + self.jaccard * soft_jaccard(scores, labels) if self.jaccard else loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
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


def brought_to(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (N, classes, h, w), bilinearly brought to (H, W), as the service does it."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def soft_jaccard(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - the mean of the classes' intersection over union, a scalar from 0 to 1: probabilities stand for memberships,
    the labelled pixels of the whole batch count, and the classes that they hold (Rahman and Wang, "Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC 2016).

    Shapes as for `Loss`, both of one size.
    """
    labelled = labels != IGNORED
    likely = logits.softmax(dim=1)
    own = likely.gather(1, labels.where(labelled, 0)[:, None])[:, 0][labelled]
    ids = labels[labelled]
    none = logits.new_zeros(logits.shape[1])
    hits = none.index_add(0, ids, own)
    true = torch.bincount(ids, minlength=len(none))
    claimed = (likely * labelled[:, None]).sum(dim=(0, 2, 3))
    present = true > 0
    return 1 - (hits[present] / (claimed + true - hits)[present]).mean()


def imitation(logits: Tensor, wanted: Tensor) -> Tensor:
    """How far a net's answer is from its teacher's, a scalar: the Kullback-Leibler divergence of the softened
    probabilities (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531), the
    mean over all pixels, labelled or not.

    Both are logits, float32 (N, classes, h, w); the teacher's are brought to the net's size.
    """
    learnt = F.log_softmax(logits / SOFTNESS, dim=1)
    taught = F.log_softmax(brought_to(wanted, logits.shape[-2:]) / SOFTNESS, dim=1)
    divergence = (taught.exp() * (taught - learnt)).sum(dim=1)
    return divergence.mean() * SOFTNESS**2


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
