"""A graph that nobody described in, how to feed it out: read off its input, or said by the user."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.errors import ExportError
from service.manifest import InputSpec

Layout = Literal["NCHW", "NHWC"]
Activation = Literal["softmax", "sigmoid", "probabilities"]
Shape = list[int | str | None]
Values = NDArray[np.generic]

DTYPES: Mapping[str, Literal["uint8", "float32"]] = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
CHANNELS_AXIS: Mapping[Layout, int] = {"NCHW": 1, "NHWC": 3}

SAFE_MULTIPLE = 64
"""What sides are made multiples of while nothing is known."""


@dataclass(frozen=True)
class Said:
    """What the user says of the graph; None where the graph is to show it."""

    output: str | None = None
    layout: Layout | None = None
    output_layout: Layout | None = None
    channels: Literal["RGB", "BGR", "GRAY"] | None = None
    fit: Literal["stretch", "letterbox", "native", "tile"] | None = None
    height: int | None = None
    width: int | None = None
    multiple_of: int | None = None
    max_pixels: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Activation | None = None

    def values(self, *names: str) -> dict[str, Any]:
        """Those of these that were said."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def open_session(path: Path) -> ort.InferenceSession:
    """The graph in `path`. Raises ExportError where onnxruntime cannot open it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever onnxruntime finds in a foreign file
        reason = " ".join(str(error).replace(str(path), "it").split())
        raise ExportError(f"onnxruntime cannot open the graph: {reason}") from error


def input_spec(session: ort.InferenceSession, said: Said) -> InputSpec:
    """How to feed the graph; free sides are multiples of SAFE_MULTIPLE until they are known better.

    Raises ExportError where it cannot be fed with a picture, or something has to be said.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ExportError(
            f"the graph has the inputs {', '.join(node.name for node in inputs)}: the service feeds one, a picture"
        )
    name, shape, kind = inputs[0].name, inputs[0].shape, inputs[0].type
    if kind not in DTYPES:
        raise ExportError(f"the input {name!r} is {kind}: the service feeds {' and '.join(DTYPES)}")
    if len(shape) != 4:
        raise ExportError(
            f"the input {name!r} has the shape {shape}: pictures have four axes, batch, channels, height and width"
        )
    dtype, layout = DTYPES[kind], said.layout or _layout(name, shape)
    channels = _channels(name, shape[CHANNELS_AXIS[layout]], said)
    normalisation = _normalisation(said, 1 if channels == "GRAY" else 3)
    if dtype == "uint8" and normalisation:
        option = next(iter(normalisation))
        raise ExportError(f"the input {name!r} is uint8, so the graph itself normalises: leave --{option} out")
    sides = sides_of(shape, layout)
    height, width = _sides(name, sides, said)
    multiple_of = math.lcm(declared_step(sides), said.multiple_of or SAFE_MULTIPLE) if height is None else 1
    return InputSpec.model_validate(
        {"name": name, "dtype": dtype, "layout": layout, "height": height, "width": width}
        | {"channels": channels, "multiple_of": multiple_of}
        | {"fit": said.fit or ("native" if height is None else "stretch")}
        | said.values("max_pixels")
        | normalisation
    )


def sides_of(shape: Shape, layout: Layout) -> Shape:
    """Height and width of an input's shape."""
    return shape[1:3] if layout == "NHWC" else shape[2:4]


def declared_step(sides: Shape) -> int:
    """What height and width must be multiples of, as far as free sides declare it."""
    return math.lcm(*(step_of(side) or 1 for side in sides))


def step_of(side: int | str | None) -> int:
    """Of what a side of a graph may be any multiple: 1 of "height", 8 of "8*height"; 0 where it is fixed."""
    if isinstance(side, int):
        return 0
    declared = re.match(r"(\d+) ?\*", side or "")
    return int(declared[1]) if declared else 1


def _layout(name: str, shape: Shape) -> Layout:
    fitting = [layout for layout, axis in CHANNELS_AXIS.items() if shape[axis] in (1, 3, 4)]
    if len(fitting) == 1:
        return fitting[0]
    raise ExportError(
        f"the input {name!r} has the shape {shape}, which does not show where its channels are: say --layout NCHW or "
        "--layout NHWC"
    )


def _channels(name: str, count: int | str | None, said: Said) -> str:
    if not isinstance(count, int):
        return said.channels or "RGB"
    if count not in (1, 3):
        raise ExportError(f"the input {name!r} takes {count} channels: pictures have 3, or 1 where they are grey")
    if said.channels is not None and (said.channels == "GRAY") != (count == 1):
        raise ExportError(f"the input {name!r} takes {count} channels: --channels {said.channels} has another number")
    return said.channels or ("GRAY" if count == 1 else "RGB")


def _normalisation(said: Said, depth: int) -> dict[str, Any]:
    """What was said of it; of a grey input, the value that was said three times is one."""
    alike = {name: values[:depth] for name, values in said.values("mean", "std").items() if len(set(values)) == 1}
    return said.values("scale", "mean", "std") | alike


def _sides(name: str, sides: Shape, said: Said) -> tuple[int | None, int | None]:
    """Height and width as the graph or the user fixes them; both None where pictures keep their size."""
    found: list[int | None] = []
    for option, side, wish in zip(("height", "width"), sides, (said.height, said.width), strict=True):
        if isinstance(side, int) and wish not in (None, side):
            raise ExportError(f"the input {name!r} has a {option} of {side}, --{option} says {wish}")
        if wish is not None and wish % (step_of(side) or 1):
            raise ExportError(
                f"the input {name!r} has a {option} of {side}, a multiple of which --{option} {wish} is not"
            )
        found.append(side if isinstance(side, int) else wish)
    height, width = found
    if (height is None) != (width is None):
        missing = "height" if height is None else "width"
        raise ExportError(f"the input {name!r} has sides of {sides}, of which one is fixed: say --{missing} as well")
    if height is not None and said.fit == "native":
        raise ExportError(f"the input {name!r} has a size, {height}x{width}: --fit native is for free sides")
    return height, width


def ask(session: ort.InferenceSession, spec: InputSpec, tensor: Values) -> dict[str, Values]:
    """All that the graph answers, by output; a fixed batch is filled up with black pictures, as the service does."""
    node = session.get_inputs()[0]
    more = node.shape[0] - 1 if isinstance(node.shape[0], int) else 0
    tensor = np.concatenate([tensor, np.zeros((more, *tensor.shape[1:]), tensor.dtype)])
    try:
        found = session.run(None, {node.name: tensor})
    except Exception as error:
        height, width = tensor.shape[1:3] if spec.layout == "NHWC" else tensor.shape[2:4]
        raise ExportError(
            f"the graph fails at an input of {height}x{width} (height x width; --multiple-of, or --height and --width, "
            f"say what it takes): {' '.join(str(error).split())}"
        ) from error
    return {output.name: np.asarray(value) for output, value in zip(session.get_outputs(), found, strict=True)}
