"""A built-in net's name and a checkpoint in, the net with its weights and what is known about it out."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import ExportError, UnknownNet
from service.manifest import ClassList, ClassSpec, InputSpec


@dataclass(frozen=True)
class TrainedNet:
    """A net in eval mode, its classes, the label ids that do not count, its input, and where it comes from; `notes` are
    what segserve-train wrote beside the weights, which stay with them."""

    net: nn.Module
    stride: int
    classes: tuple[ClassSpec, ...]
    ignore: tuple[int, ...]
    input: InputSpec
    state: dict[str, Tensor]
    source: dict[str, Any]
    metrics: dict[str, Any]
    notes: dict[str, str]


@dataclass(frozen=True)
class Bare:
    """What a bare state dict does not say: the net's width (None: the paper's), the size it takes (None: any), and the
    normalisation x = (value / 255 - mean) / std."""

    net_width: int | None = None
    height: int | None = None
    width: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def input(self, stride: int) -> InputSpec:
        """Raises ValueError where only one side is given."""
        fit: Literal["native", "stretch"] = "native" if self.height is None and self.width is None else "stretch"
        return InputSpec(
            fit=fit, height=self.height, width=self.width, multiple_of=stride, mean=self.mean, std=self.std
        )


def load_builtin(name: str, checkpoint: Path, classes: ClassList, bare: Bare) -> TrainedNet:
    """The built-in net `name` with the weights in `checkpoint`.

    A `.safetensors` file of segserve-train says itself how wide the net is and what input it takes; for a bare state
    dict (`.pt`, `.pth`, `.safetensors`) `bare` does.
    Raises UnknownNet, or ExportError where the checkpoint does not fit the net or the classes.
    """
    # Imported here: export needs the nets only for a built-in one.
    from training.nets import NETS

    if name not in NETS:
        raise UnknownNet(f"there is no built-in net {name!r}: choose one of {', '.join(sorted(NETS))}")
    stride, notes = NETS[name].stride, _notes(checkpoint)
    recipe = json.loads(notes["recipe"]) if "recipe" in notes else {}
    if recipe and recipe["net"] != name:
        raise ExportError(f"{checkpoint} holds {recipe['net']}, not {name}")
    known = "input" in notes
    if known and bare != Bare():
        raise ExportError(f"{checkpoint} says itself what net and input it is for: leave the options away")
    spec = InputSpec.model_validate_json(notes["input"]) if known else bare.input(stride)
    state = _read_state(checkpoint)
    net, channels = _fit(name, recipe["net_width"] if known else bare.net_width, state, classes)
    source = {"net": name} | ({"recipe": recipe} if recipe else {})
    metrics = json.loads(notes.get("metrics", "{}"))
    return TrainedNet(net, stride, channels, classes.ignore, spec, state, source, metrics, notes)


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
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path} is no state dict: it holds more than tensors, which is not read, since reading it would run its "
            "code; save net.state_dict() with torch.save"
        ) from error
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
        except RuntimeError:
            reasons.append(f"with {len(channels)} classes, {_misfit(net, state)}")
        else:
            return net.eval(), channels
    raise ExportError(f"the checkpoint does not fit {name}: {'; '.join(reasons)}")


def _misfit(net: nn.Module, state: dict[str, Tensor]) -> str:
    """How the weights differ from the net's, in a few words."""
    own = net.state_dict()
    missing, unknown = [key for key in own if key not in state], [key for key in state if key not in own]
    other = [
        f"{key} (here {'x'.join(map(str, state[key].shape))}, in the net {'x'.join(map(str, own[key].shape))})"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    return ", ".join(f"{len(keys)} weights are {what} ({keys[0]} first)" for what, keys in parts if keys)
