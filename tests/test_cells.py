"""Synthetic nuclei: the same for a seed, and counted and scored as what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.shapes import components
from training.cells import BACKGROUND, BOUNDARY, CELL_CLASSES, NUCLEUS, cells
from training.dataset import DataFolder
from training.evaluate import Seen
from training.report import Wanted, examine

PICTURES = 3


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    (tmp_path / "classes.json").write_text(CELL_CLASSES.model_dump_json())
    for kind in ("images", "masks"):
        (tmp_path / "val" / kind).mkdir(parents=True)
    for seed in range(PICTURES):
        picture, labels = cells(seed)
        Image.fromarray(picture).save(tmp_path / "val" / "images" / f"{seed}.png")
        Image.fromarray(labels).save(tmp_path / "val" / "masks" / f"{seed}.png")
    return DataFolder.open(tmp_path)


def test_a_picture_depends_on_its_seed_alone_and_holds_every_class() -> None:
    for one, same in zip(cells(4), cells(4), strict=True):
        np.testing.assert_array_equal(one, same)
    assert (cells(4)[1] != cells(5)[1]).any()
    assert set(np.unique(cells(4)[1])) == {BACKGROUND, NUCLEUS, BOUNDARY}


def test_nuclei_are_brighter_than_what_is_around_them() -> None:
    picture, labels = cells(0)
    assert picture[labels == NUCLEUS].mean() > 3 * picture[labels == BACKGROUND].mean()


def test_a_net_that_sees_the_truth_counts_right(data: DataFolder) -> None:
    pairs, truth = data.pairs("val"), {cells(seed)[0].tobytes(): cells(seed)[1] for seed in range(PICTURES)}
    wanted = Wanted(together=(NUCLEUS, BOUNDARY), count=NUCLEUS)
    figures = examine(lambda rgb: Seen(truth[rgb.tobytes()]), data, pairs, wanted).figures()
    drawn = sum(components(labels, NUCLEUS) for labels in truth.values())
    assert (figures["dice"], figures["count_error"], figures["count"]) == (1.0, 0.0, drawn)
    assert drawn > 20 * PICTURES


def test_one_that_cannot_tell_boundaries_finds_the_nuclei_and_counts_fewer(data: DataFolder) -> None:
    truth = {cells(seed)[0].tobytes(): cells(seed)[1] for seed in range(PICTURES)}
    wanted = Wanted(together=(NUCLEUS, BOUNDARY), count=NUCLEUS)

    def blind(rgb: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Seen:
        return Seen(np.minimum(truth[rgb.tobytes()], NUCLEUS).astype(np.uint8))

    figures = examine(blind, data, data.pairs("val"), wanted).figures()
    assert figures["dice"] == 1.0
    assert figures["count"] < figures["true_count"]
    assert figures["count_error"] > 0.1
