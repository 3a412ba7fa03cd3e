"""A net's structure in, a drawing of it out: an SVG of its stages, going down on the left and up on the right.

A row is a scale, a box a stage: the higher, the larger its maps, the wider, the more channels. Lines across are what is
passed. The drawing brings its own colours for light and dark.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from itertools import pairwise
from typing import get_args

from service.structure.parts import Pass, ScaleChange, Structure
from service.structure.words import part, sentence, title

ROW, TOP, LEFT, NARROW_LEFT = 84, 52, 176, 92
"""Pixels: between the scales, to the first, and to the first box, with and without words beside the way from it."""

STEP = 66
"""Pixels from one stage to the next, at least."""

GAP = 30
"""Pixels between boxes side by side."""

TIMES = "\N{MULTIPLICATION SIGN}"

LETTER = 6.1
"""About the width of a letter."""

LONGEST_WAY = max(len(way) for way in get_args(ScaleChange))

STYLE = """
svg { font: 11px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif; }
text { fill: #1c1d20; } .quiet { fill: #5b5d63; } .strong { font-size: 12.5px; font-weight: 650; }
.row { stroke: #d9d9d4; stroke-dasharray: 1 5; stroke-linecap: round; }
.box { stroke-width: 1.5; } .picture { fill: none; stroke: #85857d; stroke-dasharray: 3 3; }
.encoder { fill: #e2e9fb; stroke: #2f55c7; } .decoder { fill: #dcf1ea; stroke: #1d7a5f; }
.deepest { fill: #ece6f8; stroke: #6a4bb0; }
.way { fill: none; stroke: #5b5d63; stroke-width: 1.5; } .head { fill: #5b5d63; }
.across { fill: none; stroke: #b3530d; stroke-width: 2; } .tip { fill: #b3530d; }
.said { fill: #9c4508; font-weight: 600; }
.indices { stroke-dasharray: 6 4; } .multiplied { stroke-dasharray: 2 4; } .concatenated { stroke-width: 4; }
@media (prefers-color-scheme: dark) {
text { fill: #ebecef; } .quiet { fill: #a5a9b3; } .row { stroke: #42464f; } .picture { stroke: #7e828c; }
.encoder { fill: #222b49; stroke: #8fa8ff; } .decoder { fill: #17352d; stroke: #5cc9a7; }
.deepest { fill: #2f2647; stroke: #b9a0f2; } .way { stroke: #a5a9b3; } .head { fill: #a5a9b3; }
.across { stroke: #f0a35e; } .tip { fill: #f0a35e; } .said { fill: #f5b67f; }
}
"""

POLICY = f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
"""The Content-Security-Policy that such a drawing needs where it is looked at by itself."""


@dataclass(frozen=True)
class Label:
    """What a box stands for: its name, and the two lines that are written in it, `text` and `size`."""

    look: str
    scale: Fraction
    name: str
    channels: int | None
    text: str
    size: str


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre."""

    x: float
    y: float
    width: float
    height: float
    label: Label

    @property
    def left(self) -> float:
        """Its left side."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Its right side."""
        return self.x + self.width / 2


def svg(structure: Structure, name: str) -> str:
    """The drawing of the model `name`; where its stages could not be told apart, it says so and counts operators."""
    parts, width, height = _counted(structure) if structure.problem is not None else _drawn(structure)
    described = f"<title>Structure of {_safe(name)}</title><desc>{_safe(sentence(structure))}</desc>"
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{described}<style>{STYLE}</style>'
    return "\n".join([head, *parts, "</svg>\n"])


def _drawn(structure: Structure) -> tuple[list[str], float, float]:
    scales = sorted({Fraction(1), *(stage.scale for stage in structure.stages)}, reverse=True)
    boxes = _boxes(structure, scales)
    width = max([boxes[-1].right, *(box.x + 9 + LETTER * LONGEST_WAY for box in boxes[2:-1])]) + 12
    parts = [*_rows(scales, width)]
    for index, (before, after) in enumerate(pairwise(boxes)):
        ways = structure.stages[index].by if index < len(structure.stages) else ()
        parts += _way(before, after, ways)
    for source, target in sorted({(one.source, one.target) for one in structure.passes}):
        passes = [one for one in structure.passes if (one.source, one.target) == (source, target)]
        parts += _crossing(boxes[source + 1], boxes[target + 1], passes)
    parts += [line for box in boxes for line in _box(box)]
    bottom = TOP + ROW * (len(scales) - 1) + 56
    parts.append(
        f'<text class="quiet" x="8" y="{bottom}">In each box: channels, and width {TIMES} height in pixels</text>'
    )
    return parts, width, bottom + 12


def _boxes(structure: Structure, scales: Sequence[Fraction]) -> list[Box]:
    """The picture, the stages, the scores, from left to right."""
    height, width = structure.size
    labels = [Label("picture", Fraction(1), "Picture", structure.channels, "picture", _size(width, height))]
    for index, stage in enumerate(structure.stages):
        size = _size(stage.width, stage.height) or f"{stage.scale} of the sides"
        name, look = title(structure, index), part(structure, index)
        labels.append(Label(look, stage.scale, name, stage.channels, str(stage.channels or ""), size))
    labels.append(Label("picture", structure.stages[-1].scale, "Scores", None, "scores", labels[-1].size))
    boxes: list[Box] = []
    for label in labels:
        row = scales.index(label.scale)
        wide = max(56 + 3.2 * math.log2(label.channels or 1), len(label.size) * LETTER + 12)
        y = float(TOP + ROW * row)
        x = float(LEFT if structure.stages[0].scale != 1 else NARROW_LEFT)
        if boxes:
            beside = boxes[-1].y == y
            x = boxes[-1].x + (boxes[-1].width / 2 + wide / 2 + GAP if beside else max(STEP, wide / 2 + 22))
        boxes.append(Box(x, y, wide, max(36.0, 56.0 - 5 * row), label))
    return boxes


def _size(width: int | None, height: int | None) -> str:
    return f"{width} {TIMES} {height}" if width and height else ""


def _rows(scales: Sequence[Fraction], width: float) -> Iterator[str]:
    for row, scale in enumerate(scales):
        y = TOP + ROW * row
        yield f'<path class="row" d="M44 {y}H{width - 8:.0f}"/>'
        yield f'<text class="quiet" x="8" y="{y + 4}">{scale}</text>'


def _box(box: Box) -> Iterator[str]:
    label = box.label
    place = f'x="{box.left:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    yield f'<g><title>{_safe(label.name)}</title><rect class="box {label.look}" {place} rx="6"/>'
    for look, y, line in (("strong", box.y - 2, label.text), ("quiet", box.y + 12, label.size)):
        yield f'<text class="{look}" x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle">{_safe(line)}</text>'
    yield "</g>"


def _way(before: Box, after: Box, ways: Sequence[str]) -> Iterator[str]:
    """The arrow from one stage to the next, and how it changes the scale."""
    if before.y == after.y:
        yield f'<path class="way" d="M{before.right:.1f} {before.y}H{after.left - 6:.1f}"/>'
        yield _head("head", after.left, after.y, "right")
        return
    if after.y > before.y:
        start = before.y + before.height / 2
        yield f'<path class="way" d="M{before.x:.1f} {start:.1f}V{after.y}H{after.left - 6:.1f}"/>'
        yield _head("head", after.left, after.y, "right")
        x, y, anchor = before.x - 9, after.y - 10, "end"
    else:
        end = after.y + after.height / 2
        yield f'<path class="way" d="M{before.right:.1f} {before.y}H{after.x:.1f}V{end + 6:.1f}"/>'
        yield _head("head", after.x, end, "up")
        x, y, anchor = after.x + 9, before.y - 10, "start"
    for line, way in enumerate(ways):
        text = f'x="{x:.1f}" y="{y + 14 * (line - len(ways) + 1):.1f}" text-anchor="{anchor}"'
        yield f'<text class="quiet" {text}>{_safe(way)}</text>'


def _crossing(source: Box, target: Box, passes: Sequence[Pass]) -> Iterator[str]:
    """The line of what is passed across, named."""
    words = " + ".join("pool indices" if one.how == "indices" else one.how for one in passes)
    end = target.left - 7
    look = passes[0].how
    if source.y == target.y:
        yield f'<path class="across {look}" d="M{source.right:.1f} {source.y}H{end:.1f}"/>'
        y = target.y
        above = (
            y - 8 if end - source.right > len(words) * LETTER + 16 else y - max(source.height, target.height) / 2 - 7
        )
    else:
        y = target.y + target.height / 4
        middle = (source.right + end) / 2
        curve = f"C{middle:.1f} {source.y} {middle:.1f} {y:.1f} {end:.1f} {y:.1f}"
        yield f'<path class="across {look}" d="M{source.right:.1f} {source.y}{curve}"/>'
        above = (source.y + y) / 2 + 4
    yield _head("tip", target.left, y, "right")
    x = (source.right + end) / 2 - (0 if source.y == target.y else 8)
    anchor = "middle" if source.y == target.y else "end"
    yield f'<text class="said" x="{x:.1f}" y="{above:.1f}" text-anchor="{anchor}">{_safe(words)}</text>'


def _head(look: str, x: float, y: float, direction: str) -> str:
    """An arrow's head, its tip at (x, y)."""
    shape = "l-8 -4.5v9z" if direction == "right" else "l-4.5 8h9z"
    return f'<path class="{look}" d="M{x:.1f} {y:.1f}{shape}"/>'


def _counted(structure: Structure) -> tuple[list[str], float, float]:
    """Instead of stages: what the graph consists of."""
    shown = list(structure.operators.items())[:12]
    most = max(structure.operators.values(), default=1)
    parts = ['<text class="strong" x="8" y="24">The stages could not be told apart. What the graph consists of:</text>']
    for row, (operator, count) in enumerate(shown):
        y = 48 + 22 * row
        parts.append(
            f'<text x="172" y="{y + 4}" text-anchor="end">{_safe(operator[:24])}</text>'
            f'<rect class="box encoder" x="182" y="{y - 7}" width="{8 + 300 * count / most:.1f}" height="14" rx="4"/>'
            f'<text class="quiet" x="{200 + 300 * count / most:.1f}" y="{y + 4}">{count}</text>'
        )
    return parts, 560, 60 + 22 * len(shown)


def _safe(text: str) -> str:
    """As XML takes it: a damaged graph may name its operators in any bytes."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))
