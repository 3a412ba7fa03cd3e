"""Normalised pictures in, logits out: DeconvNet, VGG16 and its mirror image with a fully connected middle."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import VGG_CONVOLUTIONS, VGG_GROWTH, check_size, max_unpool, vgg_encoder

FULLY_CONNECTED = 64
"""Channels of the fully connected layers, in units of the first stage's width: 4096."""


class DeconvNet(nn.Module):
    """DeconvNet (Noh, Hong, Han: "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
    arXiv:1505.04366).

    The encoder is VGG16 with batch norm, the fully connected layers included: fc6 as a 7x7 convolution, fc7 as 1x1. A
    transposed 7x7 convolution leads on; then each stage unpools with the indices of its pool and makes the sparse map
    dense with transposed 3x3 convolutions.

    One departure. The paper's net takes 224x224 only: pool5 has 7x7 positions there, and fc6, without padding, has one.
    Here fc6 and its mirror image are padded to keep the size ("same"), so that the net takes any size: at 224x224 fc6
    has 7x7 positions, of which the middle one is the paper's, and the others see the same window moved off the picture.
    The weights are the paper's in number and shape.

    251.81 M parameters with 21 classes; the paper says 252 M.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (five halvings; any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 32

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        channels = [width * growth for growth in VGG_GROWTH]
        deepest, connected = channels[-1], FULLY_CONNECTED * width
        self.encoder = vgg_encoder(width)
        self.middle = nn.Sequential(
            *_with_norm(nn.Conv2d(deepest, connected, 7, padding=3), connected),
            *_with_norm(nn.Conv2d(connected, connected, 1), connected),
            *_with_norm(nn.ConvTranspose2d(connected, deepest, 7, padding=3), deepest),
        )
        self.decoder = nn.ModuleList()
        for level in reversed(range(len(channels))):
            after = channels[level - 1] if level else width
            self.decoder.append(_mirrored([channels[level]] * VGG_CONVOLUTIONS[level] + [after]))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features, pools = image, []
        for stage in self.encoder:
            dense = stage(features)
            features, indices = F.max_pool2d(dense, 2, return_indices=True)
            pools.append((indices, dense))
        features = self.middle(features)
        for stage in self.decoder:
            indices, dense = pools.pop()
            features = stage(max_unpool(features, indices, like=dense))
        logits: Tensor = self.classifier(features)
        return logits


def _mirrored(channels: list[int]) -> nn.Sequential:
    """A stage of VGG16 backwards: transposed 3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        layers.extend(_with_norm(nn.ConvTranspose2d(a, b, 3, padding=1), b))
    return nn.Sequential(*layers)


def _with_norm(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
