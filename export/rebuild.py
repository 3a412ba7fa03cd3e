"""A bundle's weights and manifest in, the PyTorch net that it was exported from out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import ExportError
from export.prove import TorchNet
from export.tracing import ServedNet
from service.manifest import Manifest
from training.nets import NETS, build_net


def rebuild(weights: Path, manifest: Manifest) -> TorchNet | None:
    """The net, as its graph's reference; None where it is no built-in one.

    Raises ExportError where the weights are not those of the net that `model.json` names.
    """
    name = manifest.source.get("net")
    if name not in NETS:
        return None
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{weights} cannot be read: {error}") from error
    for width in dict.fromkeys(_widths(name, manifest, state)):
        net = build_net(name, len(manifest.classes), width)
        if _fits(net, state):
            spec = manifest.input
            return TorchNet(ServedNet(net.eval(), spec.scale, spec.mean, spec.std).eval())
    raise ExportError(f"{weights} holds no {name} of {len(manifest.classes)} classes: is it the bundle's own?")


def _widths(name: str, manifest: Manifest, state: dict[str, Tensor]) -> Iterator[int | None]:
    """What the width of the net's first stage may be: as recorded, else as the first weights' shapes tell."""
    source = manifest.source
    recorded: int | None = source.get("recipe", {}).get("net_width", source.get("net_width"))
    yield recorded
    for key in list(NETS[name](len(manifest.classes)).state_dict())[:2]:
        if key in state:
            yield state[key].shape[0]


def _fits(net: nn.Module, state: dict[str, Tensor]) -> bool:
    try:
        net.load_state_dict(state)
    except RuntimeError:
        return False
    return True
