"""A large JPEG is decoded no further than the net needs it, and what the net sees stays what it was."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.bundle import open_bundle
from service.geometry import place
from service.graph import Answer
from service.image import decode
from service.manifest import InputSpec, OutputSpec, read_manifest
from service.scores import confusion, mean_iou
from service.segmenter import Segmenter, prepare
from tests.bundles import fixed_segmenter
from tests.server import running
from training.dataset import IGNORED, DataFolder
from training.scenes import scene

LIMIT = 50_000_000
NET = InputSpec(fit="stretch", height=60, width=80)
ROOT = Path(__file__).parent.parent
CAMVID = ROOT.parent / "shared" / "data" / "camvid"


def segmenter(spec: InputSpec) -> Segmenter:
    return fixed_segmenter(Answer(np.zeros((3, 60, 80), np.float32)), 3, spec, OutputSpec())


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """A picture in which every place has a colour of its own."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 127 * np.sin(9 * x / width)], axis=-1).astype(np.uint8)


def jpeg(rgb: NDArray[np.uint8], orientation: int | None = None, mode: str = "RGB") -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = BytesIO()
    Image.fromarray(rgb).convert(mode).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def seen(data: bytes, spec: InputSpec, thumbnails: bool) -> NDArray[np.float64]:
    """What the net is fed."""
    needed = segmenter(spec).thumbnail if thumbnails else None
    picture = decode(data, LIMIT, needed=needed)
    assert picture.is_thumbnail == thumbnails
    run = place(spec, *picture.size)[0]
    return prepare(picture.rgb, run.of_thumbnail if thumbnails else run, spec).astype(np.float64)


@pytest.mark.parametrize(
    "spec",
    [
        NET,
        InputSpec(fit="stretch", height=60, width=80, resample="bicubic"),
        InputSpec(fit="letterbox", height=96, width=96),
        InputSpec(fit="native", max_pixels=4800, multiple_of=8),
    ],
    ids=lambda spec: f"{spec.fit} {spec.resample}",
)
@pytest.mark.parametrize("size", [(600, 800), (601, 803), (800, 600), (487, 911)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_net_sees_what_it_would_see_of_the_whole_picture(spec: InputSpec, size: tuple[int, int], mode: str) -> None:
    data = jpeg(smooth(*size), mode=mode)
    difference = np.abs(seen(data, spec, thumbnails=True) - seen(data, spec, thumbnails=False))
    assert difference.mean() < 0.6
    assert difference.max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_turned(orientation: int) -> None:
    data = jpeg(smooth(601, 803), orientation)
    difference = np.abs(seen(data, NET, thumbnails=True) - seen(data, NET, thumbnails=False))
    assert difference.mean() < 0.6
    assert difference.max() < 12


@pytest.mark.parametrize(
    ("size", "spec"),
    [
        ((60, 80), NET),
        ((90, 120), NET),  # half its size would be less than the net wants
        ((600, 50), NET),
        ((600, 800), InputSpec(fit="tile", height=60, width=80)),
        ((600, 800), InputSpec(fit="native")),
        ((600, 800), InputSpec(fit="stretch", height=60, width=80, antialias=False)),
        ((600, 800), InputSpec(fit="stretch", height=60, width=80, resample="nearest")),
    ],
)
def test_where_the_net_needs_the_pixels_themselves_all_are_decoded(size: tuple[int, int], spec: InputSpec) -> None:
    picture = decode(jpeg(smooth(*size)), LIMIT, needed=segmenter(spec).thumbnail)
    assert not picture.is_thumbnail
    assert picture.size == size


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_decoded_whole(kind: str) -> None:
    buffer = BytesIO()
    Image.fromarray(smooth(600, 800)).save(buffer, kind)
    assert not decode(buffer.getvalue(), LIMIT, needed=segmenter(NET).thumbnail).is_thumbnail


def test_the_mask_of_a_thumbnail_has_the_pictures_size() -> None:
    found = segmenter(NET)(np.zeros((60, 80, 3), np.uint8), size=(1201, 1599))
    assert found.mask.shape == (1201, 1599)


def test_the_shipped_net_sees_the_same_classes_with_and_without() -> None:
    # A drawn scene is the hard case: its edges are sharper than those of any photograph.
    net = open_bundle(ROOT / "models" / "camvid-enet" / "2", ("cpu",)).segmenter
    data = jpeg(scene(3, 1440, 1920)[0])
    whole = net(decode(data, LIMIT).rgb).mask
    small = decode(data, LIMIT, needed=net.thumbnail)
    assert small.rgb.shape == (360, 480, 3)
    assert (net(small.rgb, size=small.size).mask == whole).mean() > 0.98


@pytest.mark.parametrize("thumbnails", ["true", "false"])
def test_over_http_every_view_has_the_pictures_size_either_way(tmp_path: Path, thumbnails: str) -> None:
    data: Any = {"image": jpeg(scene(3, 720, 960)[0], orientation=6)}
    with running(ROOT / "models", tmp_path / "log", {"THUMBNAILS": thumbnails}) as server:
        for output in ("mask", "color", "overlay"):
            answer = httpx.post(f"{server.url}/segment?output={output}", files=data)
            with Image.open(BytesIO(answer.content)) as image:
                assert image.size == (720, 960)
        facts = httpx.post(f"{server.url}/segment", files=data).json()
        assert facts["image"] == {"width": 720, "height": 960}
        assert sum(entry["pixels"] for entry in facts["classes"]) == 720 * 960


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the CamVid pictures are not on this machine")
def test_large_photographs_lose_nothing_by_being_decoded_at_a_fraction() -> None:
    bundle = ROOT / "models" / "camvid-enet" / "2"
    net, channels = open_bundle(bundle, ("cpu",)).segmenter, len(read_manifest(bundle).classes)
    folder = DataFolder.open(CAMVID)
    whole_matrix = small_matrix = np.zeros((channels, channels), np.int64)
    agreement = []
    for pair in folder.pairs("val")[::10]:
        file = BytesIO()
        Image.fromarray(pair.picture()).resize((1920, 1440), Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
        small = decode(file.getvalue(), 10**7, needed=net.thumbnail)
        assert small.is_thumbnail
        whole = net(decode(file.getvalue(), 10**7).rgb).coarse
        reduced = net(small.rgb, size=small.size).coarse
        agreement.append((whole == reduced).mean())
        labels = folder.labels(pair)
        whole_matrix = whole_matrix + confusion(labels, whole, channels, ignore=(IGNORED,))
        small_matrix = small_matrix + confusion(labels, reduced, channels, ignore=(IGNORED,))
    assert np.mean(agreement) > 0.99
    assert mean_iou(small_matrix) == pytest.approx(mean_iou(whole_matrix), abs=0.005)
