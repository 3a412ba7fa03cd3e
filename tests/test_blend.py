"""An overlay is the picture mixed with each class's colour, to the nearest level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.blend import Pixels, blend
from service.cores import ONE_CORE, CorePool, Cores


def mixed(
    rgb: Pixels,
    mask: Pixels,
    palette: NDArray[np.float64],
    shares: NDArray[np.float64],
    cores: Cores = ONE_CORE,
) -> Pixels:
    """The picture mixed, uint8 (H, W, 3)."""
    blended = np.full((*mask.shape, 4), 7, np.uint8)
    blend(rgb, mask, palette, shares, blended, cores)
    assert (blended[..., 3] == 7).all()
    return blended[..., :3]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 256),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_each_pixel_is_mixed_with_the_colour_of_its_class(
    height: int, width: int, classes: int, alpha: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, classes, (height, width)).astype(np.uint8)
    palette = rng.integers(0, 256, (classes, 3)).astype(np.float64)
    shares = rng.choice([0.0, alpha], classes)
    blended = mixed(rgb, mask, palette, shares)
    share = shares[mask][..., None]
    np.testing.assert_allclose(blended, rgb * (1 - share) + palette[mask] * share, atol=0.51)
    np.testing.assert_array_equal(blended[share[..., 0] == 0], rgb[share[..., 0] == 0])


@pytest.mark.parametrize("level", [0, 255])
def test_the_ends_of_the_scale_are_reached_and_not_passed(level: int) -> None:
    rgb = np.full((1, 1, 3), level, np.uint8)
    mask = np.zeros((1, 1), np.uint8)
    for share in (0.0, 0.3, 0.5, 1.0):
        assert (mixed(rgb, mask, np.full((1, 3), level, np.float64), np.array([share])) == level).all()


def test_bands_on_several_cores_give_the_same_picture() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (301, 64, 3), dtype=np.uint8)
    mask = rng.integers(0, 5, (301, 64)).astype(np.uint8)
    tints = rng.integers(0, 256, (5, 3)).astype(np.float64), np.full(5, 0.4)
    alone = mixed(rgb, mask, *tints)
    pool = CorePool(3)
    with pool.inside(), pool.spread() as cores:
        np.testing.assert_array_equal(mixed(rgb, mask, *tints, cores), alone)
