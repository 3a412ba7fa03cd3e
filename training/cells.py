"""A seed in, a synthetic microscope picture and its labels out: fluorescent nuclei on a dark ground.

For golden pictures and tests: nothing of it was photographed, so it has no terms but the project's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from service.manifest import ClassList, ClassSpec

CELL_CLASSES = ClassList(
    classes=(
        ClassSpec(id=0, name="background", color="#000000", draw=False),
        ClassSpec(id=1, name="nucleus", color="#2ec4b6"),
        ClassSpec(id=2, name="boundary", color="#ff9f1c"),
    )
)
BACKGROUND, NUCLEUS, BOUNDARY = range(3)

RADIUS = 11.0
"""Mean half axis of a nucleus in pixels."""

DENSITY = 1 / 1600
"""Nuclei a pixel; some touch."""


def cells(seed: int, height: int = 256, width: int = 320) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture uint8 (H, W, 3) and class ids uint8 (H, W) of `CELL_CLASSES`."""
    random = np.random.default_rng(seed)
    light, labels = Image.new("L", (width, height), 14), Image.new("L", (width, height), BACKGROUND)
    for _ in range(round(height * width * DENSITY)):
        middle = random.uniform(0, (width, height))
        outline = _outline(middle, random)
        ImageDraw.Draw(light).polygon(outline, fill=int(random.integers(70, 170)))
        ImageDraw.Draw(labels).polygon(outline, fill=NUCLEUS, outline=BOUNDARY, width=2)
    soft = np.asarray(light.filter(ImageFilter.GaussianBlur(1.2)), np.float64)
    grain = random.normal(0, 3, size=(height, width))
    grey = np.clip(np.rint(soft + grain), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), np.asarray(labels)


def _outline(middle: NDArray[np.float64], random: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of an ellipse, turned and a little dented."""
    long, short = RADIUS * random.uniform(0.8, 1.3), RADIUS * random.uniform(0.6, 1.0)
    turn, steps = random.uniform(0, np.pi), np.linspace(0, 2 * np.pi, 40, endpoint=False)
    dents = 1 + 0.06 * np.sin(3 * steps + random.uniform(0, 2 * np.pi))
    x, y = long * np.cos(steps) * dents, short * np.sin(steps) * dents
    across, down = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    return list(zip(middle[0] + across, middle[1] + down, strict=True))
