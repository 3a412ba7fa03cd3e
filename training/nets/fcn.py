"""Normalised pictures in, logits out: the fully convolutional nets, VGG16 whose scores are upsampled and summed."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import VGG_GROWTH, check_size, crop_to, vgg_encoder

FULLY_CONNECTED = 64
"""Channels of fc6 and fc7, in units of the first stage's width: 4096."""


class FCN32s(nn.Module):
    """FCN-32s (Long, Shelhamer, Darrell: "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
    arXiv:1411.4038; TPAMI 2017).

    VGG16 with its fully connected layers as convolutions (fc6 7x7, fc7 1x1, 4096 channels, dropout of one half), scores
    at 1/32 of the size, and one transposed convolution back. FCN-16s and FCN-8s go back in steps and add the scores of
    pool4, and of pool3, on the way. Transposed convolutions are learned and start as bilinear interpolation.

    Departures: batch norm after VGG's 13 convolutions, so that the net can be trained from nothing. fc6 is padded to
    keep the size, and pools round up, as Caffe's do: upsampled scores then have at least the size of what they are
    added to and are cropped at the right and bottom. That takes the place of the authors' 100 pixels of padding and of
    the offsets that they crop at.

    The paper says 134 M parameters (VGG16 without its last layer: 134.26 M). Here with 21 classes FCN-32s has 136.16 M:
    0.09 M scores, 0.01 M batch norm, and the last transposed convolution, which the authors kept at bilinear
    interpolation (1.81 M at stride 32; 0.45 M at 16, 0.11 M at 8).

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 32
    levels: ClassVar[tuple[int, ...]] = ()
    """The pools whose scores are added, deepest first."""

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        connected = FULLY_CONNECTED * width
        self.encoder = vgg_encoder(width)
        self.connected = nn.Sequential(
            nn.Conv2d(width * VGG_GROWTH[-1], connected, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(connected, connected, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(connected, classes, 1),
        )
        self.scores = nn.ModuleList(nn.Conv2d(width * VGG_GROWTH[level - 1], classes, 1) for level in self.levels)
        self.upsample = nn.ModuleList(_upsampling(classes, 2) for _ in self.levels)
        self.last = _upsampling(classes, self.stride // 2 ** len(self.levels))

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features, pools = image, []
        for stage in self.encoder:
            features = F.max_pool2d(stage(features), 2, ceil_mode=True)
            pools.append(features)
        logits: Tensor = self.connected(features)
        for level, score, upsample in zip(self.levels, self.scores, self.upsample, strict=True):
            here = score(pools[level - 1])
            logits = here + crop_to(upsample(logits), like=here)
        return crop_to(self.last(logits), like=image)


class FCN16s(FCN32s):
    """FCN-16s: FCN-32s whose scores are doubled in size, added to those of pool4 and upsampled by 16.

    134.82 M parameters with 21 classes. Input, output and departures as for FCN-32s.
    """

    levels = (4,)


class FCN8s(FCN32s):
    """FCN-8s: FCN-16s whose sum is once more doubled in size, added to the scores of pool3 and upsampled by 8.

    134.50 M parameters with 21 classes. Input, output and departures as for FCN-32s.
    """

    levels = (4, 3)


def _upsampling(classes: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that makes maps `factor` times as large: bilinear interpolation until it learns."""
    upsample = nn.ConvTranspose2d(classes, classes, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    ramp = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        upsample.weight.copy_(torch.eye(classes)[:, :, None, None] * (ramp[:, None] * ramp))
    return upsample
