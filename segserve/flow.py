"""A conversation with the service as a generator: calls and waits come out of it, replies go in, its result comes out.

It does no I/O itself, so that `Client` and `AsyncClient` share every decision and differ only in how they
send and wait.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A request: `parameters` are those of the query, `content` the body, None for none; `seconds` it may take."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    seconds: float = 30.0


@dataclass(frozen=True)
class Wait:
    """Nothing to do for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """An answer, whatever it says; `headers` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Silence:
    """No answer, and why; `again`: whether asking again may help."""

    reason: str
    again: bool


Step: TypeAlias = Call | Wait
Heard: TypeAlias = Reply | Silence | None
"""What comes back for a step: nothing for a wait."""

Flow: TypeAlias = Generator[Step, Heard, T]
