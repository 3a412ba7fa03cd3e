"""Other people's nets: imported beside clashing packages, with weights and answers as they come, exported right."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn
from torch.nn import functional as F

from export.cli import main
from service.bundle import Model, open_bundle
from service.graph import Answer
from service.manifest import ClassList, ClassSpec
from service.segmenter import Segmenter
from training.scenes import scene

CLASSES = ClassList(classes=tuple(ClassSpec(id=i, name=f"class {i}", color=f"#0000{i:02x}") for i in range(4)))

PARTS = """
from collections import namedtuple

import torch
from torch import nn
from torch.nn import functional as F


class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.scores = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.scores(x)


Answer = namedtuple("Answer", ["hidden", "logits"])
"""

IMPORTS = """
import torch
from torch import nn
from torch.nn import functional as F

import export, service, training
from utils.parts import Answer, Head

assert (export.OWNER, service.OWNER, training.OWNER) == ("them", "them", "them")
print("a line that is no part of the protocol")
"""

NET = """
class Net(nn.Module):
    '''Everything at once: PReLU, a module applied twice, in-place steps, dropout, a given size, adaptive pools.'''

    def __init__(self, classes=4, width=8):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.slope = nn.PReLU(width)
        self.twice = nn.Conv2d(width, width, 3, padding=1)
        self.grid = nn.AdaptiveAvgPool2d(3)
        self.gate = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout2d(0.5)
        self.head = Head(2 * width, classes)

    def forward(self, x):
        fine = self.slope(self.norm(self.first(x)))
        coarse = F.max_pool2d(fine, 2, ceil_mode=True)
        coarse = torch.relu_(self.twice(torch.relu_(self.twice(coarse))))
        around = F.interpolate(self.grid(coarse), size=coarse.shape[2:], mode="bilinear")
        coarse += self.drop(around) * self.gate(coarse).sigmoid()
        up = F.interpolate(coarse, size=(x.shape[2], x.shape[3]), mode="bilinear", align_corners=False)
        return Answer((fine, coarse), self.head(torch.cat([fine, up], 1)))


def build(classes: int = 4, *, width: int = 8):
    return Net(classes, width)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Somebody's repository, whose packages are called as ours are; not all of them have an `__init__.py`."""
    root = tmp_path / "repository"
    for name in ("models", "utils", "export", "service", "training"):
        (root / name).mkdir(parents=True)
    for name in ("export", "service", "training"):
        (root / name / "__init__.py").write_text('OWNER = "them"\n')
    (root / "utils" / "parts.py").write_text(PARTS)
    (root / "models" / "net.py").write_text(IMPORTS + NET)
    return root


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return write_classes(tmp_path, 4)


def write_classes(folder: Path, count: int) -> Path:
    path = folder / f"classes{count}.json"
    path.write_text(json.dumps({"classes": [spec.model_dump() for spec in CLASSES.classes[:count]]}))
    return path


def export(net: str, classes: Path, models: Path, *more: object) -> Result:
    arguments = ["--classes", classes, "-o", models / "theirs", *more]
    return CliRunner().invoke(main, ["net", net, *map(str, arguments)])


def opened(result: Result, models: Path) -> Model:
    assert result.exit_code == 0, result.output
    return open_bundle(models / "theirs" / "1", ("cpu",))


def assert_refused(result: Result, models: Path, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line
    assert not models.exists() or list(models.iterdir()) == []


def in_torch(model: Model, net: nn.Module) -> Segmenter:
    """The service around the net in PyTorch, which takes what the graph takes."""
    spec = model.manifest.input

    @torch.inference_mode()
    def ask(tensor: Any, stop: object = None) -> Answer:
        x = torch.tensor(tensor).permute(0, 3, 1, 2).float() / spec.scale
        x = (x - torch.tensor(spec.mean).view(-1, 1, 1)) / torch.tensor(spec.std).view(-1, 1, 1)
        return Answer(net(x)[0].numpy())

    return Segmenter(model.manifest, ask)


class Part(nn.Module):
    """One part of what a net answers; `fourth` is a constant fourth channel that it is given."""

    def __init__(self, net: nn.Module, name: str | int, fourth: float | None = None) -> None:
        super().__init__()
        self.net, self.name, self.fourth = net, name, fourth

    def forward(self, x: Tensor) -> Tensor:
        answer = self.net(x if self.fourth is None else torch.cat([x, torch.full_like(x[:, :1], self.fourth)], 1))
        part = answer[self.name] if isinstance(self.name, int) or isinstance(answer, dict) else answer.logits
        assert isinstance(part, Tensor)
        return part


def assert_same_masks(model: Model, segmenter: Segmenter, *sizes: tuple[int, int]) -> None:
    for size in sizes:
        picture = scene(3, *size)[0]
        assert (model.segmenter(picture).mask == segmenter(picture).mask).mean() >= 0.999


def from_source(source: str, name: str) -> Any:
    """What `name` is in a module of this source, here and not in a child."""
    space: dict[str, Any] = {}
    exec(compile(source, "net", "exec"), space)
    return space[name]


def lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that answer several classes."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.5 / max(parameter[0].numel(), 1) ** 0.5))
    return net.eval()


def test_a_repository_with_packages_of_our_names_is_exported_whole(
    repository: Path, classes: Path, tmp_path: Path
) -> None:
    net = lively(from_source(PARTS + NET, "build")(width=6))
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    beside = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}}
    torch.save({"state_dict": state, "ema": net.state_dict(), **beside}, tmp_path / "last.ckpt")
    arguments = ["--path", repository, "--checkpoint", tmp_path / "last.ckpt", "--arg", "width=6"]
    result = export("models.net:build", classes, tmp_path / "models", *arguments)
    model = opened(result, tmp_path / "models")
    assert "weights: 'state_dict' of the checkpoint; there are also ema: see --weights-key" in result.stdout
    assert "'module.', which is left out" in result.stdout
    assert "no part of the protocol" not in result.output
    assert (model.proved, model.manifest.input.fit, model.manifest.input.multiple_of) == (True, "native", 1)
    assert model.manifest.source["net"] == "models.net:build"
    assert model.manifest.source["arguments"] == {"width": 6}
    assert str(tmp_path) not in (tmp_path / "models" / "theirs" / "1" / "model.json").read_text()
    assert not (tmp_path / "models" / "theirs" / "1" / "weights.safetensors").exists()
    assert_same_masks(model, in_torch(model, Part(net, "logits")), (131, 177), (240, 320), (20, 33), (1, 1))


GREY = """
import torch
from torch import nn
from torch.nn import functional as F


class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 4, stride=4)
        self.up = nn.UpsamplingBilinear2d(scale_factor=4)
        self.score = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return [self.up(self.score(torch.relu(self.down(x)))), x]
"""


def test_a_grey_net_of_one_channel_is_cut_before_its_last_upsampling(tmp_path: Path) -> None:
    (tmp_path / "grey.py").write_text(GREY)
    net: Any = lively(from_source(GREY, "Grey")())
    with torch.no_grad():
        net.score.bias.fill_(-float(net(torch.full((1, 1, 32, 32), 0.45))[0].mean()))
    torch.save(net.state_dict(), tmp_path / "grey.pt")
    common = ["--path", tmp_path, "--checkpoint", tmp_path / "grey.pt", "--channels", "GRAY", "--output", "0"]
    whole, cut = (
        opened(export("grey:Grey", write_classes(tmp_path, 2), models, *common, *more), models)
        for models, more in ((tmp_path / "whole", []), (tmp_path / "cut", ["--native-stride"]))
    )
    assert (cut.manifest.output.activation, cut.manifest.output.align_corners) == ("sigmoid", True)
    assert (cut.manifest.input.channels, cut.manifest.input.multiple_of) == ("GRAY", 4)
    for size in ((240, 320), (128, 96)):
        picture = scene(5, *size)[0]
        answers = whole.segmenter(picture), cut.segmenter(picture)
        assert answers[1].coarse.shape == (size[0] // 4, size[1] // 4)
        assert len(np.unique(answers[0].mask)) == 2
        assert (answers[0].mask == answers[1].mask).mean() >= 0.9999
    refused = export("grey:Grey", write_classes(tmp_path, 4), tmp_path / "none", *common)
    assert_refused(refused, tmp_path / "none", "answers 1 channels", "4 classes", "two classes")


FIXED = """
import torch
from torch import nn


class Fixed(nn.Module):
    '''It knows where it is, and so takes one size; four channels, of which pictures have three.'''

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 6, 24, 32))
        self.patch = nn.Conv2d(4, 6, 4, stride=4)
        self.score = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.score(torch.tanh(self.patch(x) + self.place)).softmax(1),
"""


def test_a_net_of_one_size_and_four_channels_is_exported_at_that_size(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "fixed.py").write_text(FIXED)
    net = lively(from_source(FIXED, "Fixed")())
    torch.save({"model": net.state_dict()}, tmp_path / "fixed.pt")
    models = tmp_path / "models"
    common = ["--path", tmp_path, "--checkpoint", tmp_path / "fixed.pt"]
    feed = ["--channels", "BGR", "--scale", "1", "--mean", "104", "117", "123", "--std", "50", "51", "52"]
    size = ["--height", "96", "--width", "128"]
    refused = export("fixed:Fixed", classes, models, *common, *feed, *size)
    assert_refused(refused, models, "have 4 channels, but got 3", "--fourth-channel")
    fourth = [*common, *feed, "--fourth-channel", "0.5"]
    refused = export("fixed:Fixed", classes, models, *fourth, "--height", "100", "--width", "128")
    assert_refused(refused, models, "does not take 100x128", "nearest size that it takes is 96x128")
    refused = export("fixed:Fixed", classes, models, *fourth, *size, "--activation", "softmax")
    assert_refused(refused, models, "last step is a softmax", "--activation probabilities")

    result = export("fixed:Fixed", classes, models, *fourth, *size)
    model = opened(result, models)
    spec = model.manifest.input
    assert (spec.fit, spec.height, spec.width, spec.channels, spec.scale) == ("stretch", 96, 128, "BGR", 1)
    assert (spec.mean, spec.std) == ((104, 117, 123), (50, 51, 52))
    assert model.manifest.output.activation == "probabilities"
    assert "no freer, since 129x225 (height x width): RuntimeError" in result.stdout

    assert_same_masks(model, in_torch(model, Part(net, 0, 0.5)), (96, 128), (131, 177))


def test_an_exported_program_is_exported_with_its_own_sizes(classes: Path, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.unpool = nn.MaxUnpool2d(2)
            self.score = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            pooled, indices = self.pool(x)
            scores = self.score(self.unpool(1 - pooled, indices))
            return {"logits": F.interpolate(scores, scale_factor=1.0), "deep": scores}

    net = lively(Net())
    sides = {2: 4 * torch.export.Dim("h", min=8, max=512), 3: 4 * torch.export.Dim("w", min=8, max=512)}
    program = torch.export.export(net, (torch.zeros(1, 3, 64, 96),), dynamic_shapes=(sides,))
    torch.export.save(program, tmp_path / "net.pt2")
    result = export(str(tmp_path / "net.pt2"), classes, tmp_path / "models")
    model = opened(result, tmp_path / "models")
    assert "max-unpooling: native" in result.stdout
    assert (model.manifest.input.fit, model.manifest.source["net"]) == ("native", "net.pt2")
    assert model.manifest.input.multiple_of % 4 == 0

    assert_same_masks(model, in_torch(model, Part(net, "logits")), (240, 320), (64, 96))
    (tmp_path / "broken.pt2").write_bytes((tmp_path / "net.pt2").read_bytes()[:500])
    refused = export(str(tmp_path / "broken.pt2"), classes, tmp_path / "none")
    assert_refused(refused, tmp_path / "none", "broken.pt2 is no exported program")


WRONG = {
    "missing": ("import foo", "wrong.py line 1: ModuleNotFoundError: No module named 'foo'"),
    "syntax": ("def build(:", "wrong.py line 1: SyntaxError"),
    "exits": ("import sys\nsys.exit(3)", "wrong.py line 2: SystemExit: 3"),
    "dies": ("import os, sys\nprint('no', file=sys.stderr, flush=True)\nos._exit(9)", "code 9, its last words: no"),
    "hangs": ("import time\ntime.sleep(60)", "no answer within 6 seconds"),
    "ours": ("import training.nets", "No module named 'training'"),
    "list": ("def build(): return [1]", "gives no torch.nn.Module, but list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_module_that_goes_wrong_is_one_line(name: str, classes: Path, tmp_path: Path) -> None:
    source, words = WRONG[name]
    (tmp_path / "wrong.py").write_text(source)
    more = ["--path", tmp_path, "--timeout", "6" if name == "hangs" else "60"]
    assert_refused(export("wrong:build", classes, tmp_path / "models", *more), tmp_path / "models", words)


def test_the_nets_process_ends_with_its_parent(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text("while True:\n    pass")
    command = [sys.executable, "-m", "export", "net", "busy:build", "--path", str(tmp_path), "--classes", str(classes)]
    parent = subprocess.Popen([*command, "-o", str(tmp_path / "models" / "busy")])
    end = time.monotonic() + 60
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert gone and not alive
