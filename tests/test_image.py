"""Bytes become the picture that a person sees: upright, opaque, RGB, 8 bits."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from service.image import decode
from tests.bundles import BLUE, GREEN, RED, bands, encoded
from tests.pictures import file, png

LIMIT = 1_000_000
LOSSLESS = ("PNG", "WEBP", "GIF", "BMP", "TIFF")


def rgb(data: bytes) -> NDArray[np.uint8]:
    return decode(data, LIMIT).rgb


def corners() -> NDArray[np.uint8]:
    """A picture that no turn and no mirror leaves as it is."""
    picture = np.full((4, 6, 3), 128, np.uint8)
    picture[0, 0], picture[0, -1], picture[-1, 0] = RED, GREEN, BLUE
    return picture


def as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels as a camera stores them. EXIF: which sides the stored first row and first column show."""
    turned = upright.transpose(1, 0, 2)
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: turned,  # left, top
        6: turned[::-1],  # right, top
        7: turned[::-1, ::-1],  # right, bottom
        8: turned[:, ::-1],  # left, bottom
    }[orientation]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_picture_comes_out_as_it_went_in(kind: str) -> None:
    picture = decode(file(Image.fromarray(corners()), kind), LIMIT)
    assert (picture.format, picture.height, picture.width) == (kind, 4, 6)
    assert picture.rgb.dtype == np.uint8
    np.testing.assert_array_equal(picture.rgb, corners())


def test_a_jpeg_comes_out_nearly_as_it_went_in() -> None:
    picture = decode(encoded(bands(RED, BLUE, height=16, width=32), "JPEG"), LIMIT)
    assert picture.format == "JPEG"
    np.testing.assert_allclose(picture.rgb[:, :8].astype(int), np.broadcast_to(RED, (16, 8, 3)), atol=4)


def test_a_jpeg_with_a_second_picture_inside_is_still_a_jpeg() -> None:
    # Phones put a depth or brightness map behind the picture; Pillow calls that MPO.
    first, second = (Image.new("RGB", (16, 8), color) for color in (RED, BLUE))
    picture = decode(file(first, "MPO", second), LIMIT)
    assert picture.format == "JPEG"
    assert picture.rgb[0, 0, 0] > 250


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_by_its_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(as_stored(corners(), orientation)))
    if kind == "WEBP":
        stored.save(buffer, kind, lossless=True, exif=exif)
    else:
        stored.save(buffer, kind, exif=exif)
    np.testing.assert_array_equal(rgb(buffer.getvalue()), corners())


def test_a_turned_jpeg_is_as_wide_as_a_person_sees_it() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", exif=exif)
    picture = decode(buffer.getvalue(), LIMIT)
    assert (picture.width, picture.height) == (8, 16)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = BytesIO()
    Image.fromarray(corners()).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(rgb(buffer.getvalue()), corners())


def test_broken_exif_data_does_not_spoil_a_good_picture() -> None:
    buffer = BytesIO()
    Image.fromarray(corners()).save(buffer, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(rgb(buffer.getvalue()), corners())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_on_white(kind: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    assert rgb(file(image, kind))[0].tolist() == [[255, 255, 255], [255, 0, 0], [127, 127, 127]]


def test_transparent_grey_lies_on_white() -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (40, 255))
    assert rgb(file(image, "PNG"))[0].tolist() == [[255, 255, 255], [40, 40, 40]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*BLUE, *RED])
    image.putpixel((1, 0), 1)
    buffer = BytesIO()
    image.save(buffer, kind, transparency=0)
    assert rgb(buffer.getvalue())[0].tolist() == [[255, 255, 255], [255, 0, 0]]


def test_a_single_transparent_colour_of_an_rgb_png_is_white() -> None:
    buffer = BytesIO()
    Image.fromarray(bands(BLUE, RED, height=1, width=2)).save(buffer, "PNG", transparency=BLUE)
    assert rgb(buffer.getvalue())[0].tolist() == [[255, 255, 255], [255, 0, 0]]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_has_three_equal_channels(kind: str) -> None:
    levels = np.array([[0, 100, 255]], np.uint8)
    np.testing.assert_array_equal(rgb(file(Image.fromarray(levels), kind)), np.repeat(levels[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_a_pixel_is_black_and_white(kind: str) -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert rgb(file(image, kind))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_print_colours_become_screen_colours(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(rgb(file(image, kind)).astype(int), np.broadcast_to(RED, (16, 16, 3)), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8_bits(kind: str) -> None:
    levels = np.array([[0, 257, 100 * 257, 65535]], np.uint16)
    assert rgb(file(Image.fromarray(levels), kind))[0, :, 0].tolist() == [0, 1, 100, 255]


def test_16_bit_colour_is_scaled_to_8_bits() -> None:
    rows = b"\0" + struct.pack(">6H", 0, 100 * 257, 65535, 0x8000, 0x0101, 0xFF00)
    found = rgb(png(2, 1, 16, 2, rows))[0].astype(int)
    np.testing.assert_allclose(found, [[0, 100, 255], [128, 1, 254]], atol=1)


def test_floating_point_levels_from_0_to_1_become_0_to_255() -> None:
    levels = np.array([[0, 0.5, 1, 2, -1, np.nan, np.inf]], np.float32)
    assert rgb(file(Image.fromarray(levels), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 255, 0, 0, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_counts(kind: str) -> None:
    red, blue = Image.new("RGB", (4, 3), RED), Image.new("RGB", (4, 3), BLUE)
    picture = decode(file(red, kind, blue), LIMIT)
    assert picture.format == kind
    assert picture.rgb.tolist() == np.broadcast_to(RED, (3, 4, 3)).tolist()
