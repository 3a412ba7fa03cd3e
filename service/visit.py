"""A request in, what is known of it out: its log lines, its metrics and its trace are all made of this one record."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter

CLIENT_CLOSED = 499
"""The status of a request whose client went away; nobody receives it."""

QUESTIONS = ("/health/", "/v2/health/", "/metrics")
"""What orchestrators and Prometheus ask every few seconds; no work."""

UNROUTED = "other"
"""The route of a request that reached none."""

PATH_SHOWN = 200
"""Characters of a path that are repeated; its length is its sender's choice."""


@dataclass(frozen=True)
class Segmented:
    """A picture that a net has seen: its size, and the pixels of each class present, by name."""

    width: int
    height: int
    pixels: Mapping[str, int]


@dataclass(frozen=True)
class Work:
    """What was done for a request outside the event loop.

    `steps`: the milliseconds that each took, in their order, the first of them from `submitted` (by `perf_counter`) on.
    `view`: where one was asked for. `pictures`: those that the model saw now. `stored`: True, or why the result was not
    stored; None where that was no question.
    """

    model: str
    version: int
    variant: str
    submitted: float
    steps: Mapping[str, float]
    view: str | None = None
    pictures: tuple[Segmented, ...] = ()
    stored: bool | str | None = None


@dataclass
class Visit:
    """A request on its way; whoever comes to know more of it writes it here.

    `parent`: the headers that say which trace it belongs to. `route`: the template of its path. `code`: that of the
    problem it was answered with. `received`: bytes of its body. `seconds`: what it took, once it has ended.
    """

    id: str
    method: str
    path: str
    parent: Mapping[str, str] = field(default_factory=dict)
    begun: float = field(default_factory=perf_counter)
    route: str = UNROUTED
    status: int = CLIENT_CLOSED
    code: str | None = None
    received: int = 0
    work: Work | None = None
    seconds: float | None = None

    def end(self, route: str) -> None:
        """The answer has been sent, or there is nobody to send it to."""
        self.route = route
        self.seconds = perf_counter() - self.begun


CURRENT: ContextVar[Visit | None] = ContextVar("visit", default=None)
"""The request that is being answered here."""


def note_work(work: Work) -> None:
    """Say what was done for the request that is being answered here."""
    if visit := CURRENT.get():
        visit.work = work


def note_problem(code: str) -> None:
    """Say which problem the request that is being answered here ends with."""
    if visit := CURRENT.get():
        visit.code = code
