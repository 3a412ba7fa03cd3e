"""An Accept header in, the view and picture format that it asks for out."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import NotAcceptable
from service.render import ImageFormat, View


@dataclass(frozen=True)
class Choice:
    """A view, and for the overlay the format; None leaves it to the view."""

    view: View
    format: ImageFormat | None = None


JSON = Choice("json")

MEDIA_TYPES: dict[str, Choice] = {
    "application/json": JSON,
    "application/*": JSON,
    "*/*": JSON,
    "image/png": Choice("overlay", "png"),
    "image/jpeg": Choice("overlay", "jpeg"),
    "image/webp": Choice("overlay", "webp"),
    "image/*": Choice("overlay"),
}


def negotiate(accept: str | None) -> Choice:
    """The choice of highest quality, the first of equals; JSON for browsers and for clients that do not care.

    Raises NotAcceptable where no offered type is accepted.
    """
    ranges = [_media_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    if not ranges or any(name == "text/html" and quality > 0 for name, quality in ranges):
        return JSON
    offered = [(quality, MEDIA_TYPES[name]) for name, quality in ranges if name in MEDIA_TYPES and quality > 0]
    if not offered:
        types = ", ".join(name for name in MEDIA_TYPES if "*" not in name)
        raise NotAcceptable(f"Accept: {accept} names none of {types}; output= chooses a view whatever Accept says")
    return max(offered, key=lambda item: item[0])[1]


def _media_range(text: str) -> tuple[str, float]:
    """`image/png;q=0.5` -> ("image/png", 0.5); a quality that is no number counts as 0."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return name, 0.0
    return name, 1.0
