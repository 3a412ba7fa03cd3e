"""A net's ONNX file in, its structure out, as far as it can be told without running it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from service.manifest import InputSpec, OutputSpec
from service.structure.net import Net, read_net
from service.structure.parts import Pass, Stage, Structure
from service.structure.scales import Scales
from service.structure.sizes import shapes_of
from service.structure.stages import Stages, Untold

logger = logging.getLogger(__name__)

USUAL_SIDE = 512
"""Pixels of an input whose sides are free."""


def structure_of(path: Path, spec: InputSpec, output: OutputSpec) -> Structure:
    """The structure of the net in the file at `path`; where it cannot be told, why not. Raises nothing."""
    structure = Structure(_input_size(spec), spec.depth)
    try:
        net = read_net(path)
    except (OSError, ValueError) as error:
        logger.warning("%s: its structure cannot be read: %s", path, error)
        return replace(structure, problem="the graph cannot be read")
    operators = dict(Counter(node.op for node in net.nodes).most_common())
    structure = replace(structure, operators=operators, inner=net.inner)
    try:
        stages, passes = _told(net, spec, output, structure.size)
    except Untold as error:
        return replace(structure, problem=str(error))
    except Exception:  # whatever a foreign graph may hold, it costs no more than the picture of it
        logger.exception("%s: its structure cannot be told", path)
        return replace(structure, problem="the graph has an unusual form")
    return replace(structure, stages=stages, passes=passes)


def _input_size(spec: InputSpec) -> tuple[int, int]:
    usual = -(-USUAL_SIDE // spec.multiple_of) * spec.multiple_of
    return spec.height or usual, spec.width or usual


def _told(
    net: Net, spec: InputSpec, output: OutputSpec, size: tuple[int, int]
) -> tuple[tuple[Stage, ...], tuple[Pass, ...]]:
    """Stages and passes. Raises Untold."""
    wanted = output.logits or output.labels
    if spec.name not in net.inputs or wanted is None or wanted not in net.outputs:
        raise Untold("the graph does not have the input and the output that model.json names")
    sides = (1, *size, spec.depth) if spec.layout == "NHWC" else (1, spec.depth, *size)
    shapes = shapes_of(net, {spec.name: sides})
    steps = list(Scales(net, shapes, spec.name, spec.layout).steps())
    return Stages(steps, wanted, net, shapes).told()
