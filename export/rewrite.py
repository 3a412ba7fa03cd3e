"""A graph of ONNX operators in, the same function in operators that its execution provider runs faster out.

onnxruntime's CPU provider runs PRelu on one thread and outside the blocked layout of its convolutions: 71 of them take
almost half of ENet's time. y = max(x, 0) - slope * max(-x, 0) says the same, value for value, in depthwise 1x1
convolutions and Relus, which stay inside that layout. For max-pools with indices see `export/maxpool.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)
from onnxscript import rewriter
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, RewriteRuleSet

from export.maxpool import IndicesByComparison


class SharedSlope(RewriteRuleClassBase):
    """PRelu with one slope for all channels is LeakyRelu, which runs as a part of the convolution before it."""

    def pattern(self, op: Any, x: ir.Value, slope: ir.Value) -> Any:
        """What is looked for."""
        return op.PRelu(x, slope)

    def check(self, context: Any, x: ir.Value, slope: ir.Value) -> MatchResult:
        """Only slopes that are known, and all equal."""
        result = MatchResult()
        slopes = _slopes(slope)
        return result if slopes is not None and (slopes == slopes[0]).all() else result.fail("the slopes differ")

    def rewrite(self, op: Any, x: ir.Value, slope: ir.Value) -> Any:
        """What takes its place."""
        slopes = _slopes(slope)
        assert slopes is not None
        return op.LeakyRelu(x, alpha=float(slopes[0]))


class SlopePerChannel(RewriteRuleClassBase):
    """PRelu with a slope a channel is two rectifications and a depthwise 1x1 convolution."""

    def pattern(self, op: Any, x: ir.Value, slope: ir.Value) -> Any:
        """What is looked for."""
        return op.PRelu(x, slope)

    def check(self, context: Any, x: ir.Value, slope: ir.Value) -> MatchResult:
        """Only on feature maps (N, C, H, W), with slopes that are known."""
        result, slopes = MatchResult(), _slopes(slope)
        if slopes is None or x.shape is None or len(x.shape) != 4 or x.shape[1] != slopes.size:
            return result.fail("no known slope for each channel of feature maps")
        return result

    def rewrite(self, op: Any, x: ir.Value, slope: ir.Value) -> Any:
        """What takes its place. Multiplying by 1 and -1 is exact, and one of the two summands is 0."""
        slopes = _slopes(slope)
        assert slopes is not None
        ones = np.ones_like(slopes)
        above = op.Relu(_scaled(op, x, ones, f"{x.name}_above"))
        below = op.Relu(_scaled(op, x, -ones, f"{x.name}_below"))
        return op.Add(_scaled(op, below, -slopes, f"{x.name}_slope"), above)


class GentleSlopePerChannel(SlopePerChannel):
    """PRelu whose slopes are at most 1 is slope * x + max((1 - slope) * x, 0): one convolution less, and for positive
    values a sum of two products instead of the value itself, which rounding may change in its last digits."""

    def check(self, context: Any, x: ir.Value, slope: ir.Value) -> MatchResult:
        """As above, and no slope over 1."""
        result, slopes = super().check(context, x, slope), _slopes(slope)
        return result.fail("a slope over 1") if result and slopes is not None and (slopes > 1).any() else result

    def rewrite(self, op: Any, x: ir.Value, slope: ir.Value) -> Any:
        """What takes its place."""
        slopes = _slopes(slope)
        assert slopes is not None
        rest = op.Relu(_scaled(op, x, 1 - slopes, f"{x.name}_rest"))
        return op.Add(_scaled(op, x, slopes, f"{x.name}_slope"), rest)


Prelu = Literal["exact", "close"]

CPU_RULES: Mapping[Prelu, Sequence[type[RewriteRuleClassBase]]] = {
    "exact": (IndicesByComparison, SharedSlope, SlopePerChannel),
    "close": (IndicesByComparison, SharedSlope, GentleSlopePerChannel, SlopePerChannel),
}
"""Of those for the same operator the first that fits is taken."""


def rewrite_for_cpu(model: ir.Model, prelu: Prelu = "exact") -> None:
    """Rewrite `model` in place for onnxruntime's CPU provider. Every value stays what it was, but for the sign of 0;
    with `prelu` close, but for rounding, and a little faster."""
    rules = [rule.rule() for rule in CPU_RULES[prelu]]  # type: ignore[no-untyped-call]
    rewriter.RewritePass(RewriteRuleSet(rules))(model)


def tidy(model: ir.Model) -> None:
    """Leave out of `model`, in place, what is computed twice or for nothing."""
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    CommonSubexpressionEliminationPass()(model)
    _flatten_concatenations(model.graph)
    RemoveUnusedNodesPass()(model)


def _flatten_concatenations(graph: ir.Graph) -> None:
    """What is concatenated from concatenations along the same axis is concatenated at once."""
    for node in graph:
        if node.op_type != "Concat":
            continue
        parts: list[ir.Value | None] = []
        for value in node.inputs:
            inner = value.producer() if value is not None else None
            same = (
                inner is not None and inner.op_type == "Concat" and inner.attributes["axis"] == node.attributes["axis"]
            )
            parts += inner.inputs if inner is not None and same else [value]
        node.resize_inputs(len(parts))
        for index, value in enumerate(parts):
            node.replace_input_with(index, value)


def _scaled(op: Any, x: ir.Value, factors: NDArray[np.float32], name: str) -> Any:
    """`x` with each channel multiplied by its factor."""
    weight = ir.tensor(factors.reshape(-1, 1, 1, 1))
    return op.Conv(x, op.initializer(weight, name), group=factors.size, kernel_shape=[1, 1])


def _slopes(slope: ir.Value) -> NDArray[np.float32] | None:
    """The slopes of a PRelu in a row, where they are constants."""
    if slope.const_value is None:
        return None
    return slope.const_value.numpy().reshape(-1).astype(np.float32)
