"""A picture file's bytes in, an error out where its structure asks for far more work than its pixels do.

The limit on pixels bounds what a decoder writes; this bounds what it reads, passes over again, or remembers on the way.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image, TiffImagePlugin

from service.errors import PictureTooLarge

SCANS = 100
"""Scans of a JPEG, at most, as in libtiff: each passes over all of the picture. Encoders write about ten."""

SEGMENTS = 2_000
"""Marker segments of a JPEG, at most: 32 MiB of full ones are 512."""

EXIF_SEGMENTS = 16
"""Segments of EXIF data in a JPEG, at most; the standard has one, of 64 KiB."""

VALUES = 400_000
"""Numbers in a TIFF's directory, or in EXIF data, at most: a palette of 16 bits has 196,608."""

RLE_PIXELS = 4_000_000
"""Pixels of a run-length encoded BMP, at most: it is decoded byte by byte."""

TILE_SPARE = 2**22
"""Pixels that a TIFF's tile, which is decoded as a whole, may have more than the picture."""

STORED_BYTES = 2**27
"""Bytes of a TIFF's strips and tiles that are read, at most: where they overlap, more than the file has."""

CHUNKS, OTHER_CHUNKS = 300_000, 1_000
"""Chunks of a PNG, and those of them that hold no pixels, at most: colour profiles, texts, which are inflated."""

OPENING_READS, DECODING_READS = 10_000, 1_000_000
"""Pieces that a decoder may read a file in, until its size is known and from then on: each chunk takes two or three."""

MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""A JPEG's marker: no stuffed byte, no restart."""

EXIF = b"Exif\0\0"

SOI, EOI, SOS, APP1, TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01

NUMBERS = {3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""TIFF's types of numbers, and the bytes of one; texts and bytes are kept as they are."""

DIRECTORIES = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop}
"""Tags that lead to a further directory."""


class RationedFile(BytesIO):
    """A file that gives its bytes in so many pieces at most; a decoder that asks for more of them is refused."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.pieces = OPENING_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes. Raises PictureTooLarge."""
        if self.pieces <= 0:
            raise PictureTooLarge(
                "the picture's file consists of too many pieces, blocks or runs: save it again with another program",
                limit=OPENING_READS,
                actual=None,
            )
        self.pieces -= 1
        return super().read(size)


def screen_file(data: bytes) -> None:
    """Look at a file before a decoder does. Raises PictureTooLarge."""
    if data.startswith(b"\xff\xd8"):
        _screen_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        _screen_png(data)
    elif data.startswith((b"II", b"MM")):
        found = count_values(data)
        if found > VALUES:
            raise _too_many("the TIFF's directory", found, "numbers", VALUES)


def screen_picture(image: Image.Image, data: bytes) -> None:
    """Look at what a decoder has read of a file's header, before it reads the pixels. Raises PictureTooLarge."""
    pixels = image.width * image.height
    if image.format == "BMP" and image.info.get("compression") in (1, 2) and pixels > RLE_PIXELS:
        raise _too_many("the run-length encoded BMP", pixels, "pixels", RLE_PIXELS)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _screen_tiff(image, len(data))


def count_values(data: bytes) -> int:
    """How many numbers a TIFF file's first directory holds, and those that it leads to; as far as it can be read."""
    data = data.removeprefix(EXIF).removeprefix(EXIF)  # as Pillow does
    order, is_big = ">" if data.startswith(b"MM") else "<", data[2:3] == b"+"
    try:
        (start,) = struct.unpack_from(f"{order}Q" if is_big else f"{order}L", data, 8 if is_big else 4)
    except struct.error:
        return 0
    waiting, seen, total = [start], set[int](), 0
    while waiting and total <= VALUES:
        start = waiting.pop()
        if start in seen:
            continue
        seen.add(start)
        for tag in _tags(data, order, is_big, start):
            size = NUMBERS.get(tag.kind)
            if size is not None and tag.value + tag.count * size <= len(data):
                total += tag.count
            if tag.number in DIRECTORIES:
                waiting.append(tag.value)
    return total


@dataclass(frozen=True)
class _Tag:
    """An entry of a TIFF directory: its value, or where that is."""

    number: int
    kind: int
    count: int
    value: int


def _tags(data: bytes, order: str, is_big: bool, start: int) -> Iterator[_Tag]:
    head, entry = (f"{order}Q", f"{order}HHQQ") if is_big else (f"{order}H", f"{order}HHLL")
    try:
        (count,) = struct.unpack_from(head, data, start)
        for index in range(count):
            yield _Tag(*struct.unpack_from(entry, data, start + struct.calcsize(head) + index * struct.calcsize(entry)))
    except struct.error:
        return  # the file ends here


def _screen_jpeg(data: bytes) -> None:
    scans = segments = exif = position = 0
    while (found := MARKER.search(data, position)) is not None:
        kind, position = found[1][0], found.end()
        if kind in {SOI, TEM} or (kind == EOI and not scans):
            continue
        if kind == EOI:
            return  # what follows belongs to another picture, or to none
        segments += 1
        scans += kind == SOS
        exif += kind == APP1 and data.startswith(EXIF, position + 2)
        for what, count, limit in (("scans", scans, SCANS), ("segments", segments, SEGMENTS)):
            if count > limit:
                raise _too_many("the JPEG", count, what, limit)
        if exif > EXIF_SEGMENTS:
            raise _too_many("the JPEG", exif, "segments of EXIF data", EXIF_SEGMENTS)
        position += int.from_bytes(data[position : position + 2], "big")


def _screen_png(data: bytes) -> None:
    position, chunks, others = 8, 0, 0
    while position + 8 <= len(data) and (kind := data[position + 4 : position + 8]) != b"IEND":
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        chunks += 1
        others += kind not in {b"IDAT", b"fdAT", b"fcTL"}
        if chunks > CHUNKS:
            raise _too_many("the PNG", chunks, "chunks", CHUNKS)
        if others > OTHER_CHUNKS:
            raise _too_many("the PNG", others, "chunks that hold no pixels", OTHER_CHUNKS)


def _screen_tiff(image: TiffImagePlugin.TiffImageFile, size: int) -> None:
    tags, limit = image.tag_v2, image.width * image.height + TILE_SPARE
    width, height = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    if isinstance(width, int) and isinstance(height, int) and width * height > limit:
        raise _too_many("each of the TIFF's tiles", width * height, "pixels", limit)
    counts = [*tags.get(TiffImagePlugin.STRIPBYTECOUNTS, ()), *tags.get(TiffImagePlugin.TILEBYTECOUNTS, ())]
    stored, limit = sum(count for count in counts if isinstance(count, int)), max(STORED_BYTES, size)
    if stored > limit:
        raise _too_many("the data of the TIFF's strips or tiles", stored, "bytes", limit)


def _too_many(where: str, actual: int, what: str, limit: int) -> PictureTooLarge:
    return PictureTooLarge(
        f"{where} has {actual} {what} or more, the limit is {limit}: save the picture again with another program",
        limit=limit,
        actual=actual,
    )
