"""A float32 graph and the ranges of its tensors in, a graph whose convolutions compute in int8 out: static QDQ.

Activations become unsigned, weights signed with a scale for each channel: what CPUs multiply four at a time (VNNI).
Without VNNI they add two products in 16 bits, which saturate unless the weights have only 7.
Only convolutions are worth it. What passes their values on is quantized with them where all that reads it is, so that
values stay int8 from one convolution to the next. Everything else stays float: the preparation of the picture,
unpooling with its positions, transposed convolution (onnxruntime has none in int8), and the last convolution, which is
cheap and whose rounding would decide between classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto
from onnxruntime.quantization import QDQQuantizer, QuantType, TensorsData, quant_pre_process

from export.calibrate import quiet
from export.errors import ExportError

LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
REMOVABLE = ("Relu", "Clip")
"""After a quantized convolution they are nothing but the lower and upper end of its range."""

PASSAGES = (*REMOVABLE, "LeakyRelu", "MaxPool", "AveragePool", "Concat", "Add")
OPERATORS = ("Conv", *PASSAGES)
COMPARED = ("Less", "Max")
"""What tells where a maximum is; its operands must not be rounded."""

OPSET = 13
"""The first with a scale for each channel."""


def preprocess(source: Path, target: Path) -> None:
    """Write the graph in `source` to `target`: constants folded, batch norms in their convolutions, shapes inferred,
    every node with a name. Raises ExportError where that fails."""
    try:
        with quiet():
            model = onnx.load(source)
            if max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < OPSET:
                model = onnx.version_converter.convert_version(model, OPSET)
            onnx.save(model, target)
            quant_pre_process(target, target, skip_symbolic_shape=True)
            model = onnx.load(target)
    except Exception as error:  # whatever a foreign graph may do
        raise ExportError(f"the graph cannot be prepared for int8: {' '.join(str(error).split())[:300]}") from error
    name_nodes(model)
    onnx.save(model, target)


def name_nodes(model: ModelProto) -> None:
    """Give each node of the graph a name of its own, in place."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def convolutions(model: ModelProto) -> tuple[str, ...]:
    """The names of the convolutions that can be int8, in the graph's order: all with constant weights but the last,
    those that no other layer comes after, and those whose values are only compared: that says where a maximum was."""
    readers = _readers(model)
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    leading_on: set[str] = set()
    for node in reversed(model.graph.node):
        following = [reader for output in node.output for reader in readers[output]]
        if any(reader.op_type in LAYERS or reader.name in leading_on for reader in following):
            leading_on.add(node.name)
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.input[1] in constants
        and node.name in leading_on
        and any(reader.op_type not in COMPARED for reader in readers[node.output[0]])
    )


def to_int8(
    source: Path, target: Path, tensor_ranges: TensorsData, layers: Collection[str], reduce_range: bool = False
) -> None:
    """Write the graph in `source`, as `preprocess` wrote it, to `target` with these of its convolutions in int8; with
    `reduce_range` their weights have 7 bits."""
    model = onnx.load(source)
    with quiet():
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=tensor_ranges,
            nodes_to_quantize=[*layers, *_passages(model, layers)],
            nodes_to_exclude=[],
            op_types_to_quantize=list(OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantized: ModelProto = quantizer.model.model
    write_clean(quantized, target)


def write_clean(model: ModelProto, target: Path) -> None:
    """Write the model without the tools' notes, with its own. Raises ExportError where the ONNX checker refuses it."""
    own = [entry for entry in model.metadata_props if not entry.key.startswith("onnx.")]
    del model.metadata_props[:]
    model.metadata_props.extend(own)
    model.producer_name, model.producer_version = "segserve", ""
    target.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the reduced graph is not valid ONNX: {error}") from error


def _passages(model: ModelProto, layers: Collection[str]) -> list[str]:
    """The nodes between convolutions that are quantized with `layers`: those that only quantized nodes read."""
    readers = _readers(model)
    quantized = set(layers)
    found: list[str] = []
    for node in reversed(model.graph.node):
        reading: Sequence[NodeProto] = readers[node.output[0]]
        all_quantized = bool(reading) and all(reader.name in quantized for reader in reading)
        if node.op_type in REMOVABLE or (node.op_type in PASSAGES and all_quantized):
            found.append(node.name)
            if all_quantized:
                quantized.add(node.name)
    return found


def _readers(model: ModelProto) -> dict[str, list[NodeProto]]:
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers
