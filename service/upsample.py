"""Scores at the net's resolution in, a class mask at the picture's resolution out, with the size of each class.

The scores are interpolated bilinearly and then compared, so borders stay smooth. Interpolation is a convex combination:
where the four scores around a pixel have the same winner, so has the pixel, and a class that another one beats at all
four cannot win between them. Only pixels in cells on a border between classes need the arithmetic, for the few classes
that can win there: a few per cent of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.compiled import compiled
from service.cores import ONE_CORE, Cores
from service.manifest import MAX_CLASSES

Scores = NDArray[np.float32]
Ids = NDArray[np.uint8]
Positions = NDArray[np.float64]

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """How much of a mask each class id takes.

    `pixels`: int64 (256,). `boxes`: int64 (256, 4), x0, y0, x1, y1 with x1 and y1 exclusive, of a class that is there.
    """

    pixels: NDArray[np.int64]
    boxes: NDArray[np.int64]

    @classmethod
    def of(cls, parts: NDArray[np.int64]) -> Tally:
        """The sum of parts, int64 (n, 256, 5): pixels and the four sides of the box."""
        present = parts[:, :, 0] > 0
        far = np.iinfo(np.int64).max
        low = np.where(present[..., None], parts[..., 1:3], far).min(axis=0)
        high = np.where(present[..., None], parts[..., 3:5], 0).max(axis=0)
        return cls(parts[..., 0].sum(axis=0), np.concatenate([low, high], axis=1))


class Steps(NamedTuple):
    """Positions along a side, as the kernels read them: the sample before each, int64, and the share of the next one,
    float32, 0 to 1."""

    before: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def to(cls, positions: Positions, samples: int) -> Steps:
        """Positions from 0 to `samples` - 1, fractions between samples."""
        before = np.minimum(np.floor(positions).astype(np.int64), samples - 1)
        return cls(before, (positions - before).astype(np.float32))


def winners_of(scores: Scores, cores: Cores = ONE_CORE) -> Ids:
    """The class with the highest score (the first one of equals), uint8 (h, w), for float32 (C, h, w).

    Raises FloatingPointError where a score is not finite.
    """
    winners = np.empty(scores.shape[1:], np.uint8)
    finite = cores.split(scores.shape[1], partial(_argmax, scores, winners))
    if not all(finite):
        raise FloatingPointError("scores that are infinite or not a number cannot be interpolated")
    return winners


def fill(
    mask: Ids,
    origin: tuple[int, int],
    scores: Scores,
    winners: Ids,
    rows: Positions,
    columns: Positions,
    cores: Cores = ONE_CORE,
) -> Counts:
    """Write into `mask`, from the row and column `origin` on, the class with the highest interpolated score (the first
    one of equals) at each (row, column) position.

    `scores` is float32 (C, h, w), `winners` its argmax (h, w); positions ascend from 0 to h - 1 and w - 1, fractions
    between samples. Returns parts for `Tally.of`.
    """
    if _every(rows, scores.shape[1]) and _every(columns, scores.shape[2]):
        return fill_labels(mask, origin, winners)
    y, x = Steps.to(rows, scores.shape[1]), Steps.to(columns, scores.shape[2])

    def band(start: int, stop: int) -> Counts:
        part = np.zeros((MAX_CLASSES, 5), np.int64)
        _fill_rows(mask, origin, scores, winners, y, x, start, stop, part)
        return part

    return np.stack(cores.split(rows.size, band))


def fill_labels(mask: Ids, origin: tuple[int, int], labels: Ids) -> Counts:
    """Write class ids into `mask`, from the row and column `origin` on, as they are. Returns parts for `Tally.of`."""
    part = np.zeros((MAX_CLASSES, 5), np.int64)
    _copy(mask, origin, np.ascontiguousarray(labels), part)
    return part[None]


def nearest(labels: Ids, rows: Positions, columns: Positions) -> Ids:
    """The sample of `labels` (h, w) nearest to each (row, column) position, uint8 (len(rows), len(columns))."""
    return labels[np.rint(rows).astype(np.intp)[:, None], np.rint(columns).astype(np.intp)]


def _every(positions: Positions, samples: int) -> bool:
    """Whether the positions are those of the samples themselves: nothing is to be interpolated."""
    return positions.size == samples and bool((positions == np.arange(samples)).all())


@compiled
def _argmax(scores: Scores, winners: Ids, start: int, stop: int) -> bool:
    """`winners_of` for the rows from `start` up to `stop`; whether all their scores are finite."""
    best = np.empty(scores.shape[2], np.float32)
    zeros = np.zeros(scores.shape[2], np.float32)
    for row in range(start, stop):
        found = winners[row]
        best[:] = scores[0, row]
        zeros += best * np.float32(0)
        found[:] = 0
        for index in range(1, scores.shape[0]):
            plane = scores[index, row]
            for column in range(best.size):
                zeros[column] += plane[column] * np.float32(0)
                higher = plane[column] > best[column]
                best[column] = plane[column] if higher else best[column]
                found[column] = np.uint8(index) if higher else found[column]
    return not np.isnan(zeros).any()


@compiled
def _fill_rows(
    mask: Ids,
    origin: tuple[int, int],
    scores: Scores,
    winners: Ids,
    rows: Steps,
    columns: Steps,
    start: int,
    stop: int,
    tally: Counts,
) -> None:
    """`fill` for the rows from `start` up to `stop`: the rows in one row of cells at a time, and along it uniform cells
    of one class together."""
    edges = np.append(np.flatnonzero(np.diff(columns.before)) + 1, columns.before.size)
    corners = np.empty((scores.shape[0], 4), np.float32)
    rivals = np.empty(scores.shape[0], np.int64)
    y = start
    while y < stop:
        top, bottom, y_end = _cell(rows, y, stop, winners.shape[0])
        same, same_from, x = -1, 0, 0
        for x_end in edges:
            left, right, _ = _cell(columns, x, x_end, winners.shape[1])
            winner = int(winners[top, left])
            uniform = (
                winner == winners[top, right] and winner == winners[bottom, left] and winner == winners[bottom, right]
            )
            if not uniform or winner != same:
                if same >= 0:
                    _write(mask, origin, y, y_end, same_from, x, same, tally)
                same, same_from = winner if uniform else -1, x
            if not uniform:
                found = _gather(scores, top, bottom, left, right, winner, corners, rivals)
                _compare(mask, origin, corners, rivals, found, rows, columns, y, y_end, x, x_end, tally)
            x = x_end
        if same >= 0:
            _write(mask, origin, y, y_end, same_from, x, same, tally)
        y = y_end


@compiled
def _cell(steps: Steps, start: int, stop: int, samples: int) -> tuple[int, int, int]:
    """The sample before and after the positions from `start` on, and where those in the same cell end."""
    before, after, end = steps.before[start], steps.before[start], start
    while end < stop and steps.before[end] == before:
        if steps.share[end] > 0:
            after = min(before + 1, samples - 1)
        end += 1
    return before, after, end


@compiled
def _gather(
    scores: Scores, top: int, bottom: int, left: int, right: int, winner: int, corners: Scores, rivals: Counts
) -> int:
    """Copy a cell's corners (C, 4) and list the classes that can win in it, in order; returns how many.

    A class cannot where the winner of the first corner beats it at all four; the interpolated scores keep that order.
    """
    for index in range(scores.shape[0]):
        corners[index, 0], corners[index, 1] = scores[index, top, left], scores[index, top, right]
        corners[index, 2], corners[index, 3] = scores[index, bottom, left], scores[index, bottom, right]
    found = 0
    for index in range(scores.shape[0]):
        can_win = index == winner
        for corner in range(4):
            can_win = can_win or corners[index, corner] >= corners[winner, corner]
        if can_win:
            rivals[found] = index
            found += 1
    return found


@compiled
def _compare(
    mask: Ids,
    origin: tuple[int, int],
    corners: Scores,
    rivals: Counts,
    found: int,
    rows: Steps,
    columns: Steps,
    y: int,
    y_end: int,
    x: int,
    x_end: int,
    tally: Counts,
) -> None:
    """Write the class of each pixel in one cell: that of the rivals with the highest interpolated score."""
    one = np.float32(1)
    for column in range(x, x_end):
        right = columns.share[column]
        left = one - right
        same, same_from = -1, y
        for row in range(y, y_end):
            below = rows.share[row]
            above = one - below
            best, winner = np.float32(-np.inf), rivals[0]
            for rival in range(found):
                index = rivals[rival]
                upper = corners[index, 0] * left + corners[index, 1] * right
                lower = corners[index, 2] * left + corners[index, 3] * right
                score = upper * above + lower * below
                if score > best:
                    best, winner = score, index
            if winner != same:
                if row > y:
                    _write(mask, origin, same_from, row, column, column + 1, same, tally)
                same, same_from = winner, row
        _write(mask, origin, same_from, y_end, column, column + 1, same, tally)


@compiled
def _write(
    mask: Ids, origin: tuple[int, int], y: int, y_end: int, x: int, x_end: int, winner: int, tally: Counts
) -> None:
    """Write a rectangle of one class, and count it."""
    top, left = origin[0] + y, origin[1] + x
    bottom, right = origin[0] + y_end, origin[1] + x_end
    mask[top:bottom, left:right] = winner
    known = tally[winner]
    if known[0] == 0:
        known[1], known[2], known[3], known[4] = left, top, right, bottom
    known[0] += (bottom - top) * (right - left)
    known[1], known[2] = min(known[1], left), min(known[2], top)
    known[3], known[4] = max(known[3], right), max(known[4], bottom)


@compiled
def _copy(mask: Ids, origin: tuple[int, int], labels: Ids, tally: Counts) -> None:
    """`fill_labels`, a run of one class at a time."""
    for row in range(labels.shape[0]):
        x = 0
        for column in range(1, labels.shape[1] + 1):
            if column == labels.shape[1] or labels[row, column] != labels[row, x]:
                _write(mask, origin, row, row + 1, x, column, int(labels[row, x]), tally)
                x = column
