"""Whole nets, exported once with dynamic batch and sides, answer as PyTorch does; where not, a near-tie decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import onnxslim
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from export.convert import OPSET, convert, quiet
from export.tracing import ServedNet, trace
from tests.structures import assert_as_in_the_paper
from tests.test_nets import COARSE
from training.nets import NETS, build_net
from training.nets import enet as enet_module
from training.nets import segnet as segnet_module
from training.nets.bayesian_segnet import BayesianSegNet, MonteCarlo
from training.nets.blocks import max_unpool
from training.scenes import scene

CLASSES = 12
SIZES = [(128, 160), (97, 131)]
"""One that every stage halves evenly, and an odd one."""
AT_FULL_WIDTH = ("enet", "segnet", "unet")
"""These are examined down to each pooling decision; the others are asked, at an eighth of their width or so."""
NEAR_TIE = 1e-4
"""Two values whose difference is smaller than this share of the largest are tied for sums of float32 in any order."""


@dataclass(frozen=True)
class Exported:
    """A net with random weights and statistics from pictures, and its ONNX file."""

    name: str
    net: ServedNet
    path: Path


def pictures(batch: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.stack([scene(seed, *size)[0] for seed in range(batch)])


def with_statistics(net: nn.Module) -> nn.Module:
    """Batch norm's statistics taken from pictures, so that signals keep their size through the net."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    image = torch.from_numpy(pictures(2, (180, 240))).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        net.train()(image)
    return net.eval()


@pytest.fixture(scope="module", params=AT_FULL_WIDTH)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(1)
    name: str = request.param
    net = ServedNet(with_statistics(build_net(name, CLASSES)), 255, (0, 0, 0), (1, 1, 1)).eval()
    path = tmp_path_factory.mktemp(name) / "model.onnx"
    convert(trace(net, NETS[name].stride, example=(96, 128)), path)
    return Exported(name, net, path)


def test_batch_height_and_width_are_dynamic(exported: Exported) -> None:
    graph = onnx.load(exported.path).graph
    sides = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", "height", "width", 3]
    sides = [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    assert sides == ["batch", CLASSES, "height", "width"]


def test_the_file_says_nothing_of_the_machine_it_was_made_on(exported: Exported) -> None:
    content = exported.path.read_bytes()
    for path in (Path(__file__).parent.parent, Path.home(), Path(torch.__file__).parent):
        assert str(path).encode() not in content


@pytest.mark.parametrize(
    "exported",
    [pytest.param(name, marks=[pytest.mark.long] if name == "enet" else []) for name in AT_FULL_WIDTH],
    indirect=True,
    scope="module",
)
def test_exporting_again_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    convert(trace(exported.net, NETS[exported.name].stride, example=(96, 128)), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.path.read_bytes()


def test_its_structure_is_told_as_the_paper_has_it(exported: Exported) -> None:
    width = {"enet": 16, "segnet": 64, "unet": 64}[exported.name]
    assert_as_in_the_paper(exported.name, exported.path, width)


def test_it_holds_nothing_that_an_optimizer_could_leave_out(exported: Exported) -> None:
    assert_nothing_could_be_left_out(exported.path)


def assert_nothing_could_be_left_out(path: Path) -> None:
    model = onnx.load(path)
    found = Counter(node.op_type for node in model.graph.node)
    assert not {"Identity", "Dropout"} & set(found)
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    slimmed = Counter(node.op_type for node in onnxslim.slim(model).graph.node)
    assert sum(slimmed.values()) >= sum(found.values()), found - slimmed


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_answers_as_pytorch_does(
    exported: Exported, size: tuple[int, int], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pictures(batch, size)
    graph = Graph(exported)
    found = graph(image)
    with torch.inference_mode():
        wanted = exported.net(torch.from_numpy(image)).numpy()
        replayed, decisions = replay(exported, image, graph.indices(image), monkeypatch)
    assert found.shape == wanted.shape == (batch, CLASSES, *size)
    agreement = (found.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    assert len(np.unique(wanted.argmax(axis=1))) >= 3
    assert agreement >= 0.98
    # Each place where the graph unpools to another place than PyTorch was a near-tie between the two ...
    assert all(gap <= NEAR_TIE for gap in decisions)
    # ... and with those decisions taken over, what is left of the difference is rounding: classes differ only where the
    # two highest scores are as near.
    rounding = np.abs(found - replayed).max()
    assert rounding <= NEAR_TIE * np.abs(wanted).max()
    differ = found.argmax(axis=1) != replayed.argmax(axis=1)
    top = np.sort(replayed, axis=1)
    assert ((top[:, -1] - top[:, -2])[differ] <= 2 * rounding).all()


class Graph:
    """An exported net in onnxruntime, with its pools' indices as further outputs."""

    def __init__(self, exported: Exported) -> None:
        model = onnx.load(exported.path)
        unpools = [node for node in model.graph.node if node.op_type == "MaxUnpool"]
        self._names = [unpool.input[1] for unpool in reversed(unpools)]  # the decoder asks in reverse order
        for name in self._names:
            model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
        self._session = ort.InferenceSession(model.SerializeToString())

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self._session.run(["logits"], {"image": image})[0])

    def indices(self, image: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
        """In the order of the pools: flat over N x C x H x W, as ONNX counts."""
        return list(self._session.run(self._names, {"image": image})) if self._names else []


def replay(
    exported: Exported, image: NDArray[np.uint8], indices: list[NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> tuple[NDArray[np.float32], list[float]]:
    """PyTorch's answer with the graph's pooling decisions, and for each decision that differs from PyTorch's own how
    far apart the two values were, as a share of the largest."""
    left = list(indices)
    gaps: list[float] = []

    def unpool(values: Tensor, own: Tensor, like: Tensor) -> Tensor:
        plane = like.shape[-2] * like.shape[-1]
        theirs = torch.from_numpy(left.pop()) % plane  # the decoder asks in reverse order
        flat = like.flatten(2)
        one, other = flat.gather(2, own.flatten(2)), flat.gather(2, theirs.flatten(2))
        different = own.flatten(2) != theirs.flatten(2)
        gaps.extend(((one - other).abs()[different] / like.abs().max()).tolist())
        return max_unpool(values, theirs, like)

    for module in (enet_module, segnet_module):
        monkeypatch.setattr(module, "max_unpool", unpool)
    answer = exported.net(torch.from_numpy(image)).numpy()
    assert left == []
    return answer, gaps


LOWERINGS = {
    "bayesian-segnet": "native",
    "deconvnet": "native",
    "efficientnet-lite0": "none",
    "efficientnet-lite1": "none",
    "efficientnet-lite2": "none",
    "erfnet": "none",
    "fcn-16s": "none",
    "fcn-32s": "none",
    "fcn-8s": "none",
    "light": "none",
    "linknet": "none",
    "segnet-basic": "native",
}


def test_every_net_is_examined() -> None:
    assert sorted([*AT_FULL_WIDTH, *LOWERINGS]) == sorted(NETS)


SLOW = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "erfnet", "linknet")
"""They take longest to export."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in sorted(LOWERINGS)]
)
def test_a_narrow_net_answers_as_pytorch_does_at_any_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = ServedNet(with_statistics(build_net(name, CLASSES, 8)), 255, (0, 0, 0), (1, 1, 1)).eval()
    lowering = convert(trace(net, NETS[name].stride, example=(96, 128)), tmp_path / "model.onnx")
    assert lowering.name == LOWERINGS[name]
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert_nothing_could_be_left_out(tmp_path / "model.onnx")
    assert_as_in_the_paper(name, tmp_path / "model.onnx", 8)
    for size in ((96, 160), (259, 205)):
        image = pictures(2, size)
        found = np.asarray(session.run(["logits"], {"image": image})[0])
        with torch.inference_mode():
            wanted = net(torch.from_numpy(image)).numpy()
        assert found.shape == wanted.shape == (2, CLASSES, *(ceil(side / COARSE.get(name, 1)) for side in size))
        assert len(np.unique(wanted.argmax(axis=1))) >= 3
        assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.98


def test_an_exported_net_still_draws_its_dropout() -> None:
    """Had dropout been merged or taken out, samples would not vary within a run, or not from run to run."""
    torch.manual_seed(1)
    net = MonteCarlo(with_statistics(BayesianSegNet(CLASSES, 8)), 2)
    image = torch.from_numpy(pictures(1, (97, 131))).permute(0, 3, 1, 2) / 255
    with quiet():
        program = torch.onnx.export(
            net, (image,), input_names=["image"], opset_version=OPSET, dynamo=True, verbose=False
        )
    assert program is not None
    session = ort.InferenceSession(program.model_proto.SerializeToString())
    runs = [session.run(None, {"image": image.numpy()}) for _ in range(40)]
    with torch.inference_mode():
        wanted = [[answer.numpy() for answer in net(image)] for _ in range(40)]
    graphs, torchs = (np.stack([softmax(logits) for logits, _ in answers]) for answers in (runs, wanted))
    assert graphs.shape[1:] == (1, CLASSES, 97, 131) and runs[0][1].shape == (1, 1, 97, 131)
    single = np.abs(graphs[:20] - graphs[20:]).mean()
    assert single > 0.001
    # Means of 40 runs lie nearer to each other than two runs do, by the square root of 40.
    assert np.abs(graphs.mean(axis=0) - torchs.mean(axis=0)).mean() < 1.3 * single / np.sqrt(40)
    uncertainty = [np.mean([answer[1] for answer in answers]) for answers in (runs, wanted)]
    assert uncertainty[0] > 0
    assert uncertainty[0] == pytest.approx(uncertainty[1], rel=0.3)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
