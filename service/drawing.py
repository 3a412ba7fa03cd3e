"""A Segmentation and a picture in, image files out: class mask, palette picture, overlay, confidence, legend."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service import png
from service.blend import blend
from service.errors import ParameterError
from service.image import Picture
from service.manifest import Snapshot
from service.turn import Turn

ImageFormat = Literal["png", "jpeg", "webp"]

SIDE_LIMITS: dict[ImageFormat, int] = {"webp": 16_383, "jpeg": 65_500}
"""The longest side in pixels that a format can hold."""

FAST_PNG = 1
"""zlib level of PNG bodies: a third of the time of level 6, files somewhat larger."""

LEGEND_ROW = 24
"""Pixels: the height of a class's line in the legend."""


@dataclass(frozen=True)
class Body:
    """An answer's bytes and what they are."""

    content: bytes
    media_type: str


def mask(ids: NDArray[np.uint8], turn: Turn) -> Body:
    """An 8-bit grey PNG of the class ids, uint8 (H, W)."""
    with turn.spread() as cores:
        return Body(png.encode(ids, cores=cores), "image/png")


def color(ids: NDArray[np.uint8], model: Snapshot, turn: Turn) -> Body:
    """The class ids, uint8 (H, W), as a palette PNG: index = class id."""
    colors = bytes(value for color in model.palette for value in color)
    with turn.spread() as cores:
        # A full palette: some readers take a short one for an error where an id lies beyond it.
        return Body(png.encode(ids, colors.ljust(3 * 256, b"\0"), cores), "image/png")


def enlarged(levels: NDArray[np.uint8], size: tuple[int, int]) -> Body:
    """Levels, uint8 (h, w), over a picture of `size` (height, width), as a grey PNG of that size; bilinear."""
    return _encode(Image.fromarray(stretched(levels, size)), "png")


def stretched(levels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Levels, uint8 (h, w), bilinearly brought to `size` (height, width)."""
    return np.asarray(Image.fromarray(levels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def overlay(
    picture: Picture,
    ids: NDArray[np.uint8],
    model: Snapshot,
    alpha: float,
    classes: frozenset[int] | None,
    wanted: ImageFormat | None,
    turn: Turn,
) -> Body:
    """The picture blended with the palette, of which `alpha` is the share, where a class is drawn and in `classes`.

    `wanted` None: JPEG for a JPEG, else PNG. Raises ParameterError where the sides exceed what the format can hold.
    """
    kind: ImageFormat = wanted or ("jpeg" if picture.format == "JPEG" else "png")
    _check_sides(picture, kind)
    tinted = [spec.draw and (classes is None or spec.id in classes) for spec in model.classes]
    blended = np.zeros((picture.height, picture.width, 4), np.uint8)
    with turn.spread() as cores:
        tints = np.array(model.palette, np.float64), np.array(tinted) * alpha
        blend(picture.rgb, ids, *tints, blended, cores)
    # The array itself, not a copy, in the order in which Pillow keeps colours.
    image = Image.frombuffer("RGBX", (picture.width, picture.height), blended, "raw", "RGBX", 0, 1)
    return _encode(image if kind == "jpeg" else image.convert("RGB"), kind)


def legend(model: Snapshot) -> Body:
    """Each class's colour, id and name, one below the other, as a PNG."""
    font = ImageFont.load_default(LEGEND_ROW * 0.6)
    lines = [f"{spec.id}  {spec.name}" for spec in model.classes]
    width = 2 * LEGEND_ROW + max(int(font.getlength(line)) for line in lines)
    image = Image.new("RGB", (width, LEGEND_ROW * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for row, (spec, line) in enumerate(zip(model.classes, lines, strict=True)):
        top = row * LEGEND_ROW
        draw.rectangle((4, top + 4, LEGEND_ROW - 4, top + LEGEND_ROW - 4), fill=spec.rgb, outline="black")
        draw.text((LEGEND_ROW + 8, top + LEGEND_ROW / 2), line, "black", font, anchor="lm")
    return _encode(image, "png")


def _check_sides(picture: Picture, wanted: ImageFormat) -> None:
    limit = SIDE_LIMITS.get(wanted)
    if limit is not None and max(picture.size) > limit:
        raise ParameterError(
            f"the picture is {picture.width}x{picture.height}, but {wanted} holds sides up to {limit}: use format=png"
        )


def _encode(image: Image.Image, wanted: ImageFormat) -> Body:
    buffer = BytesIO()
    if wanted == "png":
        image.save(buffer, "PNG", compress_level=FAST_PNG)
    elif wanted == "jpeg":
        image.save(buffer, "JPEG", quality=85)
    else:
        image.save(buffer, "WEBP", quality=85, method=2)
    return Body(buffer.getvalue(), f"image/{wanted}")
