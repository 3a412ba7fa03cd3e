"""Each shipped bundle on all validation pictures of its data: over HTTP as good as in PyTorch, and as its card says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.manifest import Manifest, read_manifest
from service.scores import confusion, dice, mean_iou
from tests.server import running
from training.checkpoint import Checkpoint
from training.dataset import IGNORED, DataFolder
from training.evaluate import of_net, of_server

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"

FLOORS = {"camvid-enet": 0.55, "camvid-lite": 0.70, "nuclei-unet": 0.70}
"""The mIoU that each model has at least, by its name; the first word of it is its data's."""

BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/*/model.json"))


@dataclass(frozen=True)
class Comparison:
    """Confusion matrices in PyTorch and over HTTP, and the share of the pixels with the same class."""

    manifest: Manifest
    in_torch: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    over_http: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    agreement: float
    variant: str

    @classmethod
    def of(cls, bundle: Path, place: Path) -> Comparison:
        manifest, checkpoint = read_manifest(bundle), Checkpoint.load(bundle)
        folder = DataFolder.open(DATA / manifest.name.partition("-")[0])
        own = of_net(checkpoint.build(), checkpoint.recipe.input, folder.classes.channels)
        channels = len(manifest.classes)
        matrices = np.zeros((2, channels, channels), np.int64)
        equal = total = 0
        (place / "models" / manifest.name).mkdir(parents=True)
        (place / "models" / manifest.name / bundle.name).symlink_to(bundle)
        with (
            running(place / "models", place / "log") as server,
            of_server(server.url, manifest.name, confidence=False) as asked,
        ):
            for pair in folder.pairs("val"):
                picture, labels = pair.picture(), folder.labels(pair)
                masks = own(picture).mask, asked(picture).mask
                matrices += [confusion(labels, mask, channels, ignore=(IGNORED,)) for mask in masks]
                equal += int((masks[0] == masks[1]).sum())
                total += labels.size
            (served,) = httpx.get(f"{server.url}/models").json()["models"]
        return cls(manifest, matrices[0], matrices[1], equal / total, served["variant"])


REDUCED = 0.99
"""Share of the pixels that a variant of reduced precision, where it is the fastest and so the one that serves, has as
PyTorch has them."""

NUCLEI_DICE = 0.90
"""Of nuclei, inside and boundary together, pixels summed over all pictures."""


def test_every_bundle_has_a_floor() -> None:
    assert {path.parent.name for path in BUNDLES} == set(FLOORS)


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def comparison(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    bundle: Path = request.param
    if not (DATA / bundle.parent.name.partition("-")[0]).is_dir():
        pytest.skip(f"the pictures that {bundle.parent.name} is scored on are not on this machine")
    return Comparison.of(bundle, tmp_path_factory.mktemp("scores"))


def test_over_http_it_is_as_good_as_in_pytorch(comparison: Comparison) -> None:
    assert mean_iou(comparison.over_http) == pytest.approx(mean_iou(comparison.in_torch), abs=0.001)


def test_its_masks_are_pytorchs(comparison: Comparison) -> None:
    assert comparison.agreement >= (0.9999 if comparison.variant == "fp32" else REDUCED)


def test_it_is_as_good_as_its_card_says_and_as_it_should_be(comparison: Comparison) -> None:
    found = mean_iou(comparison.over_http)
    assert found == pytest.approx(comparison.manifest.metrics["miou"], abs=0.001)
    assert found >= FLOORS[comparison.manifest.name]


def test_nuclei_are_found(comparison: Comparison) -> None:
    if not comparison.manifest.name.startswith("nuclei"):
        pytest.skip("for nuclei alone")
    assert dice(comparison.over_http, together=(1, 2)) >= NUCLEI_DICE
