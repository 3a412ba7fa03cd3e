"""Comparisons in, a report out: their figures as JSON, and for each a picture that shows where two nets differ."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from export.compare import NEAR_TIE, REAL, Comparison
from service.manifest import Color

PANEL = 480
"""The least width in pixels of a panel: a smaller picture is enlarged by a whole number."""

MARK = 4
"""A disagreement is drawn at least this many pixels to each side: a single one can be seen."""

MARKS: dict[int, Color] = {NEAR_TIE: (255, 200, 0), REAL: (255, 0, 0)}
INK: Color = (32, 32, 32)
PAPER: Color = (255, 255, 255)
GAP, LINE, SIZE = 12, 26, 16


def figures(comparison: Comparison) -> dict[str, Any]:
    """What one comparison found, as JSON knows it."""
    return {
        "name": comparison.name,
        "size": list(comparison.seen.shape[:2]),
        "batch": comparison.batch,
        "pixels": comparison.kinds.size,
        "agreement": comparison.agreement,
        "near_ties": comparison.near_ties,
        "real_differences": comparison.real,
        "max_abs_diff": comparison.max_abs_diff,
        "usual_rounding": comparison.rounding,
        "largest_logit": comparison.largest,
        "share_beyond_tolerance": comparison.beyond / comparison.logits if comparison.logits else None,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A readable JSON file."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def picture_file(number: int, comparison: Comparison) -> str:
    """What a comparison's picture is called: in order, and of a name that any file system takes."""
    return f"{number:03}-{re.sub('[^A-Za-z0-9]+', '-', comparison.name).strip('-')[:80]}.png"


def draw(comparison: Comparison, palette: Sequence[Color], reference: str) -> Image.Image:
    """Side by side: the picture, both masks in the model's colours, and where they differ; below, the figures."""
    height, width = comparison.seen.shape[:2]
    scale = max(1, -(-PANEL // width))
    size = width * scale, height * scale
    panels = {
        "the picture, as the net sees it": _enlarged(comparison.seen, size),
        f"reference: {reference}": _enlarged(_colored(comparison.wanted, palette), size),
        "the graph": _enlarged(_colored(comparison.found, palette), size),
        "where they differ": _differences(comparison, size),
    }
    columns = 2 if size[0] > size[1] else 4
    rows = len(panels) // columns
    page = (columns * (size[0] + GAP) + GAP, rows * (size[1] + LINE + GAP) + 2 * LINE + GAP)
    sheet = Image.new("RGB", page, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(SIZE)
    for index, (title, panel) in enumerate(panels.items()):
        x = GAP + index % columns * (size[0] + GAP)
        y = index // columns * (size[1] + LINE + GAP)
        pen.text((x, y + LINE // 2), title, INK, font, anchor="lm")
        sheet.paste(panel, (x, y + LINE))
    for line, text in enumerate(_caption(comparison)):
        pen.text((GAP, page[1] - GAP // 2 - (2 - line) * LINE + LINE // 2), text, INK, font, anchor="lm")
    return sheet


def _caption(comparison: Comparison) -> tuple[str, str]:
    differ = comparison.near_ties + comparison.real
    said = (
        f"{comparison.name}: the same class at {comparison.agreement:.4%} of {comparison.kinds.size} pixels; "
        f"{differ} differ: {comparison.real} real (red), {comparison.near_ties} near-ties (yellow)"
    )
    if not comparison.logits:
        return said, "masks alone: without the reference's logits, near-ties cannot be told"
    return said, (
        f"logits: largest {comparison.largest:.4g}, largest difference {comparison.max_abs_diff:.3g}, "
        f"99 % within {comparison.rounding:.3g}, {comparison.beyond / comparison.logits:.4%} beyond the tolerance"
    )


def _enlarged(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def _colored(mask: NDArray[np.uint8], palette: Sequence[Color]) -> NDArray[np.uint8]:
    return np.array(palette, np.uint8)[mask]


def _differences(comparison: Comparison, size: tuple[int, int]) -> Image.Image:
    """The picture, pale and grey, and a mark on every pixel that differs; real differences lie on top."""
    grey = Image.fromarray(comparison.seen).convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST)
    panel = Image.blend(grey, Image.new("RGB", size, PAPER), 0.6)
    pen = ImageDraw.Draw(panel)
    height, width = comparison.kinds.shape
    across, down = size[0] / width, size[1] / height
    for kind, color in MARKS.items():
        for y, x in np.argwhere(comparison.kinds == kind):
            left, top = (x + 0.5) * across, (y + 0.5) * down
            half = max(MARK, across / 2), max(MARK, down / 2)
            pen.rectangle((left - half[0], top - half[1], left + half[0], top + half[1]), fill=color)
    return panel
