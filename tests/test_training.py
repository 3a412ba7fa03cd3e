"""The trainer: data folders checked, crops reproducible, runs repeatable, checkpoints that explain themselves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from service.scores import mean_iou
from tests.bundles import write_bundle
from training.augment import Augmentation
from training.average import moving_average
from training.checkpoint import Checkpoint
from training.cli import main
from training.dataset import IGNORED, DataFolder, EpochSampler, TrainingSet
from training.evaluate import Seen, evaluate
from training.loop import train
from training.loss import Loss, class_weights
from training.recipe import Recipe
from training.run import RunFolder
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
    records = [json.loads(line) for line in RunFolder(tmp_path / "run").metrics.read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert best.metrics["miou"] == max(record["miou"] for record in records)
    assert RunFolder(tmp_path / "run").last.exists()
    loaded = Checkpoint.load(RunFolder(tmp_path / "run").best)
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
    losses = [json.loads(line)["loss"] for line in RunFolder(tmp_path / "run").metrics.read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_a_crop_depends_on_seed_epoch_and_picture_alone(data: Path) -> None:
    folder = DataFolder.open(data)
    sets = [TrainingSet(folder, folder.pairs("train"), AUGMENTATION, seed=1) for _ in range(2)]
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
    counts = folder.count(folder.pairs("train"))
    assert counts.sum() == 8 * 48 * 64
    hows: tuple[Literal["log", "median"], ...] = ("log", "median")
    for how in hows:
        found = class_weights(counts, how)
        assert found.mean().item() == pytest.approx(1)
        assert np.argsort(found.numpy()).tolist() == np.argsort(-counts).tolist()
    assert class_weights(counts, "none").tolist() == [1.0] * 6


def test_a_bad_data_folder_is_refused_before_the_first_step_with_the_file_and_the_rule(
    data: Path, tmp_path: Path
) -> None:
    picture = min((data / "val" / "images").iterdir())
    mask = data / "val" / "masks" / picture.name
    good = mask.read_bytes()

    def refusal() -> str:
        with pytest.raises(ValueError, match=r".") as caught:
            train(data, TINY, tmp_path / "run", show=False)
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    Image.new("L", (10, 12)).save(mask)
    assert refusal() == f"{mask} is 10x12, its picture 64x48: the sizes must be equal"
    Image.new("RGB", (64, 48)).save(mask)
    assert refusal() == f"{mask} is a RGB picture: a mask is 8-bit, grey or palette"
    Image.new("L", (64, 48), 77).save(mask)
    assert refusal() == f"{mask} holds the ids [77], which classes.json neither lists nor ignores"
    mask.write_bytes(good[:60])
    assert f"{mask} cannot be read" in refusal()
    mask.unlink()
    assert refusal() == f"{picture} has no mask: {mask} is missing"
    mask.write_bytes(good)
    picture.write_bytes(b"GIF")
    assert f"{picture} cannot be read" in refusal()
    shutil.rmtree(data / "val")
    assert f"{data / 'val' / 'images'} holds no pictures" in refusal()
    (data / "classes.json").unlink()
    assert "classes.json is missing" in refusal()


@pytest.mark.parametrize("loaders", ["0", "1"])
def test_a_truncated_picture_ends_training_with_one_line_that_names_it(
    loaders: str, data: Path, tmp_path: Path
) -> None:
    picture = min((data / "train" / "images").iterdir())
    picture.write_bytes(picture.read_bytes()[:-2000])
    options = ["--height", "48", "--width", "64", "--crop-height", "32", "--crop-width", "48", "--loaders", loaders]
    command = ["train", str(data), "-o", str(tmp_path / "run"), "--net", "unet", "--net-width", "4", *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    errors = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert errors and errors[0].startswith(f"Error: {picture} cannot be read: ")
    assert "Traceback" not in done.output


def test_ignored_ids_count_neither_as_classes_nor_as_labels(data: Path) -> None:
    path = data / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore": [5]}))
    pair = DataFolder.open(data).pairs("train")[0]
    ids = np.zeros((48, 64), np.uint8)
    ids[0, :4] = [0, 4, 5, 255]
    Image.fromarray(ids).save(pair.mask)
    folder = DataFolder.open(data)
    assert [spec.id for spec in folder.classes.channels] == [0, 1, 2, 3, 4]
    assert folder.labels(pair)[0, :4].tolist() == [0, 4, IGNORED, IGNORED]
    assert folder.count([pair]).tolist() == [48 * 64 - 3, 0, 0, 0, 1]


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
    assert "NaN" not in RunFolder(tmp_path / "run").metrics.read_text()
    for mask in masks:
        Image.new("L", (64, 48), 255).save(mask)
    with pytest.raises(ValueError, match="every pixel of the 2 masks is ignored"):
        train(data, TINY, tmp_path / "again", show=False)


def test_a_net_with_a_channel_for_an_ignored_class_can_be_scored(data: Path) -> None:
    path = data / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore": [5]}))
    folder = DataFolder.open(data)
    matrix = evaluate(lambda rgb: Seen(np.full(rgb.shape[:2], 5, np.uint8)), folder, folder.pairs("val"))
    assert mean_iou(matrix, folder.classes.ignore) == 0
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore": [300]}))
    with pytest.raises(ValueError, match="ignore"):
        DataFolder.open(data)


def test_pictures_are_read_as_the_service_reads_them(data: Path) -> None:
    pair = DataFolder.open(data).pairs("val")[0]
    upright = pair.picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    lying = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    path = pair.image.with_suffix(".png")
    pair.image.unlink()
    lying.save(path, exif=exif)
    turned = replace(pair, image=path)
    np.testing.assert_array_equal(turned.picture(), upright)
    assert turned.ids().shape == upright.shape[:2]


def test_a_checkpoint_of_another_version_says_so_in_one_line(data: Path, tmp_path: Path) -> None:
    best = train(data, TINY, tmp_path / "run", show=False)
    path = RunFolder(tmp_path / "run").best
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    recipe = json.dumps(json.loads(notes["recipe"]) | {"of_tomorrow": 1})
    path.write_bytes(save(best.state, notes | {"recipe": recipe}))
    done = CliRunner().invoke(main, ["evaluate", str(data), str(path)])
    assert (done.exit_code, len(done.output.splitlines())) == (1, 1)
    assert "another version of segserve-train" in done.output and "of_tomorrow" in done.output


def test_a_bundle_with_other_classes_than_the_folder_is_refused(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["evaluate", str(data), str(write_bundle(tmp_path / "models"))])
    assert done.exit_code == 1
    assert "has the classes red, green, blue" in done.output


def test_scenes_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in ([str(tmp_path / "file")], [str(tmp_path / "data"), "--seed", "-1"]):
        done = CliRunner().invoke(main, ["scenes", *arguments])
        assert (done.exit_code, done.output.count("Error: ")) == (1, 1)


def test_a_run_is_not_overwritten_by_accident(data: Path, tmp_path: Path) -> None:
    first = train(data, TINY, tmp_path / "run", show=False)
    other = TINY.model_copy(update={"seed": 9})
    with pytest.raises(ValueError, match="--overwrite"):
        train(data, other, tmp_path / "run", show=False)
    assert weights(Checkpoint.load(RunFolder(tmp_path / "run").best)) == weights(first)
    train(data, other, tmp_path / "run", show=False, overwrite=True)
    assert Checkpoint.load(RunFolder(tmp_path / "run").best).recipe.seed == 9


def test_the_options_against_overfitting_train_and_give_weights_of_their_own(data: Path, tmp_path: Path) -> None:
    plain = train(data, TINY, tmp_path / "plain", show=False)
    for option in ({"ema": 0.9}, {"jitter": 0.4}, {"label_smoothing": 0.1}, {"ohem": 0.7}):
        other = train(data, TINY.model_copy(update=option), tmp_path / next(iter(option)), show=False)
        assert weights(other) != weights(plain)
        assert all(torch.isfinite(tensor).all() for tensor in other.state.values())


def test_jitter_changes_the_picture_and_neither_the_labels_nor_the_crop() -> None:
    plain, tinted = (Augmentation(32, 48, 0.5, 2.0, flip=True, pad=IGNORED, jitter=jitter) for jitter in (0.0, 0.4))
    before, labels = plain(*scene(1, 96, 128), np.random.default_rng(5))
    after, same = tinted(*scene(1, 96, 128), np.random.default_rng(5))
    np.testing.assert_array_equal(labels, same)
    assert (before != after).mean() > 0.5
    # Brightness, contrast and saturation move the values, not what is where.
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.95


def test_hard_example_mining_keeps_the_pixels_below_the_probability_and_at_least_a_sixteenth() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator) * 3
    labels = torch.randint(0, 3, (2, 8, 8), generator=generator)
    labels[0, :2] = IGNORED
    each = torch.tensor([1.0, 2.0, 0.5])
    share = logits.softmax(1).gather(1, labels.clamp(max=2)[:, None])[:, 0]
    hard = (labels != IGNORED) & (share < 0.4)
    assert 0 < hard.sum() < (labels != IGNORED).sum()
    only = torch.where(hard, labels, IGNORED)
    for smoothing in (0.0, 0.2):
        found = Loss(each, smoothing, ohem=0.4)(logits, labels)
        torch.testing.assert_close(found, Loss(each, smoothing)(logits, only))
    sure = torch.nn.functional.one_hot(labels.clamp(max=2), 3).permute(0, 3, 1, 2) * 20.0 + logits * 0.01
    hardest = torch.nn.functional.cross_entropy(sure, labels, ignore_index=IGNORED, reduction="none").flatten()
    expected = hardest.topk(round(112 / 16)).values.mean()
    torch.testing.assert_close(Loss(torch.ones(3), ohem=0.4)(sure, labels), expected)


def test_the_moving_average_follows_the_net_and_is_what_is_saved() -> None:
    convolution, norm = torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)
    net = torch.nn.Sequential(convolution, norm)
    average = moving_average(net, decay=0.5)
    history = []
    for step in range(4):
        with torch.no_grad():
            convolution.weight.fill_(float(step))
            norm.load_state_dict(
                norm.state_dict() | {"running_mean": torch.tensor([-step]), "num_batches_tracked": torch.tensor(step)}
            )
        average.update_parameters(net)
        history.append(average.module.state_dict()["0.weight"].item())
    # The first is copied; then the decay is (1 + n) / (10 + n), until it reaches 0.5.
    expected = [0.0]
    for step in (1, 2, 3):
        decay = min(0.5, (1 + step) / (10 + step))
        expected.append(decay * expected[-1] + (1 - decay) * step)
    assert history == pytest.approx(expected)
    assert average.module.state_dict()["1.running_mean"].item() == pytest.approx(-expected[-1])
    assert average.module.state_dict()["1.num_batches_tracked"].item() == 3


def test_a_run_without_progress_ends_early_and_keeps_its_best(data: Path, tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"epochs": 30, "patience": 2, "learning_rate": 1e-9})
    best = train(data, recipe, tmp_path / "run", show=False)
    records = [json.loads(line) for line in RunFolder(tmp_path / "run").metrics.read_text().splitlines()]
    assert len(records) < 30
    assert best.metrics["epoch"] == records[-3]["epoch"]
    assert max(record["miou"] for record in records) == best.metrics["miou"]


def test_the_curve_is_a_picture(data: Path, tmp_path: Path) -> None:
    train(data, TINY, tmp_path / "run", show=False)
    with Image.open(tmp_path / "run" / "curve.png") as curve:
        assert curve.format == "PNG"
        assert len(curve.convert("RGB").getcolors(1 << 20) or []) > 2


def test_a_checkpoint_with_other_classes_than_the_folder_is_refused(data: Path, tmp_path: Path) -> None:
    train(data, TINY, tmp_path / "run", show=False)
    path = data / "classes.json"
    classes = json.loads(path.read_text())["classes"]
    path.write_text(json.dumps({"classes": classes[:3], "ignore": [3, 4, 5]}))
    done = CliRunner().invoke(main, ["evaluate", str(data), str(RunFolder(tmp_path / "run").best)])
    assert (done.exit_code, "tells 6 classes apart" in done.output) == (1, True)
