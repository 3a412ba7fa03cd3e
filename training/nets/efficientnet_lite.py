"""Normalised pictures in, logits at a quarter of the size out: EfficientNet-Lite and a light decoder."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size
from training.nets.pyramid import Pyramid


class Stage(NamedTuple):
    """Inverted residual blocks at one size, as EfficientNet-B0 has them."""

    channels: int
    blocks: int
    expansion: int
    kernel: int
    stride: int


STAGES = (
    Stage(16, 1, 1, 3, 1),
    Stage(24, 2, 6, 3, 2),
    Stage(40, 2, 6, 5, 2),
    Stage(80, 3, 6, 3, 2),
    Stage(112, 3, 6, 5, 1),
    Stage(192, 4, 6, 5, 2),
    Stage(320, 1, 6, 3, 1),
)

PASSED = (1, 2, 4, 6)
"""The stages after which the size is halved, at 1/4, 1/8, 1/16 and 1/32: their maps go to the decoder."""

DECODER = 2
"""Channels of the decoder, in units of the first convolution's width."""

DROPOUT = 0.1
"""Of the decoder's channels, before the scores."""


class EfficientNetLite(nn.Module):
    """The encoder of EfficientNet-Lite (Tan and Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks", ICML 2019, arXiv:1905.11946; Lite: without squeeze-and-excitation and with ReLU6, which runs and
    quantizes well everywhere; the first and last stage are not deepened, the first convolution not widened).

    Convolutions with a stride begin at the first pixel and pad at the end only, as TensorFlow's do at even sizes, which
    the ImageNet weights were trained with.

    Input: float32 (N, 3, H, W), normalised. Output: four maps, at 1/4, 1/8, 1/16 and 1/32 of the size, rounded up.
    """

    def __init__(self, widen: float, deepen: float, width: int = 32) -> None:
        """`widen`, `deepen`: the factors of a variant. `width`: of the first convolution; the others in proportion."""
        super().__init__()
        self.stem = _Convolution(3, width, 3, stride=2)
        self.stages = nn.ModuleList()
        previous = width
        for index, stage in enumerate(STAGES):
            out = _divisible(stage.channels * widen * width / 32)
            ends = index in (0, len(STAGES) - 1)
            count = stage.blocks if ends else math.ceil(stage.blocks * deepen)
            blocks = [_Block(previous, out, stage.expansion, stage.kernel, stage.stride)]
            blocks.extend(_Block(out, out, stage.expansion, stage.kernel, 1) for _ in range(count - 1))
            self.stages.append(nn.Sequential(*blocks))
            previous = out

    @property
    def channels(self) -> list[int]:
        """Of the four maps."""
        return [self.stages[index][-1].channels for index in PASSED]  # type: ignore[index]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Pictures to maps."""
        features, maps = self.stem(image), []
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in PASSED:
                maps.append(features)
        return maps


class _LiteNet(nn.Module):
    """EfficientNet-Lite and `Pyramid`. Scores are computed at a quarter of the size: whoever needs them at the
    picture's interpolates them, which the service does exactly and nearly for nothing.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (any such size, odd ones too).
    Output: float32 logits (N, classes, H/4, W/4), rounded up.
    """

    stride = 32
    widen: float
    deepen: float

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.encoder = EfficientNetLite(self.widen, self.deepen, width)
        self.decoder = Pyramid(self.encoder.channels, width * DECODER)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width * DECODER, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        scores: Tensor = self.classifier(self.dropout(self.decoder(self.encoder(image))))
        return scores


class Lite0(_LiteNet):
    """With EfficientNet-Lite0: 3.04 M parameters with 12 classes."""

    widen, deepen = 1.0, 1.0


class Lite1(_LiteNet):
    """With EfficientNet-Lite1."""

    widen, deepen = 1.0, 1.1


class Lite2(_LiteNet):
    """With EfficientNet-Lite2."""

    widen, deepen = 1.1, 1.2


class _Block(nn.Module):
    """An inverted residual: widen, filter each channel, narrow; added to what came in where the shape is the same."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        parts = [_Convolution(channels_in, inner, 1)] if expansion > 1 else []
        parts.append(_Convolution(inner, inner, kernel, stride, groups=inner))
        parts.append(_Convolution(inner, channels_out, 1, activates=False))
        self.convolve = nn.Sequential(*parts)
        self.channels = channels_out
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, features: Tensor) -> Tensor:
        branch: Tensor = self.convolve(features)
        return features + branch if self.adds else branch


class _Convolution(nn.Module):
    """Convolution, batch norm and, unless it narrows, ReLU6."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, activates: bool = True
    ) -> None:
        super().__init__()
        # Padding of kernel - 2 and one more at the end is kernel // 2 around, moved by one pixel.
        before = (kernel - 2) // 2
        self.padding = (before, kernel - 1 - before) * 2 if stride > 1 else None
        around = 0 if self.padding else kernel // 2
        self.convolution = nn.Conv2d(
            channels_in, channels_out, kernel, stride=stride, padding=around, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.01)
        self.activation = nn.ReLU6(inplace=True) if activates else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, self.padding) if self.padding else features
        out: Tensor = self.activation(self.norm(self.convolution(padded)))
        return out


def _divisible(channels: float) -> int:
    """The nearest multiple of 8, and no tenth less than `channels`, as EfficientNet counts."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
