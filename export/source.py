"""A built-in net's name and a checkpoint in, the net with its weights and what is known about it out."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import ExportError, UnknownNet
from service.manifest import ClassList, ClassSpec, InputSpec


@dataclass(frozen=True)
class TrainedNet:
    """A net in eval mode, its classes, the label ids that do not count, its input, and where it comes from."""

    net: nn.Module
    stride: int
    classes: tuple[ClassSpec, ...]
    ignore: tuple[int, ...]
    input: InputSpec
    state: dict[str, Tensor]
    source: dict[str, Any]
    metrics: dict[str, Any]


def load_builtin(name: str, checkpoint: Path, classes: ClassList) -> TrainedNet:
    """The built-in net `name` with the weights in `checkpoint`.

    A `.safetensors` file of segserve-train says itself how wide the net is and what input it takes; a bare state dict
    (`.pt`, `.pth`, `.safetensors`) is taken for the paper's net on pictures of any size, scaled to 0..1.
    Raises UnknownNet, or ExportError where the checkpoint does not fit the net or the classes.
    """
    # Imported here: export needs the nets only for a built-in one.
    from training.nets import NETS

    if name not in NETS:
        raise UnknownNet(f"there is no built-in net {name!r}: choose one of {', '.join(sorted(NETS))}")
    stride, notes = NETS[name].stride, _notes(checkpoint)
    recipe = json.loads(notes["recipe"]) if "recipe" in notes else {}
    if recipe and recipe["net"] != name:
        raise ExportError(f"{checkpoint} holds a {recipe['net']}, not a {name}")
    spec = InputSpec(fit="native", multiple_of=stride)
    if "input" in notes:
        spec = InputSpec.model_validate_json(notes["input"])
    state = _read_state(checkpoint)
    net, channels = _fit(name, recipe.get("net_width"), state, classes)
    source = {"net": name} | ({"recipe": recipe} if recipe else {})
    metrics = json.loads(notes.get("metrics", "{}"))
    return TrainedNet(net, stride, channels, classes.ignore, spec, state, source, metrics)


def _notes(checkpoint: Path) -> dict[str, str]:
    """What segserve-train wrote beside the weights: recipe, input and metrics, each as JSON; else nothing."""
    if checkpoint.suffix != ".safetensors":
        return {}
    try:
        with safe_open(checkpoint, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _read_state(path: Path) -> dict[str, Tensor]:
    """A bare state dict. Raises ExportError for anything else; a pickle is read without running its code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: what cannot be read is an error of its own
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none fails anywhere in pickle, zipfile or torch
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(
            f"{path} is no checkpoint that can be read (a state dict, saved by torch.save): {reason}"
        ) from error
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not named or not state:
        raise ExportError(f"{path} is no state dict: save net.state_dict(), names to tensors, and nothing else")
    return dict(state)


def _fit(
    name: str, width: int | None, state: dict[str, Tensor], classes: ClassList
) -> tuple[nn.Module, tuple[ClassSpec, ...]]:
    """The net with these weights, for all classes of the list or for those that are scored, whichever they were
    trained for."""
    from training.nets import build_net

    reasons = []
    for channels in dict.fromkeys((classes.channels, classes.classes)):
        net = build_net(name, len(channels), width)
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            reasons.append(f"with {len(channels)} classes: {' '.join(str(error).split())[:300]}")
        else:
            return net.eval(), channels
    raise ExportError(f"the checkpoint does not fit {name}: {'; '.join(reasons)}")
