"""A picture of any size is laid onto the net's canvas, and every pixel of it is answered by exactly one run."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.geometry import Axis, Span, place
from service.manifest import InputSpec

quick = settings(deadline=None, max_examples=300, derandomize=True)

SIDES = st.integers(1, 400)


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    """Any way of feeding a net."""
    fit = draw(st.sampled_from(["stretch", "letterbox", "native", "tile"]))
    if fit == "native":
        multiple = draw(st.sampled_from([1, 2, 7, 8, 32]))
        return InputSpec(fit=fit, multiple_of=multiple, max_pixels=draw(st.integers(1, 200_000)))
    height, width = draw(st.integers(1, 120)), draw(st.integers(1, 120))
    overlap = draw(st.integers(0, min(height, width) - 1)) if fit == "tile" else 0
    anchor: Literal["center", "topleft"] = draw(st.sampled_from(["center", "topleft"]))
    return InputSpec(fit=fit, height=height, width=width, overlap=overlap, anchor=anchor)


def native(max_pixels: int = 2_073_600, multiple_of: int = 1) -> InputSpec:
    return InputSpec(fit="native", max_pixels=max_pixels, multiple_of=multiple_of)


def boxed(height: int, width: int, anchor: Literal["center", "topleft"] = "center") -> InputSpec:
    return InputSpec(fit="letterbox", height=height, width=width, anchor=anchor)


def tiled(height: int, width: int, overlap: int) -> InputSpec:
    return InputSpec(fit="tile", height=height, width=width, overlap=overlap)


def holds(outer: Span, inner: Span) -> bool:
    return outer.start <= inner.start < inner.stop <= outer.stop


@quick
@given(specs(), SIDES, SIDES)
def test_the_targets_cover_the_picture_exactly_once(spec: InputSpec, height: int, width: int) -> None:
    answered = np.zeros((height, width), int)
    for placement in place(spec, height, width):
        answered[placement.y.target.slice, placement.x.target.slice] += 1
    assert (answered == 1).all()


@quick
@given(specs(), SIDES, SIDES, st.integers(1, 100), st.integers(1, 100))
def test_the_targets_cover_the_cells_of_any_resolution_exactly_once(
    spec: InputSpec, height: int, width: int, rows: int, columns: int
) -> None:
    answered = np.zeros((rows, columns), int)
    for placement in place(spec, height, width):
        answered[placement.y.cells(height, rows).slice, placement.x.cells(width, columns).slice] += 1
    assert (answered == 1).all()


@quick
@given(specs(), SIDES, SIDES)
def test_what_is_read_lies_in_the_picture_and_on_the_canvas_and_holds_the_target(
    spec: InputSpec, height: int, width: int
) -> None:
    for placement in place(spec, height, width):
        for axis, length in ((placement.y, height), (placement.x, width)):
            assert holds(Span(0, length), axis.source)
            assert holds(Span(0, axis.canvas), axis.content)
            assert holds(axis.source, axis.target)


@quick
@given(specs(), SIDES, SIDES)
def test_the_canvas_is_what_the_net_takes(spec: InputSpec, height: int, width: int) -> None:
    for placement in place(spec, height, width):
        canvas = placement.y.canvas, placement.x.canvas
        if spec.fit == "native":
            assert all(side % spec.multiple_of == 0 for side in canvas)
        else:
            assert canvas == (spec.height, spec.width)


@quick
@given(specs(), SIDES, SIDES, st.integers(1, 130), st.booleans())
def test_the_positions_of_pixels_among_the_scores_rise_and_stay_inside(
    spec: InputSpec, height: int, width: int, scores: int, align_corners: bool
) -> None:
    for placement in place(spec, height, width):
        positions = placement.y.score_positions(height, height, scores, align_corners)
        assert len(positions) == placement.y.target.length
        assert positions.min() >= 0
        assert positions.max() <= scores - 1
        assert (np.diff(positions) >= 0).all()


def test_stretch_fills_the_whole_canvas_whatever_the_aspect() -> None:
    (placement,) = place(InputSpec(fit="stretch", height=48, width=64), 100, 7)
    assert placement.y == Axis(Span(0, 100), Span(0, 48), 48, Span(0, 100))
    assert placement.x == Axis(Span(0, 7), Span(0, 64), 64, Span(0, 7))


def test_letterbox_keeps_the_aspect_and_lies_in_the_middle() -> None:
    (placement,) = place(boxed(100, 100), height=50, width=200)
    assert placement.x.content == Span(0, 100)
    assert placement.y.content == Span(37, 62)


def test_letterbox_can_lie_in_the_top_left_corner() -> None:
    (placement,) = place(boxed(100, 100, "topleft"), height=200, width=50)
    assert placement.y.content == Span(0, 100)
    assert placement.x.content == Span(0, 25)


@pytest.mark.parametrize(("height", "width"), [(1, 10_000), (10_000, 1)])
def test_letterbox_leaves_a_hair_line_one_pixel(height: int, width: int) -> None:
    (placement,) = place(boxed(64, 64), height, width)
    assert {placement.y.content.length, placement.x.content.length} == {1, 64}


def test_native_takes_a_small_picture_as_it_is() -> None:
    (placement,) = place(native(), 37, 53)
    assert placement.y == Axis(Span(0, 37), Span(0, 37), 37, Span(0, 37))
    assert placement.x == Axis(Span(0, 53), Span(0, 53), 53, Span(0, 53))


def test_native_pads_right_and_below_to_a_multiple() -> None:
    (placement,) = place(native(multiple_of=32), 37, 64)
    assert (placement.y.content, placement.y.canvas) == (Span(0, 37), 64)
    assert (placement.x.content, placement.x.canvas) == (Span(0, 64), 64)


def test_native_shrinks_a_large_picture_and_keeps_its_aspect() -> None:
    (placement,) = place(native(max_pixels=10_000), 400, 100)
    assert (placement.y.content, placement.x.content) == (Span(0, 200), Span(0, 50))


@quick
@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 300_000))
@example(1, 50_000_000, 2_073_600)
def test_native_gives_the_net_at_most_max_pixels_of_picture(height: int, width: int, max_pixels: int) -> None:
    (placement,) = place(native(max_pixels), height, width)
    assert placement.y.content.length * placement.x.content.length <= max_pixels


def test_a_picture_smaller_than_a_tile_is_padded_not_enlarged() -> None:
    (placement,) = place(tiled(64, 96, overlap=16), 20, 96)
    assert (placement.y.content, placement.y.canvas) == (Span(0, 20), 64)
    assert (placement.x.content, placement.x.canvas) == (Span(0, 96), 96)


def test_tiles_are_read_at_full_size_and_meet_in_the_middle_of_their_overlap() -> None:
    placements = place(tiled(100, 100, overlap=20), 100, 260)
    assert [placement.x.source for placement in placements] == [Span(0, 100), Span(80, 180), Span(160, 260)]
    assert [placement.x.target for placement in placements] == [Span(0, 90), Span(90, 170), Span(170, 260)]


@quick
@given(st.integers(1, 60), st.integers(1, 500), st.data())
def test_neighbouring_tiles_overlap_by_at_least_what_is_asked_for(tile: int, length: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    columns = [placement.x.source for placement in place(tiled(tile, tile, overlap), 1, length)]
    for left, right in pairwise(columns):
        assert left.stop - right.start >= overlap


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_the_coarse_resolution_is_that_of_the_content(fit: Literal["stretch", "letterbox"]) -> None:
    (placement,) = place(InputSpec(fit=fit, height=64, width=64), 100, 200)
    rows = 8 if fit == "stretch" else 4
    assert (placement.y.resolution(100, 8), placement.x.resolution(200, 8)) == (rows, 8)
