"""Nets of segmentation_models_pytorch, torchvision and transformers, with lively random weights: exported by the
command, the graph gives the net's class at 99.99 % of the pixels, and where it does not, two classes were tied."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from export.compare import Comparison
from export.pair import Pair
from export.pictures import read_picture
from export.process import Process
from export.request import Request
from service.graph import Graph
from service.manifest import Manifest, read_manifest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PICTURES = ROOT.parent / "shared" / "data" / "camvid" / "val" / "images"
COMMAND = [str(Path(sys.executable).parent / "segserve-export"), "net"]
NAMES = re.findall(r'^    "([a-z0-9-]+)":', (HERE / "zoo.py").read_text(), re.MULTILINE)

ONE_SIZE = {"smp-dpt", "upernet-swin", "mobilenetv2-deeplab", "mobilevit-deeplab", "dpt", "data2vec"}
"""Nets that torch can follow at one size alone; all others take several."""

if not PICTURES.is_dir():
    pytest.skip(f"{PICTURES} is not there: statistics come from real pictures", allow_module_level=True)


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    """A folder with other people's packages, kept from run to run while the list of them stays the same."""
    wanted = (HERE / "requirements.txt").read_text()
    folder = Path(pytestconfig.cache.mkdir("nets")) / "site"
    done = folder / "installed.txt"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*install, "-r", str(HERE / "requirements.txt")], check=True)
        done.write_text(wanted)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six street scenes, evenly spread over the folder; the last three are copies, in a folder of their own."""
    found = sorted(PICTURES.iterdir())
    chosen = [found[index * len(found) // 6] for index in range(6)]
    folder = tmp_path_factory.mktemp("pictures")
    return chosen[:3] + [Path(shutil.copy(path, folder)) for path in chosen[3:]]


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classes") / "classes.json"
    named = [{"id": index, "name": f"class {index}", "color": f"#{index * 20:02x}8040"} for index in range(12)]
    path.write_text(json.dumps({"classes": named}))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_answers_as_the_net_does(
    name: str, site: Path, pictures: list[Path], classes: Path, tmp_path: Path, rows: list[str]
) -> None:
    weights = tmp_path / "weights.pth"
    make = [sys.executable, "-P", str(HERE / "zoo.py"), name, str(weights), *map(str, pictures)]
    there = {**os.environ, "PYTHONPATH": str(site)}
    made = subprocess.run(make, env=there, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    target = tmp_path / "models" / name
    arguments = [f"--path={HERE}", f"--path={site}", "--arg", f"name={name}", f"--checkpoint={weights}"]
    proof = [f"--classes={classes}", f"--golden={pictures[3]}", f"--images={pictures[3].parent}", "-o", str(target)]
    start = perf_counter()
    done = subprocess.run([*COMMAND, "zoo:build", *arguments, *proof], capture_output=True, text=True, check=False)
    seconds = perf_counter() - start
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(target / "1")
    found = compared(manifest, target / "1", weights, site, pictures[3:])
    pixels = sum(one.kinds.size for one in found)
    tied, real = (sum(getattr(one, kind) for one in found) for kind in ("near_ties", "real"))
    cells = (name, sizes(manifest), manifest.reference.lowering, len(found), f"{1 - (tied + real) / pixels:.4%}")
    rows.append(f"| {' | '.join(map(str, cells))} | {tied}, {real} | {seconds:.0f} |")
    shares = np.bincount(np.concatenate([one.wanted.ravel() for one in found])) / pixels
    assert (shares > 0.05).sum() >= 3, shares
    assert real == 0
    assert 1 - tied / pixels >= 0.9999
    assert (manifest.input.fit == "native") == (name not in ONE_SIZE), done.stdout


def compared(manifest: Manifest, folder: Path, weights: Path, site: Path, pictures: list[Path]) -> list[Comparison]:
    """The net, loaded once more, and the graph, on real pictures, at other sizes and in a batch."""
    request = Request(
        "zoo:build", (str(HERE), str(site)), {"name": manifest.name}, str(weights), mean=(0, 0, 0), std=(1, 1, 1)
    )
    named = {path.name: read_picture(path) for path in pictures}
    with Process(600) as net:
        net.ask(request.words())
        graph = Graph(folder / "model.onnx", manifest, ("cpu",), any_size=True)
        pair = Pair(net, graph, manifest.input, manifest.output)
        return list(pair.over(named))


def sizes(manifest: Manifest) -> str:
    """What the graph takes, in words."""
    spec = manifest.input
    return f"{spec.height}x{spec.width}" if spec.height else f"multiples of {spec.multiple_of}"
