"""What a request is estimated to take, from the first bytes of its picture."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.bundle import Model, open_bundle
from service.cost import Cost, inferring, segmenting
from service.geometry import net_pixels, place
from service.header import size_in
from service.manifest import InputSpec
from service.render import View
from service.settings import Settings
from tests.bundles import Net, write_bundle

WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "jpeg with a comment": ("JPEG", {"comment": b"\xff\xd8" * 100}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "extended webp": ("WEBP", {"exif": b"Exif\0\0MM\0*"}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
}


def picture(kind: str, width: int = 51, height: int = 37) -> bytes:
    written, options = WRITTEN[kind]
    file = BytesIO()
    Image.new("RGB", (width, height), "red").save(file, written, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_header_gives_the_size_that_the_decoder_finds(kind: str) -> None:
    assert size_in(picture(kind)) == (37, 51)


def test_a_header_that_may_lie_anywhere_gives_none() -> None:
    file = BytesIO()
    Image.new("RGB", (51, 37)).save(file, "TIFF")
    assert size_in(file.getvalue()) is None


@given(st.sampled_from(sorted(WRITTEN)), st.integers(0, 60), st.binary(max_size=40))
def test_whatever_the_bytes_are_nothing_is_raised(kind: str, kept: int, rest: bytes) -> None:
    found = size_in(picture(kind)[:kept] + rest)
    assert found is None or min(found) >= 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    net = Net(height=48, width=64)
    return open_bundle(write_bundle(tmp_path_factory.mktemp("models"), nets=net), ("cpu",))


def cost(model: Model, data: bytes, view: View = "mask", store: bool = False, max_pixels: int = 10**6) -> float:
    return segmenting(data, model, view, Settings(max_pixels=max_pixels), store).milliseconds


def test_larger_pictures_and_heavier_views_cost_more(model: Model) -> None:
    small, large = picture("png", 100, 100), picture("png", 1000, 1000)
    assert cost(model, small) < cost(model, large)
    assert cost(model, large) < cost(model, large, store=True)
    assert cost(model, large, "mask") < cost(model, large, "polygons")
    assert cost(model, picture("jpeg", 1000, 1000)) < cost(model, picture("jpeg", 1000, 1000), "overlay")


def test_what_will_be_refused_costs_next_to_nothing(model: Model) -> None:
    large = picture("png", 1000, 1000)
    assert cost(model, large, max_pixels=10**5) < cost(model, large) / 5
    for junk in (b"", b"text", b"\x89PNG"):
        assert cost(model, junk) < cost(model, large) / 5


def test_tensors_cost_what_their_pixels_do(model: Model) -> None:
    once, twice = inferring(10**6, model), inferring(2 * 10**6, model)
    assert twice == Cost(once.milliseconds * 2, once.kind)
    assert once.kind == segmenting(picture("png"), model, "mask", Settings(), store=False).kind


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "native", "tile"])
@pytest.mark.parametrize("size", [(1, 1), (37, 51), (500, 90), (700, 700)])
def test_the_pixels_that_a_net_sees_are_those_of_its_runs(fit: str, size: tuple[int, int]) -> None:
    sides = {} if fit == "native" else {"height": 96, "width": 128}
    spec = InputSpec.model_validate({"fit": fit, "multiple_of": 8, "max_pixels": 50_000, **sides})
    assert net_pixels(spec, *size) == sum(run.y.canvas * run.x.canvas for run in place(spec, *size))
