"""Graphs are rewritten for the CPU provider without changing a value."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.convert import convert
from export.lowering import Provider
from export.tracing import ServedNet, trace
from training.nets.blocks import max_unpool

SLOPES = {
    "below one": [0.25, 0.0, 0.9, -0.5],
    "on both sides of one": [0.25, 1.5, 1.0, -2.0],
    "above one": [1.5, 2.0, 3.0, 1.25],
}


class Bends(nn.Module):
    """A convolution, a PReLU with these slopes (all of them used twice), and a sum of what comes out."""

    def __init__(self, slopes: list[float]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.bend = nn.PReLU(len(slopes))
        with torch.no_grad():
            self.bend.weight.copy_(torch.tensor(slopes))

    def forward(self, x: Tensor) -> Tensor:
        bent: Tensor = self.bend(self.convolution(x))
        back: Tensor = self.bend(-bent)
        return bent + back


def exported(net: nn.Module, folder: Path, provider: Provider = "cpu") -> Path:
    path = folder / f"{provider}.onnx"
    torch.manual_seed(0)
    served = ServedNet(net, 255, (0.4, 0.5, 0.6), (0.3, 0.3, 0.3)).eval()
    convert(trace(served, 4, (32, 48)), path, provider=provider)
    return path


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def answer(path: Path, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
    options = ort.SessionOptions()
    # Without fusions, so that both graphs sum in the same order and can be compared bit by bit.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options).run(None, {"image": image})[0]


@pytest.mark.parametrize("slopes", SLOPES.values(), ids=SLOPES)
def test_prelu_with_a_slope_a_channel_becomes_rectifications_of_the_same_value(
    slopes: list[float], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    net = Bends(slopes)
    rewritten, plain = exported(net, tmp_path, "cpu"), exported(net, tmp_path, "cuda")
    assert (operators(rewritten)["PRelu"], operators(plain)["PRelu"]) == (0, 2)
    for size in ((32, 48), (33, 47)):
        image = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
        np.testing.assert_array_equal(answer(rewritten, image), answer(plain, image))


@pytest.mark.parametrize("slopes", [[0.25], [0.3, 0.3, 0.3, 0.3]], ids=["one", "four equal ones"])
def test_prelu_with_one_slope_becomes_a_leaky_relu(slopes: list[float], tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Bends(slopes)
    rewritten, plain = exported(net, tmp_path, "cpu"), exported(net, tmp_path, "cuda")
    assert operators(rewritten)["LeakyRelu"] == 2
    assert "PRelu" not in operators(rewritten)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3)).astype(np.uint8)
    np.testing.assert_array_equal(answer(rewritten, image), answer(plain, image))


@pytest.mark.parametrize("name", SLOPES)
def test_the_close_form_is_the_same_but_for_rounding(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Bends(SLOPES[name])
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    served = ServedNet(net, 255, (0.4, 0.5, 0.6), (0.3, 0.3, 0.3)).eval()
    convert(trace(served, 4, (32, 48)), tmp_path / "close.onnx", prelu="close")
    with torch.no_grad():
        wanted = served(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(np.asarray(answer(tmp_path / "close.onnx", image)), wanted, atol=1e-5)
    convolutions = operators(tmp_path / "close.onnx")["Conv"]
    assert convolutions == 1 + 2 * (2 if name == "below one" else 3)


class Pooled(nn.Module):
    """A pool of values and of their negatives, in windows of `kernel`, whose unpooled values are summed."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.convolution(x).round()
        placed = torch.zeros_like(features)
        for values in (features, -features):
            pooled, indices = functional.max_pool2d(values, self.kernel, return_indices=True)
            placed = placed + max_unpool(1 - 3 * pooled, indices, like=features)
        return placed


class Padded(nn.Module):
    """A pool of maps to which a row and a column of -infinity was added."""

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, (0, 1, 0, 1), value=-torch.inf)
        pooled, indices = functional.max_pool2d(padded, 2, return_indices=True)
        placed: Tensor = max_unpool(1 - 3 * pooled, indices, like=padded)
        return placed


@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=["even", "odd"])
def test_a_pools_indices_are_found_by_comparison_and_are_the_same(size: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(1)
    rewritten, plain = exported(Pooled(2), tmp_path, "cpu"), tmp_path / "plain.onnx"
    model = onnx.load(rewritten)
    assert operators(rewritten)["Less"] == 2 * 3
    assert all(len(node.output) == 1 for node in model.graph.node if node.op_type == "MaxPool")
    # The same graph with onnxruntime's own indices.
    unpools = {node.input[1] for node in model.graph.node if node.op_type == "MaxUnpool"}
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    makers = [node for node in model.graph.node if set(node.output) & unpools]
    assert len(pools) == len(makers) == 2
    for pool, maker in zip(pools, makers, strict=True):
        pool.output.append(maker.output[0])
        maker.output[0] += "_compared"
    onnx.save(model, plain)
    # Few colours and rounded values: most windows hold ties for the highest value.
    image = (np.random.default_rng(0).integers(0, 3, (2, *size, 3)) * 127).astype(np.uint8)
    np.testing.assert_array_equal(answer(rewritten, image), answer(plain, image))


def test_other_windows_keep_onnxruntimes_own_indices(tmp_path: Path) -> None:
    path = exported(Pooled(3), tmp_path)
    assert (operators(path)["Less"], operators(path)["MaxPool"]) == (0, 2)


def test_so_do_maps_that_are_padded_with_infinities(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Padded()
    path = exported(net, tmp_path)
    assert operators(path)["Less"] == 0
    image = np.random.default_rng(0).integers(0, 256, (2, 31, 47, 3)).astype(np.uint8)
    with torch.no_grad():
        wanted = ServedNet(net, 255, (0.4, 0.5, 0.6), (0.3, 0.3, 0.3)).eval()(torch.from_numpy(image)).numpy()
    np.testing.assert_array_equal(np.asarray(answer(path, image)), wanted)
