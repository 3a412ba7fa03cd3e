"""Normalised pictures in, logits out: SegNet, whose decoder knows the encoder only by its pooling indices."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import VGG_CONVOLUTIONS, VGG_GROWTH, check_size, conv_stage, max_unpool, vgg_encoder


class SegNet(nn.Module):
    """SegNet (Badrinarayanan, Kendall, Cipolla: "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
    Segmentation", TPAMI 2017, arXiv:1511.00561).

    The encoder is VGG16's 13 convolutions with batch norm, five max-pools 2x2. The decoder mirrors it: each stage
    unpools with the indices of its pool and convolves the sparse map dense again; the last convolution gives the class
    scores. 29.45 M parameters with 12 classes.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (five halvings; any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    stride = 32

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        channels = [width * growth for growth in VGG_GROWTH]
        self.encoder = vgg_encoder(width)
        self.decoder = nn.ModuleList()
        for level in reversed(range(1, len(channels))):
            self.decoder.append(conv_stage([channels[level]] * VGG_CONVOLUTIONS[level] + [channels[level - 1]]))
        self.decoder.append(conv_stage([width] * VGG_CONVOLUTIONS[0]))
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
