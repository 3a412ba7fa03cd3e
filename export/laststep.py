"""A net's last step: what it is, and, where it is an upsampling, the net without it.

The service brings scores to the picture's size itself, exactly. A net that ends by doing so costs time and memory for
nothing, and where the picture was shrunk for it, its scores are interpolated twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .probe import Probe, Size, words
from .refusal import Refusal

NOTHING = ("clone", "alias", "detach", "lift_fresh")
"""Operators that leave the values as they are."""

ROUNDING = 1e-4
"""As a share of the largest score."""

UPSAMPLINGS = (
    F.interpolate,
    torch._C._nn.upsample_bilinear2d,
    torch.ops.aten.upsample_bilinear2d.vec,
    torch.ops.aten.upsample_bilinear2d.default,
)


def last_step(probe: Probe, size: Size) -> str:
    """The operator whose result the net answers, as aten calls it: `convolution`, `sigmoid`, `upsample_bilinear2d`."""
    with _Results() as results:
        answer = probe.answer(size)
    name: str = results.of.get(answer.data_ptr(), "unknown")
    return name


class _Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, notes by which operator each place in memory was written last."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: dict[int, str] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See torch.utils._python_dispatch."""
        result = function(*args, **(kwargs or {}))
        name = str(function).split(".")[1].strip("_")
        if isinstance(result, Tensor) and name not in NOTHING:
            over_classes = name != "softmax" or args[1] in (1, -3)
            self.of[result.data_ptr()] = name if over_classes else "softmax over something else than the classes"
        return result


@dataclass
class _Call:
    """One upsampling: its input, what it gave, and how."""

    source: Tensor
    result: Tensor
    align_corners: bool


@dataclass
class _Upsamplings(TorchFunctionMode):
    """While it is active, notes bilinear upsamplings; the one numbered `skip` does nothing and gives its input."""

    skip: int = -1
    calls: list[_Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See torch.overrides."""
        kwargs = kwargs or {}
        if function not in UPSAMPLINGS:
            return function(*args, **kwargs)
        source = args[0] if args else kwargs["input"]
        skipped = len(self.calls) == self.skip
        result = source if skipped else function(*args, **kwargs)
        position = 4 if function is F.interpolate else 2
        align_corners = args[position] if len(args) > position else kwargs.get("align_corners")
        self.calls.append(_Call(source, result, bool(align_corners)))
        return result


class Uncovered(nn.Module):
    """A net without its upsampling numbered `skip`."""

    def __init__(self, net: nn.Module, skip: int) -> None:
        super().__init__()
        self.net = net
        self.skip = skip

    def forward(self, image: Tensor) -> Tensor:
        """As the net, up to there."""
        with _Upsamplings(self.skip):
            scores: Tensor = self.net(image)
        return scores


def without_upsampling(net: nn.Module, probe: Probe, size: Size) -> tuple[nn.Module, bool]:
    """The net (asked at `size`) without the upsampling that it ends with, and whether that one aligned corners.

    Raises Refusal where the net does not end with a bilinear upsampling to the picture's size.
    """
    step = last_step(probe, size)
    with _Upsamplings() as seen:
        whole = probe.answer(size)
    number = max((i for i, call in enumerate(seen.calls) if call.result.data_ptr() == whole.data_ptr()), default=None)
    if step != "upsample_bilinear2d" or number is None:
        raise Refusal(f"--native-stride leaves out a last bilinear upsampling, but the net's last step is {step}")
    if tuple(whole.shape[2:]) != size:
        raise Refusal(
            f"--native-stride leaves out an upsampling to the picture's size, but the net answers {words(size)} with "
            f"{words(whole.shape[2:])} (height x width)"
        )
    cut, align_corners = Uncovered(net, number), seen.calls[number].align_corners
    again = F.interpolate(Probe(cut, probe.depth).answer(size), size, mode="bilinear", align_corners=align_corners)
    if (again - whole).abs().max() > ROUNDING * whole.abs().max():
        raise Refusal("--native-stride: the net's last upsampling is not the one that the service does")
    return cut, align_corners
