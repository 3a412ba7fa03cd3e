"""What a piece of work may use: the machine's cores, and time until somebody ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import onnxruntime as ort

from service.cores import ONE_CORE, CorePool, Cores
from service.errors import DeadlineExceeded

T = TypeVar("T")


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
    """One piece of work's stop, and the pool of cores that it shares with others, if it does; else it has `cores`."""

    stop: Stop = field(default_factory=Stop)
    pool: CorePool | None = None
    cores: Cores = ONE_CORE

    def spread(self) -> AbstractContextManager[Cores]:
        """The cores that the work may use just now."""
        return self.pool.spread() if self.pool else nullcontext(self.cores)

    @contextmanager
    def beside(self, work: Callable[[], T], pays: Callable[[int], bool]) -> Iterator[tuple[Turn, Callable[[], T]]]:
        """Do `work` on one core, and what is in the block, with the turn that it gets, on another; where there is no
        other, or that does not pay with so many cores, `work` is done when its result is asked for."""
        with self.spread() as cores:
            if cores.helpers is not None and cores.count > 1 and pays(cores.count):
                result = cores.helpers.submit(work)
                try:
                    yield Turn(self.stop, cores=Cores(shared=True)), result.result
                finally:
                    wait([result])
                return
        yield self, work
