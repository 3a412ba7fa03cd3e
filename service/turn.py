"""What a piece of work may use: the machine's cores, and time until somebody ends it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import onnxruntime as ort

from service.cores import ONE_CORE, CorePool, Cores
from service.errors import DeadlineExceeded


class Stop:
    """A request's deadline as a running net sees it: `set` ends the run."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self.options.log_severity_level = 4
        self._then: list[Callable[[], None]] = []

    def set(self) -> None:
        """End the run that uses this stop, and any that begins with it."""
        self.options.terminate = True
        for call in self._then:
            call()

    def then(self, call: Callable[[], None]) -> None:
        """Call this as soon as `set` was called, in that thread; at once where it was."""
        self._then.append(call)
        if self.is_set:
            call()

    def check(self) -> None:
        """Raise DeadlineExceeded where `set` was called."""
        if self.is_set:
            raise DeadlineExceeded("the deadline passed during the work")

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return bool(self.options.terminate)


@dataclass(frozen=True)
class Turn:
    """One piece of work's stop, and the pool of cores that it shares with others, if it does."""

    stop: Stop = field(default_factory=Stop)
    pool: CorePool | None = None

    def spread(self) -> AbstractContextManager[Cores]:
        """The cores that the work may use just now."""
        return self.pool.spread() if self.pool else nullcontext(ONE_CORE)
