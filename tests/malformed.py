"""A seed in, some 2,000 pictures out that are broken, odd, or larger than they look: the same ones every time."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from tests.bundles import BLUE, GREEN, RED, bands
from tests.pictures import bmp, file, gif, png, tiff

CUTS, FLIPS, SPLICES, LENGTHS, TAILS = 20, 14, 6, 8, 3
"""How many files of each kind are made of a good one."""

SUSPECT = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0", b"\1\0\0\0")
"""What a length or an offset is replaced by."""

PREFIXES = (b"%PDF-1.7\n", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"PK\3\4", b"<svg>", b"II*\0", b"BM")


def good_pictures() -> dict[str, bytes]:
    """Small files of every accepted format and many of its kinds, by name."""
    rgb = Image.fromarray(bands(RED, GREEN, BLUE, height=48, width=64))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    grey, levels = rgb.convert("L"), np.asarray(rgb.convert("L"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return {
        "png": file(rgb, "PNG"),
        "png-noise": file(noise, "PNG"),
        "png-palette": _saved(rgb.convert("P"), "PNG", transparency=1),
        "png-alpha": file(rgb.convert("RGBA"), "PNG"),
        "png-16": file(Image.fromarray(levels.astype(np.uint16) * 257), "PNG"),
        "png-bits": file(rgb.convert("1"), "PNG"),
        "png-exif": _saved(rgb, "PNG", exif=exif, icc_profile=bytes(400)),
        "png-animated": file(rgb, "PNG", noise, rgb),
        "jpeg": file(noise, "JPEG"),
        "jpeg-progressive": _saved(noise, "JPEG", progressive=True, exif=exif),
        "jpeg-grey": file(grey, "JPEG"),
        "jpeg-cmyk": file(rgb.convert("CMYK"), "JPEG"),
        "jpeg-pair": file(rgb, "MPO", noise),
        "webp": _saved(noise, "WEBP", quality=50),
        "webp-lossless": file(rgb.convert("RGBA"), "WEBP"),
        "webp-animated": file(rgb, "WEBP", noise, rgb),
        "gif": file(rgb.convert("P"), "GIF"),
        "gif-animated": file(rgb.convert("P"), "GIF", noise.convert("P")),
        "bmp": file(noise, "BMP"),
        "bmp-palette": file(rgb.convert("P"), "BMP"),
        "bmp-runs": bmp(64, 48, 8, 1, b"\x40\1\0\0" * 48 + b"\0\1"),
        "tiff": file(noise, "TIFF"),
        **{f"tiff-{name}": _saved(noise, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")},
        "tiff-deflate": _saved(rgb.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff-fax": _saved(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff-float": file(Image.fromarray(levels.astype(np.float32) / 255), "TIFF"),
        "tiff-16": file(Image.fromarray(levels.astype(np.uint16)), "TIFF"),
        "tiff-pages": file(rgb, "TIFF", noise),
    }


def corpus(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names that say what was done, and the files."""
    pictures = good_pictures()
    for name, data in pictures.items():
        dice = random.Random(f"{seed} {name}")
        others = [other for key, other in pictures.items() if key != name]
        yield from ((f"{name}-{what}", broken) for what, broken in _broken(data, others, dice))
    yield from odd_pictures().items()
    yield from bombs().items()


def _broken(data: bytes, others: list[bytes], dice: random.Random) -> Iterator[tuple[str, bytes]]:
    edges = sorted({*range(1, 9), *(len(data) * step // CUTS for step in range(1, CUTS))})
    yield from ((f"cut-{end}", data[:end]) for end in edges)
    for count in range(FLIPS):
        yield f"flip-{count}", _flipped(data, dice, within=len(data) if count % 2 else 100)
    for count in range(SPLICES):
        start, other = dice.randrange(len(data)), dice.choice(others)
        stop, begin = min(len(data), start + dice.randrange(1, 200)), dice.randrange(len(other))
        yield f"splice-{count}", data[:start] + other[begin : begin + dice.randrange(200)] + data[stop:]
    for count in range(LENGTHS):
        place = dice.randrange(0, min(len(data), 200))
        yield f"length-{count}", data[:place] + dice.choice(SUSPECT) + data[place + 4 :]
    for size in (12, 32, 64):
        yield f"header-{size}-zeros", data[:size] + bytes(2000)
        yield f"header-{size}-noise", data[:size] + dice.randbytes(2000)
    for count in range(TAILS):
        yield f"tail-{count}", data + dice.choice(others)
        yield f"front-{count}", dice.choice(PREFIXES) + data
        yield f"mixed-{count}", dice.choice(others)[:16] + data[16:]


def _flipped(data: bytes, dice: random.Random, within: int) -> bytes:
    found = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        found[dice.randrange(min(within, len(found)))] ^= 1 << dice.randrange(8)
    return bytes(found)


def odd_pictures() -> dict[str, bytes]:
    """Files that are unusual, in themselves or as a body."""
    dice = random.Random("odd")
    return {
        **{f"noise-{size}": dice.randbytes(size) for size in (1, 2, 16, 1000, 100_000)},
        **{f"zeros-{size}": bytes(size) for size in (1, 100, 100_000)},
        "wide": png(40_000, 1, 8, 0, b"\0" + bytes(40_000)),
        "tall": png(1, 40_000, 8, 0, b"\0\0" * 40_000),
        "without-pixels": png(0, 0, 8, 2, b""),
        "without-width": png(0, 10, 8, 2, b"\0" * 10),
        "depth-3": png(8, 8, 3, 0, bytes(100)),
        "colour-5": png(8, 8, 8, 5, bytes(1000)),
        "missing-palette": png(8, 8, 8, 3, bytes(72)),
        "gif-outside": gif(1, 60_000),
        "text": b"GIF87a this is a text",
        "jpeg-without-scan": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xd9",
    }


def bombs() -> dict[str, bytes]:
    """Small files that ask for much: pixels, passes, pieces, numbers."""
    photo = file(Image.new("L", (64, 48)), "JPEG")
    slow = _saved(Image.new("L", (64, 48), 128), "JPEG", progressive=True)
    scan = slow[slow.rindex(b"\xff\xda") : slow.rindex(b"\xff\xd9")]
    vast = zlib.compress(bytes(2**24))
    comments, exif = b"\xff\xfe\0\2" * 60_000, b"\xff\xe1\0\x0cExif\0\0ab\0\0" * 20_000
    frame = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xfe\x3f\0" * 2
    return {
        "png-pixels": png(30_000, 30_000, 8, 2, bytes(100)),
        "png-most-pixels": png(2**31 - 1, 2**31 - 1, 8, 2, bytes(100)),
        "png-tall": png(1, 40_000_000, 8, 0, bytes(100)),
        "png-wide": png(40_000_000, 1, 8, 0, bytes(100)),
        "gif-pixels": gif(65_535, 65_535),
        "bmp-pixels": bmp(40_000, 40_000, 24, 0, bytes(100)),
        "webp-pixels": b"RIFF" + struct.pack("<I", len(frame) + 4) + b"WEBP" + frame,
        "tiff-pixels": tiff({256: (4, 1, 100_000), 257: (4, 1, 100_000), 273: (4, 1, 8), 258: (3, 1, 8)}),
        "jpeg-scans": slow.replace(scan, scan * 3_000),
        "jpeg-comments": photo[:2] + comments + photo[2:],
        "jpeg-exif": photo[:2] + exif + photo[2:],
        "png-chunks": png(8, 8, 8, 0, bytes(72), *[(b"abCd", b"")] * 50_000),
        "png-profiles": png(8, 8, 8, 0, bytes(72), *[(b"iCCP", b"p\0\0" + vast)] * 100),
        "png-texts": png(8, 8, 8, 0, bytes(72), *[(b"zTXt", b"t\0\0" + vast)] * 100),
        "gif-comments": b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1a" * 500_000 + b"\0;",
        "bmp-runs": bmp(49_999_999, 1, 8, 1, b"\1\1\0\0"),
        "tiff-tile": tiff(
            {256: (4, 1, 10), 257: (4, 1, 10), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1)}
            | {322: (4, 1, 30_000), 323: (4, 1, 30_000), 324: (4, 1, 500), 325: (4, 1, len(vast))},
            vast,
        ),
        "tiff-strips": tiff(
            {256: (4, 1, 10), 257: (4, 1, 500_000), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
            | {273: (4, 500_000, 500), 278: (4, 1, 1)},
            bytes(2_000_000),
        ),
        "png-exif": png(8, 8, 8, 0, bytes(72), (b"eXIf", tiff({274: (5, 500_000, 500)}, b"\1\0\0\0" * 10**6))),
    }


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
