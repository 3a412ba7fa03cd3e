"""A listening socket and a line to the supervisor in, one server process out, which ends when its work is done."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service import logs
from service.app import create_app
from service.channel import ALIVE, BEAT_SECONDS, GO, LOADED, Channel
from service.lifecycle import Lifecycle
from service.protocol import protocol
from service.settings import Settings
from service.websocket import websocket


class Server(uvicorn.Server):
    """uvicorn's server, which a signal makes drain; only a second SIGINT ends it at once."""

    def __init__(self, app: FastAPI, lifecycle: Lifecycle) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol(app.state.settings),
                ws=websocket(app.state.settings, lambda: app.state.gate),
                ws_max_size=app.state.settings.max_bytes,
                ws_per_message_deflate=False,  # pictures are compressed
                log_config=None,
                access_log=False,
                lifespan="on",
            )
        )
        self._lifecycle = lifecycle
        self._interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal's handler, in the middle of anything: the loop does the rest, between other things."""
        self.force_exit = sig == signal.SIGINT and self._interrupted
        self._interrupted |= sig == signal.SIGINT
        asyncio.get_running_loop().call_soon_threadsafe(self._lifecycle.drain)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; asked ten times a second."""
        over = self._lifecycle.is_over(len(self.server_state.connections))
        if not over and not self.force_exit:
            return await super().on_tick(counter)
        # Who reads an answer slowly has a moment more.
        self._lifecycle.cut_off()
        self.config.timeout_graceful_shutdown = max(1, round(self._lifecycle.seconds_left))
        return True


def main() -> None:
    """The worker process; its arguments are the file descriptors of the listening socket and of the line."""
    gc.freeze()  # what was imported stays: a full collection stops requests for 8 ms instead of 93
    listener, line = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    settings = Settings()
    logs.configure(settings)
    lifecycle = Lifecycle(settings.drain_delay, settings.drain_seconds, at_once=False)
    server = Server(create_app(settings, lifecycle), lifecycle)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(server, lifecycle, listener, line))


async def _serve(server: Server, lifecycle: Lifecycle, listener: socket.socket, line: socket.socket) -> None:
    channel = await Channel.over(line)
    words = (_obey(channel, lifecycle), _beat(channel), _report(channel, lifecycle))
    talking = [asyncio.create_task(word) for word in words]
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in talking:
            task.cancel()
        channel.close()


async def _obey(channel: Channel, lifecycle: Lifecycle) -> None:
    """Take connections when the supervisor says so; without a supervisor, end."""
    while word := await channel.hear():
        if word == GO:
            lifecycle.admit()
    lifecycle.drain()


async def _beat(channel: Channel) -> None:
    while True:
        channel.say(ALIVE)
        await asyncio.sleep(BEAT_SECONDS)


async def _report(channel: Channel, lifecycle: Lifecycle) -> None:
    await lifecycle.loaded.wait()
    channel.say(LOADED)
