"""A real server in a process of its own, on a real port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`; `log` is what it printed."""

    url: str
    pid: int
    log: Path

    @property
    def workers(self) -> list[int]:
        """The ids of its worker processes; `pid` is their supervisor's."""
        return [process.pid for process in psutil.Process(self.pid).children()]

    def memory_bytes(self) -> int:
        """The resident memory of its workers now."""
        found: int = sum(psutil.Process(pid).memory_info().rss for pid in self.workers)
        return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    models: Path,
    log: Path,
    settings: Mapping[str, str] | None = None,
    ready: bool = True,
    python: Path = Path(sys.executable),
    before: str = "",
    port: int | None = None,
) -> Iterator[Server]:
    """`segserve serve` on `models`, with further `SEGSERVE_` settings (without the prefix); stopped at the end.

    Yields when the server is ready, or with `ready` false when loading has ended. `before`: code that is run in the
    server's first process before it is one. `port`: by default a free one.
    """
    port = port or free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGSERVE_")}
    environment |= {f"SEGSERVE_{name}": value for name, value in (settings or {}).items()}
    environment |= {"SEGSERVE_MODELS": str(models), "SEGSERVE_PORT": str(port)}
    with log.open("w") as output:
        process = subprocess.Popen(
            [python, "-c", f"{before}\nfrom segserve.cli import main; main()", "serve"]
            if before
            else [python.with_name("segserve"), "serve"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}/health/{'ready' if ready else 'startup'}", process, log)
        yield Server(url, process.pid, log)
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the server did not answer 200 on {url}:\n{log.read_text()}")
