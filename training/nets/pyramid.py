"""Feature maps of an encoder in, one map at the size of the largest out: a light decoder that adds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import conv_bn, interpolate_to


class Pyramid(nn.Module):
    """A decoder made for CPUs. From no paper; each choice has its source:

    * The deepest map is weighted, channel by channel, by a sigmoid of its mean over the picture: context of any reach,
      from LR-ASPP (Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244).
    * It climbs as U-Net's does (Ronneberger et al., 2015), but adds where that concatenates, after 1x1 convolutions to
      one narrow width, as in FPN (Lin et al., CVPR 2017, arXiv:1612.03144): half the channels to convolve. Two
      separable convolutions a level; upsampling is bilinear, with nothing to learn.

    Input: float32 maps (N, channels[i], H_i, W_i), the largest first. Output: float32 (N, width, H_0, W_0).
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels[-1], width, 1)
        self.narrow = nn.ModuleList(conv_bn(count, width, 1) for count in reversed(channels))
        self.refine = nn.ModuleList(nn.Sequential(_separable(width), _separable(width)) for _ in channels[:-1])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps to one."""
        *skips, deepest = maps
        context = self.weigh(deepest.mean(dim=(2, 3), keepdim=True)).sigmoid()
        features: Tensor = F.relu(self.narrow[0](deepest)) * context
        for narrow, refine, passed in zip(self.narrow[1:], self.refine, reversed(skips), strict=True):
            skip = narrow(passed)
            features = refine(F.relu(skip + interpolate_to(features, like=skip)))
        return features


def _separable(channels: int) -> nn.Sequential:
    """A 3x3 convolution of each channel, then 1x1 across them."""
    return nn.Sequential(
        conv_bn(channels, channels, 3, groups=channels), conv_bn(channels, channels, 1), nn.ReLU(inplace=True)
    )
