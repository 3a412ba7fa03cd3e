"""A training run that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from training.checkpoint import Checkpoint
from training.cli import main
from training.run import RunFolder
from training.scenes import write_scenes

OPTIONS = {
    "net": "enet",  # its dropout makes the result depend on torch's random state
    "net-width": "8",
    "height": "48",
    "width": "64",
    "crop-height": "48",
    "crop-width": "64",
    "epochs": "4",
    "batch": "4",
    "ema": "0.9",
    "jitter": "0.2",
    "validate-every": "1",
}
STEPS = 4 * 5
KILLED = """
import itertools, os, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
from training.__main__ import main

step, done = int(sys.argv.pop(1)), itertools.count(1)
register_optimizer_step_post_hook(lambda *_: next(done) == step and os.kill(os.getpid(), signal.SIGKILL))
main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder, train=18, val=4, height=48, width=64)
    return folder


def command(data: Path, run: Path, *more: str) -> list[str]:
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    return ["train", str(data), "-o", str(run), "--save-seconds", "0", *options, *more]


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    _trained(command(data, run))
    return RunFolder(run)


def _trained(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output


def _killed_in_step(arguments: list[str], step: int) -> None:
    """Train in a process that is killed in the middle of its `step`-th step: after the optimizer, before the rest."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(step), *arguments], stderr=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def records(run: RunFolder) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_killed_at_random_steps_and_resumed_ends_as_the_unbroken_one(
    data: Path, unbroken: RunFolder, tmp_path: Path
) -> None:
    steps = [random.randint(1, STEPS // 2) for _ in range(2)]
    run = RunFolder(tmp_path / "killed")
    for step in steps:
        _killed_in_step(command(data, run.path, "--resume"), step)
    _trained(command(data, run.path, "--resume"))
    assert records(run) == records(unbroken), f"killed at steps {steps}"
    for one, other in ((run.best, unbroken.best), (run.last, unbroken.last)):
        expected = Checkpoint.load(other).state
        for name, tensor in Checkpoint.load(one).state.items():
            assert torch.equal(tensor, expected[name]), f"{name}, killed at steps {steps}"


def test_resuming_a_finished_run_changes_nothing(data: Path, unbroken: RunFolder) -> None:
    before = unbroken.best.read_bytes(), unbroken.metrics.read_bytes()
    done = CliRunner().invoke(main, command(data, unbroken.path, "--resume"))
    assert (done.exit_code, str(unbroken.best) in done.output) == (0, True)
    assert (unbroken.best.read_bytes(), unbroken.metrics.read_bytes()) == before


def test_a_run_keeps_its_recipe_and_its_data(data: Path, unbroken: RunFolder, tmp_path: Path) -> None:
    other = CliRunner().invoke(main, [*command(data, unbroken.path, "--resume"), "--batch", "8"])
    assert (other.exit_code, other.output.count("Error: ")) == (1, 1)
    assert "has batch = 4, not 8: a run keeps its recipe" in other.output
    write_scenes(tmp_path / "data", train=17, val=4, height=48, width=64)
    relabelled = Path(shutil.copytree(data, tmp_path / "relabelled"))
    mask = next((relabelled / "val" / "masks").iterdir())
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    for changed in (tmp_path / "data", relabelled):
        done = CliRunner().invoke(main, command(changed, unbroken.path, "--resume"))
        assert done.exit_code == 1
        assert "is not what the run began with" in done.output


def test_resume_takes_the_recipe_from_the_run_folder(data: Path, unbroken: RunFolder) -> None:
    done = CliRunner().invoke(main, ["train", str(data), "-o", str(unbroken.path), "--resume"])
    assert done.exit_code == 0


def test_a_state_that_cannot_be_read_is_said(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(b"PK nonsense")
    done = CliRunner().invoke(main, command(data, tmp_path / "run", "--resume"))
    assert done.exit_code == 1
    assert "state.pt cannot be read" in done.output


def test_a_run_that_was_cut_off_before_its_first_state_begins_anew(
    data: Path, unbroken: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.recipe.write_bytes(unbroken.recipe.read_bytes())
    _trained(command(data, run.path, "--resume"))
    assert records(run) == records(unbroken)
    (run.path / "state.pt").unlink()
    done = CliRunner().invoke(main, command(data, run.path, "--resume"))
    assert (done.exit_code, "state.pt is missing" in done.output) == (1, True)


def test_resume_and_overwrite_contradict_each_other(data: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, command(data, tmp_path / "run", "--resume", "--overwrite")).exit_code == 2
