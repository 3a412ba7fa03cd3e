"""An Accept header in, the view and picture format that it asks for out."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from service.drawing import ImageFormat
from service.errors import NotAcceptable
from service.render import View


@dataclass(frozen=True)
class Choice:
    """A view, and for the overlay the format; None leaves it to the view."""

    view: View
    format: ImageFormat | None = None


JSON = Choice("json")

OFFERED: dict[str, Choice] = {
    "application/json": JSON,
    "image/png": Choice("overlay", "png"),
    "image/jpeg": Choice("overlay", "jpeg"),
    "image/webp": Choice("overlay", "webp"),
    "application/geo+json": Choice("geojson"),
    "application/zip": Choice("zip"),
}
"""The media types that there are; where a client takes several alike, the first."""

RANGES = 100
"""Media ranges of an Accept header that are read."""


def negotiate(accept: str) -> Choice:
    """The choice of highest quality, the first of equals; JSON for browsers and for clients that do not care.

    Raises NotAcceptable where no offered type is accepted.
    """
    parts = [part for part in accept.split(",", RANGES) if part.strip()][:RANGES]
    ranges = [_media_range(part) for part in parts] or [("*/*", 1.0)]
    if any(name == "text/html" and quality > 0 for name, quality in ranges):
        return JSON
    refused = {name for name, quality in ranges if quality == 0}
    wanted = sorted((item for item in ranges if item[1] > 0), key=lambda item: -item[1])
    for name, _ in wanted:
        for choice in _matching(name, refused):
            return choice
    raise NotAcceptable(
        f"Accept: {accept} names none of {', '.join(OFFERED)}; output= chooses a view whatever Accept says"
    )


def _matching(media_range: str, refused: Container[str]) -> Iterator[Choice]:
    """The offered choices in a range such as image/*, best first; all pictures alike leave the format to the view."""
    group = media_range.removesuffix("*") if media_range.endswith("/*") else None
    found = {
        name: choice
        for name, choice in OFFERED.items()
        if media_range in {"*", "*/*", name} or (group is not None and name.startswith(group))
    }
    if media_range == "image/*" and not any(name in refused for name in found):
        yield Choice("overlay")
    yield from (choice for name, choice in found.items() if name not in refused)


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
