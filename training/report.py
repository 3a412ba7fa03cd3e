"""What a net sees in labelled pictures in, how good it is out: in numbers, as lines, and as pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.manifest import ClassList, ClassSpec
from service.scores import (
    boundary_f1,
    boundary_hits,
    calibration,
    calibration_error,
    class_iou,
    confusion,
    dice,
    mean_iou,
    pixel_accuracy,
)
from service.shapes import components
from training.dataset import IGNORED, DataFolder, Pair
from training.evaluate import Seen, Segment

WORST = 6
"""Pictures that the report shows."""

TITLES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f1": "boundary F1",
    "calibration_error": "calibration error",
    "dice": "Dice together",
    "true_count": "areas in labels",
    "count": "areas seen",
    "count_error": "count error",
}
"""What the figures are called in print. The count error: the sum of the pictures' differences over the true number."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside the usual scores, as class ids: a group to take as one class (empty: none), and one
    whose separate areas are counted (None: none)."""

    together: tuple[int, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Score:
    """How one picture came out: confusion matrix, outlines, confidence (None without), and the separate areas of the
    class that is counted, in labels and mask."""

    pair: Pair
    matrix: NDArray[np.int64]
    outlines: NDArray[np.int64]
    levels: NDArray[np.int64] | None
    areas: tuple[int, int] | None


@dataclass(frozen=True)
class Report:
    """The scores of a split; every figure is over the pixels of all pictures together."""

    classes: ClassList
    scores: tuple[Score, ...]
    wanted: Wanted

    @property
    def scored(self) -> list[ClassSpec]:
        """The classes that count."""
        return [spec for spec in self.classes.classes if spec.id not in self.classes.ignore]

    @property
    def matrix(self) -> NDArray[np.int64]:
        """The confusion matrix, rows true, columns predicted."""
        total: NDArray[np.int64] = np.sum([score.matrix for score in self.scores], axis=0)
        return total

    def figures(self) -> dict[str, Any]:
        """The figures by name, from 0 to 1; None where there is none."""
        matrix, ignore = self.matrix, self.classes.ignore
        outlines = boundary_f1(np.sum([score.outlines for score in self.scores], axis=0))
        levels = [score.levels for score in self.scores if score.levels is not None]
        found = {
            "miou": mean_iou(matrix, ignore),
            "pixel_accuracy": pixel_accuracy(matrix),
            "boundary_f1": _mean([outlines[spec.id] for spec in self.scored]),
            "calibration_error": calibration_error(np.sum(levels, axis=0)) if levels else None,
        }
        if self.wanted.together:
            found["dice"] = dice(matrix, self.wanted.together)
        counted = [score.areas for score in self.scores if score.areas is not None]
        if counted:
            true, seen = np.array(counted).T
            found["true_count"], found["count"] = int(true.sum()), int(seen.sum())
            found["count_error"] = float(np.abs(true - seen).sum() / max(true.sum(), 1))
        iou = class_iou(matrix)
        each = {
            spec.name: {"iou": _known(iou[spec.id]), "boundary_f1": _known(outlines[spec.id])} for spec in self.scored
        }
        return {name: _known(value) for name, value in found.items()} | {"classes": each}

    def lines(self) -> list[str]:
        """The figures as lines: IoU of each class first, then one figure a line."""
        figures = self.figures()
        rows = [(name, each["iou"]) for name, each in figures.pop("classes").items()]
        rows += [(TITLES[name], value) for name, value in figures.items()]
        width = max(16, *(len(name) for name, _ in rows))
        return [f"{name:>{width}} {_shown(value)}" for name, value in rows]

    def worst(self, number: int = WORST) -> list[Pair]:
        """The pictures with the lowest mIoU of their own, the worst first."""
        labelled = [score for score in self.scores if score.matrix.any()]
        by_miou = sorted(labelled, key=lambda score: mean_iou(score.matrix, self.classes.ignore))
        return [score.pair for score in by_miou[:number]]


def examine(segment: Segment, folder: DataFolder, pairs: Iterable[Pair], wanted: Wanted = Wanted()) -> Report:
    """Score every pair. Raises ValueError where not one pixel is labelled."""
    scores = tuple(_score(segment(pair.picture()), folder, pair, wanted) for pair in pairs)
    if not any(score.matrix.any() for score in scores):
        raise ValueError(f"every pixel of the {len(scores)} masks is ignored: there is nothing to score")
    return Report(folder.classes, scores, wanted)


def _score(seen: Seen, folder: DataFolder, pair: Pair, wanted: Wanted) -> Score:
    labels, classes = folder.labels(pair), len(folder.classes.classes)
    areas = None
    if wanted.count is not None:
        known = np.where(labels == IGNORED, IGNORED, seen.mask).astype(np.uint8)
        areas = components(labels, wanted.count), components(known, wanted.count)
    return Score(
        pair,
        confusion(labels, seen.mask, classes, ignore=(IGNORED,)),
        boundary_hits(labels, seen.mask, classes),
        None if seen.confidence is None else calibration(seen.confidence, labels, seen.mask, ignore=(IGNORED,)),
        areas,
    )


def write_report(report: Report, segment: Segment, folder: DataFolder, target: Path) -> None:
    """Write `scores.json`, the confusion matrix as `confusion.png` and the worst pictures as `worst.png`."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "scores.json").write_text(json.dumps(report.figures(), indent=1) + "\n")
    draw_confusion(report.matrix, report.scored, target / "confusion.png")
    draw_pictures(report.worst(), segment, folder, target / "worst.png")


def draw_confusion(matrix: NDArray[np.int64], classes: Sequence[ClassSpec], path: Path) -> None:
    """A PNG with the share of each true class (row) that went to each predicted one (column), in percent."""
    ids = [spec.id for spec in classes]
    chosen = matrix[np.ix_(ids, ids)]
    share = 100 * chosen / np.maximum(matrix[ids].sum(axis=1, keepdims=True), 1)
    side = 2 + 0.6 * len(ids)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    names = [spec.name for spec in classes]
    axes.set_xticks(range(len(ids)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(ids)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 50 else "black")
    figure.savefig(path, format="png")


def draw_pictures(pairs: Sequence[Pair], segment: Segment, folder: DataFolder, path: Path) -> None:
    """A PNG with a row for each pair: the picture, its labels, and what is seen in it; black: ignored."""
    palette = np.zeros((256, 3), np.uint8)
    for spec in folder.classes.classes:
        palette[spec.id] = spec.rgb
    palette[[*folder.classes.ignore, IGNORED]] = 0
    figure = Figure(figsize=(12, 3.2 * len(pairs)), dpi=90, layout="constrained")
    for axes, pair in zip(figure.subplots(len(pairs), 3, squeeze=False), pairs, strict=True):
        picture = pair.picture()
        for place, image in zip(
            axes, (picture, palette[folder.labels(pair)], palette[segment(picture).mask]), strict=True
        ):
            place.imshow(image)
            place.set_axis_off()
        axes[0].set_title(pair.image.name, fontsize=9)
    figure.savefig(path, format="png")


def ids_of(names: Collection[str], classes: ClassList) -> tuple[int, ...]:
    """The ids of classes by name. Raises ValueError for a name that is none."""
    known = {spec.name: spec.id for spec in classes.classes}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no class {name!r}: there are {', '.join(known)}")
    return tuple(known[name] for name in names)


def _shown(value: float | None) -> str:
    if value is None:
        return "absent"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _known(value: Any) -> Any:
    """The value as JSON has it: no NaN."""
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 4)
    return value


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")
