"""A net and the size of its input in, the shape of every value in it out, as far as it can be told without running it.

Small whole numbers that shapes are made of are computed on the way: what nets say of their own sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import TypeGuard

from service.structure import windows
from service.structure.figures import Shape, Shapes, Values, axes_of, value_of, whole_numbers
from service.structure.net import SMALL, Net, Node, Value

HIGHEST_RANK = 16
LONGEST = 2**31
"""Shapes beyond these are no net's."""

Rule = Callable[[Node, Shapes, Values], Shapes]


def shapes_of(net: Net, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes that are known, by the values' names, where the net's inputs have those of `inputs`."""
    shapes: dict[str, Shape] = {**net.inputs, **inputs, **net.weights}
    values: dict[str, Value] = dict(net.values)
    for node in net.nodes:
        known = [shapes.get(name) for name in node.inputs]
        numbers = [values.get(name) for name in node.inputs]
        value = value_of(node, known, numbers)
        if value is not None and value.size <= SMALL:
            values[node.outputs[0]] = value
            shapes[node.outputs[0]] = value.shape
            continue
        found = _ruled(node, known, numbers)
        shapes |= {name: shape for name, shape in zip(node.outputs, found, strict=False) if _is_sane(shape)}
    return shapes


def _ruled(node: Node, shapes: Shapes, values: Values) -> Shapes:
    rule = RULES.get(node.op)
    try:
        return rule(node, shapes, values) if rule and shapes else []
    except (ValueError, IndexError, TypeError, ArithmeticError):
        return []  # what does not go together has no shape


def _is_sane(shape: Shape | None) -> TypeGuard[Shape]:
    return shape is not None and len(shape) <= HIGHEST_RANK and all(abs(side or 0) < LONGEST for side in shape)


def _same(_: Node, shapes: Shapes, __: Values) -> Shapes:
    return [shapes[0]]


def _broadcast(_: Node, shapes: Shapes, __: Values) -> Shapes:
    """Sides of 1 stretch; an operand of unknown shape is taken for one that does."""
    known = [shape for shape in shapes if shape is not None]
    columns = zip_longest(*(reversed(shape) for shape in known), fillvalue=1)
    sides = [next((side for side in column if side != 1), 1) for column in columns]
    return [tuple(reversed(sides))] if known else []


def _concatenated(node: Node, shapes: Shapes, _: Values) -> Shapes:
    known = [shape for shape in shapes if shape is not None]
    axis = node.number("axis", 0)
    if not known or any(len(shape) != len(known[0]) or not -len(shape) <= axis < len(shape) for shape in known):
        return []
    sides = [shape[axis] for shape in known if shape[axis] is not None]
    whole = sum(side for side in sides if side is not None) if len(sides) == len(shapes) else None
    shape = list(known[0])
    shape[axis] = whole
    return [tuple(shape)]


def _split(node: Node, shapes: Shapes, values: Values) -> Shapes:
    image = shapes[0]
    if image is None:
        return []
    axis, count = node.number("axis", 0) % len(image), len(node.outputs)
    side = image[axis]
    parts: Shape = node.numbers("split", ())
    if len(values) > 1 and values[1] is not None:
        parts = whole_numbers(values[1])
    parts = parts or ((None if side is None else -(-side // count)),) * count
    return [(*image[:axis], part, *image[axis + 1 :]) for part in parts]


def _sliced(node: Node, shapes: Shapes, values: Values) -> Shapes:
    image = shapes[0]
    if image is None:
        return []
    given = [whole_numbers(value) if value is not None else None for value in values[1:]]
    starts, ends, axes, steps = [*given, None, None, None, None][:4]
    starts, ends = node.numbers("starts", ()) or starts, node.numbers("ends", ()) or ends
    axes = node.numbers("axes", ()) or axes or tuple(range(len(starts or ends or image)))
    sides: list[int | None] = list(image)
    for index, axis in enumerate(axes):
        side = image[axis]
        step = steps[index] if steps else 1
        known = side is not None and starts and ends and step
        sides[axis] = len(range(side)[starts[index] : ends[index] : step]) if known else None  # type: ignore[index,arg-type]
    return [tuple(sides)]


def _padded(node: Node, shapes: Shapes, values: Values) -> Shapes:
    image = shapes[0]
    if image is None:
        return []
    pads: Shape | None = node.numbers("pads", ()) or None
    if pads is None and len(values) > 1 and values[1] is not None:
        pads = whole_numbers(values[1])
    axes = axes_of(node, values, 3) or tuple(range(len(image)))
    sides: list[int | None] = list(image)
    for index, axis in enumerate(axes):
        side = image[axis]
        both = (pads[index], pads[index + len(axes)]) if pads and len(pads) == 2 * len(axes) else (None, None)
        sides[axis] = None if side is None or None in both else side + sum(pad for pad in both if pad is not None)
    return [tuple(sides)]


def _reshaped(_: Node, shapes: Shapes, values: Values) -> Shapes:
    image, wanted = shapes[0], values[1] if len(values) > 1 else None
    if wanted is None:
        target = shapes[1] if len(shapes) > 1 else None
        rank = target[0] if target else None
        return [(None,) * rank] if rank and rank <= HIGHEST_RANK else []
    sides: list[int | None] = [
        (image[axis] if image is not None and axis < len(image) else None) if side == 0 else side
        for axis, side in enumerate(whole_numbers(wanted))
    ]
    if -1 in sides:
        rest = [side for side in sides if side != -1]
        all_known = image is not None and None not in image and None not in rest and 0 not in rest
        left = math.prod(image) // math.prod(rest) if all_known else None  # type: ignore[arg-type]
        sides[sides.index(-1)] = left
    return [tuple(sides)]


def _flattened(node: Node, shapes: Shapes, _: Values) -> Shapes:
    image, axis = shapes[0], node.number("axis", 1)
    if image is None or None in image:
        return []
    return [(math.prod(image[:axis]), math.prod(image[axis:]))]  # type: ignore[arg-type]


def _turned(node: Node, shapes: Shapes, _: Values) -> Shapes:
    image = shapes[0]
    if image is None:
        return []
    return [tuple(image[axis] for axis in node.numbers("perm", tuple(reversed(range(len(image))))))]


def _with_axes(node: Node, shapes: Shapes, values: Values) -> Shapes:
    image, axes = shapes[0], axes_of(node, values)
    if image is None or axes is None:
        return []
    rank = len(image) + len(axes)
    left = iter(image)
    places = {axis % rank for axis in axes}
    return [tuple(1 if axis in places else next(left) for axis in range(rank))]


def _without_axes(node: Node, shapes: Shapes, values: Values) -> Shapes:
    image, axes = shapes[0], axes_of(node, values)
    if image is None:
        return []
    places = {axis % len(image) for axis in axes} if axes else {axis for axis, side in enumerate(image) if side == 1}
    return [tuple(side for axis, side in enumerate(image) if axis not in places)]


def _over_axes(node: Node, shapes: Shapes, values: Values) -> Shapes:
    """Reductions and ArgMax."""
    image = shapes[0]
    if image is None:
        return []
    axes = (node.number("axis", 0),) if node.op.startswith("Arg") else axes_of(node, values) or tuple(range(len(image)))
    places = {axis % len(image) for axis in axes}
    kept = node.number("keepdims", 1)
    return [tuple(1 if axis in places else side for axis, side in enumerate(image) if kept or axis not in places)]


def _multiplied(_: Node, shapes: Shapes, __: Values) -> Shapes:
    one, other = shapes[0], shapes[1] if len(shapes) > 1 else None
    if one is None or other is None or len(one) < 2 or len(other) < 2:
        return []
    return [(*(one[:-2] if len(one) >= len(other) else other[:-2]), one[-2], other[-1])]


def _expanded(node: Node, shapes: Shapes, values: Values) -> Shapes:
    target = values[1] if len(values) > 1 else None
    return [] if target is None else _broadcast(node, [shapes[0], whole_numbers(target)], values)


def _filled(_: Node, __: Shapes, values: Values) -> Shapes:
    return [] if values[0] is None else [whole_numbers(values[0])]


def _counted(_: Node, __: Shapes, values: Values) -> Shapes:
    numbers = [value.item() for value in values if value is not None]
    if len(numbers) < 3:
        return []
    start, end, step = numbers
    return [(max(0, math.ceil((end - start) / step)),)]


def _gathered(node: Node, shapes: Shapes, _: Values) -> Shapes:
    image, places = shapes[0], shapes[1] if len(shapes) > 1 else None
    if image is None or places is None:
        return []
    axis = node.number("axis", 0) % len(image)
    return [(*image[:axis], *places, *image[axis + 1 :])]


KEEP = (
    "Abs", "BatchNormalization", "Bernoulli", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "CumSum",
    "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu", "GroupNormalization",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsNaN", "LRN", "LayerNormalization",
    "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu",
    "QuantizeLinear", "QuickGelu", "RandomNormalLike", "RandomUniformLike", "Reciprocal", "Relu", "Round",
    "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt",
    "Tanh", "ThresholdedRelu", "Trilu",
)  # fmt: skip
"""Operators whose result has the shape of what goes in first."""

STRETCH = (
    "Add", "And", "BiasGelu", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean",
    "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
"""Operators whose operands are stretched to one shape."""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(KEEP, _same),
    **dict.fromkeys(STRETCH, _broadcast),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "QLinearConv"), windows.convolution),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), windows.pooled),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), windows.pooled_whole),
    **dict.fromkeys(("Resize", "Upsample"), windows.resized),
    **dict.fromkeys(("SpaceToDepth", "DepthToSpace"), windows.blocks),
    **dict.fromkeys((f"Reduce{how}" for how in ("Mean", "Max", "Min", "Sum", "Prod", "L1", "L2")), _over_axes),
    **dict.fromkeys(("ArgMax", "ArgMin"), _over_axes),
    "ConvTranspose": windows.transposed,
    "MaxUnpool": windows.unpooled,
    "Concat": _concatenated,
    "Split": _split,
    "Slice": _sliced,
    "Pad": _padded,
    "Reshape": _reshaped,
    "Flatten": _flattened,
    "Transpose": _turned,
    "Unsqueeze": _with_axes,
    "Squeeze": _without_axes,
    "MatMul": _multiplied,
    "Expand": _expanded,
    "ConstantOfShape": _filled,
    "Range": _counted,
    "Gather": _gathered,
}
"""Operators whose results' shapes are known; those of others are not."""
