"""An operator on a few known numbers in, its result out: the arithmetic that nets do on their own sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from service.structure.net import SMALL, Node, Value

Shape = tuple[int | None, ...]
"""Sides; None where one is not known."""

Shapes = Sequence[Shape | None]
Values = Sequence[Value | None]


def value_of(node: Node, shapes: Shapes, values: Values) -> Value | None:
    """What a node computes, where that is a few numbers that are known."""
    if node.op == "Constant":
        return next((np.asarray(found) for found in node.attributes.values() if not isinstance(found, str)), None)
    if node.op == "Shape" and shapes[0] is not None:
        part = shapes[0][node.number("start", 0) : node.number("end", len(shapes[0]))]
        return None if None in part else np.array(part, np.int64)
    if node.op == "Size" and shapes[0] is not None and None not in shapes[0]:
        return np.array(math.prod(side for side in shapes[0] if side is not None), np.int64)
    if node.op not in NUMBERS or not values or any(value is None for value in values):
        return None
    try:
        with np.errstate(all="ignore"):
            return NUMBERS[node.op](node, [np.asarray(value) for value in values])
    except (ValueError, IndexError, TypeError, ArithmeticError):
        return None  # no sizes after all


def _divided(one: Value, other: Value) -> Value:
    return one // other if one.dtype == other.dtype == np.int64 else one / other


def axes_of(node: Node, values: Values, at: int = 1) -> tuple[int, ...] | None:
    """The axes that a node names, as an attribute or as an input; None where it names none."""
    if "axes" in node.attributes:
        return node.numbers("axes", ())
    value = values[at] if at < len(values) else None
    return None if value is None else tuple(int(axis) for axis in value.reshape(-1))


def _unsqueezed(node: Node, values: Sequence[Value]) -> Value:
    return np.expand_dims(values[0], axes_of(node, values) or (0,))


def _squeezed(node: Node, values: Sequence[Value]) -> Value:
    return np.squeeze(values[0], axes_of(node, values))


def _sliced(_: Node, values: Sequence[Value]) -> Value:
    starts, ends = (int(value.reshape(-1)[0]) for value in values[1:3])
    step = int(values[4].reshape(-1)[0]) if len(values) > 4 else 1
    return values[0][starts : min(ends, SMALL) : step]


def _cast(node: Node, values: Sequence[Value]) -> Value:
    return values[0].astype(np.float64 if node.number("to", 7) in (1, 10, 11, 16) else np.int64)


def _reduced(how: Callable[..., Value]) -> Callable[[Node, Sequence[Value]], Value]:
    def reduced(node: Node, values: Sequence[Value]) -> Value:
        return np.asarray(how(values[0], keepdims=bool(node.number("keepdims", 1))))

    return reduced


NUMBERS: Mapping[str, Callable[[Node, Sequence[Value]], Value]] = {
    "Add": lambda _, values: values[0] + values[1],
    "Sub": lambda _, values: values[0] - values[1],
    "Mul": lambda _, values: values[0] * values[1],
    "Div": lambda _, values: _divided(values[0], values[1]),
    "Mod": lambda _, values: values[0] % values[1],
    "Neg": lambda _, values: -values[0],
    "Floor": lambda _, values: np.floor(values[0]),
    "Ceil": lambda _, values: np.ceil(values[0]),
    "Min": lambda _, values: np.minimum.reduce(values),
    "Max": lambda _, values: np.maximum.reduce(values),
    "Equal": lambda _, values: (values[0] == values[1]).astype(np.int64),
    "Where": lambda _, values: np.where(values[0] != 0, values[1], values[2]),
    "Identity": lambda _, values: values[0],
    "Cast": _cast,
    "Concat": lambda node, values: np.concatenate(values, axis=node.number("axis", 0)),
    "Gather": lambda node, values: np.take(values[0], values[1].astype(np.int64), axis=node.number("axis", 0)),
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Reshape": lambda _, values: values[0].reshape(values[1].astype(np.int64).tolist()),
    "ReduceProd": _reduced(np.prod),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceSum": _reduced(np.sum),
}
"""Operators on numbers that are known."""


def whole_numbers(value: Value) -> tuple[int, ...]:
    """The values in a row."""
    return tuple(int(number) for number in value.reshape(-1))
