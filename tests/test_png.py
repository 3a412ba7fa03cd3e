"""Masks written by us are read by others exactly, whatever they are and however many cores wrote them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from service.cores import CorePool
from service.png import encode

IDS = {
    "one pixel": np.full((1, 1), 7, np.uint8),
    "one row": np.arange(256, dtype=np.uint8)[None],
    "one column": np.arange(256, dtype=np.uint8)[:, None],
    "nothing but zeros": np.zeros((500, 300), np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (700, 501)).astype(np.uint8),
    "runs": np.random.default_rng(1).integers(0, 12, (64, 64)).astype(np.uint8).repeat(9, 0).repeat(9, 1),
    "rows longer than a block": np.random.default_rng(2).integers(0, 3, (3, 300_000)).astype(np.uint8),
}


def read(file: bytes) -> Image.Image:
    image = Image.open(BytesIO(file), formats=("PNG",))
    image.verify()  # checksums
    return Image.open(BytesIO(file))


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("ids", list(IDS.values()), ids=list(IDS))
def test_what_is_written_is_read_again(ids: NDArray[np.uint8], cores: int) -> None:
    pool = CorePool(cores)
    with pool.inside(), pool.spread() as share:
        image = read(encode(ids, cores=share))
    pool.close()
    assert (image.mode, image.format) == ("L", "PNG")
    np.testing.assert_array_equal(np.asarray(image), ids)


@given(arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 20))))
def test_any_ids_are_read_again_with_their_palette(ids: NDArray[np.uint8]) -> None:
    palette = bytes(range(256)) * 3
    image = read(encode(ids, palette))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), ids)
    colors = np.frombuffer(palette, np.uint8).reshape(256, 3)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors[ids])


def test_a_mask_is_smaller_than_what_pillow_makes_of_it() -> None:
    theirs = BytesIO()
    Image.fromarray(IDS["runs"]).save(theirs, "PNG", compress_level=1)
    assert len(encode(IDS["runs"])) < len(theirs.getvalue())


def test_an_array_that_is_not_contiguous_is_written_as_it_looks() -> None:
    ids = IDS["noise"][::2, ::3]
    np.testing.assert_array_equal(np.asarray(read(encode(ids))), ids)
