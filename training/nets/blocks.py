"""Feature maps in, feature maps out: the pieces that more than one net is built from."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG_CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Convolutions per stage: the 13 convolutional layers of VGG16."""

VGG_GROWTH = (1, 2, 4, 8, 8)
"""Channels per stage of VGG16, in units of the first stage's width."""


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


def crop_to(values: Tensor, like: Tensor) -> Tensor:
    """Cut `values` at the right and bottom to the height and width of `like`: what an upsampling made too much where a
    downsampling had rounded up."""
    height, width = like.shape[-2:]
    return values[..., :height, :width]


def interpolate_to(values: Tensor, like: Tensor) -> Tensor:
    """`values` (N, C, h, w), bilinearly brought to the height and width of `like`, as the service does it."""
    return F.interpolate(values, size=like.shape[-2:], mode="bilinear", align_corners=False)


def conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm; the size stays, but for the stride."""
    convolution = nn.Conv2d(
        channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))


def conv_bn_relu(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def conv_stage(channels: list[int]) -> nn.Sequential:
    """3x3 convolutions, each with batch norm and ReLU, from the first number of channels to the last."""
    return nn.Sequential(*(conv_bn_relu(a, b) for a, b in pairwise(channels)))


def vgg_encoder(width: int) -> nn.ModuleList:
    """The five stages of VGG16 with batch norm, `width` channels in the first; the pools between them are not in it."""
    stages, previous = nn.ModuleList(), 3
    for growth, depth in zip(VGG_GROWTH, VGG_CONVOLUTIONS, strict=True):
        stages.append(conv_stage([previous] + [width * growth] * depth))
        previous = width * growth
    return stages


def check_size(image: Tensor, smallest: int) -> None:
    """Raise ValueError where a side is shorter than `smallest`, so that nothing would be left after the last pool."""
    height, width = image.shape[-2:]
    if height < smallest or width < smallest:
        raise ValueError(
            f"the picture is {width}x{height}, but this net halves it until {smallest} pixels are one: "
            f"both sides must be at least {smallest}"
        )
