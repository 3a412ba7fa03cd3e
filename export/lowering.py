"""An exported PyTorch program in, how its max-unpoolings become ONNX operators out.

PyTorch's pooling indices count inside one H x W plane, ONNX's over all of N x C x H x W. The native form hands ONNX's
indices from MaxPool straight to MaxUnpool, with no arithmetic between. That is right only where nothing else looks at
the indices, and where each unpooling has the size of its pool's input: checked here on the graph, never assumed.
Otherwise the exporter's own form is kept, index arithmetic and ScatterND, which is right everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from onnxscript import opset18 as op
from torch.export import ExportedProgram
from torch.fx import Node

POOL = torch.ops.aten.max_pool2d_with_indices.default
UNPOOL = torch.ops.aten.max_unpool2d.default

Table = dict[Callable[..., Any], Callable[..., Any]]


@dataclass(frozen=True)
class Lowering:
    """How the unpoolings of one net are written: the translation table for `torch.onnx.export`, and why."""

    name: Literal["none", "native", "scatter"]
    reason: str
    table: Table


def choose_lowering(program: ExportedProgram) -> Lowering:
    """The native form where it is right for every unpooling of `program`, else the scatter form."""
    unpools = [node for node in program.graph.nodes if node.target is UNPOOL]
    if not unpools:
        return Lowering("none", "the net has no max-unpooling", {})
    for node in program.graph.nodes:
        obstacle = _obstacle(node)
        if obstacle is not None:
            return Lowering("scatter", obstacle, {})
    reason = f"each of the {len(unpools)} unpoolings has its pool's input size, nothing else reads the indices"
    return Lowering("native", reason, {POOL: _pool, UNPOOL: _unpool})


def _obstacle(node: Node) -> str | None:
    """Why the native form would be wrong at this node; None where it would be right."""
    if node.target is UNPOOL:
        indices = node.args[1]
        assert isinstance(indices, Node)
        if _pool_of(indices) is None:
            return f"the indices of {node.name} do not come straight from a max-pool"
    pool = _pool_of(node)
    if pool is None:
        return None
    for user in node.users:
        if user.target is not UNPOOL or user.args[1] is not node:
            return f"{user.name} reads the indices of {pool.name}"
        source = pool.args[0]
        assert isinstance(source, Node)
        if not _same(_size(user), _size(source)):
            return f"{user.name} unpools to another size than {pool.name} pooled from"
    return None


def _pool_of(node: Node) -> Node | None:
    """The max-pool whose indices `node` is, if it is."""
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem" and node.args[1] == 1:
        pool = node.args[0]
        return pool if isinstance(pool, Node) and pool.target is POOL else None
    return None


def _size(node: Node) -> Sequence[int | torch.SymInt]:
    shape: Sequence[int | torch.SymInt] = node.meta["val"].shape
    return shape


def _same(one: Sequence[int | torch.SymInt], other: Sequence[int | torch.SymInt]) -> bool:
    """Whether two shapes are equal as expressions; symbolic sides are not evaluated, which could specialise them."""
    return [str(side) for side in one] == [str(side) for side in other]


def _pool(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    """MaxPool with ONNX's own indices."""
    kernel = _pair(kernel_size)
    return op.MaxPool(
        x,
        kernel_shape=kernel,
        strides=_pair(stride) or kernel,
        pads=_pair(padding) * 2,
        dilations=_pair(dilation),
        ceil_mode=int(ceil_mode),
    )


def _unpool(values: Any, indices: Any, output_size: Sequence[Any]) -> Any:
    """MaxUnpool to `output_size`; with a 1x1 kernel nothing but the output shape decides the size."""
    one: Any = op.Constant(value_ints=[1])
    sides: list[Any] = [op.Constant(value_ints=[s]) if isinstance(s, int) else op.Reshape(s, one) for s in output_size]
    shape: Any = op.Concat(op.Shape(values, start=0, end=2), *sides, axis=0)
    return op.MaxUnpool(values, indices, shape, kernel_shape=[1, 1], strides=[1, 1])


def _pair(value: Sequence[int]) -> list[int]:
    values = list(value)
    return values * 2 if len(values) == 1 else values
