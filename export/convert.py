"""A PyTorch net in, one ONNX file with dynamic batch, height and width out: `image` (uint8, NHWC) to `logits`."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from export.errors import ExportError
from export.lowering import Lowering, choose_lowering
from service.manifest import InputSpec

OPSET = 18

LARGEST_SIDE = 16_384
"""The longest side in pixels that the exported graph promises to take."""


class ServedNet(nn.Module):
    """A net with its preprocessing: pictures uint8 (N, H, W, 3) to logits float32 (N, classes, H, W).

    The arithmetic is training's, operation for operation; zero means and unit deviations are left out.
    """

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.net = net
        self.scale = spec.scale
        self.shift = any(spec.mean)
        self.stretch = any(value != 1 for value in spec.std)
        self.mean = nn.Buffer(torch.tensor(spec.mean).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(spec.std).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """As the class says."""
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        if self.scale != 1:
            x = x / self.scale
        if self.shift:
            x = x - self.mean
        if self.stretch:
            x = x / self.std
        logits: Tensor = self.net(x)
        return logits


def convert(net: ServedNet, path: Path, smallest: int, example: tuple[int, int]) -> Lowering:
    """Write `net` (in eval mode) as ONNX to `path`; returns how unpooling was expressed.

    `smallest` is the shortest side that the net takes, `example` a height and width to trace it at.
    Raises ExportError, naming what the exporter or the ONNX checker found.
    """
    try:
        with _quiet():
            program = _trace(net, smallest, example)
            lowering = choose_lowering(program)
            exported = torch.onnx.export(
                program,
                (),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                custom_translation_table=lowering.table or None,
            )
    except Exception as error:
        raise ExportError(f"torch cannot export the net: {str(error).strip().splitlines()[0]}") from error
    assert exported is not None
    model = _finish(_with_side_names(exported.model_proto))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return lowering


def _trace(net: ServedNet, smallest: int, example: tuple[int, int]) -> ExportedProgram:
    # PyTorch treats sides of 0 and 1 as constants: at twice the smallest size every feature map has at least 2.
    sides = {axis: Dim(name, min=2 * smallest, max=LARGEST_SIDE) for axis, name in ((1, "height"), (2, "width"))}
    image = torch.zeros((2, *example, 3), dtype=torch.uint8)
    # Comparisons that always hold but that the symbolic engine cannot prove (2 * (H // 2) <= H) become assertions at
    # run time, which ONNX leaves out, instead of errors.
    return torch.export.export(
        net,
        (image,),
        dynamic_shapes=({0: Dim("batch"), **sides},),
        prefer_deferred_runtime_asserts_over_guards=True,
    )


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
def _quiet() -> Iterator[None]:
    """Silence the exporter's chatter about optional packages and its own deprecations."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
