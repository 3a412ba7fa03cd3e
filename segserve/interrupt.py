"""Ctrl-C in, a flag out: the first one asks for an end, the second one raises KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended."""

NOTE = b"\nstopping when the pictures in work are done; Ctrl-C again drops them\n"


@contextmanager
def interruptible() -> Iterator[Event]:
    """Set once Ctrl-C was pressed; in the main thread."""
    stop = Event()

    def note(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, NOTE)  # print is not safe in a signal's handler

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
