"""Normalised pictures in, logits out: U-Net, whose decoder concatenates the encoder's feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, conv_bn_relu, grow_to

DEPTH = 4
"""How often the encoder halves the size."""


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
    2015, arXiv:1505.04597).

    Four max-pools 2x2 down from 64 to 1024 channels, four 2x2 up-convolutions back; at each level the encoder's map is
    concatenated. Two departures, both common since: the 3x3 convolutions are padded, so that the answer has the input's
    size, and are followed by batch norm. 31.04 M parameters with 12 classes.

    Input: float32 (N, 3, H, W), normalised, H and W at least 16 (any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 2**DEPTH

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(DEPTH + 1)]
        self.encoder = nn.ModuleList()
        self.upsample = nn.ModuleList()
        self.decoder = nn.ModuleList()
        previous = 3
        for out in channels:
            self.encoder.append(_double(previous, out))
            previous = out
        for out in reversed(channels[:-1]):
            self.upsample.append(nn.ConvTranspose2d(2 * out, out, 2, stride=2))
            self.decoder.append(_double(2 * out, out))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features = self.encoder[0](image)
        skips = []
        for stage in self.encoder[1:]:
            skips.append(features)
            features = stage(F.max_pool2d(features, 2))
        for upsample, stage in zip(self.upsample, self.decoder, strict=True):
            skip = skips.pop()
            features = stage(torch.cat([skip, grow_to(upsample(features), like=skip)], dim=1))
        logits: Tensor = self.classifier(features)
        return logits


def _double(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(channels_in, channels_out), conv_bn_relu(channels_out, channels_out))
