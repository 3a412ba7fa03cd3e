"""A real Ray cluster on this machine: each node the processes of one `ray start`, with so many CPUs to its name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.server import free_port

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
STORE_BYTES = 200_000_000
START_SECONDS = 60


@dataclass(frozen=True)
class Node:
    """A node's processes, below that of `ray start`."""

    process: psutil.Popen

    def children(self) -> list[psutil.Process]:
        """All of them that live."""
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def replicas(self) -> list[psutil.Process]:
        """Those that serve pictures."""
        return [child for child in self.children() if "ServeReplica" in _name(child)]

    def kill(self) -> None:
        """As if the machine had lost its power."""
        processes: list[psutil.Process] = [self.process, *self.children()]
        for process in processes:
            _end(process)
        psutil.wait_procs(processes[1:], 10)
        self.process.wait(10)


@dataclass(frozen=True)
class Cluster:
    """Nodes that know each other; `address` is the head's, `folder` where they log."""

    address: str
    folder: Path
    head: Node
    others: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All, the head first."""
        return (self.head, *self.others)

    def environment(self) -> dict[str, str]:
        """For programs that work on the cluster."""
        return os.environ | {"RAY_ADDRESS": self.address}

    def run(self, *arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        """A script of the environment, such as `serve`, on the cluster."""
        return subprocess.run(
            [BIN / arguments[0], *arguments[1:]],
            env=self.environment(),
            cwd=ROOT,
            timeout=seconds,
            capture_output=True,
            text=True,
            check=False,
        )

    def logs(self) -> str:
        """What all workers wrote."""
        files = sorted((self.folder / "session_latest" / "logs").glob("worker-*.err"))
        return "\n".join(file.read_text(errors="replace") for file in files)


@contextmanager
def cluster(cpus: Sequence[int]) -> Iterator[Cluster]:
    """A node for each number of CPUs, the first the head."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SEGSERVE_", "RAY_"))}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    environment["RAY_AUTH_MODE"] = "disabled"  # whatever token another cluster has left in the home folder
    port = free_port()
    address = f"127.0.0.1:{port}"
    started: list[Node] = []
    # Sockets lie in it, whose paths may not be long.
    with TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
        try:
            for index, count in enumerate(cpus):
                role = head if index == 0 else [f"--address={address}"]
                started.append(_start(role, count, environment, Path(folder) / f"node{index}.log"))
            yield Cluster(address, Path(folder), started[0], tuple(started[1:]))
        finally:
            for node in reversed(started):
                node.kill()


def _start(role: list[str], cpus: int, environment: dict[str, str], log: Path) -> Node:
    command = [
        *(str(BIN / "ray"), "start", "--block", "--node-ip-address=127.0.0.1"),
        *(f"--num-cpus={cpus}", "--num-gpus=0", f"--object-store-memory={STORE_BYTES}"),
        *(f"--dashboard-agent-listen-port={free_port()}", *role),
    ]
    with log.open("w") as output:
        process = psutil.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    end = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"the node did not start:\n{log.read_text()}")
        time.sleep(0.1)
    return Node(process)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _end(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
