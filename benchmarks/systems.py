"""An ONNX file and a number of clients in, a running server for them out: segserve, or a peer in its environment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Body, family
from benchmarks.nets import Subject
from tests.server import free_port

HERE = Path(__file__).parent / "peers"
START_SECONDS = 180


@dataclass(frozen=True)
class Plan:
    """How a server uses the cores: processes, and threads of onnxruntime in each."""

    workers: int
    threads: int

    @classmethod
    def best(cls, clients: int) -> Plan:
        """One client is answered soonest by one process with all cores, many by a process a core."""
        cores = len(os.sched_getaffinity(0))
        return cls(1, cores) if clients == 1 else cls(cores, 1)


@dataclass(frozen=True)
class Start:
    """What a command line needs: the folder of the environment's programs, the port, and the plan."""

    binary: Path
    port: int
    plan: Plan


@dataclass(frozen=True)
class System:
    """A server: how it is started, where it answers and what it is sent. `peer` names its folder under peers/."""

    name: str
    command: Callable[[Start], list[str | Path]]
    peer: str | None = None
    path: str = "/segment"
    body: Callable[[bytes, str], Body] = Body.form


def _segserve(start: Start) -> list[str | Path]:
    """As `make serve` runs it: it plans its threads itself."""
    return [Path(sys.executable).with_name("segserve"), "serve", "--port", str(start.port)]


def _textbook(start: Start) -> list[str | Path]:
    workers = str(start.plan.workers)
    return [start.binary / "uvicorn", "app:app", "--port", str(start.port), "--workers", workers, "--no-access-log"]


def _script(start: Start) -> list[str | Path]:
    return [start.binary / "python", "app.py", str(start.port), str(start.plan.workers)]


def _bentoml(start: Start) -> list[str | Path]:
    return [start.binary / "bentoml", "serve", "app:Segment", "--host", "127.0.0.1", "--port", str(start.port)]


def _mlserver(start: Start) -> list[str | Path]:
    return [start.binary / "mlserver", "start", "."]


SYSTEMS = {
    system.name: system
    for system in (
        System("segserve", _segserve),
        System("FastAPI, textbook", _textbook, "textbook"),
        System("LitServe", _script, "litserve"),
        System("BentoML", _bentoml, "bentoml"),
        System("Ray Serve", _script, "ray"),
        System("MLServer", _mlserver, "mlserver", "/v2/models/segment/infer", Body.tensors),
    )
}


def environment(peer: str, folder: Path) -> Path:
    """The programs of the peer's virtual environment, made where it is not there yet."""
    wanted = (HERE / peer / "requirements.txt").read_text()
    root = folder / peer
    done = root / "installed.txt"
    if not done.exists() or done.read_text() != wanted:
        venv.create(root, with_pip=True, clear=True)
        requirements = str(HERE / peer / "requirements.txt")
        subprocess.run([root / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        done.write_text(wanted)
    return (root / "bin").absolute()


@contextmanager
def running(system: System, subject: Subject, plan: Plan, folder: Path) -> Iterator[tuple[str, int]]:
    """The server on `subject`, ready: its URL and process id."""
    binary = environment(system.peer, folder / "environments") if system.peer else Path()
    port = free_port()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SEGSERVE_")},
        "SEGSERVE_MODELS": str(subject.models.absolute()),
        "MODEL": str(subject.file.absolute()),
        "PALETTE": str(subject.palette.absolute()),
        "THREADS": str(plan.threads),
        "WORKERS": str(plan.workers),
        "PYTHONPATH": str(HERE),
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }
    here = _workplace(system, port, plan, folder)
    with (folder / f"{system.name}.log").open("w") as log:
        command = system.command(Start(binary, port, plan))
        process = subprocess.Popen(command, cwd=here, env=variables, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(port, process, log.name)
        yield f"http://127.0.0.1:{port}{system.path}", process.pid
    finally:
        members = family(process.pid) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        for member in members:
            if member.is_running():
                member.kill()


def _workplace(system: System, port: int, plan: Plan, folder: Path) -> Path:
    """The folder that the server is started in; MLServer reads its settings there."""
    if system.peer is None:
        return Path()
    if system.peer != "mlserver":
        return HERE / system.peer
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    (place / "app.py").write_text((HERE / "mlserver" / "app.py").read_text())
    workers = plan.workers if plan.workers > 1 else 0
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    more = {"parallel_workers": workers, "debug": False, "metrics_endpoint": None}
    (place / "settings.json").write_text(json.dumps(settings | more))
    (place / "model-settings.json").write_text(json.dumps({"name": "segment", "implementation": "app.Segment"}))
    return place


def _wait(port: int, process: subprocess.Popen[bytes], log: str) -> None:
    """Until something listens; the warm-up requests that follow wait for the rest."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the server did not start; see {log}")
