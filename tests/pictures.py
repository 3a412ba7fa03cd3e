"""Picture files of every kind, also of kinds that Pillow reads but does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """A picture, uint8 (height, width, 3), in which no pixel is like its neighbours; it does not compress."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def file(image: Image.Image, kind: str, *frames: Image.Image) -> bytes:
    """The image as a file; `frames` are the further ones of an animation or the further pages."""
    buffer = BytesIO()
    if kind == "WEBP":
        image.save(buffer, kind, lossless=True, save_all=bool(frames), append_images=frames)
    elif frames:
        image.save(buffer, kind, save_all=True, append_images=frames)
    else:
        image.save(buffer, kind)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of any kind: bits a sample, colour type, the rows with their filter bytes, and chunks to go before them."""
    return packed_png(width, height, depth, color, zlib.compress(rows), *more)


def packed_png(width: int, height: int, depth: int, color: int, stream: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """The same with rows that have been packed already, or with anything in their place."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", stream), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def gif(canvas: int, frame: int) -> bytes:
    """A GIF of a few bytes whose header and whose frame claim squares of these sides; it holds one pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", canvas, canvas, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\4\0\0\0\0\0"
    return screen + control + b"\x2c" + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\2\2\x4c\1\0\x3b"


def bmp(width: int, height: int, depth: int, compression: int, pixels: bytes) -> bytes:
    """A BMP of any kind: bits a pixel, with a palette of 256 colours for up to 8, and how the pixels are packed."""
    palette = b"".join(bytes((level, 255 - level, 7, 0)) for level in range(256)) if depth <= 8 else b""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


def tiff(tags: Mapping[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """A TIFF with these tags (type, count, and value or place), whose further data begins at byte 500."""
    entries = b"".join(struct.pack("<HHLL", tag, *tags[tag]) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(500, b"\0") + data
