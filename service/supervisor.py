"""A listening socket and a number in, so many worker processes out, for as long as the server lives.

A worker that crashes or hangs is replaced. One that is loading its models takes no connections as long as another can
answer, so that who is told "ready" is served, whichever process it meets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from service.channel import ALIVE, GO, LOADED, Channel

logger = logging.getLogger(__name__)

PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from service.worker import main; main()"
"""Imports what the supervisor would import, whatever the current folder holds."""

MEMORY = {"MALLOC_ARENA_MAX": "1"}
"""For glibc: with a heap a thread, what large pictures leave behind in one is of no use to the others."""

HANGING_SECONDS = 30.0
"""A worker whose event loop has not turned for so long is killed."""

STEADY_SECONDS = 10.0
"""A worker that lived so long is replaced at once; one that did not, after a pause."""

LONGEST_PAUSE = 30.0

LAST_SECONDS = 5.0
"""What a worker has beyond the time to drain, before it is killed."""


@dataclass
class _Worker:
    """A worker process, and how far it has come."""

    process: Process
    channel: Channel
    began: bool = False
    loaded: bool = False
    accepting: bool = False

    def let_in(self) -> None:
        """Take connections."""
        if not self.accepting:
            self.accepting = True
            self.channel.say(GO)

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


class Supervisor:
    """Keeps `count` workers on `listener` until a signal ends the server; `gone` is told the id of each that ended."""

    def __init__(
        self, listener: socket.socket, count: int, drain_seconds: float, gone: Callable[[int], None] = lambda _: None
    ) -> None:
        self._listener = listener
        self._count = count
        self._drain_seconds = drain_seconds
        self._gone = gone
        self._workers: list[_Worker] = []
        self._proven = False
        self._failed = False

    async def run(self) -> bool:
        """Until the server has ended. Returns whether it ever worked."""
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number, ending)
        async with asyncio.TaskGroup() as keeping:
            for _ in range(self._count):
                keeping.create_task(self._keep(ending))
        return not self._failed

    def _end(self, number: int, ending: asyncio.Event) -> None:
        """Let all workers drain, and close the own listener: the port is closed when the last worker is gone."""
        if not ending.is_set():
            logger.info("ending: work in hand is finished, for %g s at most", self._drain_seconds)
            ending.set()
            self._listener.close()
            asyncio.get_running_loop().call_later(self._drain_seconds + LAST_SECONDS, self._kill)
        for worker in self._workers:
            worker.signal(number)

    def _kill(self) -> None:
        for worker in self._workers:
            logger.error("worker process %d did not end in time: killed", worker.process.pid)
            worker.signal(signal.SIGKILL)

    async def _keep(self, ending: asyncio.Event) -> None:
        """A worker, and the next one when it has ended."""
        failures = 0
        while not ending.is_set():
            start = monotonic()
            end = await self._live(ending)
            if ending.is_set():
                return
            if not self._proven:
                # Another try would end like this one.
                logger.error("%s before it could serve: the server ends", end)
                self._failed = True
                self._end(signal.SIGTERM, ending)
                return
            failures = 0 if monotonic() - start > STEADY_SECONDS else failures + 1
            pause = min(2.0 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
            logger.error("%s; the next one starts in %g s", end, pause)
            self._let_in()
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), pause)

    async def _live(self, ending: asyncio.Event) -> str:
        """A worker's whole life; returns how it ended."""
        try:
            worker = await self._spawn()
        except OSError as error:  # the machine may have no process, file or memory left; those that serve go on
            return f"a worker process could not be started ({error.strerror})"
        self._let_in()
        if ending.is_set():
            worker.signal(signal.SIGTERM)
        await self._follow(worker)
        self._workers.remove(worker)
        self._gone(worker.process.pid)
        return _how(worker.process)

    async def _spawn(self) -> _Worker:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await create_subprocess_exec(
                    *(sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path)),
                    *(str(self._listener.fileno()), str(theirs.fileno())),
                    env=MEMORY | os.environ,
                    pass_fds=(self._listener.fileno(), theirs.fileno()),
                    start_new_session=True,  # who presses Ctrl-C means the server, which tells its workers itself
                )
            except OSError:
                ours.close()
                raise
        worker = _Worker(process, await Channel.over(ours))
        self._workers.append(worker)
        return worker

    async def _follow(self, worker: _Worker) -> None:
        """Until the worker has ended."""
        while word := await self._hear(worker):
            self._proven |= word == ALIVE
            worker.began = True
            worker.loaded |= word == LOADED
            self._let_in()
        worker.channel.close()
        await worker.process.wait()

    async def _hear(self, worker: _Worker) -> bytes:
        """The worker's next word; one that hangs is killed."""
        if not worker.began:
            return await worker.channel.hear()
        with suppress(TimeoutError):
            return await asyncio.wait_for(worker.channel.hear(), HANGING_SECONDS)
        with suppress(TimeoutError):
            # After a pause of the whole machine, what it said meanwhile is only now read.
            return await asyncio.wait_for(worker.channel.hear(), 1.0)
        logger.error("worker process %d hangs: killed", worker.process.pid)
        worker.signal(signal.SIGKILL)
        return b""

    def _let_in(self) -> None:
        """Let workers take connections: all that are loaded, unless one that is not must do it."""
        taking = [worker for worker in self._workers if worker.accepting]
        loaded = [worker for worker in self._workers if worker.loaded]
        if not taking:
            taking = loaded or self._workers[:1]
            for worker in taking:
                worker.let_in()
        if all(worker.loaded for worker in taking):
            for worker in loaded:
                worker.let_in()


def _how(process: Process) -> str:
    """How a worker's process ended."""
    code = process.returncode
    if code is not None and code < 0:
        return f"worker process {process.pid} was ended by {signal.Signals(-code).name}"
    return f"worker process {process.pid} ended with exit code {code}"
