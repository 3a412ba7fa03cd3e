"""A max-pool with indices in, the same values and indices in operators that onnxruntime's CPU provider runs faster out.

Its kernel for a max-pool that also answers where each maximum was visits one value after the other, outside the blocked
layout of the convolutions: two pools take an eighth of ENet's time. Where 2x2 windows tile the plane, strided
convolutions that pick out one place of each window stay inside that layout, and comparisons of the places tell which is
the first that holds the maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase

PLAIN = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
"""The attributes of a max-pool that this is for, where they are given."""


class IndicesByComparison(RewriteRuleClassBase):
    """MaxPool of 2x2 windows side by side, with indices, as a MaxPool without and arithmetic on a quarter of the plane.

    The indices are ONNX's, int64, flat over N x C x H x W; of equal maxima, the first. Only a window that holds a NaN
    or an infinity may get another index: feature maps that were padded, with -infinity perhaps, are left alone.
    """

    def pattern(self, op: Any, x: ir.Value) -> Any:
        """What is looked for."""
        return op.MaxPool(x, _allow_other_attributes=True, _outputs=["pooled", "indices"])

    def check(self, context: Any, x: ir.Value, pooled: ir.Value, indices: ir.Value | None = None) -> MatchResult:
        """Only where indices are asked for, of feature maps (N, C, H, W) of a known number of channels, and 2x2 windows
        side by side."""
        result, node = MatchResult(), pooled.producer()
        if node is None or indices is None:
            return result.fail("no indices")
        given = node.attributes
        other = [name for name, value in PLAIN.items() if list(given.get_ints(name, value)) != value]
        flags = [name for name in ("ceil_mode", "storage_order") if given.get_int(name, 0)]
        if other or flags or given.get_string("auto_pad", "NOTSET") != "NOTSET" or "kernel_shape" not in given:
            return result.fail("other windows than 2x2 side by side")
        if "strides" not in given or x.shape is None or len(x.shape) != 4 or not isinstance(x.shape[1], int):
            return result.fail("no feature maps of a known number of channels")
        maker = x.producer()
        if x.dtype != ir.DataType.FLOAT or (maker is not None and maker.op_type == "Pad"):
            return result.fail("no float32, or values that are perhaps infinite")
        return result

    def rewrite(self, op: Any, x: ir.Value, pooled: ir.Value, indices: ir.Value) -> Any:
        """What takes its place: in each row of a window the second place wins where it is larger, and then the lower
        row where its larger place is."""
        places = [_place(op, x, number) for number in range(4)]
        rows = places[:2], places[2:]
        wins = [*(op.Less(*row) for row in rows), op.Less(*(op.Max(*row) for row in rows))]
        # Whole numbers in float64, which is exact, and quicker than int64.
        above, below, lower = (op.Cast(held, to=ir.DataType.DOUBLE) for held in wins)
        width = op.Cast(op.Shape(x, start=3, end=4), to=ir.DataType.DOUBLE)
        inside = op.Add(above, op.Mul(lower, op.Add(width, op.Sub(below, above))))
        highest = op.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])
        return highest, op.Add(op.Cast(inside, to=ir.DataType.INT64), _corners(op, x, highest))


def _place(op: Any, x: ir.Value, number: int) -> Any:
    """Of each window the value at a place (0, 1: above; 2, 3: below), by a convolution that multiplies it by 1 and the
    others by 0."""
    channels = _channels(x)
    kernel = np.zeros((channels, 1, 2, 2), np.float32)
    kernel[:, 0, number // 2, number % 2] = 1
    weight = op.initializer(ir.tensor(kernel), f"{x.name}_place_{number}")
    return op.Conv(x, weight, group=channels, kernel_shape=[2, 2], strides=[2, 2])


def _corners(op: Any, x: ir.Value, highest: Any) -> Any:
    """The index of each window's first place, int64 (N, C, h, w)."""
    none, two = op.Constant(value_int=0), op.Constant(value_int=2)
    height, width = (op.Squeeze(op.Shape(x, start=axis, end=axis + 1)) for axis in (2, 3))
    rows, columns = (op.Squeeze(op.Shape(highest, start=axis, end=axis + 1)) for axis in (2, 3))
    across = op.Range(none, op.Mul(columns, two), two)
    two_rows = op.Mul(width, two)
    down = op.Unsqueeze(op.Range(none, op.Mul(rows, two_rows), two_rows), op.Constant(value_ints=[1]))
    planes = op.Range(none, op.Size(x), op.Mul(height, width))
    each = op.Constant(value_ints=[-1, _channels(x), 1, 1])
    return op.Add(op.Add(down, across), op.Reshape(planes, each))


def _channels(x: ir.Value) -> int:
    """As the check found them known."""
    assert x.shape is not None
    channels = x.shape[1]
    assert isinstance(channels, int)
    return channels
