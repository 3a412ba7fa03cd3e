"""A graph that nobody described in, how to feed it and how to read it out: read off its shapes and an answer.

What these cannot show is asked for, by the name of the option that says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.errors import ExportError
from export.feeding import (
    CHANNELS_AXIS,
    SAFE_MULTIPLE,
    Activation,
    Layout,
    Said,
    Values,
    ask,
    declared_step,
    input_spec,
    open_session,
    sides_of,
)
from service.geometry import place
from service.manifest import ClassList, ClassSpec, InputSpec, OutputSpec
from service.segmenter import prepare

PREFERRED = ("logits", "out", "output", "scores", "probabilities", "labels")
"""Of several outputs that could be the answer, the one of the first of these names is."""

MULTIPLES = (1, 2, 4, 8, 16, 32, SAFE_MULTIPLE)
LONG = 128
"""About the sides in pixels at which a graph is asked what its sides must be multiples of."""


@dataclass(frozen=True)
class Reading:
    """How to feed a graph and how to read it, and its classes: all that are listed, or those that are scored."""

    input: InputSpec
    output: OutputSpec
    classes: tuple[ClassSpec, ...]


def read(path: Path, said: Said, classes: ClassList, picture: NDArray[np.uint8]) -> Reading:
    """Understand the graph in `path`, whose answer to `picture` (uint8 (H, W, 3)) shows what shapes do not.

    Raises ExportError where onnxruntime cannot run it, or something has to be said.
    """
    session = open_session(path)
    spec = input_spec(session, said)
    run = place(spec, *picture.shape[:2])[0]
    answers = ask(session, spec, prepare(picture, run, spec))
    name = said.output if said.output is not None else _choose(answers, classes)
    if name not in answers:
        raise ExportError(f"the graph has no output {name!r}: choose one of {_listed(answers)}")
    output, channels = _output(name, answers[name], (run.y.canvas, run.x.canvas), said, classes)
    if spec.fit == "native" and said.multiple_of is None:
        spec = spec.model_copy(update={"multiple_of": _multiple_of(session, spec, name, output.layout)})
    return Reading(spec, output, channels)


def _multiple_of(session: ort.InferenceSession, spec: InputSpec, output: str, layout: Layout) -> int:
    """The smallest usual number of which sides must be multiples, so that the graph runs and answers for whole pixels
    of its input: found by asking it. What its shape declares holds in any case: beside it, some graphs run and err."""
    declared = declared_step(sides_of(session.get_inputs()[0].shape, spec.layout))
    numbers = (declared * factor for factor in MULTIPLES)
    for number in (number for number in numbers if number <= max(declared, SAFE_MULTIPLE)):
        odd = max(LONG // number | 1, 3)
        height, width = number * odd, number * (odd + 2)
        sides = (height, width, spec.depth) if spec.layout == "NHWC" else (spec.depth, height, width)
        try:
            value = ask(session, spec, np.zeros((1, *sides), spec.dtype))[output]
        except ExportError:
            continue
        rows, columns = value.shape[1:3] if layout == "NHWC" or value.ndim == 3 else value.shape[2:4]
        if rows and columns and height % rows == width % columns == 0:
            return number
    raise ExportError(f"the graph takes sides that are multiples of none of {MULTIPLES}: say --multiple-of")


def _choose(answers: Mapping[str, Values], classes: ClassList) -> str:
    """The output that is the answer: scores rather than class ids, of as many classes as are listed."""
    scores = [name for name, value in answers.items() if _are_scores(value)]
    fitting = [name for name in scores if any(_layouts(answers[name], channels) for channels in _lists(classes))]
    for names in (fitting, scores, [name for name, value in answers.items() if _are_labels(value)]):
        if len(names) > 1:
            preferred = [word for word in PREFERRED if word in names]
            if not preferred:
                raise ExportError(f"several outputs could be the answer, {_listed(answers)}: choose with --output")
            return preferred[0]
        if names:
            return names[0]
    raise ExportError(
        f"no output is the answer to a picture: there are {_listed(answers)}; scores are floats with four axes, class "
        "ids whole numbers with three"
    )


def _output(
    name: str, value: Values, canvas: tuple[int, int], said: Said, classes: ClassList
) -> tuple[OutputSpec, tuple[ClassSpec, ...]]:
    """How to read the output `name`, and the classes that it tells apart."""
    if _are_labels(value):
        layout: Layout = "NHWC" if value.ndim == 4 and value.shape[1] != 1 else "NCHW"
        return OutputSpec(logits=None, labels=name, layout=said.output_layout or layout), classes.classes
    if not _are_scores(value):
        raise ExportError(f"the output {_listed({name: value})} holds neither scores of pixels nor class ids")
    for channels in _lists(classes):
        layouts = _layouts(value, channels)
        if len(layouts) > 1:
            layouts = [layout for layout in layouts if _covers(value, layout, canvas)] or layouts
        if said.output_layout is not None:
            layouts = [layout for layout in layouts if layout == said.output_layout]
        if len(layouts) > 1:
            raise ExportError(
                f"the output {_listed({name: value})} may have its classes first or last: --output-layout"
            )
        if layouts:
            activation = said.activation or _activation(value[0], layouts[0])
            return OutputSpec(logits=name, layout=layouts[0], activation=activation), channels
    counts = " or ".join(str(len(channels)) for channels in _lists(classes))
    raise ExportError(
        f"the output {_listed({name: value})} has no axis of {counts} classes: is it another --output, or another "
        "classes.json?"
    )


def _lists(classes: ClassList) -> list[tuple[ClassSpec, ...]]:
    """A net has a channel for every class, or for those that are scored."""
    return list(dict.fromkeys((classes.classes, classes.channels)))


def _are_scores(value: Values) -> bool:
    return value.ndim == 4 and np.issubdtype(value.dtype, np.floating)


def _are_labels(value: Values) -> bool:
    one_channel = value.ndim == 4 and 1 in (value.shape[1], value.shape[3])
    return np.issubdtype(value.dtype, np.integer) and (value.ndim == 3 or one_channel)


def _layouts(value: Values, channels: tuple[ClassSpec, ...]) -> list[Layout]:
    """Where the classes may be: an axis of their number; of two classes, one channel is enough."""
    counts = (2, 1) if len(channels) == 2 else (len(channels),)
    return [layout for layout, axis in CHANNELS_AXIS.items() if value.shape[axis] in counts]


def _covers(value: Values, layout: Layout, canvas: tuple[int, int]) -> bool:
    """Whether the two other axes have the input's aspect."""
    height, width = value.shape[1:3] if layout == "NHWC" else value.shape[2:4]
    return bool(height * canvas[1] == width * canvas[0])


def _activation(scores: Values, layout: Layout) -> Activation:
    """Values from 0 to 1 that add up to 1, or of one channel, are probabilities already."""
    axis = CHANNELS_AXIS[layout] - 1
    alone = scores.shape[axis] == 1
    values = scores.astype(np.float32)
    within = float(values.min()) >= 0 and float(values.max()) <= 1
    if within and (alone or np.allclose(values.sum(axis=axis), 1, atol=1e-2)):
        return "probabilities"
    return "sigmoid" if alone else "softmax"


def _listed(answers: Mapping[str, Values]) -> str:
    return ", ".join(f"{name} ({value.dtype}, {'x'.join(map(str, value.shape))})" for name, value in answers.items())
