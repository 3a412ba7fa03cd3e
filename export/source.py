"""A trained net as the export takes it, and the built-in ones: a name and a checkpoint in, such a net out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.export import ExportedProgram

from export.checkpoint import Weights, put_into, read_weights
from export.convert import quiet
from export.errors import ExportError, UnknownNet
from export.feed import Feed
from export.prove import TorchNet
from export.refusal import Refusal, first_line
from export.tracing import ServedNet, trace
from service.graph import Net
from service.manifest import ClassList, ClassSpec, InputSpec, OutputSpec


@dataclass(frozen=True)
class Candidate:
    """A program of a net, what it takes and answers, and why it is no freer (empty: nothing is missing)."""

    program: ExportedProgram
    input: InputSpec
    output: OutputSpec = field(default_factory=OutputSpec)
    why: str = ""


@dataclass(frozen=True)
class TrainedNet:
    """A net that can be exported.

    `candidates` are its programs, the best one first; `reference` is the net itself, in PyTorch, to which the graph is
    held. Then its classes, the label ids that do not count, where it comes from and how good it is. `state` are weights
    that go into the bundle (None: they do not), with `notes`, what segserve-train wrote beside them. `remarks` are for
    whoever exports it.
    """

    candidates: Iterable[Candidate]
    reference: Net
    classes: tuple[ClassSpec, ...]
    ignore: tuple[int, ...]
    source: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def load_builtin(
    name: str,
    checkpoint: Path,
    classes: ClassList,
    feed: Feed,
    net_width: int | None = None,
    weights_key: str | None = None,
    half_weights: bool = False,
) -> TrainedNet:
    """The built-in net `name` with the weights in `checkpoint`.

    A `.safetensors` file of segserve-train says itself how wide the net is and what input it takes; for a bare state
    dict `net_width` (None: the paper's) and `feed` do. `half_weights`: the layers' weights are rounded to float16.
    Raises UnknownNet, or ExportError where the checkpoint does not fit the net or the classes.
    """
    # Imported here: export needs the nets only for a built-in one.
    from training.nets import NETS

    if name not in NETS:
        raise UnknownNet(
            f"there is no built-in net {name!r}: choose one of {', '.join(sorted(NETS))}, or name your own as "
            "module:factory or as a .pt2 file"
        )
    stride, notes = NETS[name].stride, _notes(checkpoint)
    recipe = json.loads(notes["recipe"]) if "recipe" in notes else {}
    if recipe and recipe["net"] != name:
        raise ExportError(f"{checkpoint} holds {recipe['net']}, not {name}")
    known = "input" in notes
    if known and (feed, net_width) != (Feed(), None):
        raise ExportError(f"{checkpoint} says itself what net and input it is for: leave the options away")
    spec = InputSpec.model_validate_json(notes["input"]) if known else feed.spec(stride)
    if spec.depth != 3:
        raise ExportError(f"{name} takes colour pictures: --channels RGB or BGR")
    width = recipe["net_width"] if known else net_width
    weights = read_weights(checkpoint, weights_key)
    net, channels = _fit(name, width, weights, classes)
    state = net.state_dict()
    if half_weights:
        state = _halved(state)
        net.load_state_dict(state)
    metrics = json.loads(notes.get("metrics", "{}"))
    output = OutputSpec(temperature=metrics.get("temperature", 1.0))
    served = ServedNet(net, spec.scale, spec.mean, spec.std).eval()
    source = {"net": name} | ({"net_width": width} if width else {}) | ({"recipe": recipe} if recipe else {})
    source |= {"weights": "rounded to float16"} if half_weights else {}
    return TrainedNet(
        candidates=(Candidate(_trace(served, stride, spec), spec, output),),
        reference=TorchNet(served),
        classes=channels,
        ignore=classes.ignore,
        source=source,
        metrics=metrics,
        state=state,
        notes=notes,
        remarks=(str(weights),) if weights.key else (),
    )


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the weights of layers, nearly all there is, in half precision; what normalises them stays as it is."""
    return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}


def _trace(served: ServedNet, stride: int, spec: InputSpec) -> ExportedProgram:
    try:
        with quiet():
            return trace(served, stride, (spec.height or 6 * stride, spec.width or 8 * stride))
    except Exception as error:
        raise ExportError(f"torch cannot follow the net: {first_line(error)}") from error


def _notes(checkpoint: Path) -> dict[str, str]:
    """What segserve-train wrote beside the weights: recipe, input and metrics, each as JSON; else nothing."""
    if checkpoint.suffix != ".safetensors":
        return {}
    try:
        with safe_open(checkpoint, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _fit(name: str, width: int | None, weights: Weights, classes: ClassList) -> tuple[nn.Module, tuple[ClassSpec, ...]]:
    """The net with these weights, for all classes of the list or for those that are scored, whichever they were
    trained for."""
    from training.nets import build_net

    reasons = []
    for channels in dict.fromkeys((classes.channels, classes.classes)):
        net = build_net(name, len(channels), width)
        try:
            put_into(net, weights.state)
        except Refusal as error:
            reasons.append(f"with {len(channels)} classes, {error}")
        else:
            return net.eval(), channels
    raise ExportError(f"the checkpoint does not fit {name}: {'; '.join(reasons)}")
