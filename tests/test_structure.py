"""A net's stages and what is passed across are read from its graph: ours in every form, foreign ones as far as it goes.

That each built-in net is told as its paper has it, test_export_nets.py asks of the graphs that it exports.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from export.convert import convert
from export.lowering import Form
from export.tracing import ServedNet, trace
from service.manifest import InputSpec, OutputSpec
from service.structure.drawing import TIMES, svg
from service.structure.net import read_net
from service.structure.parts import Structure
from service.structure.reading import structure_of
from service.structure.sizes import shapes_of
from service.structure.words import sentence
from tests.bundles import Net
from tests.structures import structure
from training.nets.blocks import grow_to, max_unpool

FORMS: tuple[Form, ...] = ("native", "scatter", "indexfree")
SVG = "{http://www.w3.org/2000/svg}"


class Small(nn.Module):
    """Two stages down and up, with pool indices; at the last, a transposed convolution beside the unpooling."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)])
        self.slopes = nn.PReLU(16)
        nn.init.uniform_(self.slopes.weight, 0.1, 0.9)
        self.deep, self.narrow = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.wide = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.classifier = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.down[0](image)
        half, fine = F.max_pool2d(first, 2, return_indices=True)
        second = self.slopes(self.down[1](half))
        quarter, coarse = F.max_pool2d(second, 2, return_indices=True)
        up = max_unpool(self.deep(quarter), coarse, like=second)
        both = max_unpool(self.narrow(up), fine, like=first) + grow_to(self.wide(up), like=first)
        answer: Tensor = self.classifier(both)
        return answer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[Form, Path]:
    """A net in each of the forms that max-unpooling takes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("forms")
    net = ServedNet(Small(), 255, (0, 0, 0), (1, 1, 1)).eval()
    for form in FORMS:
        convert(trace(net, 4, example=(32, 48)), folder / f"{form}.onnx", form)
    return {form: folder / f"{form}.onnx" for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_max_unpooling_is_told_as_what_it_is(form: Form, exported: dict[Form, Path]) -> None:
    found = structure(exported[form])
    assert [(str(stage.scale), stage.channels, stage.by) for stage in found.stages] == [
        ("1", 8, ()),
        ("1/2", 16, ("max-pooling",)),
        ("1/4", 16, ("max-pooling",)),
        ("1/2", 8, ("max-unpooling",)),
        ("1", 8, ("max-unpooling", "transposed convolution")),
    ]
    assert [(one.source, one.target, one.how, one.channels) for one in found.passes] == [
        (0, 4, "indices", 8),
        (1, 3, "indices", 16),
    ]
    assert sentence(found) == (
        "An encoder halves the picture twice, to 1/4 of its sides, by max-pooling; the decoder comes back to the "
        "picture's size in two steps, by max-unpooling with the encoder's pool indices and transposed convolutions. "
        "Nothing else is passed across."
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_value_has_the_shape_that_onnxruntime_gives_it(form: Form, exported: dict[Form, Path]) -> None:
    path = exported[form]
    shapes = shapes_of(read_net(path), {"image": (1, 101, 133, 3)})
    model = onnx.load(path)
    del model.graph.value_info[:]
    values = [output for node in model.graph.node for output in node.output if output != "logits"]
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in values)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    answers = session.run(names, {"image": np.zeros((1, 101, 133, 3), np.uint8)})
    assert {value: np.shape(answer) for value, answer in zip(names, answers, strict=True)} == {
        value: shapes.get(value) for value in names
    }


def test_scaling_channels_is_no_layer(exported: dict[Form, Path]) -> None:
    """PReLU is written in depthwise 1x1 convolutions for the CPU."""
    convolutions = [node for node in onnx.load(exported["native"]).graph.node if node.op_type == "Conv"]
    modules = [module for module in Small().modules() if isinstance(module, nn.Conv2d)]
    counted = sum(stage.layers.get("convolution", 0) for stage in structure(exported["native"]).stages)
    assert counted == len(modules) < len(convolutions)


def graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, tuple[int, ...]],
    more: Sequence[onnx.TensorProto] = (),
) -> Path:
    """A graph from `image` (1, 3, 64, 96) to `logits`, with weights of those shapes."""
    tensors = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 96])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    made = helper.make_graph(list(nodes), "g", [image], [logits], [*tensors, *more])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def told(path: Path) -> Structure:
    return structure_of(path, InputSpec(dtype="float32", layout="NCHW", height=64, width=96), OutputSpec())


def conv(source: str, target: str, weight: str = "w", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], **attributes)


DOWN = (conv("image", "a", "in", pads=[1] * 4), conv("a", "b", pads=[1] * 4, strides=[2, 2]))
WEIGHTS: dict[str, tuple[int, ...]] = {"in": (8, 3, 3, 3), "w": (8, 8, 3, 3), "two": (8, 16, 3, 3)}
SCALES = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")


def with_up(*up: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Down to a half, up again to `c`, where what was at the full size is added."""
    return [*DOWN, *up, helper.make_node("Add", ["a", "c"], ["d"]), conv("d", "logits", pads=[1] * 4)]


UPS: dict[str, tuple[str, Sequence[onnx.NodeProto]]] = {
    "scales": ("interpolation", [helper.make_node("Resize", ["b", "", "scales"], ["c"])]),
    "sizes of a tensor": (
        "interpolation",
        [helper.make_node("Shape", ["a"], ["s"]), helper.make_node("Resize", ["b", "", "", "s"], ["c"])],
    ),
    "upsample": ("interpolation", [helper.make_node("Upsample", ["b", "scales"], ["c"])]),
    "shuffle": (
        "depth-to-space",
        [conv("b", "e", "four", pads=[1] * 4), helper.make_node("DepthToSpace", ["e"], ["c"], blocksize=2)],
    ),
    "transposed": (
        "transposed convolution",
        [helper.make_node("ConvTranspose", ["b", "w"], ["c"], strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])],
    ),
}


@pytest.mark.parametrize("case", list(UPS))
def test_every_way_up_and_what_is_added_are_told(case: str, tmp_path: Path) -> None:
    way, up = UPS[case]
    found = told(graph(tmp_path / "m.onnx", with_up(*up), {**WEIGHTS, "four": (32, 8, 3, 3)}, [SCALES]))
    assert [(str(stage.scale), stage.by, stage.width) for stage in found.stages] == [
        ("1", (), 96),
        ("1/2", ("strided convolution",), 48),
        ("1", (way,), 96),
    ]
    assert [(one.source, one.target, one.how, one.channels) for one in found.passes] == [(0, 2, "added", 8)]


@pytest.mark.parametrize(("merge", "how"), [("Concat", "concatenated"), ("Mul", "multiplied"), ("Sum", "added")])
def test_every_way_to_bring_maps_together_is_told(merge: str, how: str, tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"axis": 1} if merge == "Concat" else {}
    nodes = [
        *DOWN,
        helper.make_node("Resize", ["b", "", "scales"], ["c"]),
        helper.make_node(merge, ["c", "a"], ["d"], **attributes),
        conv("d", "logits", "two" if merge == "Concat" else "w", pads=[1] * 4),
    ]
    found = told(graph(tmp_path / "m.onnx", nodes, WEIGHTS, [SCALES]))
    assert [(one.source, one.target, one.how) for one in found.passes] == [(0, 2, how)]
    assert sentence(found) == (
        "An encoder halves the picture once, to 1/2 of its sides, by strided convolutions; the decoder comes back to "
        "the picture's size in one step, by interpolation. The feature maps of one encoder stage are passed across "
        f"and {how}."
    )


def test_a_net_that_stays_at_one_scale_or_stops_half_way_says_so(tmp_path: Path) -> None:
    Net().save(tmp_path / "flat.onnx")
    flat = structure(tmp_path / "flat.onnx")
    assert sentence(flat).startswith("The net works at the picture's own scale throughout")
    Net(stride=4).save(tmp_path / "coarse.onnx")
    coarse = structure(tmp_path / "coarse.onnx")
    assert [(str(stage.scale), stage.by) for stage in coarse.stages] == [("1", ()), ("1/4", ("average pooling",))]
    assert "the service interpolates them to the picture's size. Nothing is passed across." in sentence(coarse)


def recurrent() -> list[onnx.NodeProto]:
    return [helper.make_node("GRU", ["image", "r", "r"], ["a"]), conv("a", "logits", "in")]


def of_another_domain() -> list[onnx.NodeProto]:
    return [helper.make_node("Attention", ["image", "w"], ["a"], domain="com.microsoft"), conv("a", "logits", "in")]


def of_no_layers() -> list[onnx.NodeProto]:
    return [helper.make_node("Relu", ["image"], ["logits"])]


def of_one_value() -> list[onnx.NodeProto]:
    return [conv("image", "a", "in"), helper.make_node("GlobalAveragePool", ["a"], ["logits"])]


def of_strides_of_nothing() -> list[onnx.NodeProto]:
    return [conv("image", "a", "in", strides=[0, 0]), helper.make_node("Resize", ["a", "", "nothing"], ["logits"])]


def without_end() -> list[onnx.NodeProto]:
    blocks = [helper.make_node("DepthToSpace", [f"x{i}"], [f"x{i + 1}"], blocksize=2**40) for i in range(50)]
    return [conv("image", "x0", "in"), *blocks, helper.make_node("Relu", ["x50"], ["logits"])]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (recurrent, "what GRU makes of feature maps is not known"),
        (of_another_domain, "what Attention makes of feature maps is not known"),
        (of_no_layers, "no layers lead from the picture to the scores"),
        (of_one_value, "no layers lead from the picture to the scores"),
        (of_strides_of_nothing, "what Resize makes of feature maps is not known"),
        (without_end, "the scale changes 50 times on the way to the scores"),
    ],
)
def test_what_makes_no_sense_is_counted_and_said(
    nodes: Callable[[], list[onnx.NodeProto]], words: str, tmp_path: Path
) -> None:
    found = told(graph(tmp_path / "m.onnx", nodes(), WEIGHTS))
    assert (found.stages, found.passes, found.problem) == ((), (), words)
    assert found.operators == {node.op_type: sum(n.op_type == node.op_type for n in nodes()) for node in nodes()}
    assert words in sentence(found)
    assert all(operator in svg(found, "m") for operator in found.operators)


def test_graphs_within_the_graph_are_counted_and_not_entered(tmp_path: Path) -> None:
    Net(turns=3, stride=2).save(tmp_path / "loop.onnx")
    found = structure(tmp_path / "loop.onnx")
    assert (found.inner, found.operators["Loop"]) == (1, 1)
    assert [str(stage.scale) for stage in found.stages] == ["1", "1/2"]


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", [conv("image", "logits", "in")], WEIGHTS)
    weight = helper.make_tensor("large", TensorProto.FLOAT, [1], b"1234", raw=True).SerializeToString()[:-6]
    size = 300_000_000
    tensor = weight + b"\x4a" + varint(size)
    head = b"\x3a" + varint(1 + len(varint(len(tensor) + size)) + len(tensor) + size)  # a second part of the graph
    model = onnx.load(path)
    model.graph.node.insert(0, helper.make_node("Identity", ["large"], ["unused"]))
    content = model.SerializeToString()
    with path.open("wb") as file:
        file.write(head + b"\x2a" + varint(len(tensor) + size) + tensor)
        file.seek(size, 1)
        file.write(content)
    tracemalloc.start()
    found = read_net(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [node.op for node in found.nodes] == ["Identity", "Conv"]
    assert peak < 1_000_000


def varint(value: int) -> bytes:
    """As protocol buffers write whole numbers."""
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def test_a_file_of_too_many_parts_is_refused_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.structure.net.MOST_PARTS", 1000)
    nodes = [helper.make_node("Relu", ["image"], [f"r{index}"]) for index in range(1000)]
    found = told(graph(tmp_path / "m.onnx", nodes, {}))
    assert found.problem == "the graph cannot be read"


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x3a\xff\xff\xff\xff\x0f", b"\x08\x08"], ids=range(4))
def test_what_is_no_graph_is_said_plainly(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert told(tmp_path / "m.onnx").problem == "the graph cannot be read"
    assert told(tmp_path / "missing.onnx").problem == "the graph cannot be read"


def test_a_damaged_graph_never_raises(exported: dict[Form, Path], tmp_path: Path) -> None:
    content = exported["scatter"].read_bytes()
    path = tmp_path / "damaged.onnx"
    chance = random.Random(1)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.randrange(1, 12)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        found = structure(path)
        ET.fromstring(svg(found, "damaged"))
        assert sentence(found)


def test_the_drawing_holds_every_stage_and_every_pass(exported: dict[Form, Path]) -> None:
    found = structure(exported["native"])
    drawn = ET.fromstring(svg(found, "a <b> & c"))
    assert drawn.get("role") == "img"
    assert drawn.findtext(f"{SVG}title") == "Structure of a <b> & c"
    assert drawn.findtext(f"{SVG}desc") == sentence(found)
    boxes = drawn.findall(f"{SVG}g")
    assert [box.findtext(f"{SVG}title") for box in boxes] == [
        "Picture", "Encoder stage 1", "Encoder stage 2", "Deepest stage",
        "Decoder stage 1", "Decoder stage 2", "Scores",
    ]  # fmt: skip
    assert [[text.text for text in box.iter(f"{SVG}text")] for box in boxes[1:4]] == [
        ["8", f"480 {TIMES} 360"],
        ["16", f"240 {TIMES} 180"],
        ["16", f"120 {TIMES} 90"],
    ]
    said = [text.text for text in drawn.iter(f"{SVG}text") if text.get("class") == "said"]
    assert said == ["pool indices", "pool indices"]
    heights = [float(box.find(f"{SVG}rect").get("height")) for box in boxes[1:4]]  # type: ignore[union-attr,arg-type]
    assert heights == sorted(heights, reverse=True)
