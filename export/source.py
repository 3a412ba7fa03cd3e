"""A built-in net's name and a checkpoint in, the net with its weights and what is known about it out."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import ExportError
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
    Raises ExportError where there is no such net, or the checkpoint does not fit it or the classes.
    """
    # Imported here: of the training room, export needs the nets alone, and only for a built-in one.
    from training.checkpoint import Checkpoint
    from training.nets import NETS

    if name not in NETS:
        raise ExportError(f"there is no built-in net {name!r}: choose one of {', '.join(sorted(NETS))}")
    stride = NETS[name].stride
    source: dict[str, Any] = {"net": name}
    if not Checkpoint.is_one(checkpoint):
        spec = InputSpec(fit="native", multiple_of=stride)
        state = _read_state(checkpoint)
        net, channels = _fit(name, None, state, classes)
        return TrainedNet(net, stride, channels, classes.ignore, spec, state, source, {})
    trained = Checkpoint.load(checkpoint)
    if trained.recipe.net != name:
        raise ExportError(f"{checkpoint} holds a {trained.recipe.net}, not a {name}")
    source["recipe"] = trained.recipe.model_dump(mode="json")
    net, channels = _fit(name, trained.recipe.net_width, trained.state, classes)
    return TrainedNet(
        net, stride, channels, classes.ignore, trained.recipe.input, trained.state, source, trained.metrics
    )


def _read_state(path: Path) -> dict[str, Tensor]:
    """A bare state dict. Raises ExportError for anything else; a pickle is read without running its code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: what cannot be read is an error of its own
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"{path} is no checkpoint that can be read (a state dict, saved by torch.save): {reason}"
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExportError(f"{path} is no state dict: save net.state_dict(), names to tensors, and nothing else")
    return state


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
