"""Class masks and their labels in, scores out: the one place of the project that counts."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


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


def dice(matrix: NDArray[np.int64], together: Collection[int]) -> float:
    """2 x hits / (true + predicted) of some classes taken as one, 0 to 1: a nucleus with its boundary, say. NaN where
    neither labels nor masks hold any of them."""
    group = sorted(together)
    hits = matrix[np.ix_(group, group)].sum()
    total = matrix[group].sum() + matrix[:, group].sum()
    return float(2 * hits / total) if total else float("nan")


def calibration(
    confidence: NDArray[np.uint8], labels: NDArray[np.uint8], mask: NDArray[np.uint8], ignore: Collection[int] = ()
) -> NDArray[np.int64]:
    """For each of the 256 levels of `confidence` (255 x a probability): how many pixels have it, and how many of them
    are right, int64 (2, 256). All three are uint8 of one shape; pixels whose label is in `ignore` do not count."""
    counted = ~np.isin(labels, list(ignore))
    right = counted & (labels == mask)
    return np.stack([np.bincount(confidence[chosen], minlength=256) for chosen in (counted, right)])


def calibration_error(levels: NDArray[np.int64], bins: int = 15) -> float:
    """The expected calibration error, 0 to 1: how far confidence is from the share of pixels that are right, the mean
    over `bins` equal ranges of confidence, each by its pixels (Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017, arXiv:1706.04599). `levels` are (sums of) what `calibration` counts; NaN where nothing was counted."""
    count, right = levels
    total = count.sum()
    if not total:
        return float("nan")
    place = np.minimum(np.arange(256) * bins // 255, bins - 1)
    claimed = np.bincount(place, count * np.arange(256) / 255, minlength=bins)
    return float(np.abs(np.bincount(place, right, minlength=bins) - claimed).sum() / total)


def boundary_hits(
    labels: NDArray[np.uint8], mask: NDArray[np.uint8], classes: int, tolerance: float = 0.0075
) -> NDArray[np.int64]:
    """How well the outlines agree, for each class: outline pixels of the labels, those of them near an outline of the
    mask, outline pixels of the mask, those of them near one of the labels; int64 (4, classes).

    `labels` and `mask`, uint8 of one shape, hold class ids; where a label is none, neither is looked at. Near is
    within `tolerance` x the picture's diagonal, along rows and columns.
    """
    reach = round(tolerance * float(np.hypot(*labels.shape)))
    known = labels < classes
    found = np.zeros((4, classes), np.int64)
    for index in np.union1d(labels[known], mask[known & (mask < classes)]):
        true, seen = ((ids == index) & known for ids in (labels, mask))
        # Where a region ends at pixels that nobody has labelled, nobody knows whether it ends.
        outlines = [region & ~_shrunk(region | ~known) for region in (true, seen)]
        near = [_grown(outline, reach) for outline in outlines]
        found[0, index], found[2, index] = (outline.sum() for outline in outlines)
        found[1, index], found[3, index] = (outlines[0] & near[1]).sum(), (outlines[1] & near[0]).sum()
    return found


def boundary_f1(hits: NDArray[np.int64]) -> NDArray[np.float64]:
    """The F1 measure of each class's outlines, 0 to 1, from (sums of) what `boundary_hits` counts: the harmonic mean of
    precision and recall (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013). NaN
    for a class that the labels do not hold."""
    true, recalled, seen, precise = hits.astype(np.float64)
    recall = np.divide(recalled, true, out=np.full_like(true, np.nan), where=true > 0)
    precision = np.divide(precise, seen, out=np.zeros_like(seen), where=seen > 0)
    both = recall + precision
    nothing = np.where(np.isnan(recall), np.nan, 0.0)
    f1: NDArray[np.float64] = np.divide(2 * recall * precision, both, out=nothing, where=both > 0)
    return f1


def _grown(region: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels at most `reach` rows and columns from one of the region."""
    side = 2 * reach + 1
    padded = np.pad(region.astype(np.int32), reach)
    for axis in (0, 1):
        sums = np.insert(np.cumsum(padded, axis=axis), 0, 0, axis=axis)
        length = sums.shape[axis]
        padded = np.take(sums, range(side, length), axis=axis) - np.take(sums, range(length - side), axis=axis)
    grown: NDArray[np.bool_] = padded > 0
    return grown


def _shrunk(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose neighbours all are of the region; beyond the picture all are."""
    return np.asarray(Image.fromarray(region).convert("L").filter(ImageFilter.MinFilter(3))) > 0
