"""Pixels are counted as the benchmarks count them; the examples are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.scores import (
    boundary_f1,
    boundary_hits,
    calibration,
    calibration_error,
    class_iou,
    confusion,
    dice,
    mean_iou,
    pixel_accuracy,
)


def ids(*rows: list[int]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


LABELS = ids([0, 0, 1], [1, 1, 2])
MASK = ids([0, 1, 1], [1, 2, 2])


def test_pixels_are_counted_by_true_and_predicted_class() -> None:
    assert confusion(LABELS, MASK, 3).tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 1]]


def test_iou_is_hits_over_hits_and_misses_and_false_alarms() -> None:
    matrix = confusion(LABELS, MASK, 3)
    assert class_iou(matrix).tolist() == [1 / 2, 2 / 4, 1 / 2]
    assert mean_iou(matrix) == 0.5
    assert pixel_accuracy(matrix) == pytest.approx(4 / 6)


def test_pixels_whose_label_is_ignored_do_not_count() -> None:
    assert confusion(LABELS, MASK, 3, ignore=[1]).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_a_pixel_predicted_as_an_ignored_class_is_wrong_for_the_class_it_is() -> None:
    matrix = confusion(LABELS, MASK, 3, ignore=[1])
    # Class 0: one hit, one pixel lost to the ignored class 1. Class 2: one hit, and nothing else counts.
    assert mean_iou(matrix, ignore=[1]) == pytest.approx((1 / 2 + 1) / 2)


def test_an_ignored_label_need_not_be_a_class() -> None:
    assert confusion(ids([0, 255]), ids([0, 1]), 2, ignore=[255]).tolist() == [[1, 0], [0, 0]]


def test_a_class_that_neither_labels_nor_masks_hold_has_no_part_in_the_mean() -> None:
    matrix = confusion(ids([0, 0]), ids([0, 0]), 3)
    assert math.isnan(class_iou(matrix)[1])
    assert mean_iou(matrix) == 1.0


def test_a_class_that_only_the_mask_holds_counts_as_zero() -> None:
    assert mean_iou(confusion(ids([0, 0]), ids([0, 1]), 2)) == pytest.approx((1 / 2 + 0) / 2)


def test_where_nothing_was_counted_there_is_no_score() -> None:
    matrix = confusion(ids([1]), ids([0]), 2, ignore=[1])
    assert matrix.sum() == 0
    assert math.isnan(mean_iou(matrix))
    assert math.isnan(pixel_accuracy(matrix))


def test_the_matrices_of_several_pictures_add_up() -> None:
    whole = confusion(LABELS, MASK, 3)
    parts = confusion(LABELS[:1], MASK[:1], 3) + confusion(LABELS[1:], MASK[1:], 3)
    np.testing.assert_array_equal(whole, parts)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(1, 256), st.integers(0, 2**32 - 1))
def test_every_pixel_is_counted_once_and_a_perfect_mask_scores_one(classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, (9, 7)).astype(np.uint8)
    matrix = confusion(labels, labels, classes)
    assert matrix.shape == (classes, classes)
    assert matrix.sum() == labels.size
    assert mean_iou(matrix) == pixel_accuracy(matrix) == 1.0


def test_256_classes_do_not_overflow_a_byte() -> None:
    assert confusion(ids([255]), ids([254]), 256)[255, 254] == 1


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the mask is \(1, 3\), its labels are \(2, 3\)"):
        confusion(LABELS, MASK[:1], 3)


@pytest.mark.parametrize(("labels", "mask", "message"), [(3, 0, "a label has the id 3"), (0, 7, "a mask has the id 7")])
def test_an_id_that_is_no_class_is_refused(labels: int, mask: int, message: str) -> None:
    with pytest.raises(ValueError, match=message + r", but there are 3 classes \(0 to 2\)"):
        confusion(ids([labels]), ids([mask]), 3)


def test_classes_taken_together_count_as_one() -> None:
    matrix = confusion(ids([1, 2, 0, 0]), ids([2, 1, 1, 0]), 3)
    assert dice(matrix, [1, 2]) == pytest.approx(2 * 2 / (2 + 3))  # the two mixed up are hits, one false alarm
    assert math.isnan(dice(confusion(ids([0]), ids([0]), 3), [1, 2]))


def test_confidence_that_is_as_often_right_as_it_says_has_no_calibration_error() -> None:
    labels, mask = ids([0] * 5), ids([0, 0, 0, 1, 1])
    assert calibration_error(calibration(ids([153] * 5), labels, mask)) == pytest.approx(0)  # 153 / 255 = 3 / 5
    assert calibration_error(calibration(ids([255] * 5), labels, mask)) == pytest.approx(2 / 5)


def test_errors_of_confidence_do_not_cancel_out_between_ranges() -> None:
    labels, mask = ids([0, 0]), ids([0, 1])
    assert calibration_error(calibration(ids([51, 204]), labels, mask)) == pytest.approx((0.8 + 0.8) / 2)


def test_ignored_pixels_have_no_part_in_calibration() -> None:
    levels = calibration(ids([255, 0]), ids([0, 1]), ids([0, 1]), ignore=[1])
    assert levels.sum(axis=1).tolist() == [1, 1]
    assert math.isnan(calibration_error(calibration(ids([9]), ids([1]), ids([1]), ignore=[1])))


def square(start: int, stop: int, side: int = 100) -> NDArray[np.uint8]:
    picture = np.zeros((side, side), np.uint8)
    picture[start:stop, start:stop] = 1
    return picture


def test_outlines_that_agree_within_the_tolerance_score_one() -> None:
    near = boundary_hits(square(20, 60), square(21, 61), 2)  # 0.75 % of the diagonal is one pixel
    assert boundary_f1(near).tolist() == [1.0, 1.0]


def test_outlines_elsewhere_score_less_though_the_area_is_nearly_right() -> None:
    hits = boundary_hits(square(20, 60), square(24, 64), 2)
    assert 0 <= boundary_f1(hits)[1] < 0.2


def test_a_class_that_is_seen_where_none_is_costs_its_precision() -> None:
    right, wrong = boundary_hits(square(20, 60), square(20, 60), 2), boundary_hits(square(0, 0), square(20, 60), 2)
    assert boundary_f1(right)[1] == 1.0
    assert boundary_f1(right + wrong)[1] == pytest.approx(2 / 3)  # all of one found, half of what is claimed


def test_outlines_are_not_looked_for_where_nothing_is_labelled() -> None:
    labels, mask = square(20, 60), square(20, 60)
    labels[:50], mask[:50] = 255, 0
    assert boundary_f1(boundary_hits(labels, mask, 2))[1] == 1.0


def test_an_end_at_unlabelled_pixels_is_no_outline() -> None:
    labels = np.full((60, 60), 255, np.uint8)
    labels[:, :20], labels[:, 40:] = 0, 1
    hits = boundary_hits(labels, np.where(labels == 255, 0, labels).astype(np.uint8), 2)
    assert hits.sum() == 0


def test_a_class_that_the_labels_do_not_hold_has_no_outline_score() -> None:
    assert math.isnan(boundary_f1(boundary_hits(square(0, 0), square(0, 0), 2))[1])
