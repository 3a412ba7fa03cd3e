"""Adaptive average pooling as matrix products that hold at any size.

The ONNX exporter writes it with the windows of the size that a net was traced at, and says nothing: at any other size
the graph is wrong or fails. Here the windows are computed from the size, in the graph itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

POOLS = (torch.nn.functional.adaptive_avg_pool2d, torch.ops.aten.adaptive_avg_pool2d.default)


class AnySize(TorchFunctionMode):
    """While it is active, adaptive average pooling to more than one cell is computed by `pool`."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See torch.overrides."""
        return (pool if function in POOLS else function)(*args, **(kwargs or {}))


def pool(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:  # noqa: A002 - torch's own names
    """`torch.nn.functional.adaptive_avg_pool2d`."""
    cells = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if cells == (1, 1):
        return input.mean(dim=(-2, -1), keepdim=True)
    rows, columns = (_shares(side, count) for side, count in zip(input.shape[-2:], cells, strict=True))
    pooled = input if rows is None else rows @ input
    return pooled if columns is None else pooled @ columns.T


def _shares(side: int, count: int | None) -> Tensor | None:
    """(count, side): how much each of `side` pixels counts in each of `count` windows; None keeps the side."""
    if count is None:
        return None
    window, pixel = torch.arange(count)[:, None], torch.arange(side)
    start, stop = window * side // count, ((window + 1) * side + count - 1) // count
    return ((pixel >= start) & (pixel < stop)) / (stop - start)
