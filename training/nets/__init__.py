"""A net's name in, the net out: the architectures that segserve ships, each in a file of its own."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from training.nets.bayesian_segnet import BayesianSegNet
from training.nets.deconvnet import DeconvNet
from training.nets.efficientnet_lite import Lite0, Lite1, Lite2
from training.nets.enet import ENet
from training.nets.erfnet import ERFNet
from training.nets.fcn import FCN8s, FCN16s, FCN32s
from training.nets.light import Light
from training.nets.linknet import LinkNet
from training.nets.segnet import SegNet
from training.nets.segnet_basic import SegNetBasic
from training.nets.unet import UNet


class NetClass(Protocol):
    """What a built-in net's class offers."""

    stride: int

    def __call__(self, classes: int, width: int = ...) -> nn.Module:
        """A net with fresh weights; `width` is the number of channels of its first stage."""


NETS: dict[str, NetClass] = {
    "segnet": SegNet,
    "segnet-basic": SegNetBasic,
    "bayesian-segnet": BayesianSegNet,
    "deconvnet": DeconvNet,
    "enet": ENet,
    "erfnet": ERFNet,
    "unet": UNet,
    "linknet": LinkNet,
    "fcn-32s": FCN32s,
    "fcn-16s": FCN16s,
    "fcn-8s": FCN8s,
    "light": Light,
    "efficientnet-lite0": Lite0,
    "efficientnet-lite1": Lite1,
    "efficientnet-lite2": Lite2,
}


def build_net(name: str, classes: int, width: int | None = None) -> nn.Module:
    """The built-in net `name` with fresh weights for `classes` classes; `width` None means the paper's.

    Raises ValueError where there is no net of that name.
    """
    if name not in NETS:
        raise ValueError(f"there is no built-in net {name!r}: choose one of {', '.join(sorted(NETS))}")
    return NETS[name](classes) if width is None else NETS[name](classes, width)
