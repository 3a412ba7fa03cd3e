"""A net's graph in, the scale of each of its feature maps out, and which operator reads feature maps from which.

Strides are multiplied along the graph; where a size is asked for in pixels, a map of the same size says the stride.
What only says where values belong (pool indices, masks) is told from values, what holds for the whole picture from
maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from service.structure.figures import Shape
from service.structure.net import Net, Node
from service.structure.sizes import RULES

Layout = Literal["NCHW", "NHWC"]

CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "FusedConv", "QLinearConv"})
POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
MATRICES = frozenset({"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"})
ARRANGED = frozenset({"Concat", "Reshape", "Transpose", "Cast", "Identity", "Add", "Or", "Pad"})
"""Operators after which values that were put in their places still are."""

NO_MAPS = frozenset({"Shape", "Size", "NonZero"})
"""Operators that read maps and answer none."""

TURNED: Mapping[tuple[Layout | None, tuple[int, ...]], Layout] = {
    ("NHWC", (0, 3, 1, 2)): "NCHW",
    ("NCHW", (0, 2, 3, 1)): "NHWC",
}
"""Permutations of axes that make maps of maps."""

CROP_LIMIT = 1.2
"""Cutting or padding by more than this changes the scale."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Flow:
    """What is known of a value that comes from the picture.

    `stride`: pixels of the input to one of it, along a side; `layout`: None where its sides are not a map's (tokens);
    `places`: it says where values belong; `placed`: values on their way back there; `whole`: it holds for the whole
    picture.
    """

    stride: Fraction
    layout: Layout | None
    places: bool = False
    placed: bool = False
    whole: bool = False

    @property
    def carries(self) -> bool:
        """Whether it is a feature map, or tokens that were one."""
        return not self.places and not self.whole


@dataclass(frozen=True)
class Step:
    """An operator that reads feature maps: `index` in the net, what `flows` in by name, and out by name."""

    index: int
    node: Node
    flows: Mapping[str, Flow]
    answers: Mapping[str, Flow]

    @property
    def carried(self) -> list[str]:
        """The feature maps that it reads."""
        return [name for name, flow in self.flows.items() if flow.carries]

    @property
    def places(self) -> list[str]:
        """What tells it where values belong."""
        return [name for name, flow in self.flows.items() if flow.places]

    @property
    def answer(self) -> Flow | None:
        """Its first result."""
        return self.answers.get(self.node.outputs[0])

    @property
    def before(self) -> Flow:
        """The map that its own is made from."""
        return _leading(list(self.flows.values()))

    @property
    def change(self) -> Fraction:
        """By how much the stride changes: 2 halves the sides."""
        return self.answer.stride / self.before.stride if self.answer else Fraction(1)


def size_of(shape: Shape | None, layout: Layout | None) -> Size | None:
    """Height and width of a map of that shape."""
    if shape is None or len(shape) != 4 or layout is None:
        return None
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    return None if not height or not width else (height, width)


def channels_of(shape: Shape | None, layout: Layout | None) -> int | None:
    """The channels of a map of that shape; of tokens, their length."""
    if not shape:
        return None
    return shape[1] if layout == "NCHW" and len(shape) > 1 else shape[-1]


class Scales:
    """Goes through a net once, in order."""

    def __init__(self, net: Net, shapes: Mapping[str, Shape], image: str, layout: Layout) -> None:
        """`shapes`: of all values; `image`: the input's name."""
        self._net = net
        self._shapes = shapes
        self._known: dict[Size, Fraction] = {}
        self._flows: dict[str, Flow] = {}
        self._picture = size_of(shapes.get(image), layout) or (1, 1)
        self._note(image, Flow(Fraction(1), layout))

    def steps(self) -> Iterator[Step]:
        """Every operator that reads what comes from the picture."""
        for index, node in enumerate(self._net.nodes):
            flows = {name: self._flows[name] for name in node.inputs if name in self._flows}
            if not flows or node.op in NO_MAPS or not node.outputs:
                continue
            answers = self._answers(node, flows)
            for name, flow in answers.items():
                self._note(name, flow)
            yield Step(index, node, flows, answers)

    def _note(self, name: str, flow: Flow) -> None:
        self._flows[name] = flow
        size = size_of(self._shapes.get(name), flow.layout)
        if size and flow.carries:
            self._known.setdefault(size, flow.stride)

    def _answers(self, node: Node, flows: Mapping[str, Flow]) -> dict[str, Flow]:
        if node.op not in RULES and node.op not in MATRICES:
            return {}
        leading = _leading(list(flows.values()))
        layout = self._layout(node, leading)
        stride = self._stride(node, flows, leading, layout)
        if stride is None:
            return {}
        places = leading.places or node.op in COMPARISONS
        mixed = not places and any(flow.places for flow in flows.values())
        is_there = node.op == "MaxUnpool" or stride != leading.stride
        placed = not is_there and (mixed or (leading.placed and node.op in ARRANGED))
        whole = leading.whole or self._is_of_the_whole(node, flows, layout)
        flow = Flow(stride, layout, places, placed, whole)
        answers = dict.fromkeys(filter(None, node.outputs), flow)
        if node.op == "MaxPool" and len(node.outputs) > 1:
            answers[node.outputs[1]] = replace(flow, places=True)
        return answers

    def _layout(self, node: Node, leading: Flow) -> Layout | None:
        shape = self._shapes.get(node.outputs[0])
        if node.op in CONVOLUTIONS or node.op in POOLS or node.op == "ConvTranspose":
            return "NCHW"
        if shape is not None and len(shape) != 4:
            return None
        if node.op == "Transpose":
            return TURNED.get((leading.layout, node.numbers("perm", ())))
        if node.op != "Reshape" and leading.layout is not None:
            return leading.layout
        layouts: tuple[Layout, Layout] = ("NCHW", "NHWC")
        return next((layout for layout in layouts if size_of(shape, layout) in self._known), None)

    def _stride(self, node: Node, flows: Mapping[str, Flow], leading: Flow, layout: Layout | None) -> Fraction | None:
        """The stride of what comes out; None where it cannot be told."""
        step = Fraction(max(1, *node.numbers("strides", (1,))))
        if node.op in CONVOLUTIONS or node.op in POOLS:
            return leading.stride * step
        if node.op == "ConvTranspose":
            return leading.stride / step
        if node.op in ("SpaceToDepth", "DepthToSpace"):
            block = Fraction(max(1, node.number("blocksize", 1)))
            return leading.stride * block if node.op == "SpaceToDepth" else leading.stride / block
        source = next(name for name, flow in flows.items() if flow is leading)
        before = size_of(self._shapes.get(source), leading.layout)
        after = size_of(self._shapes.get(node.outputs[0]), layout)
        if node.op in ("Resize", "Upsample", "MaxUnpool") and (before is None or after is None):
            return None
        if after is None or after == before:
            return leading.stride
        if before is not None and node.op in ("Slice", "Pad") and _ratio(before, after) < CROP_LIMIT:
            return leading.stride
        if before is not None and node.op == "Slice":
            return _snapped(self._picture, after)  # one side after the other, perhaps
        return self._known.get(after) or (before and leading.stride * _snapped(before, after))

    def _is_of_the_whole(self, node: Node, flows: Mapping[str, Flow], layout: Layout | None) -> bool:
        """Whether it sums up maps to one value a channel."""
        if not node.op.startswith(("Global", "Reduce", "AveragePool")):
            return False
        shape = self._shapes.get(node.outputs[0])
        if node.op != "AveragePool" and shape is not None and len(shape) == 2:
            return True
        before = [size_of(self._shapes.get(name), flow.layout) for name, flow in flows.items()]
        return size_of(shape, layout) == (1, 1) and any(size not in ((1, 1), None) for size in before)


def _leading(flows: Sequence[Flow]) -> Flow:
    """The flow that says what comes out: a map before what holds for the whole picture, and that before places."""
    return min(flows, key=lambda flow: (flow.places, flow.whole))


def _ratio(before: Size, after: Size) -> float:
    """By how much sides differ, at least 1."""
    ratio = math.sqrt(before[0] * before[1] / (after[0] * after[1]))
    return max(ratio, 1 / ratio)


def _snapped(before: Size, after: Size) -> Fraction:
    """By what whole number sides shrink (or grow, as its inverse): odd sides do so by about that."""
    ratio = Fraction(max(1, round(_ratio(before, after))))
    return ratio if before[0] * before[1] >= after[0] * after[1] else 1 / ratio
