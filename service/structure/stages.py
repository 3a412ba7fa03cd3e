"""The steps of a net in, its stages, each at one scale, and what is passed across between them out.

The stages lie along the path through most layers. A pass leaves that path at one stage and comes back to it at a later
one, past a coarser stage between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from service.structure.figures import Shape
from service.structure.net import Net
from service.structure.parts import FIRST, Across, Layer, Pass, ScaleChange, Stage
from service.structure.scales import CONVOLUTIONS, MATRICES, Flow, Step, channels_of, size_of

MOST_STAGES = 40
"""Nets with more are none that one could draw."""

CHANGES: Mapping[str, ScaleChange] = {
    **dict.fromkeys(CONVOLUTIONS, "strided convolution"),
    **dict.fromkeys(("Resize", "Upsample"), "interpolation"),
    **dict.fromkeys(("AveragePool", "LpPool"), "average pooling"),
    "MaxPool": "max-pooling",
    "SpaceToDepth": "space-to-depth",
    "Slice": "subsampling",
    "MaxUnpool": "max-unpooling",
    "ConvTranspose": "transposed convolution",
    "DepthToSpace": "depth-to-space",
}
"""How an operator changes the scale."""

MERGES: Mapping[str, Across] = {
    **dict.fromkeys(("Add", "Sum", "Mean", "Sub", "Max", "Min"), "added"),
    **dict.fromkeys(("Mul", "Div"), "multiplied"),
    "Concat": "concatenated",
}
"""How an operator brings maps together."""


class Untold(ValueError):
    """The stages of a net cannot be told apart."""


class Stages:
    """The path through most layers, from the input to one output, and what leads beside it."""

    def __init__(self, steps: Sequence[Step], output: str, net: Net, shapes: Mapping[str, Shape]) -> None:
        self._steps = steps
        self._net = net
        self._shapes = shapes
        self._makers = {name: step for step in steps for name in step.answers}
        self._needed = self._that_lead_to(output)
        self._main = self._longest(output)
        self._strides, self._stage_of = self._split()
        self._source = self._sources()
        self._target = self._targets()

    def told(self) -> tuple[tuple[Stage, ...], tuple[Pass, ...]]:
        """What the path is made of; a stage at the input's own size in which nothing happens is left out."""
        stages = self._stages()
        passes = self._passes(stages)
        used = {end for found in passes for end in (found.source, found.target)}
        if len(stages) > 1 and not stages[0].layers and 0 not in used:
            passes = [replace(one, source=one.source - 1, target=one.target - 1) for one in passes]
            stages = stages[1:]
        return tuple(stages), tuple(passes)

    def _that_lead_to(self, output: str) -> set[int]:
        """The steps whose maps reach the output, by index."""
        found: set[int] = set()
        waiting = [output]
        while waiting:
            step = self._makers.get(waiting.pop())
            if step is not None and step.index not in found:
                found.add(step.index)
                waiting += step.carried
        return found

    def _longest(self, output: str) -> list[Step]:
        """The steps along the path; of paths with equally many layers, one that goes deeper. Raises Untold."""
        best: dict[str, tuple[int, Fraction]] = {}
        before: dict[str, str] = {}
        for step in self._steps:
            if step.index not in self._needed or not step.carried:
                continue
            source = max(step.carried, key=lambda name: best.get(name, (0, Fraction(0))))
            layers, depth = best.get(source, (0, Fraction(0)))
            for name, flow in step.answers.items():
                if not flow.carries:
                    continue
                best[name] = (layers + (self._layer(step) is not None), max(depth, flow.stride))
                before[name] = source
        name, path = output, []
        while name in before:
            path.append(self._makers[name])
            name = before[name]
        if not path or name in self._makers or not best[output][0]:
            raise Untold(self._why_not(output))
        return path[::-1]

    def _why_not(self, output: str) -> str:
        known = {name for step in self._steps for name in step.answers}
        lost = [step.node.op for step in self._steps if not known & set(step.node.outputs)]
        if output not in known and lost:
            return f"what {', '.join(dict.fromkeys(lost[:3]))} makes of feature maps is not known"
        return "no layers lead from the picture to the scores"

    def _layer(self, step: Step) -> Layer | None:
        """What kind of layer a step is, if it is one: scaling each channel by a number is none."""
        node = step.node
        if node.op == "ConvTranspose":
            return "transposed convolution"
        if node.op in MATRICES:
            return "linear" if len(node.inputs) > 1 and node.inputs[1] in self._net.weights else None
        if node.op not in CONVOLUTIONS:
            return None
        at = 3 if node.op == "QLinearConv" else 1
        weight = self._shapes.get(node.inputs[at]) if at < len(node.inputs) else None
        is_scaling = weight is not None and node.number("group", 1) == weight[0] and set(weight[1:]) == {1}
        return None if is_scaling and node.number("group", 1) > 1 else "convolution"

    def _split(self) -> tuple[list[Fraction], dict[int, int]]:
        """The strides of the stages, and to which stage the steps of the path belong, by index. Raises Untold."""
        strides = [Fraction(1)]
        stage_of: dict[int, int] = {}
        for step in self._main:
            stride = step.answer.stride if step.answer else strides[-1]
            if stride != strides[-1]:
                strides.append(stride)
            stage_of[step.index] = len(strides) - 1
        if len(strides) > MOST_STAGES:
            raise Untold(f"the scale changes {len(strides) - 1} times on the way to the scores")
        return strides, stage_of

    def _sources(self) -> dict[str, int]:
        """For each value the last stage of the path that it is made from."""
        found: dict[str, int] = {}
        for step in self._steps:
            stage = max(found.get(name, 0) for name in step.flows)
            own = self._stage_of.get(step.index, stage)
            found |= dict.fromkeys(step.answers, own)
            if step.node.op == "MaxPool" and len(step.node.outputs) > 1:
                found[step.node.outputs[1]] = stage  # where the values stood that it pooled
        return found

    def _targets(self) -> dict[int, int]:
        """For each step that leads to the output, by index, the first stage of the path that it leads to."""
        found: dict[int, int] = {}
        for step in reversed(self._steps):
            if step.index not in self._needed:
                continue
            own = self._stage_of.get(step.index, found.get(step.index, len(self._strides) - 1))
            found[step.index] = own
            for name in step.carried:
                maker = self._makers.get(name)
                if maker is not None:
                    found[maker.index] = min(own, found.get(maker.index, own))
        return found

    def _goes_past(self, source: int, target: int) -> bool:
        """Whether a coarser stage lies between."""
        return any(stride > self._strides[source] for stride in self._strides[source + 1 : target])

    def _start(self, step: Step) -> int:
        """The last stage that a step's maps are made from."""
        return max(self._source.get(name, 0) for name in step.carried)

    def _home(self, step: Step) -> int | None:
        """The stage that a step belongs to; None for one on the way across."""
        if step.index in self._stage_of:
            return self._stage_of[step.index]
        source, target = self._start(step), self._target[step.index]
        if self._goes_past(source, target):
            return None
        at_target = step.answer is not None and step.answer.stride == self._strides[target]
        return target if at_target else source

    def _stages(self) -> list[Stage]:
        layers: list[Counter[Layer]] = [Counter() for _ in self._strides]
        ways: list[set[ScaleChange]] = [set() for _ in self._strides]
        for step in self._steps:
            if step.index not in self._needed or not step.carried:
                continue
            home, layer = self._home(step), self._layer(step)
            if home is not None and layer is not None:
                layers[home][layer] += 1
            if home is not None and step.change != 1 and self._is_the_step_to(home, step):
                ways[home].add("max-unpooling" if step.before.placed else CHANGES.get(step.node.op, "another way"))
        return [self._stage(index, ways[index], layers[index]) for index in range(len(self._strides))]

    def _is_the_step_to(self, stage: int, step: Step) -> bool:
        """Whether a step changes the scale from that of the stage before to that of `stage`."""
        return stage > 0 and step.before.stride == self._strides[stage - 1]

    def _stage(self, index: int, ways: Iterable[ScaleChange], layers: Counter[Layer]) -> Stage:
        stride = self._strides[index]
        before = self._strides[index - 1] if index else stride
        maps = [step for step in self._main if self._stage_of[step.index] == index and _answers_a_map(step)]
        name, flow = (maps[-1].node.outputs[0], maps[-1].answer) if maps else self._first()
        height, width = size_of(self._shapes.get(name), flow.layout if flow else None) or (None, None)
        return Stage(
            1 / stride,
            height,
            width,
            self._trunk(maps) if maps else self._channels(name, flow),
            "same" if stride == before else "down" if stride > before else "up",
            tuple(sorted(ways, key=lambda way: (way not in FIRST, way))),
            dict(layers),
        )

    def _first(self) -> tuple[str, Flow]:
        """The picture itself."""
        name = self._main[0].carried[0]
        return name, self._main[0].flows[name]

    def _trunk(self, maps: Sequence[Step]) -> int | None:
        """The channels of the last sum (or concatenation, of nothing that came across) of a stage, else of its widest
        layer, but for those that are widened to filter each channel alone."""
        sums = [step for step in maps if len(step.carried) > 1 and step.node.op in MERGES]
        blocks = [step for step in sums if step.node.op != "Concat" or not self._passed_to(step)]
        if blocks:
            return self._made(blocks[-1])
        layers = [step for step in self._main if self._layer(step)]
        alone = {one.index for one, other in pairwise(layers) if other.node.number("group", 1) > 1}
        widths = [self._made(step) for step in maps if self._layer(step) and step.index not in alone]
        return max((width for width in widths if width), default=self._made(maps[-1]))

    def _made(self, step: Step) -> int | None:
        return self._channels(step.node.outputs[0], step.answer)

    def _passes(self, stages: Sequence[Stage]) -> list[Pass]:
        found: dict[tuple[int, int, Across], list[int | None]] = {}
        for step in self._steps:
            if step.index in self._needed:
                for key, channels in self._passed_to(step):
                    found.setdefault(key, []).append(channels)
        layers = self._layers_across()
        return [
            Pass(source, target, how, stages[source].channels, 0)
            if how == "indices"
            else Pass(source, target, how, channels[0], layers[source, target], len(channels))
            for (source, target, how), channels in sorted(found.items(), key=lambda item: item[0])
        ]

    def _passed_to(self, step: Step) -> list[tuple[tuple[int, int, Across], int | None]]:
        """What comes to a step from across, and how many channels it has."""
        if step.places and step.carried:
            source = self._source.get(step.places[0], 0)
            target = self._unpooled_at(source, self._start(step))
            return [] if target is None else [((source, target, "indices"), None)]
        how = MERGES.get(step.node.op)
        if how is None or len(step.carried) < 2:
            return []
        target = self._stage_of.get(step.index, self._start(step))
        ends = [(self._source.get(name, 0), name) for name in step.carried]
        return [
            ((source, target, how), self._channels(name, step.flows[name]))
            for source, name in ends
            if self._goes_past(source, target)
        ]

    def _unpooled_at(self, source: int, after: int) -> int | None:
        """The stage, not before `after`, at which values are put back where those of `source` stood."""
        later = range(after, len(self._strides))
        same = (stage for stage in later if self._strides[stage] == self._strides[source])
        return next((stage for stage in same if self._goes_past(source, stage)), None)

    def _channels(self, name: str, flow: Flow | None) -> int | None:
        return channels_of(self._shapes.get(name), flow.layout if flow else None)

    def _layers_across(self) -> Counter[tuple[int, int]]:
        """How many layers lie on the way from one stage to another past those between."""
        found: Counter[tuple[int, int]] = Counter()
        for step in self._steps:
            if step.index in self._needed and step.carried and self._layer(step) and self._home(step) is None:
                found[self._start(step), self._target[step.index]] += 1
        return found


def _answers_a_map(step: Step) -> bool:
    """Whether what comes out has sides, and is not on its way back to the places that values came from."""
    return step.answer is not None and step.answer.layout is not None and not step.answer.placed
