"""How pictures are fed to a net: what its weights do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from export.errors import ExportError
from service.manifest import InputSpec

Channels = Literal["RGB", "BGR", "GRAY"]
Fit = Literal["stretch", "letterbox", "native", "tile"]
Activation = Literal["softmax", "sigmoid", "probabilities"]


@dataclass(frozen=True)
class Feed:
    """Channels in their order, x = (value / scale - mean) / std (None: mean 0 and deviation 1), and the size in pixels
    that pictures are brought to, by `fit` (None: any size, or by stretching where one is given)."""

    channels: Channels = "RGB"
    scale: float = 255.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    height: int | None = None
    width: int | None = None
    fit: Fit | None = None

    @property
    def depth(self) -> int:
        """Number of channels."""
        return 1 if self.channels == "GRAY" else 3

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width. Raises ExportError where only one is given."""
        if self.height is None and self.width is None:
            return None
        if self.height is None or self.width is None:
            raise ExportError("a size needs height and width: give --height and --width, or neither")
        return self.height, self.width

    def shift(self) -> tuple[float, ...]:
        """The mean, a value a channel."""
        return self._values(self.mean, 0.0)

    def deviation(self) -> tuple[float, ...]:
        """The deviation, a value a channel."""
        return self._values(self.std, 1.0)

    def _values(self, given: tuple[float, ...] | None, usual: float) -> tuple[float, ...]:
        values = given or (usual,) * self.depth
        if self.depth == 1 and len(set(values)) > 1:
            raise ExportError(f"--channels GRAY has one channel: give it three equal values, not {values}")
        return values[: self.depth]

    def spec(self, multiple_of: int, only: tuple[int, int] | None = None) -> InputSpec:
        """The manifest's input. `only` is the one size that the net takes, if there is one.

        Raises ExportError or ValueError where it contradicts itself.
        """
        size = self.size or only
        if only and self.fit == "native":
            raise ExportError(f"--fit native feeds pictures of any size, but the net takes {only[0]}x{only[1]} alone")
        return InputSpec(
            height=size[0] if size else None,
            width=size[1] if size else None,
            multiple_of=multiple_of,
            fit=self.fit or ("stretch" if size else "native"),
            channels=self.channels,
            pad_value=(0,) * self.depth,
            scale=self.scale,
            mean=self.shift(),
            std=self.deviation(),
        )
