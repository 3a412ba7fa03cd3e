"""Questions to somebody else's net, which runs in a child process, in; its answers out, or one clear line."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.wire import Message, receive, send
from service.graph import Answer, Tensor
from service.turn import Stop

CHILD = Path(__file__).with_name("child.py")
GRACE = 5
"""Seconds that a child has to end by itself once nobody asks any more."""


class Process:
    """The child process, from entering to leaving the context; as a net it is the reference that a graph is held to."""

    def __init__(self, seconds: float) -> None:
        """It may take so long over each answer."""
        self._seconds = seconds
        self._late = False

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-P", str(CHILD)]
        self._child = subprocess.Popen(  # noqa: S603 - our own file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin and self._child.stdout
        with suppress(OSError):  # it may have gone already
            self._child.stdin.close()
        try:
            self._child.wait(GRACE if kind is None else 0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._log.close()

    def ask(self, words: Mapping[str, Any], array: NDArray[Any] | None = None) -> Message:
        """Raises ExportError where the answer is an error, or there is none, or none in time."""
        assert self._child.stdin and self._child.stdout
        timer = Timer(self._seconds, self._stop)
        timer.start()
        try:
            send(self._child.stdin, words, array)
            answer, found = receive(self._child.stdout)
        except (EOFError, OSError):
            raise ExportError(self._end()) from None
        finally:
            timer.cancel()
        if "error" in answer:
            raise ExportError(answer["error"])
        return answer, found

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """The net's scores for one prepared picture, uint8 (1, h, w, depth)."""
        _, scores = self.ask({}, tensor)
        assert scores is not None
        return Answer(np.asarray(scores, np.float32))

    def _stop(self) -> None:
        self._late = True
        self._child.kill()

    def _end(self) -> str:
        """Why it gives no more answers."""
        code = self._child.wait()
        if self._late:
            return f"the net gave no answer within {self._seconds:g} seconds, and was ended; --timeout gives it more"
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"the net's process ended {how}{f', its last words: {lines[-1].strip()[:300]}' if lines else ''}"
