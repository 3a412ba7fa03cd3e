"""Class masks and their labels in, confusion matrix and mIoU out: the one place of the project that counts."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray


def confusion(
    labels: NDArray[np.uint8], mask: NDArray[np.uint8], classes: int, ignore: Collection[int] = ()
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    `labels` and `mask` are class ids (uint8, same shape). Pixels whose label is in `ignore` do not count; pixels that
    are predicted as a class in `ignore` count as wrong, in the column of that class. Returns int64 (classes, classes),
    rows true, columns predicted. Raises ValueError where the shapes differ or an id is no class.
    """
    if labels.shape != mask.shape:
        raise ValueError(f"the mask is {mask.shape}, its labels are {labels.shape}: they must have the same shape")
    counted = ~np.isin(labels, list(ignore))
    true, predicted = labels[counted].astype(np.int64), mask[counted].astype(np.int64)
    for name, ids in (("label", true), ("mask", predicted)):
        if ids.size and ids.max() >= classes:
            raise ValueError(f"a {name} has the id {ids.max()}, but there are {classes} classes (0 to {classes - 1})")
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, NaN for a class that neither the labels nor the masks hold."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    iou: NDArray[np.float64] = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    return iou


def mean_iou(matrix: NDArray[np.int64], ignore: Collection[int] = ()) -> float:
    """Mean of the classes' IoU, 0 to 1, over the classes that occur and are not in `ignore`; NaN where none does."""
    scores = class_iou(matrix)
    counted = [score for index, score in enumerate(scores) if index not in ignore and not np.isnan(score)]
    return float(np.mean(counted)) if counted else float("nan")


def pixel_accuracy(matrix: NDArray[np.int64]) -> float:
    """Share of the counted pixels that have the right class, 0 to 1; NaN where none was counted."""
    total = matrix.sum()
    return float(np.diag(matrix).sum() / total) if total else float("nan")
