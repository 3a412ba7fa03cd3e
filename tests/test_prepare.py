"""A net is fed exactly what its manifest says: size, channels, order, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from service.geometry import place
from service.graph import Tensor
from service.manifest import InputSpec
from service.segmenter import prepare
from tests.bundles import BLUE, RED, bands
from tests.pictures import noise


def tensor(rgb: NDArray[np.uint8], spec: InputSpec) -> Tensor:
    """What a net that takes `spec` is fed first."""
    return prepare(rgb, place(spec, rgb.shape[0], rgb.shape[1])[0], spec)


def test_a_grey_net_needs_no_pad_value_mean_or_std() -> None:
    spec = InputSpec(fit="native", channels="GRAY", multiple_of=8)
    assert tensor(noise(5, 5), spec).shape == (1, 8, 8, 1)


def test_a_float_graph_gets_value_by_scale_minus_mean_by_std() -> None:
    spec = InputSpec(
        fit="native", dtype="float32", layout="NCHW", scale=255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    found = tensor(np.full((1, 1, 3), (255, 51, 0), np.uint8), spec)
    assert found.dtype == np.float32
    wanted = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(found[0, :, 0, 0], wanted, rtol=1e-5)


def test_mean_and_std_follow_the_order_of_the_channels() -> None:
    spec = InputSpec(fit="native", dtype="float32", channels="BGR", scale=1, mean=(1, 2, 3), std=(1, 10, 100))
    found = tensor(np.full((1, 1, 3), (103, 22, 7), np.uint8), spec)
    np.testing.assert_allclose(found[0, 0, 0], [6, 2, 1])


def test_one_value_of_mean_and_std_stands_for_all_channels() -> None:
    spec = InputSpec(fit="native", dtype="float32", scale=1, mean=(127.5,), std=(127.5,))
    np.testing.assert_allclose(tensor(np.full((1, 1, 3), (0, 255, 255), np.uint8), spec)[0, 0, 0], [-1, 1, 1])


def test_a_uint8_graph_gets_the_pixels_as_they_are() -> None:
    spec = InputSpec(fit="native", mean=(9, 9, 9), std=(5, 5, 5), scale=3)
    picture = noise(4, 5)
    found = tensor(picture, spec)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], picture)


@pytest.mark.parametrize("size", [(50, 70), (101, 333), (20, 200)])
def test_without_antialias_a_picture_shrinks_as_in_pytorch(size: tuple[int, int]) -> None:
    picture = noise(*size)
    found = tensor(picture, InputSpec(fit="stretch", height=20, width=30, antialias=False))
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    wanted = F.interpolate(batch, (20, 30), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[0].astype(float), wanted, atol=1)


def test_with_antialias_a_picture_shrinks_as_in_pytorch_with_antialias() -> None:
    picture = noise(101, 133)
    found = tensor(picture, InputSpec(fit="stretch", height=20, width=30))
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    wanted = F.interpolate(batch, (20, 30), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[0].astype(float), wanted, atol=1.5)


@pytest.mark.parametrize("antialias", [True, False])
def test_nearest_mixes_no_colours(antialias: bool) -> None:
    spec = InputSpec(fit="stretch", height=20, width=30, resample="nearest", antialias=antialias)
    found = tensor(bands(RED, BLUE, height=33, width=77), spec)
    assert {tuple(pixel) for pixel in found.reshape(-1, 3).tolist()} == {RED, BLUE}
