"""The whole road, by the commands that users type: scenes, training, export, service, mIoU through HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click import Command
from click.testing import CliRunner

from export.cli import main as export
from service.scores import mean_iou
from tests.server import running
from training.cli import main as training
from training.dataset import DataFolder
from training.evaluate import evaluate, of_server

RECIPE = {
    "--net": "segnet-basic",
    "--net-width": "16",
    "--height": "96",
    "--width": "128",
    "--crop-height": "96",
    "--crop-width": "128",
    "--epochs": "20",
    "--batch": "4",
    "--validate-every": "4",
    "--scale-low": "0.9",
    "--scale-high": "1.1",
    "--learning-rate": "0.02",
    "--class-weights": "median",
}


def run(room: Command, *arguments: str | Path) -> str:
    """Run a room's command; its output."""
    done = CliRunner().invoke(room, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road") / "scenes"
    run(training, "scenes", folder, "--train", "48", "--val", "12", "--height", "96", "--width", "128")
    return folder


def test_a_net_with_unpooling_goes_from_scenes_to_masks_over_http(scenes: Path) -> None:
    road = scenes.parent
    options = [word for option in RECIPE.items() for word in option]
    printed = run(training, "train", scenes, "-o", road / "run", *options)
    checkpoint = road / "run" / "best.safetensors"
    assert str(checkpoint) in printed
    records = [json.loads(line) for line in (road / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = max(record.get("miou", 0.0) for record in records)

    models = road / "models"
    inputs: list[str | Path] = ["--checkpoint", checkpoint, "--classes", scenes / "classes.json"]
    inputs += ["--images", scenes / "val" / "images", "--license", "CC0-1.0"]
    printed = run(export, "net", "segnet-basic", *inputs, "-o", models / "scenes-segnet")
    assert "agrees with PyTorch" in printed
    manifest = json.loads((models / "scenes-segnet" / "1" / "model.json").read_text())
    assert manifest["variants"][0]["check"]["argmax_agreement"] >= 0.9999
    assert manifest["variants"][0]["check"]["sizes"][0] == [96, 128]
    assert len(manifest["variants"][0]["check"]["sizes"]) == 3
    assert manifest["variants"][0]["lowering"] == "native"

    bundle = models / "scenes-segnet" / "1"
    scored = {target.name: run(training, "evaluate", scenes, target) for target in (checkpoint, bundle)}
    # The weights in the bundle are a checkpoint still.
    scored["weights"] = run(training, "evaluate", scenes, bundle / "weights.safetensors")
    assert len(set(scored.values())) == 1, scored

    folder = DataFolder.open(scenes)
    with running(models, road / "log") as server, of_server(server.url, "scenes-segnet") as segment:
        matrix = evaluate(segment, folder, folder.pairs("val"))
    served = mean_iou(matrix)
    assert served > 0.8
    assert served == pytest.approx(trained, abs=0.001)
