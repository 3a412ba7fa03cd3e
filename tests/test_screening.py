"""A file that asks for more work than its pixels do is refused before it is decoded; unusual good ones are not."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.errors import PictureTooLarge
from service.image import decode
from service.screening import SCANS, SEGMENTS, VALUES, count_values
from tests.bundles import BLUE, GREEN, RED, bands
from tests.malformed import bombs
from tests.pictures import bmp, file, png, tiff

LIMIT = 50_000_000

FLAG = Image.fromarray(bands(RED, GREEN, BLUE, height=48, width=64))


def saved(kind: str, image: Image.Image = FLAG, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes) -> PictureTooLarge:
    with pytest.raises(PictureTooLarge) as caught:
        decode(data, LIMIT)
    return caught.value


def scans(count: int) -> bytes:
    """A progressive JPEG with so many scans: the last of its own again and again."""
    data = saved("JPEG", FLAG.convert("L"), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_may_have_a_hundred_scans_and_no_more() -> None:
    assert decode(scans(SCANS), LIMIT).size == (48, 64)
    error = refused(scans(SCANS + 1))
    assert (error.limit, error.actual) == (SCANS, SCANS + 1)


def test_scans_behind_the_picture_belong_to_another_one() -> None:
    assert decode(scans(90) + scans(90), LIMIT).size == (48, 64)


def test_a_jpeg_may_have_as_many_segments_as_a_large_profile_needs() -> None:
    assert decode(saved("JPEG", icc_profile=bytes(4_000_000)), LIMIT).size == (48, 64)
    data = saved("JPEG")
    error = refused(data[:2] + b"\xff\xfe\0\2" * SEGMENTS + data[2:])
    assert "segments" in str(error)


def test_bytes_between_segments_are_no_way_around() -> None:
    data = saved("JPEG")
    refused(data[:2] + b"\xff\xd9" + b"\xff\xff\xfe\0\2" * (SEGMENTS + 1) + data[2:])


def test_a_png_may_have_many_pieces_of_pixels_but_few_of_anything_else() -> None:
    many = [Image.new("L", (8, 8), level % 256) for level in range(1_500)]
    assert decode(file(many[0], "PNG", *many[1:]), LIMIT).size == (8, 8)
    error = refused(png(8, 8, 8, 0, bytes(72), *[(b"tEXt", b"a\0b")] * 1_100))
    assert error.limit == 1_000


def test_a_gif_may_hold_long_texts_but_not_of_single_letters() -> None:
    assert decode(saved("GIF", FLAG.convert("P"), comment=bytes(range(1, 256)) * 1_000), LIMIT).size == (48, 64)
    refused(bombs()["gif-comments"])


def test_a_tiff_may_have_large_texts_and_a_palette_of_16_bits_but_not_millions_of_numbers() -> None:
    assert decode(saved("TIFF", tiffinfo={270: "x" * 5_000_000}), LIMIT).size == (48, 64)
    tags = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 262: (3, 1, 1), 273: (4, 1, 500), 320: (3, 3 * 65_536, 500)}
    assert decode(tiff(tags, bytes(400_000)), LIMIT).size == (8, 8)
    assert refused(bombs()["tiff-strips"]).limit == VALUES


def test_a_tiff_may_have_tiles_larger_than_itself_but_not_much() -> None:
    error = refused(bombs()["tiff-tile"])
    assert error.actual == 900_000_000


def test_a_tiffs_tiles_may_not_be_the_same_bytes_over_and_over() -> None:
    count, size = 4_096, 100_000
    tags = {256: (4, 1, 1_024), 257: (4, 1, 1_024), 258: (3, 1, 8), 259: (3, 1, 7), 262: (3, 1, 1), 277: (3, 1, 1)}
    tags |= {322: (4, 1, 16), 323: (4, 1, 16), 324: (4, count, 500), 325: (4, count, 500 + 4 * count)}
    places = struct.pack("<L", 500 + 8 * count) * count + struct.pack("<L", size) * count
    assert refused(tiff(tags, places + bytes(size))).actual == count * size


def test_numbers_are_counted_in_the_directories_that_a_directory_leads_to() -> None:
    count = VALUES + 1
    second = struct.pack("<HHHLL", 1, 33434, 3, count, 520).ljust(20, b"\0")
    exif = tiff({int(ExifTags.IFD.Exif): (4, 1, 500)}, second + bytes(2 * count))
    assert count_values(exif) > VALUES
    assert count_values(b"Exif\0\0" + exif) > VALUES
    assert count_values(exif[:-2]) < 10, "numbers that are not there are none"
    assert count_values(tiff({int(ExifTags.IFD.Exif): (4, 1, 8)})) < 10, "a directory that leads to itself is one"


def test_exif_data_with_too_many_numbers_does_not_turn_the_picture_nor_spoil_it() -> None:
    exif = tiff({274: (3, VALUES + 1, 500)}, b"\6\0" * (VALUES + 1))
    assert decode(png(6, 4, 8, 0, bytes(28), (b"eXIf", exif)), LIMIT).size == (4, 6)


def test_a_run_length_encoded_bmp_is_decoded_unless_it_is_large() -> None:
    row = b"\x06\x05\0\0"
    assert decode(bmp(6, 4, 8, 1, row * 4 + b"\0\1"), LIMIT).rgb[0, 0].tolist() == [7, 250, 5]
    assert refused(bmp(4_000_001, 1, 8, 1, b"\1\1\0\0")).actual == 4_000_001


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_many_bands_is_put_together_as_it_was(orientation: int) -> None:
    stored = np.repeat(np.random.default_rng(0).integers(0, 256, (1_200, 100, 3), dtype=np.uint8), 10, axis=1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = decode(saved("PNG", Image.fromarray(stored), exif=exif, compress_level=1), LIMIT).rgb
    turned = stored.transpose(1, 0, 2)
    wanted = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: turned,
        6: turned[:, ::-1],
        7: turned[::-1, ::-1],
        8: turned[::-1],
    }
    np.testing.assert_array_equal(upright, wanted[orientation])
