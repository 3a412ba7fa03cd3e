"""Work in, its result out, done in a thread that takes only what others leave of the cores."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

NICENESS = 10
"""Not the most polite: who holds the interpreter lock must get on with it, too."""


def politely(work: Callable[[], T]) -> T:
    """What `work` returns or raises. Threads that it starts are polite as well: a net that will serve with threads of
    its own is not to be opened here."""
    result: Future[T] = Future()

    def run() -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, name="polite")
    thread.start()
    thread.join()
    return result.result()
