"""A request in, the work that it will be out: milliseconds of one core, estimated before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.bundle import Model
from service.geometry import net_pixels
from service.header import size_in
from service.render import View
from service.settings import Settings

# Milliseconds a megapixel, measured on one core of a server; by how much another machine differs, the gate learns.

DECODE: Mapping[bytes, float] = {b"\x89PN": 18.0, b"RIF": 17.0}
"""What decoding takes, by how the file begins."""

DECODE_JPEG = 10.0
"""Taken for the other formats, too."""

DECODE_THUMBNAIL = 2.0
"""What a JPEG takes that is decoded only as far as the net needs it."""

REQUEST = 3.0
"""What the smallest picture takes beside the net, in all. Without it, the gate would learn from small pictures that
large ones take many times what they do."""

UPSAMPLE = 4.0

STORE = 1.5
"""What it takes to keep a result, besides its mask, which is drawn once for the answer and the store."""

RENDER: Mapping[View, float] = {
    "json": 0.1,
    "mask": 2.5,
    "color": 2.5,
    "overlay": 5.0,
    "confidence": 20.0,
    "rle": 12.0,
    "polygons": 36.0,
    "geojson": 36.0,
    "zip": 24.0,
}

NET = 400.0
"""What a net takes that was not measured, a megapixel of its input."""

SHOW_AGAIN = 30.0
"""What a stored result takes, of whose size nothing is known before it is fetched; milliseconds in all."""


@dataclass(frozen=True)
class Cost:
    """What work is estimated to take: milliseconds of one core. Of each `kind` of work the gate learns how far such
    estimates are off."""

    milliseconds: float
    kind: str


def segmenting(data: bytes, model: Model, view: View, settings: Settings, store: bool) -> Cost:
    """What it takes to segment the picture in `data` and to show it in a view."""
    height, width = _size(data, settings)
    thumbnail = view != "overlay" and _has_thumbnail(data, model, settings, (height, width))
    drawn = {view, "mask"} if store else {view}
    pixels = _decoding(data, thumbnail) + UPSAMPLE + sum(RENDER[each] for each in drawn) + (STORE if store else 0.0)
    return Cost(REQUEST + pixels * height * width / 1e6 + running(model, (height, width)), _kind(model))


def running(model: Model, size: tuple[int, int]) -> float:
    """What the net takes for a picture of that height and width."""
    return net_pixels(model.manifest.input, *size) / 1e6 * (model.ms_per_megapixel or NET)


def least(models: Iterable[Model]) -> Cost:
    """What the smallest picture takes, with the quickest of the models."""
    costs = (Cost(REQUEST + running(model, (1, 1)), _kind(model)) for model in models)
    return min(costs, key=lambda cost: cost.milliseconds, default=Cost(0.0, "nothing"))


def inferring(pixels: int, model: Model) -> Cost:
    """What the net takes for tensors of so many pixels in all."""
    return Cost(pixels / 1e6 * (model.ms_per_megapixel or NET), _kind(model))


def showing_again() -> Cost:
    """What it takes to show a stored result."""
    return Cost(SHOW_AGAIN, "stored result")


def _kind(model: Model) -> str:
    return f"{model.name} version {model.version}"


def _size(data: bytes, settings: Settings) -> tuple[int, int]:
    """Height and width by the header; of a format whose header may lie anywhere (TIFF), a byte is taken for a pixel.
    More than the limit is refused without work."""
    height, width = size_in(data) or (1, len(data))
    if not 0 < height * width <= settings.max_pixels:
        return 1, 1
    return height, width


def _has_thumbnail(data: bytes, model: Model, settings: Settings, size: tuple[int, int]) -> bool:
    return settings.thumbnails and data.startswith(b"\xff\xd8") and model.segmenter.thumbnail(*size) is not None


def _decoding(data: bytes, thumbnail: bool) -> float:
    return DECODE_THUMBNAIL if thumbnail else DECODE.get(data[:3], DECODE_JPEG)
