"""Max-unpooling as exported is bit-equal to PyTorch's: ties, negative values, batches, odd sizes, shared indices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.convert import convert
from export.tracing import ServedNet, trace
from training.nets.blocks import max_unpool

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.3, 0.3)
SIZES = [(360, 480), (361, 481), (97, 131)]


class PoolUnpool(nn.Module):
    """What is unpooled is another value than what was pooled, as in a decoder."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return max_unpool(1 - 3 * pooled, indices, like=x)


class UsedTwice(nn.Module):
    """Two unpoolings share the indices of one pool."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return max_unpool(pooled, indices, like=x) - max_unpool(pooled * pooled, indices, like=x)


class PaddedPool(nn.Module):
    """3x3 windows, stride 3, padded."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 3, padding=1, return_indices=True)
        return max_unpool(-pooled, indices, like=x)


class CeilPool(nn.Module):
    """Windows that reach over the edge."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        return max_unpool(pooled + 2, indices, like=x)


class IndicesRead(nn.Module):
    """Something besides the unpooling looks at the indices, so they must be PyTorch's."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return max_unpool(pooled + indices % 7, indices, like=x)


class OtherSize(nn.Module):
    """Unpools to a larger plane than was pooled from, so the same index means another place."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        height, width = x.shape[-2:]
        return torch.ops.aten.max_unpool2d(pooled, indices, [height + 2, width + 4])  # type: ignore[no-any-return]


class IndicesFromElsewhere(nn.Module):
    """The unpooling takes indices that went through another operator."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return max_unpool(pooled, indices.flip(1), like=x)


CASES: list[tuple[nn.Module, str]] = [
    (PoolUnpool(), "native"),
    (UsedTwice(), "native"),
    (PaddedPool(), "native"),
    (CeilPool(), "native"),
    (IndicesRead(), "scatter"),
    (OtherSize(), "scatter"),
    (IndicesFromElsewhere(), "scatter"),
]


@pytest.mark.parametrize(("module", "lowering"), CASES, ids=lambda value: type(value).__name__)
def test_unpooling_is_bit_equal_to_pytorch(module: nn.Module, lowering: str, tmp_path: Path) -> None:
    net, path = ServedNet(module, 255, MEAN, STD).eval(), tmp_path / "unpool.onnx"
    assert convert(trace(net, smallest=8, example=(48, 64)), path).name == lowering
    operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert ("MaxUnpool" in operators) == (lowering == "native")
    session = ort.InferenceSession(path)
    random = np.random.default_rng(0)
    for size in SIZES:
        for batch in (1, 3):
            # 16 levels: most windows hold ties for the highest value.
            image = (random.integers(0, 16, (batch, *size, 3)) * 16).astype(np.uint8)
            with torch.inference_mode():
                wanted = net(torch.from_numpy(image)).numpy()
            found = session.run(None, {"image": image})[0]
            np.testing.assert_array_equal(found, wanted)


def test_the_native_form_has_no_index_arithmetic(tmp_path: Path) -> None:
    path = tmp_path / "unpool.onnx"
    convert(trace(ServedNet(PoolUnpool(), 255, MEAN, STD).eval(), smallest=8, example=(48, 64)), path)
    graph = onnx.load(path).graph
    producers = {name: node for node in graph.node for name in node.output}
    for unpool in (node for node in graph.node if node.op_type == "MaxUnpool"):
        assert producers[unpool.input[1]].op_type == "MaxPool"
