"""Normalised pictures in, logits out: Light, segserve's own small net for CPUs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from training.nets.blocks import check_size, conv_bn, interpolate_to
from training.nets.pyramid import Pyramid


class Stage(NamedTuple):
    """Inverted residual blocks at one size; the first of them halves it."""

    growth: int
    """Channels, in units of the first convolution's width."""
    blocks: int
    expansion: int
    """How much wider the middle of the first block is than what goes into it; of the others it is 4 times as wide."""
    kernel: int
    """The side of the filters."""


STAGES = (Stage(2, 2, 2, 3), Stage(4, 3, 4, 3), Stage(8, 4, 4, 5), Stage(12, 3, 4, 5))
"""At 1/4, 1/8, 1/16 and 1/32 of the size."""

DECODER = 4
"""Channels of the decoder, in units of the first convolution's width."""


class Light(nn.Module):
    """Light, an encoder-decoder made for two CPU threads. From no paper; each choice has its source:

    * The encoder's blocks are MobileNetV2's inverted residuals (Sandler et al., CVPR 2018, arXiv:1801.04381): widen
      with a 1x1 convolution, filter each channel, narrow without activation, add. Nearly all work is in 1x1
      convolutions, plain matrix products that a CPU does well. The first block widens by 2 only: where maps are
      largest, memory sets the time, not arithmetic. Filters are 5x5 where maps are small, as in MobileNetV3: more
      context, hardly more time.
    * ReLU, neither PReLU nor ReLU6: onnxruntime fuses it into the convolution before it. All numbers of channels are
      multiples of 16, the blocks in which onnxruntime's convolutions work; others would be filled up.
    * The decoder is `Pyramid`.
    * Scores are computed at 1/4 of the size and interpolated: sixteen times the work would buy little detail.

    1.48 M parameters with 12 classes. Exported, at 480x360, it takes about half of ENet's time.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 32

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        channels = [width * stage.growth for stage in STAGES]
        decoder = width * DECODER
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.encoder = nn.ModuleList()
        previous = width
        for stage, out in zip(STAGES, channels, strict=True):
            blocks = [_InvertedResidual(previous, out, stage.expansion, stage.kernel, stride=2)]
            blocks.extend(_InvertedResidual(out, out, 4, stage.kernel) for _ in range(stage.blocks - 1))
            self.encoder.append(nn.Sequential(*blocks))
            previous = out
        self.decoder = Pyramid(channels, decoder)
        self.classifier = nn.Conv2d(decoder, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features, maps = self.stem(image), []
        for stage in self.encoder:
            features = stage(features)
            maps.append(features)
        return interpolate_to(self.classifier(self.decoder(maps)), like=image)


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to what came in where the shape is the same."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.convolve = nn.Sequential(
            conv_bn(channels_in, inner, 1),
            nn.ReLU(inplace=True),
            conv_bn(inner, inner, kernel, stride=stride, groups=inner),
            nn.ReLU(inplace=True),
            conv_bn(inner, channels_out, 1),
        )
        self.adds = stride == 1

    def forward(self, features: Tensor) -> Tensor:
        branch: Tensor = self.convolve(features)
        return features + branch if self.adds else branch
