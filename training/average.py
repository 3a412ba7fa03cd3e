"""A net in training in, the moving average of its weights out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """A copy of `net` whose parameters and batch-norm statistics follow it exponentially, at each `update_parameters`.

    The decay rises from 0.1 to `decay` over the first updates, as (1 + n) / (10 + n), so that the random start is soon
    forgotten (Tarvainen & Valpola, "Mean teachers are better role models", 2017).
    """
    return AveragedModel(net, avg_fn=_follow(decay), use_buffers=True)


def _follow(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def follow(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current  # batch norm's count of batches
        count = int(updates)
        return torch.lerp(average, current, 1 - min(decay, (1 + count) / (10 + count)))

    return follow
