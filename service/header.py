"""The first bytes of a picture in, its width and height out, as far as they stand at the front: no decoder is asked.

What is read here only says how much work a picture will be; what counts for the limits is what the decoder says.
"""

from __future__ import annotations

import re
from typing import Literal

JPEG_SEGMENT = re.compile(rb"\xff+([\x01-\xfe])", re.DOTALL)

JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of the segments that hold a JPEG's height and width."""

MAX_SEGMENTS = 100
"""Segments of a JPEG that are looked at before its frame."""


def size_in(data: bytes) -> tuple[int, int] | None:
    """Height and width that the header of a PNG, JPEG, WebP, GIF or BMP claims; None where there is no such header."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return _number(data, 20, 4, "big"), _number(data, 16, 4, "big")
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"GIF8") and len(data) >= 10:
        return _number(data, 8, 2), _number(data, 6, 2)
    if data.startswith(b"BM") and len(data) >= 26 and _number(data, 14, 4) >= 40:
        width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(height), abs(width)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    return None


def _number(data: bytes, at: int, length: int, order: Literal["little", "big"] = "little") -> int:
    return int.from_bytes(data[at : at + length], order)


def _jpeg(data: bytes) -> tuple[int, int] | None:
    position = 2
    for _ in range(MAX_SEGMENTS):
        marker = JPEG_SEGMENT.match(data, position, position + MAX_SEGMENTS)
        if marker is None:
            return None
        position = marker.end()
        if marker[1][0] in JPEG_FRAMES:
            return _number(data, position + 3, 2, "big"), _number(data, position + 5, 2, "big")
        position += _number(data, position, 2, "big")
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        return _number(data, 28, 2) & 0x3FFF, _number(data, 26, 2) & 0x3FFF
    if kind == b"VP8L":
        bits = _number(data, 21, 4)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        return _number(data, 27, 3) + 1, _number(data, 24, 3) + 1
    return None
