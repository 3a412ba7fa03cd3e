"""Picture files of every kind, also of kinds that Pillow reads but does not write."""

from __future__ import annotations

import struct
import zlib
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


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG of any kind: bits a sample, colour type, and the rows with their filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def gif(canvas: int, frame: int) -> bytes:
    """A GIF of a few bytes whose header and whose frame claim squares of these sides; it holds one pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", canvas, canvas, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\4\0\0\0\0\0"
    return screen + control + b"\x2c" + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\2\2\x4c\1\0\x3b"
