"""Seconds in, an end to what takes longer out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfPatience(BaseException):
    """It took too long. Like KeyboardInterrupt no Exception, which code on the way might take for one of its own."""


AGAIN = 1.0
"""Seconds after which it is raised once more, where it was caught all the same."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise OutOfPatience inside the block once `seconds` have passed; in the main thread, where there are signals.

    It ends Python code, such as the algebra of symbolic sizes, not a call into a library that does not return.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def give_up(*_: object) -> None:
        raise OutOfPatience

    handler = signal.signal(signal.SIGALRM, give_up)
    before = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)
