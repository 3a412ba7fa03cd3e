"""A foreign ONNX file in, the same as one file that the service can open out, and what is known of where it comes from.

A file that needs nothing done is taken byte for byte. No torch.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, helper

from export.errors import ExportError

Precision = Literal["fp32", "fp16", "int8"]

OLDEST_OPSET = 7
"""onnxruntime promises to run operators from this version on."""

STANDARD = ("", "ai.onnx")
KNOWN_DOMAINS = (*STANDARD, "ai.onnx.ml", "com.microsoft")
"""The domains whose operators onnxruntime brings along."""

CAST = {TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}
"""Inputs that get a Cast, since the service feeds float32 and uint8."""

LARGEST_BYTES = 2**31 - 1
"""A protocol-buffers message cannot be longer."""


@dataclass(frozen=True)
class Foreign:
    """What a foreign file is: its weights' precision, how its max-unpoolings are written, and where it comes from."""

    precision: Precision
    lowering: str
    source: dict[str, Any]


def take_over(file: Path, target: Path) -> Foreign:
    """Write the graph in `file` to `target`.

    Raises ExportError where it is no ONNX file, needs what onnxruntime does not have, or lacks its weights.
    """
    model = _read(file)
    _check_operators(model, file)
    changes = [*_fold(model, file), *_cast_inputs(model)]
    if changes:
        target.write_bytes(model.SerializeToString(deterministic=True))
    else:
        shutil.copyfile(file, target)
    source = {
        "file": file.name,
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "producer": f"{model.producer_name} {model.producer_version}".strip() or "an unnamed producer",
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "changes": changes,
    }
    operators = {node.op_type for node in _nodes(model)}
    return Foreign(_precision(model, operators), _lowering(operators), source)


def _read(file: Path) -> ModelProto:
    """The file's message, without weights that lie in other files."""
    try:
        model = onnx.load(file, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise ExportError(f"{file} is no ONNX file, or cut off") from error
    if not model.graph.node:
        raise ExportError(f"{file} is no ONNX file, or cut off: it holds no operator")
    return model


def _check_operators(model: ModelProto, file: Path) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    strange = sorted(
        {
            f"{node.domain}.{node.op_type}".lstrip(".")
            for node in _nodes(model)
            if (node.domain, node.op_type) not in own and not _is_known(node)
        }
    )
    if strange:
        raise ExportError(
            f"{file} needs the operators {', '.join(strange)}, which onnxruntime does not have, and the service loads "
            "no libraries: export it with standard operators"
        )
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        operators = ", ".join(sorted({node.op_type for node in _nodes(model)}))
        raise ExportError(
            f"{file} has opset {opset}, onnxruntime runs {operators} from opset {OLDEST_OPSET} on: "
            "onnx.version_converter can raise it"
        )


def _is_known(node: NodeProto) -> bool:
    return onnx.defs.has(node.op_type) if node.domain in STANDARD else node.domain in KNOWN_DOMAINS


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every operator of the model, those of its functions and of graphs inside operators included."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node


def _fold(model: ModelProto, file: Path) -> list[str]:
    """Take weights that lie in other files into the model; what was done."""
    outside = [tensor for tensor in model.graph.initializer if external_data_helper.uses_external_data(tensor)]
    if not outside:
        return []
    try:
        external_data_helper.load_external_data_for_model(model, str(file.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"{file} has weights in other files, which cannot be read: they must lie beside it ({error})"
        ) from error
    if model.ByteSize() > LARGEST_BYTES:
        raise ExportError(f"{file} has more than 2 GB of weights in other files: the service opens single files")
    return [f"the weights of {len(outside)} tensors, which lay in other files, taken into it"]


def _cast_inputs(model: ModelProto) -> list[str]:
    """Put a Cast before inputs of other floating-point types than float32; what was done."""
    weights = {tensor.name for tensor in model.graph.initializer}
    changes = []
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if value.name in weights or kind not in CAST:
            continue
        inside = value.name
        value.name = f"{inside}_float32"
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        model.graph.node.insert(0, helper.make_node("Cast", [value.name], [inside], to=kind))
        changes.append(f"a Cast from float32 to {CAST[kind]} before the input {inside}")
    return changes


def _precision(model: ModelProto, operators: set[str]) -> Precision:
    if operators & {"QLinearConv", "ConvInteger", "DequantizeLinear"}:
        return "int8"
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    return "fp16" if TensorProto.FLOAT16 in kinds and TensorProto.FLOAT not in kinds else "fp32"


def _lowering(operators: set[str]) -> str:
    if "MaxUnpool" in operators:
        return "native"
    return "scatter" if operators & {"ScatterElements", "ScatterND"} else "none"
