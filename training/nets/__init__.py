"""A net's name in, the net out: the architectures that segserve ships, each in a file of its own."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from training.nets.enet import ENet
from training.nets.segnet import SegNet
from training.nets.unet import UNet


class NetClass(Protocol):
    """What a built-in net's class offers."""

    stride: int

    def __call__(self, classes: int, width: int = ...) -> nn.Module:
        """A net with fresh weights; `width` is the number of channels of its first stage."""


NETS: dict[str, NetClass] = {"segnet": SegNet, "enet": ENet, "unet": UNet}


def build_net(name: str, classes: int, width: int | None = None) -> nn.Module:
    """The built-in net `name` with fresh weights for `classes` classes; `width` None means the paper's.

    Raises ValueError where there is no net of that name.
    """
    if name not in NETS:
        raise ValueError(f"there is no built-in net {name!r}: choose one of {', '.join(sorted(NETS))}")
    return NETS[name](classes) if width is None else NETS[name](classes, width)
