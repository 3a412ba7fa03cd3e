"""An exported program in, one ONNX file out: `image` (uint8, NHWC) to `logits`."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch.export import ExportedProgram

from export.errors import ExportError
from export.lowering import Choice, Lowering, Provider, choose_forms
from export.refusal import first_line
from export.rewrite import Prelu, rewrite_for_cpu, tidy
from export.unpool import TABLE

OPSET = 18


def convert(
    program: ExportedProgram,
    path: Path,
    lowering: Choice = "auto",
    provider: Provider = "cpu",
    notes: Mapping[str, str] | None = None,
    prelu: Prelu = "exact",
) -> Lowering:
    """Write `program` as ONNX to `path`, with `notes` as its metadata; returns how unpooling was expressed.

    `prelu` says how PReLU is written for the CPU provider.

    `program` is changed on the way. Raises ExportError, naming what the exporter or the ONNX checker found, or why
    unpooling cannot take the form that `lowering` asks for.
    """
    chosen = choose_forms(program, lowering, provider)
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                (),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                custom_translation_table=TABLE,
            )
    except Exception as error:
        raise ExportError(f"torch cannot write the net as ONNX: {first_line(error.__cause__ or error)}") from error
    assert exported is not None
    if provider == "cpu":
        rewrite_for_cpu(exported.model, prelu)
    tidy(exported.model)
    model = _finish(_with_side_names(exported.model_proto))
    onnx.helper.set_model_props(model, dict(notes or {}))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return chosen


def _with_side_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its free sides called batch, height and width instead of the tracer's symbols."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: name for axis, name in enumerate(("batch", "height", "width"))}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda match: names.get(match[0], match[0]), dim.dim_param)
    return model


def _finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes (source paths among them), checked and with shapes inferred.

    Raises ExportError where the ONNX checker or shape inference refuses it.
    """
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.ClearField("doc_string")
        del tensor.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.producer_name, model.producer_version = "segserve", ""
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's chatter about optional packages and its own deprecations."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
