"""Scores at the net's resolution in, a class mask at the picture's resolution out.

The scores are interpolated bilinearly and then compared, so borders stay smooth. Interpolation is a convex combination:
where the four scores around a pixel have the same winner, so has the pixel. Only pixels in cells on a border between
classes need the arithmetic, a few per cent of a picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.graph import Stop

CHUNK = 65_536
"""Border pixels computed at a time: bounds the memory to CHUNK * classes * 20 bytes."""


def class_mask(
    scores: NDArray[np.float32],
    winners: NDArray[np.uint8],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    stop: Stop | None = None,
) -> NDArray[np.uint8]:
    """The class with the highest interpolated score (the first one of equals) at each (row, column) position.

    `scores` is float32 (C, h, w), `winners` its argmax (h, w); positions lie from 0 to h - 1 and w - 1, fractions
    between samples. Returns uint8 (len(rows), len(columns)). Raises DeadlineExceeded once `stop` is set.
    """
    top, bottom, below = _neighbours(rows, scores.shape[1])
    left, right, beside = _neighbours(columns, scores.shape[2])
    mask = winners[top[:, None], left]
    if not below.any() and not beside.any():
        return mask
    border = np.flatnonzero(_mixed_cells(winners)[top[:, None], left])
    flat = mask.reshape(-1)
    for start in range(0, border.size, CHUNK):
        if stop is not None:
            stop.check()
        chunk = border[start : start + CHUNK]
        y, x = np.divmod(chunk, columns.size)
        wx, wy = beside[x], below[y]
        upper = scores[:, top[y], left[x]] * (1 - wx) + scores[:, top[y], right[x]] * wx
        lower = scores[:, bottom[y], left[x]] * (1 - wx) + scores[:, bottom[y], right[x]] * wx
        flat[chunk] = (upper * (1 - wy) + lower * wy).argmax(axis=0)
    return mask


def nearest(labels: NDArray[np.uint8], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The sample of `labels` (h, w) nearest to each (row, column) position; ids are never mixed."""
    return labels[np.rint(rows).astype(np.intp)[:, None], np.rint(columns).astype(np.intp)]


def _mixed_cells(winners: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a sample and its neighbours to the right, below and diagonal do not all have the same winner."""
    padded = np.pad(winners, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    mixed: NDArray[np.bool_] = (winners != right) | (winners != below) | (winners != diagonal)
    return mixed


def _neighbours(
    positions: NDArray[np.float64], samples: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The samples before and after each position, and the share of the latter."""
    before = np.minimum(np.floor(positions).astype(np.intp), samples - 1)
    after = np.minimum(before + 1, samples - 1)
    return before, after, (positions - before).astype(np.float32)
