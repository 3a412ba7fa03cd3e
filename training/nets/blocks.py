"""Feature maps in, feature maps out: the pieces that more than one net is built from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def max_unpool(values: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """Put `values` (N, C, h, w) back where a max-pool found them, zeros elsewhere.

    `indices` (int64, flat inside one plane) come from the pool whose input had the size of `like`; the result has
    that height and width. The operator is called directly because `nn.MaxUnpool2d` first compares the wanted size
    with a default one, a comparison that `torch.export` cannot carry through with dynamic sides.
    """
    height, width = like.shape[-2:]
    return torch.ops.aten.max_unpool2d(values, indices, [height, width])  # type: ignore[no-any-return]


def grow_to(values: Tensor, like: Tensor) -> Tensor:
    """Zero-pad `values` at the right and bottom to the height and width of `like`: the odd row and column that a
    floor-dividing downsampling dropped."""
    height, width = like.shape[-2:]
    return F.pad(values, (0, width - values.shape[-1], 0, height - values.shape[-2]))


def conv_bn_relu(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def check_size(image: Tensor, smallest: int) -> None:
    """Raise ValueError where a side is shorter than `smallest`, so that nothing would be left after the last pool."""
    height, width = image.shape[-2:]
    if height < smallest or width < smallest:
        raise ValueError(
            f"the picture is {width}x{height}, but this net halves it until {smallest} pixels are one: "
            f"both sides must be at least {smallest}"
        )
