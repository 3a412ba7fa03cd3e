"""A seed in, a synthetic street scene with its ground truth out; or a whole data folder of them.

The scenes are made by this project, free for any use: they serve tests, golden pictures and documentation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from service.manifest import ClassList, ClassSpec

Color = tuple[int, int, int]
Point = tuple[float, float]

SCENE_CLASSES = ClassList(
    classes=tuple(
        ClassSpec(id=index, name=name, color=color)
        for index, (name, color) in enumerate(
            [
                ("sky", "#8ecae6"),
                ("building", "#9c6644"),
                ("road", "#6d597a"),
                ("pavement", "#e9c46a"),
                ("tree", "#588157"),
                ("car", "#d62828"),
            ]
        )
    )
)
SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR = range(6)


@dataclass(frozen=True)
class _Canvas:
    """Picture and mask that are drawn together; coordinates are fractions of the sides, y down."""

    height: int
    width: int
    picture: Image.Image
    mask: Image.Image
    random: np.random.Generator

    def polygon(self, points: list[Point], color: Color, class_id: int) -> None:
        scaled = [(x * self.width, y * self.height) for x, y in points]
        ImageDraw.Draw(self.picture).polygon(scaled, fill=color)
        ImageDraw.Draw(self.mask).polygon(scaled, fill=class_id)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color, class_id: int) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, class_id)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, color: Color, class_id: int) -> None:
        scaled = (x0 * self.width, y0 * self.height, x1 * self.width, y1 * self.height)
        ImageDraw.Draw(self.picture).ellipse(scaled, fill=color)
        ImageDraw.Draw(self.mask).ellipse(scaled, fill=class_id)

    def shade(self, color: Color, spread: int) -> Color:
        """`color`, lighter or darker by up to `spread`."""
        shift = int(self.random.integers(-spread, spread, endpoint=True))
        red, green, blue = (min(max(value + shift, 0), 255) for value in color)
        return red, green, blue


def scene(seed: int, height: int = 240, width: int = 320) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A street seen from a car: picture uint8 (H, W, 3) and class ids uint8 (H, W) of `SCENE_CLASSES`."""
    random = np.random.default_rng(seed)
    canvas = _Canvas(height, width, Image.new("RGB", (width, height)), Image.new("L", (width, height), SKY), random)
    horizon = float(random.uniform(0.40, 0.52))
    vanishing = float(random.uniform(0.4, 0.6))
    _sky(canvas, horizon)
    _ground(canvas, horizon, vanishing)
    for side in (-1, 1):
        _buildings(canvas, horizon, vanishing, side)
        _trees(canvas, horizon, vanishing, side)
    _cars(canvas, horizon, vanishing)
    return _weather(canvas.picture, random), np.asarray(canvas.mask)


def write_scenes(folder: Path, train: int, val: int, height: int, width: int, seed: int = 0) -> None:
    """Write a data folder of scenes: `train` and `val` pictures (PNG), masks and `classes.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps(SCENE_CLASSES.model_dump(mode="json"), indent=1) + "\n")
    splits = [("train", range(seed, seed + train)), ("val", range(seed + train, seed + train + val))]
    for split, seeds in splits:
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in seeds:
            picture, mask = scene(number, height, width)
            Image.fromarray(picture).save(folder / split / "images" / f"{number:05d}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{number:05d}.png")


def _sky(canvas: _Canvas, horizon: float) -> None:
    base = canvas.shade((190, 205, 222), 25)
    bands = 24
    for band in range(bands):
        lift = band * 30 // bands
        color = (min(base[0] + lift, 255), min(base[1] + lift, 255), min(base[2] + lift // 2, 255))
        canvas.box(0, band * horizon / bands, 1, 1, color, SKY)


def _ground(canvas: _Canvas, horizon: float, vanishing: float) -> None:
    canvas.box(0, horizon, 1, 1, canvas.shade((146, 140, 134), 12), PAVEMENT)
    left, right = float(canvas.random.uniform(-0.25, 0.05)), float(canvas.random.uniform(0.95, 1.25))
    road = canvas.shade((84, 84, 90), 14)
    canvas.polygon([(vanishing - 0.02, horizon), (vanishing + 0.02, horizon), (right, 1), (left, 1)], road, ROAD)
    for start in np.arange(0.05, 1.0, 0.18):
        near, far = horizon + (1 - horizon) * (start + 0.08), horizon + (1 - horizon) * start
        middle = (left + right) / 2
        x_near, x_far = (vanishing + (middle - vanishing) * (y - horizon) / (1 - horizon) for y in (near, far))
        half = 0.012 * (near - horizon) / (1 - horizon)
        stripe = [(x_far - half / 2, far), (x_far + half / 2, far), (x_near + half, near), (x_near - half, near)]
        canvas.polygon(stripe, (214, 212, 205), ROAD)


def _buildings(canvas: _Canvas, horizon: float, vanishing: float, side: int) -> None:
    """A row of fronts along one side, nearer ones larger."""
    edge = 0.0 if side < 0 else 1.0
    depths = np.sort(canvas.random.uniform(0.15, 1.0, size=4))
    for near in depths:
        far = near * 0.62
        x_near, x_far = (vanishing + (edge + side * 0.15 - vanishing) * depth for depth in (near, far))
        top = float(canvas.random.uniform(0.55, 1.0))
        color = canvas.shade(((150, 112, 92), (168, 150, 128), (120, 96, 88))[int(canvas.random.integers(3))], 15)
        low = 0.10
        corners = [(x_near, horizon - top * near * 0.55), (x_far, horizon - top * far * 0.55)]
        corners += [(x_far, horizon + low * far), (x_near, horizon + low * near)]
        canvas.polygon(corners, color, BUILDING)
        _windows(canvas, (x_near, x_far), horizon, top, (near, far))


def _windows(
    canvas: _Canvas, sides: tuple[float, float], horizon: float, top: float, depths: tuple[float, float]
) -> None:
    glass = canvas.shade((66, 72, 84), 12)
    for column in (0.15, 0.45, 0.75):
        across, beside = column, column + 0.16
        for row in (0.25, 0.5, 0.75):
            corners = []
            for share, height in ((across, row), (beside, row), (beside, row + 0.12), (across, row + 0.12)):
                depth = depths[0] + (depths[1] - depths[0]) * share
                corners.append((sides[0] + (sides[1] - sides[0]) * share, horizon - top * depth * 0.55 * (1 - height)))
            canvas.polygon(corners, glass, BUILDING)


def _trees(canvas: _Canvas, horizon: float, vanishing: float, side: int) -> None:
    edge = 0.0 if side < 0 else 1.0
    for depth in np.sort(canvas.random.uniform(0.25, 0.9, size=int(canvas.random.integers(1, 4)))):
        x = vanishing + (edge + side * 0.02 - vanishing) * depth
        ground = horizon + (1 - horizon) * depth * 0.35
        crown, trunk = 0.20 * depth, 0.012 * depth
        middle = ground - 0.42 * depth
        canvas.box(x - trunk, middle, x + trunk, ground, canvas.shade((78, 60, 46), 8), TREE)
        for _ in range(9):
            dx, dy = canvas.random.uniform(-0.5, 0.5, size=2) * crown
            radius = crown * float(canvas.random.uniform(0.35, 0.6))
            box = (x + dx - radius * 0.75, middle + dy - radius, x + dx + radius * 0.75, middle + dy + radius)
            canvas.ellipse(*box, canvas.shade((72, 104, 56), 18), TREE)


def _cars(canvas: _Canvas, horizon: float, vanishing: float) -> None:
    paints: tuple[Color, ...] = ((176, 36, 40), (40, 66, 132), (222, 222, 224), (36, 36, 40), (200, 160, 40))
    for depth in np.sort(canvas.random.uniform(0.25, 0.8, size=int(canvas.random.integers(1, 4)))):
        lane = float(canvas.random.choice((-0.24, 0.24)))
        x = vanishing + lane * depth * 1.2
        ground = horizon + (1 - horizon) * depth
        wide, high = 0.17 * depth, 0.20 * depth
        paint = canvas.shade(paints[int(canvas.random.integers(len(paints)))], 12)
        canvas.box(x - wide, ground - high * 0.62, x + wide, ground - high * 0.08, paint, CAR)
        roof = [(x - wide * 0.75, ground - high * 0.6), (x - wide * 0.55, ground - high)]
        roof += [(x + wide * 0.55, ground - high), (x + wide * 0.75, ground - high * 0.6)]
        canvas.polygon(roof, paint, CAR)
        canvas.polygon([(a * 0.9 + x * 0.1, b + high * 0.05) for a, b in roof], (58, 66, 76), CAR)
        for wheel in (x - wide * 0.8, x + wide * 0.5):
            canvas.box(wheel, ground - high * 0.14, wheel + wide * 0.3, ground, (24, 24, 26), CAR)


def _weather(picture: Image.Image, random: np.random.Generator) -> NDArray[np.uint8]:
    """Blur a little, light it, add noise: colour alone does not tell the class."""
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.6))).astype(np.float64)
    gain = random.uniform(0.82, 1.15)
    noise = random.normal(0, 5, size=soft.shape)
    return np.clip(np.rint(soft * gain + noise), 0, 255).astype(np.uint8)
