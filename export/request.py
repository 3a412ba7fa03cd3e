"""What a child process is asked to load: plain data, so that it can go through a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """A net of somebody else's and how pictures are fed to it.

    `net` is `module:factory`, to be imported with `path` first, and called with `arguments`; or a `.pt2` file. Its
    weights are those of `checkpoint` (None: as the factory leaves them), under `weights_key`. The net's input is
    (value / scale - mean) / std, `depth` channels and, unless it is None, a `fourth` one of that value; `output` names
    the scores in its answer, `size` (height, width) is one that it must take, `native_stride` leaves a last upsampling
    out.
    """

    net: str
    path: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    weights_key: str | None = None
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    depth: int = 3
    fourth: float | None = None
    output: str | None = None
    size: tuple[int, int] | None = None
    native_stride: bool = False

    @property
    def is_program(self) -> bool:
        """Whether `net` is an exported program and not a factory."""
        return self.net.endswith(".pt2")

    def words(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> Self:
        """What `words` was made of; JSON has lists for tuples."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in words.items()
        }
        return cls(**values)
