"""The whole road, by the commands that users type: scenes, training, export, service, mIoU through HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.scores import mean_iou
from tests.server import running
from training.dataset import DataFolder
from training.evaluate import evaluate, of_server

RECIPE = {
    "--net": "enet",
    "--height": "120",
    "--width": "160",
    "--crop-height": "96",
    "--crop-width": "128",
    "--epochs": "40",
    "--validate-every": "10",
    "--scale-low": "0.8",
    "--scale-high": "1.3",
    "--learning-rate": "0.02",
    "--class-weights": "median",
}


def run(room: str, *arguments: str | Path) -> str:
    """Run a room's command; its output."""
    command = [sys.executable, "-m", room, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road") / "scenes"
    run("training", "scenes", folder, "--train", "64", "--val", "16", "--height", "120", "--width", "160")
    return folder


def test_a_net_with_unpooling_goes_from_scenes_to_masks_over_http(scenes: Path) -> None:
    road = scenes.parent
    options = [word for option in RECIPE.items() for word in option]
    printed = run("training", "train", scenes, "-o", road / "run", *options)
    checkpoint = road / "run" / "best.safetensors"
    assert str(checkpoint) in printed
    records = [json.loads(line) for line in (road / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = max(record.get("miou", 0.0) for record in records)

    models = road / "models"
    inputs: list[str | Path] = ["--checkpoint", checkpoint, "--classes", scenes / "classes.json"]
    inputs += ["--images", scenes / "val" / "images", "--license", "CC0-1.0"]
    printed = run("export", "net", "enet", *inputs, "-o", models / "scenes-enet")
    assert "agrees with PyTorch" in printed
    manifest = json.loads((models / "scenes-enet" / "1" / "model.json").read_text())
    assert manifest["variants"][0]["check"]["argmax_agreement"] >= 0.9999
    assert manifest["variants"][0]["lowering"] == "native"

    bundle = models / "scenes-enet" / "1"
    scored = {target.name: run("training", "evaluate", scenes, target) for target in (checkpoint, bundle)}
    # The weights in the bundle are a checkpoint still.
    scored["weights"] = run("training", "evaluate", scenes, bundle / "weights.safetensors")
    assert len(set(scored.values())) == 1, scored

    folder = DataFolder.open(scenes)
    with running(models, road / "log") as server, of_server(server.url, "scenes-enet") as segment:
        matrix = evaluate(segment, folder, folder.pairs("val"))
    served = mean_iou(matrix)
    assert served > 0.8
    assert served == pytest.approx(trained, abs=0.001)
