"""Normalised pictures in, logits out: SegNet with dropout in its middle; on request also how sure it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.nets.blocks import check_size, max_unpool
from training.nets.segnet import SegNet

CENTRAL = 3
"""The deepest stages of the encoder, and as many of the decoder, that are followed by dropout."""


class SampledDropout(nn.Dropout):
    """Dropout written out: values (any shape) times 0 or 1 / (1 - p), drawn where `training` is set.

    The same as `nn.Dropout`, but exported as ONNX's RandomUniformLike. Dropout in training mode would not survive: the
    exporter merges nodes with equal inputs, all passes of `MonteCarlo` into one, and onnxruntime takes out the rest.
    """

    def forward(self, values: Tensor) -> Tensor:
        """The values themselves in eval mode."""
        if not self.training:
            return values
        kept = torch.rand_like(values) >= self.p
        return values * kept / (1 - self.p)


class BayesianSegNet(SegNet):
    """Bayesian SegNet (Kendall, Badrinarayanan, Cipolla: "Bayesian SegNet: Model Uncertainty in Deep Convolutional
    Encoder-Decoder Architectures for Scene Understanding", 2015, arXiv:1511.02680).

    SegNet, layer for layer (its weights fit), with dropout of one half after the central six stages, the variant that
    the paper found best: after the encoder's three deepest pools and after the decoder's first three stages. Dropout
    has no parameters: 29.45 M with 12 classes, as SegNet. In eval mode it answers like any other net (the paper calls
    that weight averaging); `MonteCarlo` draws from it.

    Input: float32 (N, 3, H, W), normalised, H and W at least 32 (five halvings; any such size, odd ones too).
    Output: float32 logits (N, classes, H, W).
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__(classes, width)
        self.dropout = SampledDropout(0.5)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logits. Raises ValueError for a picture that is too small."""
        check_size(image, self.stride)
        features, pools = image, []
        for level, stage in enumerate(self.encoder):
            dense = stage(features)
            features, indices = F.max_pool2d(dense, 2, return_indices=True)
            pools.append((indices, dense))
            if level >= len(self.encoder) - CENTRAL:
                features = self.dropout(features)
        for level, stage in enumerate(self.decoder):
            indices, dense = pools.pop()
            features = stage(max_unpool(features, indices, like=dense))
            if level < CENTRAL:
                features = self.dropout(features)
        logits: Tensor = self.classifier(features)
        return logits


class MonteCarlo(nn.Module):
    """A net with dropout, asked `samples` times with dropout on: its mean answer, and how much the answers differ.

    Whatever mode is set, dropout draws and batch norm answers as in eval mode. The paper finds the mean better than the
    plain answer from about six samples on, and no better beyond forty. With `SampledDropout` the exported graph draws
    too: its answers differ from run to run, as they do here.

    Input: what the net takes.
    Output: float32 logits (N, classes, H, W), the logarithm of the mean of the probabilities (their softmax is that
    mean), and float32 uncertainty (N, 1, H, W), the variance of the probabilities over the samples, averaged over the
    classes: 0 where all samples agree, at most 1/4.

    Raises ValueError for fewer than two samples, or a net without dropout: there would be nothing to compare.
    """

    def __init__(self, net: nn.Module, samples: int) -> None:
        super().__init__()
        if samples < 2:
            raise ValueError(f"{samples} samples have no variance: ask for at least 2")
        if not any(_is_dropout(module) for module in net.modules()):
            raise ValueError(f"{type(net).__name__} has no dropout: all its answers would be the same")
        self.net = net
        self.samples = samples
        self.train(False)

    def train(self, mode: bool = True) -> MonteCarlo:
        """Set the mode of this module alone: the net stays in eval mode, but for its dropout."""
        super().train(mode)
        self.net.eval()
        for module in self.net.modules():
            if _is_dropout(module):
                module.train()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures to logits and uncertainty. Raises what the net raises."""
        mean = self._probabilities(image)
        squares = torch.zeros_like(mean)
        for count in range(2, self.samples + 1):  # Welford's sums: one sample at a time, never below 0
            sample = self._probabilities(image)
            difference = sample - mean
            mean = mean + difference / count
            squares = squares + difference * (sample - mean)
        uncertainty = squares.mean(dim=1, keepdim=True) / self.samples
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), uncertainty

    def _probabilities(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image)
        return logits.softmax(dim=1)


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout | nn.Dropout2d)
