"""Label masks in, class weights for the cross entropy out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dataset import IGNORED, DataFolder, Pair

SOFTENING = 1.10
"""The constant in 1 / ln(SOFTENING + share). ENet's paper has 1.02, which weighs the rarest class 13 times the most
frequent one; 1.10 weighs it 4 times, which costs the frequent classes less."""


def class_weights(folder: DataFolder, pairs: list[Pair], how: Literal["none", "log", "median"]) -> Tensor:
    """One float32 weight a class, from the classes' shares of the counted pixels of `pairs`; their mean is 1."""
    share = _shares(folder, pairs)
    if how == "log":
        weights = 1 / np.log(SOFTENING + share)
    elif how == "median":
        present = share[share > 0]
        weights = np.divide(np.median(present), share, out=np.ones_like(share), where=share > 0)
    else:
        weights = np.ones_like(share)
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def _shares(folder: DataFolder, pairs: list[Pair]) -> NDArray[np.float64]:
    counts = np.zeros(256, np.int64)
    for pair in pairs:
        counts += np.bincount(folder.labels(pair.read()[1]).ravel(), minlength=256)
    counted: NDArray[np.float64] = counts[: len(folder.classes.channels)].astype(np.float64)
    if not counted.sum():
        raise ValueError(
            f"every pixel of the {len(pairs)} masks is ignored (label {IGNORED}): there is nothing to learn"
        )
    shares: NDArray[np.float64] = counted / counted.sum()
    return shares
