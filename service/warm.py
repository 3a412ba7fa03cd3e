"""Nothing in, machine code of every compiled function out: in memory, and on disk where there is a place for it.

`python -m service.warm` is a step of the image's build.
"""

from __future__ import annotations

import logging
import sys
from time import perf_counter

import numpy as np

from service.blend import blend
from service.upsample import fill, fill_labels, winners_of

logger = logging.getLogger(__name__)

SLOW = 1.0
"""Seconds: finding machine code takes less, making it more."""


def warm() -> float:
    """Call each compiled function with the smallest arrays; returns the seconds that it took."""
    start = perf_counter()
    scores = np.zeros((2, 1, 1), np.float32)
    mask = np.zeros((1, 2), np.uint8)
    # More positions than samples: where there are as many, nothing is interpolated.
    fill(mask, (0, 0), scores, winners_of(scores), np.zeros(1), np.zeros(2))
    fill_labels(mask, (0, 0), mask)
    pixels = np.zeros((1, 2, 3), np.uint8)
    blend(pixels, mask, np.zeros((2, 3)), np.zeros(2), np.zeros((1, 2, 4), np.uint8))
    seconds = perf_counter() - start
    if seconds > SLOW:
        logger.info("compiling took %.1f s; where the result can be kept, the next start finds it", seconds)
    return seconds


if __name__ == "__main__":
    sys.stdout.write(f"machine code of all compiled functions after {warm():.2f} s\n")
