"""Normalised pictures in, logits out: ERFNet, residual blocks of one-dimensional convolutions and nothing across."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, crop_to

DILATIONS = (2, 4, 8, 16)
"""Of the blocks at 1/8 of the size; the row is used twice."""


class ERFNet(nn.Module):
    """ERFNet (Romera, Alvarez, Bergasa, Arroyo: "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic
    Segmentation", T-ITS 2018).

    Residual blocks whose 3x3 convolutions are split into 3x1 and 1x3 (non-bottleneck-1D), three downsamplings, two rows
    of dilated blocks at 1/8, and a small decoder of transposed convolutions. Nothing is passed across: place survives
    because 1/8 is all the encoder goes down to. Maps are rounded up when halved, the logits cropped at the right and
    bottom.

    2.06 M parameters with 20 classes, as the paper says.

    Input: float32 (N, 3, H, W), normalised, H and W at least 8 (any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 8

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        middle, deep = 4 * width, 8 * width
        self.encoder = nn.Sequential(
            _Down(3, width),
            _Down(width, middle),
            *(_Factorized(middle, dropout=0.03) for _ in range(5)),
            _Down(middle, deep),
            *(_Factorized(deep, dropout=0.3, dilation=dilation) for dilation in DILATIONS * 2),
        )
        self.decoder = nn.Sequential(
            _up(deep, middle),
            *(_Factorized(middle) for _ in range(2)),
            _up(middle, width),
            *(_Factorized(width) for _ in range(2)),
        )
        self.classifier = nn.ConvTranspose2d(width, classes, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        return crop_to(self.classifier(self.decoder(self.encoder(image))), like=image)


class _Down(nn.Module):
    """A strided convolution and a max-pool side by side, at half the size (rounded up)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out - channels_in, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        pooled = F.max_pool2d(features, 2, ceil_mode=True)
        return F.relu(self.norm(torch.cat([self.convolution(features), pooled], dim=1)))


class _Factorized(nn.Module):
    """Non-bottleneck-1D: 3x1, 1x3, then both again with dilation; drop, add."""

    def __init__(self, channels: int, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0)),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1)),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)),
            nn.BatchNorm2d(channels),
            nn.Dropout2d(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.convolve(features))


def _up(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice the size by a transposed convolution."""
    upsample = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(upsample, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))
