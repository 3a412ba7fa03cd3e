"""Weights in other files are found wherever ONNX allows a tensor, and whatever way the bytes are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.onnxfile import axis_names, has_external_data


def external() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [])


def in_initializer() -> onnx.ModelProto:
    model = helper.make_model(graph())
    model.graph.initializer.append(external())
    return model


def in_constant() -> onnx.ModelProto:
    return helper.make_model(graph(helper.make_node("Constant", [], ["c"], value=external())))


def in_subgraph() -> onnx.ModelProto:
    inner = graph(helper.make_node("Constant", [], ["c"], value=external()))
    return helper.make_model(graph(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=graph())))


def in_sparse() -> onnx.ModelProto:
    model = helper.make_model(graph())
    model.graph.sparse_initializer.add().values.CopyFrom(external())
    return model


def in_function() -> onnx.ModelProto:
    model = helper.make_model(graph())
    function = model.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["c"], value=external()))
    return model


def in_function_default() -> onnx.ModelProto:
    model = helper.make_model(graph())
    function = model.functions.add(name="f", domain="d")
    function.attribute_proto.append(helper.make_attribute("a", external()))
    return model


@pytest.mark.parametrize(
    "make", [in_initializer, in_constant, in_subgraph, in_sparse, in_function, in_function_default]
)
def test_external_data_is_found(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    assert has_external_data(tmp_path / "model.onnx")


def test_a_file_that_holds_its_weights_is_fine(tmp_path: Path) -> None:
    model = helper.make_model(graph(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(9)))))
    onnx.save(model, tmp_path / "model.onnx")
    assert not has_external_data(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not protocol buffers",
        helper.make_model(graph(helper.make_node("Relu", ["x"], ["y"]))).SerializeToString()[:20],
        b"\xba\x80\x80\x80\x10\x00",  # the graph's key, written with more bits than a key has
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80" * 20,
    ],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        has_external_data(tmp_path / "model.onnx")


def test_the_axes_of_an_input_are_named_where_the_graph_names_them(tmp_path: Path) -> None:
    shapes: dict[str, list[str | int | None] | None] = {
        "size": [2],
        "image": ["batch", 3, None, "width"],
        "flat": [],
        "open": None,
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    onnx.save(helper.make_model(helper.make_graph([], "g", inputs, [])), tmp_path / "model.onnx")
    assert axis_names(tmp_path / "model.onnx", "image") == ("batch", None, None, "width")
    assert axis_names(tmp_path / "model.onnx", "size") == (None,)
    for name in ("flat", "open", "another"):
        assert axis_names(tmp_path / "model.onnx", name) == ()
