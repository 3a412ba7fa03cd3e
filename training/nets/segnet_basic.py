"""Normalised pictures in, logits out: SegNet-Basic, the small SegNet of four stages with 7x7 convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, max_unpool

DEPTH = 4
"""Encoder stages, and decoder stages."""


class SegNetBasic(nn.Module):
    """SegNet-Basic (Badrinarayanan, Kendall, Cipolla: "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
    Image Segmentation", TPAMI 2017, arXiv:1511.00561, section 3.2).

    Four encoder stages of one 7x7 convolution to 64 channels with batch norm and ReLU, each followed by a max-pool 2x2;
    four decoder stages that unpool with the indices and convolve 7x7 with batch norm but, as in the paper, no ReLU.
    No biases but in the 1x1 classifier. The picture's local contrast normalisation is left to the preprocessing.

    1.416 M parameters with 12 classes. The paper's table says 1.425 M, where all figures are multiples of 0.025 M.

    Input: float32 (N, 3, H, W), normalised, H and W at least 16 (four halvings; any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 2**DEPTH

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_conv_bn(width if level else 3, width) for level in range(DEPTH))
        self.decoder = nn.ModuleList(_conv_bn(width, width) for _ in range(DEPTH))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features, pools = image, []
        for stage in self.encoder:
            dense = F.relu(stage(features))
            features, indices = F.max_pool2d(dense, 2, return_indices=True)
            pools.append((indices, dense))
        for stage in self.decoder:
            indices, dense = pools.pop()
            features = stage(max_unpool(features, indices, like=dense))
        logits: Tensor = self.classifier(features)
        return logits


def _conv_bn(channels_in: int, channels_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 7, padding=3, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))
