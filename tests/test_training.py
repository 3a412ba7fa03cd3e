"""The trainer: data folders checked, crops reproducible, runs repeatable, checkpoints that explain themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service.scores import mean_iou
from training.augment import Augmentation
from training.checkpoint import Checkpoint
from training.dataset import IGNORED, DataFolder, EpochSampler, TrainingSet
from training.evaluate import evaluate
from training.loop import BEST, LAST, METRICS, train
from training.loss import class_weights
from training.recipe import Recipe
from training.scenes import SCENE_CLASSES, scene, write_scenes

TINY = Recipe(
    net="unet",
    net_width=4,
    height=48,
    width=64,
    crop_height=32,
    crop_width=48,
    epochs=2,
    batch=4,
    validate_every=1,
    seed=3,
)

AUGMENTATION = Augmentation(32, 48, 0.5, 2.0, flip=True, pad=IGNORED)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "data", train=8, val=2, height=48, width=64)
    return tmp_path / "data"


def weights(checkpoint: Checkpoint) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in checkpoint.state.values()]


def test_a_scene_depends_on_its_seed_alone_and_holds_every_class_somewhere() -> None:
    again = [scene(7), scene(7)]
    np.testing.assert_array_equal(again[0][0], again[1][0])
    np.testing.assert_array_equal(again[0][1], again[1][1])
    seen = {int(index) for seed in range(5) for index in np.unique(scene(seed)[1])}
    assert seen == {spec.id for spec in SCENE_CLASSES.classes}


def test_two_runs_of_one_recipe_give_the_same_weights(data: Path, tmp_path: Path) -> None:
    one = train(data, TINY, tmp_path / "one", show=False)
    other = train(data, TINY, tmp_path / "other", show=False)
    assert weights(one) == weights(other)
    assert one.metrics == other.metrics
    third = train(data, TINY.model_copy(update={"seed": 4}), tmp_path / "third", show=False)
    assert weights(one) != weights(third)


def test_a_run_leaves_metrics_and_checkpoints_that_explain_themselves(data: Path, tmp_path: Path) -> None:
    best = train(data, TINY, tmp_path / "run", show=False)
    records = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert best.metrics["miou"] == max(record["miou"] for record in records)
    assert (tmp_path / "run" / LAST).exists()
    loaded = Checkpoint.load(tmp_path / "run" / BEST)
    assert (loaded.recipe, loaded.classes) == (TINY, 6)
    with torch.inference_mode():
        assert loaded.build()(torch.rand(1, 3, 48, 64)).shape == (1, 6, 48, 64)


@pytest.mark.parametrize("schedule", ["one-cycle", "poly"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls(schedule: str, precision: str, data: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        TINY.model_dump() | {"schedule": schedule, "precision": precision, "epochs": 6, "validate_every": 6}
    )
    train(data, recipe, tmp_path / "run", show=False)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_a_crop_depends_on_seed_epoch_and_picture_alone(data: Path) -> None:
    sets = [TrainingSet(DataFolder.open(data), "train", AUGMENTATION, seed=1) for _ in range(2)]
    sets[0][2, 5]  # another item in between changes nothing
    assert torch.equal(sets[0][1, 3][0], sets[1][1, 3][0])
    assert not torch.equal(sets[0][1, 3][0], sets[0][2, 3][0])


def test_an_epoch_visits_each_picture_once_in_an_order_of_its_own() -> None:
    first, second = ([index for _, index in EpochSampler(50, epoch, seed=0)] for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_picture_and_labels_stay_together() -> None:
    picture, mask = scene(1, 96, 128)
    # The labels are painted into the picture, so that they can be read back from the crop.
    picture = np.repeat(mask[..., None] * 40, 3, axis=2).astype(np.uint8)
    plain = Augmentation(64, 64, 1.0, 1.0, flip=True, pad=IGNORED)
    for seed in range(10):
        crop, labels = plain(picture, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(crop[..., 0], labels * 40)


def test_what_lies_outside_a_small_picture_is_ignored() -> None:
    shrink = Augmentation(100, 100, 0.5, 0.5, flip=False, pad=IGNORED)
    _, labels = shrink(*scene(1, 96, 128), np.random.default_rng(0))
    assert (labels != IGNORED).sum() == 48 * 64


def test_rare_classes_weigh_more(data: Path) -> None:
    folder = DataFolder.open(data)
    pairs = folder.pairs("train")
    counts = sum(np.bincount(pair.read()[1].ravel(), minlength=6) for pair in pairs)
    for how in ("log", "median"):
        found = class_weights(folder, pairs, how)
        assert found.mean().item() == pytest.approx(1)
        assert np.argsort(found.numpy()).tolist() == np.argsort(-np.asarray(counts)).tolist()
    assert class_weights(folder, pairs, "none").tolist() == [1.0] * 6


def test_a_bad_data_folder_is_refused_with_the_file_and_the_rule(data: Path) -> None:
    picture = min((data / "train" / "images").iterdir())
    mask = data / "train" / "masks" / picture.name
    good = mask.read_bytes()
    folder = DataFolder.open(data)

    Image.new("L", (10, 10)).save(mask)
    with pytest.raises(ValueError, match=r"sizes must be equal"):
        folder.pairs("train")[0].read()
    Image.new("RGB", (64, 48)).save(mask)
    with pytest.raises(ValueError, match=r"is a RGB picture: a mask is 8-bit"):
        folder.pairs("train")[0].read()
    Image.new("L", (64, 48), 77).save(mask)
    with pytest.raises(ValueError, match=r"holds the ids \[77\]"):
        folder.labels(folder.pairs("train")[0].read()[1])
    mask.unlink()
    with pytest.raises(ValueError, match=r"has no mask"):
        folder.pairs("train")
    mask.write_bytes(good)
    with pytest.raises(ValueError, match=r"holds no pictures"):
        folder.pairs("test")
    (data / "classes.json").unlink()
    with pytest.raises(ValueError, match=r"classes.json is missing"):
        DataFolder.open(data)


def test_ignored_ids_count_neither_as_classes_nor_as_labels(data: Path) -> None:
    path = data / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore": [5]}))
    folder = DataFolder.open(data)
    assert [spec.id for spec in folder.classes.channels] == [0, 1, 2, 3, 4]
    assert folder.labels(np.array([[0, 4, 5, 255]], np.uint8)).tolist() == [[0, 4, IGNORED, IGNORED]]


def test_a_batch_without_labels_teaches_nothing_and_does_no_harm(data: Path, tmp_path: Path) -> None:
    for mask in (data / "train" / "masks").iterdir():
        Image.new("L", (64, 48), 255).save(mask)
    Image.fromarray(scene(1, 48, 64)[1]).save(min((data / "train" / "masks").iterdir()))
    best = train(data, TINY.model_copy(update={"batch": 1}), tmp_path / "run", show=False)
    assert all(torch.isfinite(tensor).all() for tensor in best.state.values())


def test_a_class_that_val_does_not_hold_has_no_score_and_a_split_without_labels_is_refused(
    data: Path, tmp_path: Path
) -> None:
    masks = list((data / "val" / "masks").iterdir())
    for mask in masks:
        Image.new("L", (64, 48), 2).save(mask)
    net = train(data, TINY, tmp_path / "run", show=False)
    assert net.metrics["iou"]["sky"] in {0.0, None}
    assert "NaN" not in (tmp_path / "run" / METRICS).read_text()
    for mask in masks:
        Image.new("L", (64, 48), 255).save(mask)
    with pytest.raises(ValueError, match="every pixel of the 2 masks is ignored"):
        train(data, TINY, tmp_path / "again", show=False)


def test_a_net_with_a_channel_for_an_ignored_class_can_be_scored(data: Path) -> None:
    path = data / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore": [5]}))
    folder = DataFolder.open(data)
    matrix = evaluate(lambda rgb: np.full(rgb.shape[:2], 5, np.uint8), folder, folder.pairs("val"))
    assert mean_iou(matrix, folder.classes.ignore) == 0
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore": [300]}))
    with pytest.raises(ValueError, match="ignore"):
        DataFolder.open(data)


def test_a_run_is_not_overwritten_by_accident(data: Path, tmp_path: Path) -> None:
    first = train(data, TINY, tmp_path / "run", show=False)
    other = TINY.model_copy(update={"seed": 9})
    with pytest.raises(ValueError, match="--overwrite"):
        train(data, other, tmp_path / "run", show=False)
    assert weights(Checkpoint.load(tmp_path / "run" / BEST)) == weights(first)
    train(data, other, tmp_path / "run", show=False, overwrite=True)
    assert Checkpoint.load(tmp_path / "run" / BEST).recipe.seed == 9
