"""A float32 graph in, the same in float16 between a float32 preparation of the picture and float32 scores out."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from export.calibrate import quiet
from export.errors import ExportError
from export.int8 import LAYERS, name_nodes, write_clean

HALF_ON_GPUS = ("Max", "Min")
"""The converter leaves these in float32, for providers that GPUs are not."""


def to_half(source: Path, target: Path) -> None:
    """Write the graph in `source` to `target`, its layers in float16.

    Raises ExportError where it unpools with MaxUnpool, which no provider has in float16, or cannot be converted.
    """
    model = onnx.load(source)
    if any(node.op_type == "MaxUnpool" for node in model.graph.node):
        raise ExportError(
            "the graph holds MaxUnpool, which is float32 only on the CPU and which GPU providers lack: export the net "
            "again with `segserve-export net ... --lowering indexfree`, then quantize that bundle"
        )
    name_nodes(model)
    blocked = [name for name in DEFAULT_OP_BLOCK_LIST if name not in HALF_ON_GPUS]
    try:
        with quiet():
            half = convert_float_to_float16(
                model, keep_io_types=True, op_block_list=blocked, node_block_list=_preparation(model)
            )
    except Exception as error:  # whatever a foreign graph may do
        raise ExportError(f"the graph cannot be converted: {' '.join(str(error).split())[:300]}") from error
    _drop_round_trips(half)
    sorted_half = ONNXModel(half)
    sorted_half.topological_sort()
    write_clean(sorted_half.model, target)


def _drop_round_trips(model: ModelProto) -> None:
    """The converter leads values from one float32 node to the next through float16: lead them straight."""
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            up = casts.get(name)
            down = casts.get(up.input[0]) if up is not None and _to(up) == TensorProto.FLOAT else None
            if down is not None and _to(down) == TensorProto.FLOAT16:
                node.input[index] = down.input[0]
    for _ in range(2):  # first the casts up that nothing reads any more, then those down to them
        read = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
        kept = [node for node in model.graph.node if node.op_type != "Cast" or node.output[0] in read]
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _to(cast: NodeProto) -> int:
    return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))


def _preparation(model: ModelProto) -> list[str]:
    """The names of the nodes before the first layer: (value / scale - mean) / std is float32 in every precision."""
    late: set[str] = set()
    names = []
    for node in model.graph.node:
        if node.op_type in LAYERS or late.intersection(node.input):
            late.update(node.output)
        else:
            names.append(node.name)
    return names
