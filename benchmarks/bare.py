"""A net and a picture in, how fast the bare loop is out: decode, `session.run`, encode, with no server around it.

For one client one process with all cores, for several a process a core: what no server on these cores can exceed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.load import Load
from benchmarks.nets import Subject
from benchmarks.systems import HERE, Plan

LOOP = """
import json, sys, time
from pathlib import Path
from work import Work
work, data = Work(), Path(sys.argv[1]).read_bytes()
output, seconds = sys.argv[2], float(sys.argv[3])
work(data, output), work(data, output)
print("ready", flush=True)
sys.stdin.readline()
times, end, cpu = [], time.perf_counter() + seconds, time.process_time()
while (start := time.perf_counter()) < end:
    work(data, output)
    times.append(time.perf_counter() - start)
print(json.dumps({"times": times, "cpu": time.process_time() - cpu}))
"""


def bare(subject: Subject, picture: bytes, output: str, clients: int, seconds: float, folder: Path) -> Load:
    """The loop for `seconds`; every process does the same work."""
    plan = Plan.best(clients)
    photo = folder / "photo.jpg"
    photo.write_bytes(picture)
    variables = os.environ | {
        "MODEL": str(subject.file.absolute()),
        "PALETTE": str(subject.palette.absolute()),
        "THREADS": str(plan.threads),
        "PYTHONPATH": str(HERE),
    }
    command = [sys.executable, "-c", LOOP, str(photo), output, str(seconds)]
    pipe = subprocess.PIPE
    loops = [subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, text=True) for _ in range(plan.workers)]
    for loop in loops:
        assert loop.stdout is not None and loop.stdout.readline() == "ready\n"
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("\n")
        loop.stdin.flush()
    answers = [json.loads(loop.communicate()[0]) for loop in loops]
    times = sorted(time * 1e3 for answer in answers for time in answer["times"])
    rate = sum(len(answer["times"]) / sum(answer["times"]) for answer in answers)
    cpu = sum(answer["cpu"] for answer in answers) / len(times)
    return Load(rate, times[len(times) // 2], times[int(len(times) * 0.99)], cpu, 0.0, 0.0)
