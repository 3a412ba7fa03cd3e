"""A URL and a body in, what a server makes of so many clients out: wrk sends, the processes' own clocks are read."""

from __future__ import annotations

import base64
import json
import math
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

SCRIPT = Path(__file__).with_name("load.lua")
BOUNDARY = "segserve-benchmark"


@dataclass(frozen=True)
class Body:
    """What is sent: the bytes and their Content-Type."""

    content: bytes
    media_type: str

    @classmethod
    def form(cls, picture: bytes, output: str) -> Body:
        """A multipart form with the file `image` and the field `output`."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        kind = "Content-Type: image/jpeg\r\n\r\n"
        field = (
            f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="output"\r\n\r\n{output}\r\n--{BOUNDARY}--\r\n'
        )
        content = (head + kind).encode() + picture + field.encode()
        return cls(content, f"multipart/form-data; boundary={BOUNDARY}")

    @classmethod
    def tensors(cls, picture: bytes, output: str) -> Body:
        """Open Inference Protocol JSON, the picture in base64."""
        values = {"image": base64.b64encode(picture).decode(), "output": output}
        inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [data]} for name, data in values.items()]
        return cls(json.dumps({"inputs": inputs}).encode(), "application/json")


@dataclass(frozen=True)
class Load:
    """Requests a second, milliseconds, seconds of processor time a request, the highest memory in MB, and the load
    generator's share of the machine's cores."""

    rate: float
    p50: float
    p99: float
    cpu: float
    memory: float
    generator: float


def load(url: str, body: Body, clients: int, seconds: float, pid: int, folder: Path) -> Load:
    """`clients` connections, each sending one request after the other, for `seconds`.

    `pid` is the server's first process. Raises RuntimeError where an answer was not 200.
    """
    file = folder / "body"
    file.write_bytes(body.content)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{math.ceil(seconds)}s", "--timeout", "120s", "-s", str(SCRIPT), url]
    environment = os.environ | {"BODY": str(file), "TYPE": body.media_type}
    with _memory(pid) as peak:
        before, own, start = _cpu(pid), _children(), perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        wall, own, used = perf_counter() - start, _children() - own, _cpu(pid) - before
    counted = json.loads(done.stdout.splitlines()[-1])
    if counted["errors"] or not counted["requests"]:
        raise RuntimeError(f"{url}: {counted}")
    rate = counted["requests"] / counted["microseconds"] * 1e6
    cores = len(os.sched_getaffinity(0))
    return Load(
        rate, counted["p50"] / 1e3, counted["p99"] / 1e3, used / counted["requests"], peak[0], own / wall / cores
    )


def _children() -> float:
    """Processor seconds of the programs that this process has run to their end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _cpu(pid: int) -> float:
    total = 0.0
    for process in family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


@contextmanager
def _memory(pid: int) -> Iterator[list[float]]:
    """The highest memory of the processes together in MB, shared pages counted once, while the block runs."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            try:
                peak[0] = max(peak[0], sum(process.memory_full_info().pss for process in family(pid)) / 1e6)
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
