"""Each shipped bundle on validation pictures of its data: over HTTP as good as in PyTorch, and as its card says.

The suite asks about every fourth picture, `make test-long` about all of them.
"""

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
    def of(cls, bundle: Path, place: Path, every: int) -> Comparison:
        """Asks about the first picture and then every `every`-th."""
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
            for pair in folder.pairs("val")[::every]:
                picture, labels = pair.picture(), folder.labels(pair)
                masks = own(picture).mask, asked(picture).mask
                matrices += [confusion(labels, mask, channels, ignore=(IGNORED,)) for mask in masks]
                equal += int((masks[0] == masks[1]).sum())
                total += labels.size
            (served,) = httpx.get(f"{server.url}/models").json()["models"]
        return cls(manifest, matrices[0], matrices[1], equal / total, served["variant"])


SLACK = 0.05
"""By how much a quarter of the pictures may be harder than all."""

REDUCED = 0.99
"""Share of the pixels that a variant of reduced precision, where it is the fastest and so the one that serves, has as
PyTorch has them."""

NUCLEI_DICE = 0.90
"""Of nuclei, inside and boundary together, pixels summed over all pictures."""


def test_every_bundle_has_a_floor() -> None:
    assert {path.parent.name for path in BUNDLES} == set(FLOORS)


def comparison_of(bundle: Path, place: Path, every: int) -> Comparison:
    if not (DATA / bundle.parent.name.partition("-")[0]).is_dir():
        pytest.skip(f"the pictures that {bundle.parent.name} is scored on are not on this machine")
    return Comparison.of(bundle, place, every)


def name_of(bundle: Path) -> str:
    return f"{bundle.parent.name}-{bundle.name}"


@pytest.fixture(scope="module", params=BUNDLES, ids=name_of)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return comparison_of(request.param, tmp_path_factory.mktemp("scores"), every=1)


@pytest.mark.parametrize("bundle", BUNDLES, ids=name_of)
def test_a_quarter_of_the_pictures_is_answered_as_in_pytorch(bundle: Path, tmp_path: Path) -> None:
    found = comparison_of(bundle, tmp_path, every=4)
    assert_as_in_pytorch(found)
    assert mean_iou(found.over_http) >= FLOORS[found.manifest.name] - SLACK


@pytest.mark.long
def test_all_pictures_are_answered_as_in_pytorch(whole: Comparison) -> None:
    assert_as_in_pytorch(whole)


def assert_as_in_pytorch(found: Comparison) -> None:
    assert mean_iou(found.over_http) == pytest.approx(mean_iou(found.in_torch), abs=0.001)
    assert found.agreement >= (0.9999 if found.variant == "fp32" else REDUCED)


@pytest.mark.long
def test_it_is_as_good_as_its_card_says_and_as_it_should_be(whole: Comparison) -> None:
    found = mean_iou(whole.over_http)
    assert found == pytest.approx(whole.manifest.metrics["miou"], abs=0.001)
    assert found >= FLOORS[whole.manifest.name]


@pytest.mark.long
def test_nuclei_are_found(whole: Comparison) -> None:
    if not whole.manifest.name.startswith("nuclei"):
        pytest.skip("for nuclei alone")
    assert dice(whole.over_http, together=(1, 2)) >= NUCLEI_DICE
