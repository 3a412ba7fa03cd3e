"""Bytes that are no usable picture are an error that says what is wrong with them, before anything costly is done."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import PictureCorrupt, PictureError, PictureFormatError, PictureMissing, PictureTooLarge
from service.image import decode
from service.settings import FORMATS
from tests.bundles import BLUE, GREEN, RED, bands, encoded
from tests.pictures import file, gif, noise, png

LIMIT = 1_000_000
SMALL = bands(RED, GREEN, BLUE, height=4, width=6)


def test_no_bytes_are_no_picture() -> None:
    with pytest.raises(PictureMissing, match="empty"):
        decode(b"", LIMIT)


@pytest.mark.parametrize(
    "data",
    [b"hello, world\n" * 9, b"{}", b"\0" * 64, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"8BPS\0\1" + b"\0" * 40, b"%PDF-1.7\n"],
    ids=["text", "json", "zeros", "eps", "psd", "pdf"],
)
def test_bytes_of_no_accepted_format_are_told_what_is_accepted(data: bytes) -> None:
    with pytest.raises(PictureFormatError, match="send PNG, JPEG"):
        decode(data, LIMIT)


def test_a_real_eps_file_never_reaches_its_interpreter() -> None:
    with pytest.raises(PictureFormatError):
        decode(file(Image.new("RGB", (8, 8)), "EPS"), LIMIT)


def test_a_format_that_the_settings_leave_out_is_not_accepted() -> None:
    with pytest.raises(PictureFormatError, match=r"send PNG, JPEG$"):
        decode(encoded(SMALL, "GIF"), LIMIT, ("PNG", "JPEG"))


def test_a_picture_of_as_many_pixels_as_the_limit_is_accepted_and_one_more_is_not() -> None:
    data = encoded(bands(RED, height=10, width=10))
    assert decode(data, 100).width == 10
    with pytest.raises(PictureTooLarge, match="10x10 = 100 pixels, the limit is 99") as caught:
        decode(data, 99)
    assert (caught.value.limit, caught.value.actual) == (99, 100)


def test_a_picture_may_not_be_endlessly_long_however_narrow_it_is() -> None:
    assert decode(png(100_000, 1, 8, 0, bytes(100_001)), 50_000_000).size == (1, 100_000)
    for width, height in ((100_001, 1), (1, 100_001)):
        with pytest.raises(PictureTooLarge, match="the limit is 100000 along a side") as caught:
            decode(png(width, height, 8, 0, b""), 50_000_000)
        assert (caught.value.limit, caught.value.actual) == (100_000, 100_001)


def test_a_tiny_gif_that_claims_a_huge_canvas_is_too_large() -> None:
    data = gif(canvas=65535, frame=1)
    assert len(data) < 45
    with pytest.raises(PictureTooLarge) as caught:
        decode(data, 50_000_000)
    assert (caught.value.limit, caught.value.actual) == (50_000_000, 65535 * 65535)


def test_a_gif_whose_frame_is_larger_than_its_canvas_is_too_large() -> None:
    with pytest.raises(PictureTooLarge):
        decode(gif(canvas=1, frame=65535), 50_000_000)


def test_a_header_beyond_the_limit_is_refused_before_the_pixels_are_looked_at() -> None:
    # There are no pixels in this file: whoever tried to decode it would call it corrupt.
    with pytest.raises(PictureTooLarge, match="30000x30000") as caught:
        decode(png(30_000, 30_000, 8, 2, b""), 50_000_000)
    assert caught.value.actual == 900_000_000


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_picture_that_is_cut_off_is_corrupt(kind: str, share: float) -> None:
    data = encoded(noise(32, 48), kind)
    with pytest.raises(PictureCorrupt, match=f"the {kind} picture is corrupt or truncated"):
        decode(data[: int(len(data) * share)], LIMIT)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_signature_alone_is_a_corrupt_picture_not_an_unknown_format(kind: str) -> None:
    with pytest.raises(PictureCorrupt, match=kind):
        decode(encoded(SMALL, kind)[:12], LIMIT)


def test_a_riff_file_that_is_no_webp_is_of_no_accepted_format() -> None:
    with pytest.raises(PictureFormatError):
        decode(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + b"\0" * 28, LIMIT)


SEEDS = [encoded(bands(RED, GREEN, BLUE, height=5, width=7), kind) for kind in FORMATS] + [
    file(Image.new("P", (3, 2)), "GIF", Image.new("P", (3, 2), 1)),
    file(Image.new("RGBA", (3, 2), (1, 2, 3, 4)), "WEBP"),
    file(Image.new("I;16", (3, 2), 9), "PNG"),
    file(Image.new("CMYK", (3, 2), (9, 9, 9, 9)), "JPEG"),
    file(Image.new("F", (3, 2), 0.5), "TIFF"),
]


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A good file with some bytes set to others, some cut out and some put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data) - 1))
        data[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    start = draw(st.integers(0, len(data)))
    stop = start + draw(st.sampled_from([0, 0, 1, 4, len(data)]))
    data[start:stop] = draw(st.binary(max_size=4))
    return bytes(data)


@settings(deadline=None, max_examples=600, derandomize=True)
@given(damaged_files())
def test_a_damaged_file_is_a_picture_or_an_error_about_the_picture(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in production: what the decoders only warn about is a picture
        try:
            picture = decode(data, 10_000)
        except PictureError:
            return
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.shape == (picture.height, picture.width, 3)
    assert 0 < picture.height * picture.width <= 10_000


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_error_about_the_picture(data: bytes) -> None:
    with pytest.raises(PictureError):
        decode(data, 10_000)
