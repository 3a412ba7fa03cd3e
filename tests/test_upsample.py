"""The mask is what comes of interpolating the scores as PyTorch does and then comparing them, at every pixel."""

from __future__ import annotations

import tracemalloc
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.cores import CorePool
from service.graph import Answer
from service.manifest import InputSpec, OutputSpec
from service.segmenter import Segmentation
from service.upsample import Tally, fill, nearest, winners_of
from tests.bundles import fixed_segmenter

quick = settings(deadline=None, max_examples=150, derandomize=True)

ROUNDING = 1e-5
"""How far apart two scores must be for their order to be beyond doubt, as a share of the largest score."""


STRETCH = InputSpec(fit="stretch", height=40, width=56)
NATIVE = InputSpec(fit="native")


def segment(
    scores: NDArray[np.float32],
    size: tuple[int, int],
    output: OutputSpec,
    spec: InputSpec = STRETCH,
    classes: int | None = None,
) -> Segmentation:
    """What the segmenter makes of these scores (C, h, w) for a picture of `size`."""
    segmenter = fixed_segmenter(Answer(scores), classes or scores.shape[0], spec, output)
    return segmenter(np.zeros((*size, 3), np.uint8))


def interpolated(scores: NDArray[np.float32], size: tuple[int, int], align_corners: bool) -> NDArray[np.float64]:
    """PyTorch's bilinear interpolation, in double precision, (C, H, W)."""
    batch = torch.from_numpy(scores.astype(np.float64))[None]
    result: NDArray[np.float64] = F.interpolate(batch, size, mode="bilinear", align_corners=align_corners)[0].numpy()
    return result


def assert_right_where_clear(mask: NDArray[np.uint8], expected: NDArray[np.float64]) -> None:
    """Every pixel has the class of the highest score, except where the two highest are equal but for rounding."""
    low, high = np.sort(expected, axis=0)[-2:]
    clear = high - low > ROUNDING * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_array_equal(mask[clear], expected.argmax(axis=0)[clear])


@st.composite
def score_maps(draw: st.DrawFn) -> NDArray[np.float32]:
    """Scores (C, h, w): noise, where every cell is a border, smooth ones with large areas, or few distinct values."""
    classes = draw(st.sampled_from([2, 3, 12, 256]))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "areas", "ties"]))
    if kind == "ties":
        return rng.integers(0, 3, (classes, height, width)).astype(np.float32)
    scores = rng.normal(scale=draw(st.sampled_from([0.01, 1, 1000])), size=(classes, height, width))
    if kind == "areas":
        scores[rng.integers(classes), : rng.integers(height + 1)] += 10
    return scores.astype(np.float32)


@quick
@given(score_maps(), st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_the_mask_is_the_argmax_of_the_interpolated_scores(
    scores: NDArray[np.float32], height: int, width: int, align_corners: bool
) -> None:
    found = segment(scores, (height, width), OutputSpec(align_corners=align_corners))
    assert found.mask.shape == (height, width)
    assert_right_where_clear(found.mask, interpolated(scores, (height, width), align_corners))


@quick
@given(score_maps())
def test_at_the_nets_own_size_the_mask_is_the_plain_argmax(scores: NDArray[np.float32]) -> None:
    found = segment(scores, (scores.shape[1], scores.shape[2]), OutputSpec(), NATIVE)
    np.testing.assert_array_equal(found.mask, scores.argmax(axis=0))
    np.testing.assert_array_equal(found.coarse, scores.argmax(axis=0))


@quick
@given(score_maps(), st.integers(1, 50), st.integers(1, 50))
def test_the_coarse_mask_is_the_nets_own_argmax_whatever_the_pictures_size(
    scores: NDArray[np.float32], height: int, width: int
) -> None:
    found = segment(scores, (height, width), OutputSpec())
    np.testing.assert_array_equal(found.coarse, scores.argmax(axis=0))


@quick
@given(
    score_maps(),
    st.integers(1, 50),
    st.integers(1, 50),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_one_sigmoid_channel_is_class_1_where_its_interpolated_score_exceeds_the_threshold(
    scores: NDArray[np.float32], height: int, width: int, align_corners: bool, threshold: float
) -> None:
    output = OutputSpec(activation="sigmoid", threshold=threshold, align_corners=align_corners)
    found = segment(scores[:1], (height, width), output, classes=2)
    score = interpolated(scores[:1], (height, width), align_corners)[0]
    with np.errstate(divide="ignore"):
        bar = np.log(threshold) - np.log1p(-threshold)
    clear = np.abs(score - bar) > ROUNDING * max(1.0, float(np.abs(score).max()))
    np.testing.assert_array_equal(found.mask[clear], (score > bar)[clear])


@pytest.mark.parametrize("align_corners", [False, True])
def test_256_classes_all_find_their_way_into_the_mask(align_corners: bool) -> None:
    scores = np.eye(256, dtype=np.float32).reshape(256, 16, 16)
    found = segment(scores, (64, 64), OutputSpec(align_corners=align_corners))
    assert set(np.unique(found.mask)) == set(range(256))
    assert_right_where_clear(found.mask, interpolated(scores, (64, 64), align_corners))


def test_of_equal_scores_the_first_class_wins() -> None:
    assert (segment(np.zeros((5, 3, 4), np.float32), (10, 10), OutputSpec()).mask == 0).all()


def test_a_class_that_scores_minus_infinity_wins_nowhere() -> None:
    # What a net says of a class that it rules out, or the logarithm of a probability of 0.
    scores = np.full((3, 1, 2), -np.inf, np.float32)
    scores[:2, 0] = [[3, 0], [0, 3]]
    assert segment(scores, (1, 8), OutputSpec()).mask.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_bands_on_several_cores_give_the_same_mask_and_tally() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 40, 30)).astype(np.float32)
    rows, columns = np.linspace(0, 39, 2000), np.linspace(0, 29, 999)
    winners = winners_of(scores)
    alone, together = np.empty((2000, 999), np.uint8), np.empty((2000, 999), np.uint8)
    one = Tally.of(fill(alone, (0, 0), scores, winners, rows, columns))
    pool = CorePool(4)
    with pool.inside(), pool.spread() as cores:
        np.testing.assert_array_equal(winners_of(scores, cores), winners)
        parts = fill(together, (0, 0), scores, winners, rows, columns, cores)
    assert len(parts) > 1
    four = Tally.of(parts)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(one.pixels, four.pixels)
    np.testing.assert_array_equal(one.boxes, four.boxes)


def test_where_nothing_lies_between_samples_the_mask_is_their_winners_and_counted() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 4, 7)).astype(np.float32)
    winners, mask = winners_of(scores), np.full((6, 9), 9, np.uint8)
    tally = Tally.of(fill(mask, (1, 2), scores, winners, np.arange(4.0), np.arange(7.0)))
    np.testing.assert_array_equal(mask[1:5, 2:9], scores.argmax(axis=0))
    assert (mask[0] == 9).all()
    np.testing.assert_array_equal(tally.pixels[:5], np.bincount(winners.ravel(), minlength=5))
    rows, columns = np.nonzero(winners == 3)
    assert tally.boxes[3].tolist() == [columns.min() + 2, rows.min() + 1, columns.max() + 3, rows.max() + 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_cannot_be_interpolated_are_refused_wherever_they_are(value: float) -> None:
    for index in range(3 * 2 * 5):
        scores = np.zeros((3, 2, 5), np.float32)
        scores.ravel()[index] = value
        with pytest.raises(FloatingPointError):
            winners_of(scores)


def test_beyond_its_output_the_kernel_needs_a_few_kilobytes() -> None:
    scores = np.random.default_rng(0).normal(size=(12, 36, 48)).astype(np.float32)
    rows, columns = np.linspace(0, 35, 3000), np.linspace(0, 47, 4000)
    winners, mask = winners_of(scores), np.empty((3000, 4000), np.uint8)
    fill(mask, (0, 0), scores, winners, rows, columns)
    tracemalloc.start()
    fill(mask, (0, 0), scores, winners, rows, columns)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_straight_border_between_two_classes_stays_straight_and_in_its_place() -> None:
    scores = np.zeros((2, 1, 2), np.float32)
    scores[0, 0, 0] = scores[1, 0, 1] = 3
    assert segment(scores, (1, 8), OutputSpec()).mask.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("fit", ["letterbox", "native", "tile"])
def test_padding_has_no_say_in_the_picture(fit: Literal["letterbox", "native", "tile"]) -> None:
    # The content is the upper left 12x16 of a canvas of 16x16; what the net sees in the padding screams class 2.
    fixed = (None, None) if fit == "native" else (16, 16)
    spec = InputSpec(fit=fit, height=fixed[0], width=fixed[1], anchor="topleft", multiple_of=16, overlap=4)
    scores = np.zeros((3, 16, 16), np.float32)
    scores[0, :12, :8] = scores[1, :12, 8:] = 1
    scores[2, 12:] = 1e6
    segmenter = fixed_segmenter(Answer(scores), 3, spec, OutputSpec())
    for size in [(12, 16)] if fit != "letterbox" else [(12, 16), (120, 160), (3, 4)]:
        found = segmenter(np.zeros((*size, 3), np.uint8))
        assert found.coarse.shape == (12, 16)
        half = size[1] // 2
        assert (found.mask[:, :half] == 0).all()
        assert (found.mask[:, half:] == 1).all()


def test_positions_between_samples_are_mixed_by_their_distance() -> None:
    scores = np.array([[[4, 0]], [[0, 1]]], np.float32)  # class 1 overtakes at 0.8
    winners = scores.argmax(axis=0).astype(np.uint8)
    columns, mask = np.array([0, 0.79, 0.81, 1]), np.empty((1, 4), np.uint8)
    fill(mask, (0, 0), scores, winners, np.zeros(1), columns)
    assert mask.tolist() == [[0, 0, 1, 1]]


def test_a_class_that_leads_at_no_sample_may_lead_between_them() -> None:
    scores = np.array([[[4, 0]], [[0, 4]], [[3, 3]]], np.float32)
    columns, mask = np.array([0, 0.2, 0.5, 0.8, 1]), np.empty((1, 5), np.uint8)
    fill(mask, (0, 0), scores, winners_of(scores), np.zeros(1), columns)
    assert mask.tolist() == [[0, 0, 2, 1, 1]]


def test_class_ids_are_picked_never_mixed() -> None:
    labels = np.array([[0, 200]], np.uint8)
    assert nearest(labels, np.zeros(1), np.array([0, 0.4, 0.6, 1])).tolist() == [[0, 0, 200, 200]]
