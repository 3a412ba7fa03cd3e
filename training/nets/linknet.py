"""Normalised pictures in, logits out: LinkNet, whose decoder adds what went into each encoder stage."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, conv_bn_relu, crop_to


class LinkNet(nn.Module):
    """LinkNet (Chaurasia, Culurciello: "LinkNet: Exploiting Encoder Representations for Efficient Semantic
    Segmentation", VCIP 2017, arXiv:1707.03718).

    The encoder is ResNet18: a 7x7 convolution and a max-pool to 1/4, then four stages of two residual blocks down to
    1/32. Each decoder stage narrows, upsamples with a transposed convolution and widens again, and what went into its
    encoder stage is added. Two more transposed convolutions lead from 1/4 to the picture's size. Maps are rounded up
    when halved, upsampled ones are cropped at the right and bottom.

    11.54 M parameters with 12 classes; the paper says 11.5 M.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 32

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        previous = width
        for level in range(4):
            out, stride = width * 2**level, 2 if level else 1
            self.encoder.append(nn.Sequential(_Residual(previous, out, stride), _Residual(out, out, 1)))
            self.decoder.insert(0, _up(out, previous, stride))
            previous = out
        half = width // 2
        self.last = nn.Sequential(
            _doubled(width, half),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            conv_bn_relu(half, half),
            nn.ConvTranspose2d(half, classes, 2, stride=2),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features = F.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        skips = []
        for stage in self.encoder:
            skips.append(features)
            features = stage(features)
        for stage in self.decoder:
            skip = skips.pop()
            features = F.relu(skip + crop_to(stage(features), like=skip))
        return crop_to(self.last(features), like=image)


class _Residual(nn.Module):
    """Two 3x3 convolutions; what came in is added, through a 1x1 convolution where its shape differs."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels_out))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.convolve(features) + self.shortcut(features))


def _up(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """The decoder's stage: narrow, upsample by `stride`, widen."""
    inner = channels_in // 4
    upsample = _doubled(inner, inner) if stride > 1 else nn.ConvTranspose2d(inner, inner, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(channels_in, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        upsample,
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, channels_out, 1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def _doubled(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
