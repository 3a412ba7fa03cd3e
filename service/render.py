"""A Segmentation in, the body of an answer out: class mask, palette picture, overlay or summary."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

from service.blend import blend
from service.errors import ParameterError
from service.image import Picture
from service.manifest import Manifest
from service.segmenter import Segmentation
from service.turn import Turn

View = Literal["json", "mask", "color", "overlay"]

ImageFormat = Literal["png", "jpeg", "webp"]

SIDE_LIMITS: dict[ImageFormat, int] = {"webp": 16_383, "jpeg": 65_500}
"""The longest side in pixels that a format can hold."""

FAST_PNG = 1
"""zlib level of PNG bodies: a third of the time of level 6, files somewhat larger."""


@dataclass(frozen=True)
class Options:
    """How a view is rendered. `classes`: the ids asked for, None for all; `format` None: the view's own."""

    alpha: float = 0.5
    format: ImageFormat | None = None
    classes: frozenset[int] | None = None

    def check(self, view: View) -> None:
        """Raise ParameterError where an option has no meaning for `view`."""
        if view in ("mask", "color"):
            if self.classes is not None:
                raise ParameterError(f"classes= has no meaning for output={view}, which shows every class")
            if self.format not in (None, "png"):
                raise ParameterError(f"format={self.format} cannot hold class ids exactly: output={view} is always png")


@dataclass(frozen=True)
class Body:
    """An answer's bytes and what they are."""

    content: bytes
    media_type: str


def summary(
    manifest: Manifest, variant: str, segmentation: Segmentation, classes: Collection[int] | None = None
) -> dict[str, Any]:
    """What the `json` view says of a segmentation: model, size, and the classes present, largest first."""
    height, width = segmentation.mask.shape
    counts, boxes = segmentation.tally.pixels.tolist(), segmentation.tally.boxes.tolist()
    present = [spec.id for spec in manifest.classes if counts[spec.id] and (classes is None or spec.id in classes)]
    return {
        "model": {"name": manifest.name, "version": manifest.version, "variant": variant},
        "image": {"width": width, "height": height},
        "classes": [
            {
                "id": index,
                "name": manifest.classes[index].name,
                "color": manifest.classes[index].color,
                "pixels": counts[index],
                "fraction": counts[index] / (width * height),
                "bbox": boxes[index],
                "confidence": segmentation.class_confidence(index),
            }
            for index in sorted(present, key=lambda index: -counts[index])
        ],
    }


def render_image(
    view: Literal["mask", "color", "overlay"],
    manifest: Manifest,
    picture: Picture,
    segmentation: Segmentation,
    options: Options,
    turn: Turn | None = None,
) -> Body:
    """The picture views; an overlay is one of all the picture's pixels.

    Raises ParameterError where the picture's sides exceed what the format can hold.
    """
    if view == "overlay":
        wanted: ImageFormat = options.format or ("jpeg" if picture.format == "JPEG" else "png")
        _check_sides(picture, wanted)
        image = _overlay(picture, segmentation, manifest, options, turn or Turn())
        return _encode(image if wanted == "jpeg" else image.convert("RGB"), wanted)
    mask = Image.fromarray(segmentation.mask)
    return _encode(_with_palette(mask, manifest) if view == "color" else mask, "png")


def _overlay(
    picture: Picture, segmentation: Segmentation, manifest: Manifest, options: Options, turn: Turn
) -> Image.Image:
    """The picture blended with the palette where a class is drawn and asked for, in mode RGBX."""
    tinted = [spec.draw and (options.classes is None or spec.id in options.classes) for spec in manifest.classes]
    blended = np.zeros((picture.height, picture.width, 4), np.uint8)
    with turn.spread() as cores:
        tints = np.array(manifest.palette, np.float64), np.array(tinted) * options.alpha
        blend(picture.rgb, segmentation.mask, *tints, blended, cores)
    size = picture.width, picture.height
    return Image.frombuffer("RGBX", size, blended, "raw", "RGBX", 0, 1)  # the array itself, not a copy


def _with_palette(mask: Image.Image, manifest: Manifest) -> Image.Image:
    """The mask as a palette picture: index = class id."""
    image = mask.copy()
    colors = bytes(value for color in manifest.palette for value in color)
    # A full palette: for a short one, Pillow would pack the ids into fewer than 8 bits.
    image.putpalette(colors.ljust(3 * 256, b"\0"))
    return image


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
