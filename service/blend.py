"""A picture, a class mask and a palette in, the picture tinted by class out, in one pass."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.compiled import compiled
from service.cores import ONE_CORE, Cores

Pixels = NDArray[np.uint8]

BITS = 15
"""Of the fractions that colours are mixed in: an error far below half a level, and products that 32 bits hold."""


def blend(
    rgb: Pixels,
    mask: Pixels,
    palette: NDArray[np.float64],
    shares: NDArray[np.float64],
    blended: Pixels,
    cores: Cores = ONE_CORE,
) -> None:
    """Write rgb x (1 - share) + colour x share, rounded, with the colour and share (0 to 1) of each pixel's class.

    `rgb` is uint8 (H, W, 3), `mask` class ids, uint8 (H, W); `palette` is (classes, 3), 0 to 255. `blended` is uint8
    (H, W, 4), as Pillow keeps colours: the fourth value stays what it is.
    """
    one = 1 << BITS
    keep = np.rint((1 - shares) * one).astype(np.int32)
    add = np.rint(palette * (one - keep)[:, None]).astype(np.int32) + one // 2
    source = rgb.view()
    source.flags.writeable = False  # for numba a type of its own: one function serves both
    cores.split(mask.shape[0], partial(_blend_rows, source, mask, keep, add, blended))


@compiled
def _blend_rows(
    rgb: Pixels, mask: Pixels, keep: NDArray[np.int32], add: NDArray[np.int32], blended: Pixels, start: int, stop: int
) -> None:
    """`blend` for the rows from `start` up to `stop`."""
    for row in range(start, stop):
        for column in range(mask.shape[1]):
            class_id = mask[row, column]
            share = keep[class_id]
            for channel in range(3):
                level = np.int32(rgb[row, column, channel]) * share + add[class_id, channel]
                blended[row, column, channel] = np.uint8(level >> BITS)
