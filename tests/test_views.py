"""Every view of a segmentation, read back with the tools of its users: all say the same of every pixel."""

from __future__ import annotations

import json
import sys
import warnings
from collections import deque
from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import get_args

import httpx
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from service import shapes
from service.drawing import legend
from service.errors import NotPossible, ParameterError
from service.image import Picture
from service.manifest import ClassSpec, Snapshot
from service.render import TAKES, VIEWS, Kept, Options, View, render
from service.segmenter import Segmentation
from service.turn import Turn
from service.upsample import Tally, fill_labels
from tests.server import running
from tests.views import check_the_same, of_polygons
from training.scenes import scene

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "camvid"

Mask = NDArray[np.uint8]

CHECKERS: Mask = (np.indices((40, 30)).sum(axis=0) % 2).astype(np.uint8)

MASKS = {
    "one pixel": np.zeros((1, 1), np.uint8),
    "one class": np.full((7, 5), 3, np.uint8),
    "256 classes": np.arange(256, dtype=np.uint8).reshape(16, 16),
    "a checkerboard": CHECKERS,
    "a ring in a ring": np.pad(np.pad(np.zeros((1, 1), np.uint8), 1, constant_values=1), 1).repeat(3, 0).repeat(3, 1),
    "holes that touch at a corner": np.pad(np.eye(2, dtype=np.uint8), 2),
    "a single row": np.array([[0, 1, 1, 2, 0]], np.uint8),
}

masks = st.builds(
    lambda small, factor: small.repeat(factor, 0).repeat(factor, 1),
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 255])),
    st.integers(1, 3),
)


def snapshot(classes: int = 256) -> Snapshot:
    specs = tuple(ClassSpec(id=i, name=f"class {i}", color=f"#{i * 7919 % 2**24:06x}") for i in range(classes))
    return Snapshot(name="net", version=1, variant="fp32", classes=specs)


def seen(mask: Mask, confidence: Mask | None = None) -> Segmentation:
    tally = Tally.of(fill_labels(np.empty_like(mask), (0, 0), mask))
    return Segmentation(mask, tally, mask, confidence, 0.0, 0.0)


def body(view: View, mask: Mask, options: Options | None = None, confidence: Mask | None = None) -> bytes:
    options = options or Options()
    options.check(view)
    picture = Picture(np.zeros((*mask.shape, 3), np.uint8), "PNG", mask.shape[0], mask.shape[1])
    return render(view, seen(mask, confidence), snapshot(), lambda: picture, options, Kept(), Turn()).content


@pytest.mark.parametrize("mask", list(MASKS.values()), ids=list(MASKS))
def test_all_views_of_an_odd_mask_say_the_same(mask: Mask) -> None:
    check_the_same({view: body(view, mask) for view in VIEWS if view != "confidence"})


@settings(deadline=None)
@given(masks)
def test_all_views_of_any_mask_say_the_same(mask: Mask) -> None:
    check_the_same({view: body(view, mask) for view in ("mask", "color", "rle", "polygons", "geojson", "zip")})


@pytest.mark.skipif(not DATA.is_dir(), reason="the CamVid pictures are not on this machine")
def test_all_views_of_twenty_street_scenes_say_the_same(tmp_path: Path) -> None:
    pictures = sorted((DATA / "val" / "images").iterdir())
    check_pictures([path.read_bytes() for path in pictures[:20]], tmp_path)


def test_all_views_of_drawn_scenes_say_the_same(tmp_path: Path) -> None:
    files = []
    for seed in range(3):
        file = BytesIO()
        Image.fromarray(scene(seed, 360, 480)[0]).resize((500 + seed, 333)).save(file, "JPEG")
        files.append(file.getvalue())
    check_pictures(files, tmp_path)


def check_pictures(files: list[bytes], tmp_path: Path) -> None:
    with running(ROOT / "models", tmp_path / "log") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for data in files:
            links = client.post("/segment", files={"image": data}).json()["links"]
            again = {view: client.get(link).content for view, link in links.items()}
            check_the_same(again)
            mask = client.post("/segment?output=mask", files={"image": data}).content
            assert mask == again["mask"]


@given(masks, st.sampled_from([1, 2, 255]))
def test_components_are_counted_as_a_person_would(mask: Mask, class_id: int) -> None:
    sizes = flooded(mask == class_id)
    assert shapes.components(mask, class_id) == len(sizes)
    assert shapes.components(mask, class_id, 5) == len([size for size in sizes if size >= 5])


def flooded(own: NDArray[np.bool_]) -> list[int]:
    """The sizes of what hangs together, also by corners."""
    left, sizes = {(int(y), int(x)) for y, x in np.argwhere(own)}, []
    while left:
        queue, size = deque([left.pop()]), 0
        while queue:
            y, x = queue.popleft()
            size += 1
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
        sizes.append(size)
    return sizes


def test_small_outlines_are_left_out_and_only_classes_asked_for_are_there() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[1, 1], mask[4:7, 4:7], mask[8:, 8:] = 1, 1, 2
    found = json.loads(body("polygons", mask, Options(min_area=9, classes=frozenset({1, 2}))))
    assert [(entry["id"], len(entry["polygons"])) for entry in found["classes"]] == [(1, 1)]
    assert found["classes"][0]["polygons"] == [[[[4, 4], [7, 4], [7, 7], [4, 7], [4, 4]]]]


def disc(size: int = 60) -> Mask:
    y, x = np.indices((size, size)) - size / 2 + 0.5
    mask: Mask = (np.hypot(y, x) < size * 0.4).astype(np.uint8)
    mask[: size // 2, : size // 2] *= 2
    return mask


@settings(deadline=None)
@given(st.integers(20, 90), st.floats(1, 5))
def test_simplified_outlines_have_fewer_corners_and_still_share_their_borders(size: int, tolerance: float) -> None:
    mask = disc(size)
    exact, simple = shapes.polygons(mask), shapes.polygons(mask, simplify=tolerance)
    flat = [shape for group in simple.values() for shape in group]
    assert shapely.coverage_is_valid(flat)
    assert all(shape.is_valid for shape in flat)
    assert shapely.union_all(flat).area == pytest.approx(mask.size)
    assert corners(simple) < corners(exact)


def corners(grouped: dict[int, list[shapely.Polygon]]) -> int:
    return sum(int(shapely.get_num_coordinates(shape)) for group in grouped.values() for shape in group)


def test_a_simplified_class_alone_has_the_outline_that_it_has_among_all() -> None:
    everything = json.loads(body("polygons", disc(), Options(simplify=2)))["classes"]
    alone = json.loads(body("polygons", disc(), Options(simplify=2, classes=frozenset({2}))))["classes"]
    assert alone == [entry for entry in everything if entry["id"] == 2]


def test_outlines_of_noise_are_refused_before_they_fill_the_memory() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1200, 1200)).astype(np.uint8)
    for view in ("polygons", "geojson"):
        with pytest.raises(ParameterError, match="output=rle"):
            body(view, noise)
    with pytest.raises(ParameterError, match="output=rle"):
        body("json", noise, Options(count=frozenset({1})))
    assert (of_polygons(body("polygons", noise[:300, :300])) == noise[:300, :300]).all()


OUTLINED: tuple[tuple[View, Options], ...] = (
    ("polygons", Options()),
    ("geojson", Options()),
    ("json", Options(count=frozenset({1}))),
)


def test_outlines_are_traced_without_a_filter_on_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    # Filters are the whole process's: set and reset by several threads at once, they let the warnings out, or stay.
    monkeypatch.setattr(warnings, "catch_warnings", nullcontext)
    monkeypatch.setattr(warnings, "simplefilter", lambda *_, **__: None)
    for view, options in (*OUTLINED, ("polygons", Options(classes=frozenset({1})))):
        assert body(view, disc(), options)


def test_where_the_system_lacks_a_library_only_outlines_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio.features", None)
    for view, options in OUTLINED:
        with pytest.raises(NotPossible, match="output=rle"):
            body(view, disc(), options)
    assert body("rle", disc())
    assert body("json", disc())


def test_the_confidence_is_as_large_as_the_picture_and_smooth() -> None:
    levels = np.array([[0, 200]], np.uint8)
    shown = np.asarray(Image.open(BytesIO(body("confidence", np.zeros((4, 8), np.uint8), confidence=levels))))
    assert shown.shape == (4, 8)
    assert shown[0, 0] == 0
    assert shown[0, 7] == 200
    assert (np.diff(shown[0].astype(int)) >= 0).all()


def test_a_model_without_scores_has_no_confidence_to_show() -> None:
    with pytest.raises(ParameterError, match="net answers class ids without scores"):
        body("confidence", np.zeros((4, 8), np.uint8))


GIVEN = {
    "format": Options(format="png"),
    "classes": Options(classes=frozenset({1})),
    "min_area": Options(min_area=3),
    "simplify": Options(simplify=1),
    "count": Options(count=frozenset({1})),
}


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize("name", list(GIVEN))
def test_an_option_without_meaning_for_a_view_is_refused_and_names_those_that_it_has(view: View, name: str) -> None:
    # For json, min_area needs something to count.
    options = replace(GIVEN[name], count=frozenset({1})) if (name, view) == ("min_area", "json") else GIVEN[name]
    if name in TAKES[view]:
        options.check(view)
    else:
        with pytest.raises(ParameterError, match=f"{name}= has no meaning for output={view}"):
            options.check(view)


def test_min_area_without_anything_to_count_is_refused() -> None:
    with pytest.raises(ParameterError, match="count="):
        Options(min_area=3).check("json")


def test_the_legend_shows_each_colour_beside_its_name() -> None:
    model = snapshot(3)
    image = np.asarray(Image.open(BytesIO(legend(model).content)))
    for row, color in enumerate(model.palette):
        assert tuple(image[row * 24 + 12, 12]) == color
    names = image[:, 32:].reshape(3, 24, -1, 3)
    assert all((line == 0).any() for line in names)
