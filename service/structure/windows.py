"""An operator that slides over feature maps, or scales them, and what goes in; the shapes of what comes out."""

from __future__ import annotations

import math

import numpy as np

from service.structure.figures import Shape, Shapes, Values, whole_numbers
from service.structure.net import Node


def _window(node: Node, kernel: Shape) -> list[tuple[int, int, int, int | None]]:
    """Of each side: stride, dilation, padding at both ends together, kernel."""
    rank = len(kernel)
    pads = node.numbers("pads", (0,) * (2 * rank))
    strides, dilations = (node.numbers(name, (1,) * rank) for name in ("strides", "dilations"))
    return [
        (stride, dilation, pads[axis] + pads[axis + rank], kernel[axis])
        for axis, (stride, dilation) in enumerate(zip(strides, dilations, strict=True))
    ]


def _slid(node: Node, sides: Shape, kernel: Shape) -> Shape:
    """What sides become when a window slides over them."""
    found: list[int | None] = []
    for side, (stride, dilation, padding, size) in zip(sides, _window(node, kernel), strict=True):
        if side is None or size is None:
            found.append(None)
        elif node.text("auto_pad", "NOTSET").startswith("SAME"):
            found.append(-(-side // stride))
        else:
            room = side + padding - dilation * (size - 1) - 1
            more = node.number("ceil_mode", 0) and room % stride and (room // stride + 1) * stride < side + padding // 2
            found.append(room // stride + 1 + bool(more))
    return tuple(found)


def convolution(node: Node, shapes: Shapes, _: Values) -> Shapes:
    """A convolution, of floats or of whole numbers."""
    at = {"QLinearConv": 3}.get(node.op, 1)
    image, weight = shapes[0], shapes[at] if at < len(shapes) else None
    if image is None or weight is None or len(image) != len(weight) or len(image) < 3:
        return []
    return [(image[0], weight[0], *_slid(node, image[2:], weight[2:]))]


def transposed(node: Node, shapes: Shapes, _: Values) -> Shapes:
    """A transposed convolution."""
    image, weight = shapes[0], shapes[1] if len(shapes) > 1 else None
    if image is None or weight is None or len(image) != len(weight) or len(image) < 3:
        return []
    asked = node.numbers("output_shape", ())
    more = node.numbers("output_padding", (0,) * (len(image) - 2))
    sides: list[int | None] = []
    window = zip(image[2:], _window(node, weight[2:]), more, strict=True)
    for side, (stride, dilation, padding, size), extra in window:
        if side is None or size is None:
            sides.append(None)
        elif node.text("auto_pad", "NOTSET").startswith("SAME"):
            sides.append(side * stride)
        else:
            sides.append(stride * (side - 1) + extra + dilation * (size - 1) + 1 - padding)
    depth = None if weight[1] is None else weight[1] * node.number("group", 1)
    return [(image[0], depth, *(asked or sides))]


def pooled(node: Node, shapes: Shapes, _: Values) -> Shapes:
    """A pool: its values and their places."""
    image = shapes[0]
    kernel = node.numbers("kernel_shape", ())
    if image is None or len(image) != len(kernel) + 2:
        return []
    return [(*image[:2], *_slid(node, image[2:], kernel))] * 2


def pooled_whole(_: Node, shapes: Shapes, __: Values) -> Shapes:
    """A pool over all of the picture."""
    return [] if shapes[0] is None else [(*shapes[0][:2], *(1 for _ in shapes[0][2:]))]


def unpooled(node: Node, shapes: Shapes, values: Values) -> Shapes:
    """A max-unpooling: to the size that it is told, or that its window makes."""
    image = shapes[0]
    if image is None:
        return []
    if len(values) > 2 and values[2] is not None:
        return [whole_numbers(values[2])]
    window = _window(node, node.numbers("kernel_shape", ()))
    grown = [
        None if side is None or size is None else stride * (side - 1) + size - padding
        for side, (stride, _, padding, size) in zip(image[2:], window, strict=True)
    ]
    return [(*image[:2], *grown)]


def resized(node: Node, shapes: Shapes, values: Values) -> Shapes:
    """An interpolation: to sizes or by scales, where they are known."""
    image = shapes[0]
    if image is None:
        return []
    given = node.attributes.get("scales")
    scales = given if isinstance(given, np.ndarray) else values[2 if len(values) > 2 else len(values) - 1]
    axes = [axis % len(image) for axis in node.numbers("axes", tuple(range(len(image))))]
    sides: list[int | None] = list(image)
    sizes = values[3] if len(values) > 3 else None
    if sizes is None and (scales is None or not scales.size):
        return [tuple(None if axis in axes and axis else side for axis, side in enumerate(image))]
    for axis, number in zip(axes, (scales if sizes is None else sizes).reshape(-1), strict=False):  # type: ignore[union-attr]
        side = image[axis]
        sides[axis] = int(number) if sizes is not None else None if side is None else math.floor(side * number + 1e-6)
    return [tuple(sides)]


def blocks(node: Node, shapes: Shapes, _: Values) -> Shapes:
    """SpaceToDepth and DepthToSpace."""
    block, image = node.number("blocksize", 1), shapes[0]
    if image is None or len(image) != 4 or block < 1:
        return []
    depth, height, width = image[1:]
    if node.op == "SpaceToDepth":
        sides = [None if side is None else side // block for side in (height, width)]
        return [(image[0], None if depth is None else depth * block**2, *sides)]
    sides = [None if side is None else side * block for side in (height, width)]
    return [(image[0], None if depth is None else depth // block**2, *sides)]
