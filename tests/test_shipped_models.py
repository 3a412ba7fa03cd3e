"""Every bundle in models/ is right, proved, licensed and described."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from service.bundle import open_bundle
from service.golden import Golden
from service.graph import Graph
from service.manifest import GOLDEN, read_manifest
from service.segmenter import Segmenter

MODELS = Path(__file__).parent.parent / "models"
BUNDLES = sorted(path.parent for path in MODELS.glob("*/*/model.json"))
LARGEST_TOTAL = 40 * 2**20


def test_there_are_models() -> None:
    assert BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_shipped_bundle_opens_and_is_proved(bundle: Path) -> None:
    model = open_bundle(bundle, providers=("cpu",))
    assert model.proved
    for variant in model.manifest.variants:
        assert variant.check is not None
        assert variant.check.argmax_agreement >= (0.9999 if variant.precision == "fp32" else 0.99)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_shipped_bundles_golden_picture_is_worth_asking(bundle: Path) -> None:
    manifest, golden = read_manifest(bundle), Golden.load(bundle / GOLDEN)
    assert golden.picture.shape[0] >= 240
    assert golden.picture.shape[1] >= 320
    for variant in manifest.variants:
        assert len(np.unique(golden.masks[variant.id])) >= min(3, len(manifest.classes))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_shipped_bundle_says_its_licence_recipe_and_score(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    card, licence = (bundle / "README.md").read_text(), (bundle / "LICENSE").read_text()
    assert manifest.license in card
    assert manifest.license in licence
    assert {"net", "recipe", "weights_sha256"} <= set(manifest.source)
    assert {"seed", "epochs"} <= set(manifest.source["recipe"])
    assert f"{manifest.metrics['miou']:.4f}" in card


def test_a_net_that_has_answered_leaves_the_cores_to_others() -> None:
    """By itself onnxruntime keeps its threads awake after a run: 50 ms and more of a core each."""
    bundle = MODELS / "camvid-lite" / "1"
    manifest, golden = read_manifest(bundle), Golden.load(bundle / GOLDEN)
    segmenter = Segmenter(manifest, Graph(bundle / manifest.variants[0].file, manifest, ("cpu",), threads=2))
    for _ in range(3):
        segmenter(golden.picture, confidence=False)
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.02


def test_all_bundles_together_stay_under_40_mb() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < LARGEST_TOTAL
