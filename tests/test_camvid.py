"""The shipped ENet on the 101 validation pictures of CamVid: over HTTP it is as good as in PyTorch, pixel for pixel."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from service.bundle import open_bundle
from service.image import decode
from service.manifest import Manifest, read_manifest
from service.scores import confusion, mean_iou
from tests.server import running
from training.dataset import IGNORED, DataFolder
from training.evaluate import of_net, of_server
from training.nets import build_net

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "camvid"
BUNDLE = ROOT / "models" / "camvid-enet" / "1"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the CamVid pictures are not on this machine")


@dataclass(frozen=True)
class Comparison:
    """mIoU in PyTorch and over HTTP, and the share of the pixels with the same class."""

    torch_miou: float
    http_miou: float
    agreement: float
    pictures: int


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(BUNDLE)


@pytest.fixture(scope="module")
def comparison(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = DataFolder.open(DATA)
    pairs, channels = folder.pairs("val"), len(manifest.classes)
    net = build_net("enet", channels)
    net.load_state_dict(load_file(BUNDLE / "weights.safetensors"))
    in_torch = of_net(net.eval(), manifest.input, folder.classes)
    torch_matrix = http_matrix = np.zeros((channels, channels), np.int64)
    equal = total = 0
    log = tmp_path_factory.mktemp("camvid") / "log"
    with running(BUNDLE.parent.parent, log) as server, of_server(server.url, "camvid-enet") as over_http:
        for pair in pairs:
            picture, labels = pair.picture(), folder.labels(pair)
            ours, theirs = in_torch(picture).mask, over_http(picture).mask
            torch_matrix = torch_matrix + confusion(labels, ours, channels, ignore=(IGNORED,))
            http_matrix = http_matrix + confusion(labels, theirs, channels, ignore=(IGNORED,))
            equal += int((ours == theirs).sum())
            total += labels.size
    return Comparison(mean_iou(torch_matrix), mean_iou(http_matrix), equal / total, len(pairs))


def test_over_http_it_is_as_good_as_in_pytorch(comparison: Comparison) -> None:
    assert comparison.pictures == 101
    assert comparison.http_miou == pytest.approx(comparison.torch_miou, abs=0.001)


def test_its_masks_are_pytorchs(comparison: Comparison) -> None:
    assert comparison.agreement >= 0.9999


def test_it_is_as_good_as_its_card_says(comparison: Comparison, manifest: Manifest) -> None:
    assert comparison.http_miou == pytest.approx(manifest.metrics["miou"], abs=0.001)
    assert comparison.http_miou >= 0.48


def test_large_photographs_lose_nothing_by_being_decoded_at_a_fraction(manifest: Manifest) -> None:
    net = open_bundle(BUNDLE, ("cpu",)).segmenter
    folder, channels = DataFolder.open(DATA), len(manifest.classes)
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
