"""Normalised pictures in, logits out: ENet, a small net of bottlenecks whose decoder unpools with pooling indices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, grow_to, max_unpool

REDUCTION = 4
"""How much narrower the middle of a bottleneck is than its ends."""


class ENet(nn.Module):
    """ENet (Paszke, Chaurasia, Kim, Culurciello: "ENet: A Deep Neural Network Architecture for Real-Time Semantic
    Segmentation", 2016, arXiv:1606.02147).

    An initial block at stride 2, a short stage at 4, two long ones at 8 (dilated and asymmetric convolutions), and a
    small decoder: two max-unpoolings with the encoder's indices and a last transposed convolution. PReLU with one slope
    a channel in the encoder, ReLU in the decoder, as in the authors' code. 0.36 M parameters with 12 classes.

    Input: float32 (N, 3, H, W), normalised, H and W at least 8 (any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 8

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        middle, deep = 4 * width, 8 * width
        self.initial = _Initial(width)
        self.down1 = _Down(width, middle, dropout=0.01)
        self.stage1 = nn.Sequential(*(_Regular(middle, dropout=0.01) for _ in range(4)))
        self.down2 = _Down(middle, deep, dropout=0.1)
        self.stage2 = _context(deep)
        self.stage3 = _context(deep)
        self.up4 = _Up(deep, middle)
        self.stage4 = nn.Sequential(*(_Regular(middle, dropout=0.1, slopes=False) for _ in range(2)))
        self.up5 = _Up(middle, width)
        self.stage5 = _Regular(width, dropout=0.1, slopes=False)
        self.classifier = nn.ConvTranspose2d(width, classes, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        half = self.initial(image)
        quarter, half_indices = self.down1(half)
        quarter = self.stage1(quarter)
        eighth, quarter_indices = self.down2(quarter)
        eighth = self.stage3(self.stage2(eighth))
        features = self.stage4(self.up4(eighth, quarter_indices, like=quarter))
        features = self.stage5(self.up5(features, half_indices, like=half))
        logits: Tensor = self.classifier(features)
        height, width = image.shape[-2:]
        return logits[..., :height, :width]


class _Initial(nn.Module):
    """A strided convolution and a max-pool side by side, at half the size (rounded up)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width - 3, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.PReLU(width)

    def forward(self, image: Tensor) -> Tensor:
        pooled = F.max_pool2d(image, 2, ceil_mode=True)
        features: Tensor = self.activation(self.norm(torch.cat([self.convolution(image), pooled], dim=1)))
        return features


class _Regular(nn.Module):
    """The residual bottleneck: project, convolve (plain, dilated or asymmetric), expand, drop, add."""

    def __init__(
        self, channels: int, dropout: float, dilation: int = 1, asymmetric: int = 0, slopes: bool = True
    ) -> None:
        super().__init__()
        inner = channels // REDUCTION
        self.project = _conv(inner, nn.Conv2d(channels, inner, 1, bias=False), slopes)
        if asymmetric:
            pad = asymmetric // 2
            self.convolve = nn.Sequential(
                _conv(inner, nn.Conv2d(inner, inner, (asymmetric, 1), padding=(pad, 0), bias=False), slopes),
                _conv(inner, nn.Conv2d(inner, inner, (1, asymmetric), padding=(0, pad), bias=False), slopes),
            )
        else:
            kernel = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)
            self.convolve = _conv(inner, kernel, slopes)
        self.expand = _expand(inner, channels, dropout)
        self.activation = _activation(channels, slopes)

    def forward(self, features: Tensor) -> Tensor:
        branch = self.expand(self.convolve(self.project(features)))
        summed: Tensor = self.activation(features + branch)
        return summed


class _Down(nn.Module):
    """The bottleneck that halves the size and hands on the indices of its max-pool."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        inner = channels_in // REDUCTION
        self.missing = channels_out - channels_in
        self.project = _conv(inner, nn.Conv2d(channels_in, inner, 2, stride=2, bias=False), True)
        self.convolve = _conv(inner, nn.Conv2d(inner, inner, 3, padding=1, bias=False), True)
        self.expand = _expand(inner, channels_out, dropout)
        self.activation = nn.PReLU(channels_out)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled, indices = F.max_pool2d(features, 2, return_indices=True)
        main = F.pad(pooled, (0, 0, 0, 0, 0, self.missing))
        branch = self.expand(self.convolve(self.project(features)))
        return self.activation(main + branch), indices


class _Up(nn.Module):
    """The bottleneck that doubles the size, by max-unpooling on one side and a transposed convolution on the other."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        inner = channels_in // REDUCTION
        self.narrow = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.project = _conv(inner, nn.Conv2d(channels_in, inner, 1, bias=False), False)
        upsample = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.convolve = _conv(inner, upsample, False)
        self.expand = _expand(inner, channels_out, dropout=0.1)

    def forward(self, features: Tensor, indices: Tensor, like: Tensor) -> Tensor:
        main = max_unpool(self.narrow(features), indices, like)
        branch = self.expand(self.convolve(self.project(features)))
        return F.relu(main + grow_to(branch, like))


def _context(channels: int) -> nn.Sequential:
    """Stages 2 and 3 of the paper: eight bottlenecks with dilations 2, 4, 8, 16 and asymmetric 5x1 + 1x5 between."""
    return nn.Sequential(
        _Regular(channels, dropout=0.1),
        _Regular(channels, dropout=0.1, dilation=2),
        _Regular(channels, dropout=0.1, asymmetric=5),
        _Regular(channels, dropout=0.1, dilation=4),
        _Regular(channels, dropout=0.1),
        _Regular(channels, dropout=0.1, dilation=8),
        _Regular(channels, dropout=0.1, asymmetric=5),
        _Regular(channels, dropout=0.1, dilation=16),
    )


def _conv(channels_out: int, convolution: nn.Module, slopes: bool) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), _activation(channels_out, slopes))


def _expand(channels_in: int, channels_out: int, dropout: float) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.Dropout2d(dropout))


def _activation(channels: int, slopes: bool) -> nn.Module:
    return nn.PReLU(channels) if slopes else nn.ReLU()
