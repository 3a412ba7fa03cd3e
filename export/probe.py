"""A net and a size in, whether the net takes it out, by asking it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .refusal import Refusal, first_line

Size = tuple[int, int]
"""Height and width in pixels."""

SQUARES = (224, 256, 320, 384, 448, 512, 518, 640, 768, 1024)
"""Sides that nets of one size alone were usually trained at."""

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
"""What the sides may have to be multiples of."""

USUAL_SIZE = (512, 512)
"""Where only one size is possible and none was asked for: about the one that nets are trained at."""

GRID, AROUND = 32, 3
"""Sizes near one that fails: multiples of GRID, this many on either side."""

SHORTEST = 512
"""A net that takes no square of this side or less is not asked about shorter ones."""


class Probe:
    """A net in eval mode, asked about noise."""

    def __init__(self, net: nn.Module, depth: int) -> None:
        """`net` takes pictures as a ServedNet does, of `depth` channels."""
        self._net = net
        self.depth = depth

    def noise(self, size: Size, batch: int = 1) -> Tensor:
        """Pictures, uint8 (batch, height, width, depth), the same each time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (batch, *size, self.depth), generator=generator, dtype=torch.uint8)

    @torch.inference_mode()
    def answer(self, size: Size, batch: int = 1) -> Tensor:
        """The net's scores for noise of this size."""
        scores: Tensor = self._net(self.noise(size, batch))
        return scores

    def failure(self, size: Size, batch: int = 1) -> str | None:
        """Why the net does not take this size; None where it does. Raises Refusal where it answers no scores."""
        try:
            answer = self.answer(size, batch)
        except Refusal:
            raise
        except Exception as error:  # whatever a net may do
            return f"{type(error).__name__}: {first_line(error)}{_hint(str(error))}"
        return None if answer.numel() else f"it answers nothing, {'x'.join(map(str, answer.shape))}"

    def require(self, size: Size) -> None:
        """Raises Refusal where the net does not take this size, naming the nearest that it takes."""
        failure = self.failure(size)
        if failure is None:
            return
        nearest = next((near for near in _near(size) if self.failure(near) is None), None)
        way_out = f"; the nearest size that it takes is {words(nearest)}" if nearest else ""
        raise Refusal(f"the net does not take {words(size)} (height x width): {failure}{way_out}")

    def any_size(self, usual: Size) -> Size:
        """A size that the net takes, the `usual` one if it can be. Raises Refusal where none is found."""
        for size in (usual, *((side, side) for side in SQUARES)):
            if self.failure(size) is None:
                return size
        raise Refusal(
            f"the net takes no picture that was tried: {words(usual)} (height x width) gives {self.failure(usual)}"
        )

    def usual_size(self, size: Size | None) -> Size:
        """`size` itself, or one that the net takes. Raises Refusal where it does not, or none is found."""
        if size is not None:
            self.require(size)
            return size
        steps, _ = self.steps()
        return odd_multiples(steps[0]) if steps else self.any_size(USUAL_SIZE)

    def steps(self) -> tuple[list[int], str]:
        """What sides may be multiples of, the least first, and why not less.

        Scores that are no even share of their picture (33 to a side of 129) lie beside it; where the net gives others
        for any multiple, these are asked for.
        """
        taken: list[int] = []
        even: list[int] = []
        why = ""
        for step in MULTIPLES:
            size = odd_multiples(step)
            failure = self.failure(size)
            if failure is None:
                taken.append(step)
                scores = self.answer(size).shape[2:]
                if all(side % score == 0 or score % side == 0 for side, score in zip(size, scores, strict=True)):
                    even.append(step)
                else:
                    failure = f"scores of {words(scores)} are no even share"
            why = why or (f"{words(size)} (height x width): {failure}" if failure else "")
        return (even, why) if even else (taken, why)

    def shortest(self, step: int) -> int:
        """The shortest side, `step` times a power of two, of a square that the net takes."""
        side = step
        while side < SHORTEST and self.failure((side, side)) is not None:
            side *= 2
        return side


def odd_multiples(step: int, least: int = 128) -> Size:
    """A size whose sides, from `least` and from seven quarters of it on, are odd multiples of `step`."""
    return step * (-(-least // step) | 1), step * (-(-7 * least // (4 * step)) | 1)


def words(size: Sequence[int]) -> str:
    """A size as height x width."""
    return "x".join(map(str, size))


def _near(size: Size) -> Iterator[Size]:
    """Other sizes, the nearest first."""
    around = [
        [GRID * (side // GRID + step) for step in range(-AROUND, AROUND + 2) if side // GRID + step > 0]
        for side in size
    ]
    sizes = {(height, width) for height in around[0] for width in around[1]} | {(side, side) for side in SQUARES}
    yield from sorted(sizes - {size}, key=lambda near: abs(near[0] - size[0]) + abs(near[1] - size[1]))


def _hint(message: str) -> str:
    """The way out, where a net takes another number of channels than it was given."""
    found = re.search(r"to have (\d+) channels, but got (\d+) channels", message)
    if found is None:
        return ""
    wanted, given = found.groups()
    if wanted == "4" and given == "3":
        return " (for a net of colour and a fourth channel: --fourth-channel says its constant value)"
    if wanted == "1":
        return " (for a grey net: --channels GRAY)"
    return f" (the net takes {wanted} channels, which pictures do not have)" if wanted != "3" else " (--channels RGB)"
