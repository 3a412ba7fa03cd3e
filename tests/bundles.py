"""Small bundles with hand-made ONNX graphs, and the pictures to ask them about.

The default net is trivially right: its scores are the colour planes, so a red pixel is class 0 (red), a green one
class 1, a blue one class 2. `Net` says how a graph differs from that one, `write_bundle` puts it in a model folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.golden import Golden
from service.graph import Answer, Graph, Tensor
from service.manifest import GOLDEN, MANIFEST, Check, ClassSpec, Color, InputSpec, Manifest, OutputSpec, Variant
from service.segmenter import Segmenter
from service.turn import Stop

RED: Color = (255, 0, 0)
GREEN: Color = (0, 255, 0)
BLUE: Color = (0, 0, 255)
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)

Layout = Literal["NHWC", "NCHW"]
Weights = tuple[tuple[float, ...], ...]

PLANES: Weights = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
"""Class i scores the value of colour plane i."""

ROLLED: Weights = ((0, 1, 0), (0, 0, 1), (1, 0, 0))
"""A net that is wrong everywhere: it calls green red, blue green and red blue."""

REDNESS: Weights = ((0.02, -0.01, -0.01),)
"""One channel: above 0 where a pixel is more red than anything else."""

ENDLESS = 2**62
"""As `Net.turns`: the net answers only when it is stopped."""


@dataclass(frozen=True)
class Net:
    """A graph: scores = average over stride x stride pixels of (weights @ pixel + bias).

    `weights` is (classes, input channels). A side that is None is dynamic. `labels` adds the class ids as an output of
    that name. `decoys` are outputs that come before the scores and say the opposite. `turns` is how often the net goes
    round an idle loop before it answers: what makes a slow one (about a microsecond each), or one that never ends.
    `only` is the one height and width of scores at which it does not fail while it runs.
    """

    weights: Weights = PLANES
    bias: tuple[float, ...] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Layout = "NHWC"
    output_layout: Layout = "NCHW"
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int = 1
    input: str = "image"
    logits: str = "logits"
    labels: str | None = None
    decoys: tuple[str, ...] = ()
    sigmoid: bool = False
    turns: int = 0
    only: tuple[int, int] | None = None

    @property
    def depth(self) -> int:
        """Number of input channels."""
        return len(self.weights[0])

    def input_spec(self) -> InputSpec:
        """What a manifest says of this net's input: its own size where that is fixed, else the picture's."""
        return InputSpec(
            name=self.input,
            dtype=self.dtype,
            layout=self.layout,
            height=self.height,
            width=self.width,
            multiple_of=self.stride,
            fit="native" if self.height is None else "stretch",
            channels="GRAY" if self.depth == 1 else "RGB",
            pad_value=(0,) * self.depth,
            mean=(0.0,) * self.depth,
            std=(1.0,) * self.depth,
        )

    def output_spec(self) -> OutputSpec:
        """What a manifest says of this net's outputs."""
        activation: Literal["softmax", "sigmoid", "probabilities"] = "softmax"
        if len(self.weights) == 1:
            activation = "probabilities" if self.sigmoid else "sigmoid"
        return OutputSpec(logits=self.logits, labels=self.labels, layout=self.output_layout, activation=activation)

    def save(self, path: Path) -> None:
        """Write the graph as an ONNX file."""
        onnx.save(self.build(), path)

    def build(self) -> onnx.ModelProto:
        """The graph; opset and IR version are old enough for every onnxruntime that the service accepts."""
        element = TensorProto.UINT8 if self.dtype == "uint8" else TensorProto.FLOAT
        classes = len(self.weights)
        kernel = np.array(self.weights, np.float32)[..., None, None]
        bias = np.array(self.bias or [0.0] * classes, np.float32)
        constants = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(bias, "bias")]
        nodes = [helper.make_node("Cast", [self.input], ["floats"], to=TensorProto.FLOAT)]
        planes = "floats"
        if self.layout == "NHWC":
            planes = "planes"
            nodes.append(helper.make_node("Transpose", ["floats"], [planes], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Conv", [planes, "kernel", "bias"], ["fine"]))
        window = [self.stride, self.stride]
        nodes.append(helper.make_node("AveragePool", ["fine"], ["pooled"], kernel_shape=window, strides=window))
        scores = "pooled"
        if self.sigmoid:
            nodes.append(helper.make_node("Sigmoid", [scores], ["probability"]))
            scores = "probability"
        if self.turns:
            nodes.append(_idle_loop())
            nodes.append(helper.make_node("Add", [scores, "idle"], ["late"]))
            constants.append(numpy_helper.from_array(np.array(self.turns, np.int64), "turns"))
            constants.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
            scores = "late"
        if self.only:
            nodes.append(helper.make_node("Add", [scores, "only"], ["whole"]))
            constants.append(numpy_helper.from_array(np.zeros((1, 1, *self.only), np.float32), "only"))
            scores = "whole"
        order = [0, 2, 3, 1] if self.output_layout == "NHWC" else [0, 1, 2, 3]
        nodes.append(helper.make_node("Transpose", [scores], [self.logits], perm=order))
        nodes += [helper.make_node("Neg", [self.logits], [decoy]) for decoy in self.decoys]
        floats = [*self.decoys, self.logits]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * 4) for output in floats]
        if self.labels is not None:
            nodes.append(helper.make_node("ArgMax", [scores], [self.labels], axis=1, keepdims=0))
            outputs.append(helper.make_tensor_value_info(self.labels, TensorProto.INT64, [None] * 3))
        sides = [self.height or "height", self.width or "width"]
        shape = [*sides, self.depth] if self.layout == "NHWC" else [self.depth, *sides]
        image = helper.make_tensor_value_info(self.input, element, [self.batch or "batch", *shape])
        graph = helper.make_graph(nodes, "net", [image], outputs, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _idle_loop() -> onnx.NodeProto:
    """Adds 0 to 0, `turns` times: the result is `idle`."""
    scalars = {"turn": TensorProto.INT64, "on": TensorProto.BOOL, "idle_in": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, element, []) for name, element in scalars.items()]
    results = {"still_on": TensorProto.BOOL, "idle_out": TensorProto.FLOAT}
    outputs = [helper.make_tensor_value_info(name, element, []) for name, element in results.items()]
    body = [
        helper.make_node("Identity", ["on"], ["still_on"]),
        helper.make_node("Add", ["idle_in", "idle_in"], ["idle_out"]),
    ]
    return helper.make_node(
        "Loop", ["turns", "", "zero"], ["idle"], body=helper.make_graph(body, "turn", inputs, outputs)
    )


def write_bundle(
    root: Path,
    name: str = "rgb",
    version: int = 1,
    *,
    nets: Net | Mapping[str, Net] | None = None,
    classes: Sequence[str] = ("red", "green", "blue"),
    spec: InputSpec | None = None,
    output: OutputSpec | None = None,
    golden: bool | Golden = True,
    check: bool = True,
    sha256: bool = True,
    providers: Sequence[str] = ("cpu",),
) -> Path:
    """Write the bundle `root`/`name`/`version`; returns its folder.

    By default it is one that the service serves as proved. `nets`: one net, or several by variant id, the reference
    first. `spec` and `output`: what the manifest says, by default what is true of the reference. `golden`: with True,
    the golden mask of every variant is what the reference answers, so a variant that differs is wrong.
    """
    nets = nets or Net()
    nets = {"fp32": nets} if isinstance(nets, Net) else nets
    reference = next(iter(nets.values()))
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    files = {variant: f"model.{variant}.onnx" if index else "model.onnx" for index, variant in enumerate(nets)}
    for variant, net in nets.items():
        net.save(folder / files[variant])
    proof = Check(argmax_agreement=1.0, max_abs_diff=0.0, images=1, sizes=((240, 320),)) if check else None
    manifest = Manifest(
        name=name,
        version=version,
        license="Apache-2.0",
        input=spec or reference.input_spec(),
        output=output or reference.output_spec(),
        classes=class_specs(classes),
        variants=tuple(
            Variant(id=variant, file=files[variant], providers=tuple(providers), check=proof) for variant in nets
        ),
    )
    if golden is True:
        picture = bands(RED, GREEN, BLUE, BLACK, WHITE)
        coarse = Segmenter(manifest, Graph(folder / "model.onnx", manifest, ["cpu"], 1))(picture).coarse
        golden = Golden(picture, dict.fromkeys(nets, coarse))
    if golden:
        golden.save(folder / GOLDEN)
    (folder / MANIFEST).write_text(manifest.to_json())
    if sha256:
        seal(folder)
    return folder


@dataclass(frozen=True)
class FixedNet:
    """A net without a graph, which gives the same answer to everything."""

    answer: Answer

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        return self.answer


def fixed_segmenter(answer: Answer, classes: int, spec: InputSpec, output: OutputSpec) -> Segmenter:
    """A segmenter whose net always gives this answer: for scores that no small graph comes up with."""
    manifest = Manifest(
        name="fixed",
        version=1,
        license="Apache-2.0",
        input=spec,
        output=output,
        classes=class_specs([f"class {index}" for index in range(classes)]),
        variants=(Variant(id="fp32", file="model.onnx"),),
    )
    return Segmenter(manifest, FixedNet(answer))


def class_specs(names: Sequence[str]) -> tuple[ClassSpec, ...]:
    """Classes of these names; the first three are drawn in red, green and blue."""
    colors = ["#ff0000", "#00ff00", "#0000ff", *(f"#{index:06x}" for index in range(3, len(names)))]
    return tuple(ClassSpec(id=index, name=name, color=colors[index]) for index, name in enumerate(names))


def seal(folder: Path) -> None:
    """Write the sha256 of the bundle's files, as they are now, into its manifest."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    with edited(folder) as manifest:
        manifest["sha256"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def edited(folder: Path) -> Iterator[dict[str, Any]]:
    """The bundle's model.json as plain data; what is changed in it is written back."""
    path = folder / MANIFEST
    manifest: dict[str, Any] = json.loads(path.read_text())
    yield manifest
    path.write_text(json.dumps(manifest))


def bands(*colors: Color, height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    """A picture, uint8 (height, width, 3), of upright bands of equal width (the last one may be wider)."""
    index = np.minimum(np.arange(width) // max(width // len(colors), 1), len(colors) - 1)
    row = np.array(colors, np.uint8)[index]
    return np.repeat(row[None], height, axis=0)


def encoded(rgb: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """The picture as the bytes of a file of that format, by Pillow's name."""
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, kind)
    return buffer.getvalue()
