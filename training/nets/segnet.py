"""Normalised pictures in, logits out: SegNet, whose decoder knows the encoder only by its pooling indices."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, conv_bn_relu, max_unpool

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Convolutions per encoder stage: the 13 convolutional layers of VGG16."""

GROWTH = (1, 2, 4, 8, 8)
"""Channels per encoder stage, in units of the first stage's width."""


class SegNet(nn.Module):
    """SegNet (Badrinarayanan, Kendall, Cipolla: "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
    Segmentation", TPAMI 2017, arXiv:1511.00561).

    The encoder is VGG16's 13 convolutions with batch norm, five max-pools 2x2. The decoder mirrors it: each stage
    unpools with the indices of its pool and convolves the sparse map dense again; the last convolution gives the class
    scores. 29.46 M parameters with 12 classes.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (five halvings; any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 32

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        channels = [width * growth for growth in GROWTH]
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        previous = 3
        for out, depth in zip(channels, CONVOLUTIONS, strict=True):
            self.encoder.append(_stage([previous] + [out] * depth))
            previous = out
        for level in reversed(range(1, len(channels))):
            self.decoder.append(_stage([channels[level]] * CONVOLUTIONS[level] + [channels[level - 1]]))
        self.decoder.append(_stage([width] * CONVOLUTIONS[0]))
        self.classifier = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features, pools = image, []
        for stage in self.encoder:
            dense = stage(features)
            features, indices = F.max_pool2d(dense, 2, return_indices=True)
            pools.append((indices, dense))
        for stage in self.decoder:
            indices, dense = pools.pop()
            features = stage(max_unpool(features, indices, like=dense))
        logits: Tensor = self.classifier(features)
        return logits


def _stage(channels: list[int]) -> nn.Sequential:
    return nn.Sequential(*(conv_bn_relu(a, b) for a, b in pairwise(channels)))
