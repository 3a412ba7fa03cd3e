"""Max-unpooling as ONNX operators, in three forms, and the operators of PyTorch that stand for them in a program.

PyTorch counts a pool's indices inside one H x W plane, ONNX over all of N x C x H x W. Each form is an operator here,
which runs in PyTorch as the original does and is translated by `TABLE`:

native      MaxPool hands ONNX's own indices straight to MaxUnpool: no arithmetic.
scatter     MaxPool's indices modulo H * W are PyTorch's; ScatterElements puts each value where they say.
indexfree   the place of the maximum is found again by comparing the pool's input with its maximum, first of ties first:
            no int64 tensor, no operator that a provider may lack. Windows must tile the plane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor

POOL = torch.ops.aten.max_pool2d_with_indices.default
UNPOOL = torch.ops.aten.max_unpool2d.default

op: Any = opset18
"""Its own types do not know what runs into what."""

Table = dict[Callable[..., Any], Callable[..., Any]]

POOL_SCHEMA = (
    "(Tensor x, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False)"
    " -> (Tensor, Tensor)"
)
UNPOOL_SCHEMA = "(Tensor values, Tensor indices, SymInt[2] output_size) -> Tensor"


@torch.library.custom_op("segserve::native_pool", mutates_args=(), schema=POOL_SCHEMA)
def native_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """The max-pool whose indices only native unpoolings read."""
    values, indices = POOL(x, kernel_size, stride, padding, dilation, ceil_mode)
    return values, indices


@torch.library.custom_op("segserve::native_unpool", mutates_args=(), schema=UNPOOL_SCHEMA)
def native_unpool(values: Tensor, indices: Tensor, output_size: Sequence[int]) -> Tensor:
    """The max-unpooling that ONNX's MaxUnpool becomes."""
    placed: Tensor = UNPOOL(values, indices, output_size)
    return placed


@torch.library.custom_op(
    "segserve::indexfree_unpool",
    mutates_args=(),
    schema="(Tensor values, Tensor pooled, int window, SymInt[2] output_size) -> Tensor",
)
def indexfree_unpool(values: Tensor, pooled: Tensor, window: int, output_size: Sequence[int]) -> Tensor:
    """The max-unpooling that looks for its places in `pooled`, what the pool pooled, in windows of `window` squared."""
    indices = POOL(pooled, [window, window])[1]
    placed: Tensor = UNPOOL(values, indices, output_size)
    return placed


native_pool.register_fake(native_pool._init_fn)
native_unpool.register_fake(native_unpool._init_fn)
indexfree_unpool.register_fake(indexfree_unpool._init_fn)

NATIVE_POOL = torch.ops.segserve.native_pool.default
NATIVE_UNPOOL = torch.ops.segserve.native_unpool.default
INDEXFREE_UNPOOL = torch.ops.segserve.indexfree_unpool.default


def _native_pool(
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


def _plane_pool(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    """MaxPool with PyTorch's indices: inside one plane."""
    values, indices = _native_pool(x, kernel_size, stride, padding, dilation, ceil_mode)
    plane = op.ReduceProd(op.Shape(x, start=2, end=4), keepdims=1)
    return values, op.Mod(indices, plane)


def _native_unpool(values: Any, indices: Any, output_size: Sequence[Any]) -> Any:
    """MaxUnpool; with a 1x1 kernel nothing but the output shape decides the size."""
    shape = op.Concat(op.Shape(values, start=0, end=2), *_sides(output_size), axis=0)
    return op.MaxUnpool(values, indices, shape, kernel_shape=[1, 1], strides=[1, 1])


def _scatter_unpool(values: Any, indices: Any, output_size: Sequence[Any]) -> Any:
    """ScatterElements along each flattened plane."""
    planes, sides = op.Shape(values, start=0, end=2), _sides(output_size)
    flat = op.Concat(planes, op.Constant(value_ints=[-1]), axis=0)
    size = op.ReduceProd(op.Concat(*sides, axis=0), keepdims=1)
    empty = op.CastLike(op.ConstantOfShape(op.Concat(planes, size, axis=0)), values)
    placed = op.ScatterElements(empty, op.Reshape(indices, flat), op.Reshape(values, flat), axis=2)
    return op.Reshape(placed, op.Concat(planes, *sides, axis=0))


def _indexfree_unpool(values: Any, pooled: Any, window: int, output_size: Sequence[Any]) -> Any:
    """Each of the window's places, in PyTorch's order, keeps the value if it holds the maximum and none before it did;
    SpaceToDepth brings the places together, DepthToSpace puts them back."""
    covered = op.Mul(op.Shape(values, start=2, end=4), op.Constant(value_ints=[window]))
    tiled = op.Slice(pooled, op.Constant(value_ints=[0, 0]), covered, op.Constant(value_ints=[2, 3]))
    places = op.Split(op.SpaceToDepth(tiled, blocksize=window), axis=1, num_outputs=window * window)
    highest = op.Max(*places)
    kept, taken = [], None
    for place in places:
        is_highest = op.Equal(place, highest)
        first = is_highest if taken is None else op.And(is_highest, op.Not(taken))
        taken = is_highest if taken is None else op.Or(taken, is_highest)
        kept.append(op.Mul(op.CastLike(first, values), values))
    placed = op.DepthToSpace(op.Concat(*kept, axis=1), blocksize=window, mode="DCR")
    rest = op.Sub(op.Concat(*_sides(output_size), axis=0), covered)
    # All axes are named by their number of pads: not every provider reads Pad's list of axes.
    return op.Pad(placed, op.Concat(op.Constant(value_ints=[0] * 6), rest, axis=0))


def _sides(output_size: Sequence[Any]) -> list[Any]:
    """Height and width, each as a tensor of one."""
    one: Any = op.Constant(value_ints=[1])
    return [op.Constant(value_ints=[side]) if isinstance(side, int) else op.Reshape(side, one) for side in output_size]


def _pair(value: Sequence[int]) -> list[int]:
    values = list(value)
    return values * 2 if len(values) == 1 else values


TABLE: Table = {
    POOL: _plane_pool,
    UNPOOL: _scatter_unpool,
    NATIVE_POOL: _native_pool,
    NATIVE_UNPOOL: _native_unpool,
    INDEXFREE_UNPOOL: _indexfree_unpool,
}
"""For `torch.onnx.export`."""
