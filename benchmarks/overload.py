"""`python -m benchmarks.overload`: ten times the requests that a server can answer in, what it makes of them out.

In rounds: first its capacity, by clients that wait for each answer; then so many times that, on a fixed schedule, each
request with a deadline. Exits with 1 where the goodput, the time of the admitted or that of the refused is not as
promised. The load generator runs on the same cores; its share of them is printed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import click

from benchmarks.machine import machine
from benchmarks.photos import photo
from benchmarks.wire import BROKEN, Reply, Target, closed_loop, open_loop
from tests.server import running

SIZE = (480, 360)
WARM_SECONDS = 3.0

GOODPUT = 0.9
"""Of the peak, at least."""

REFUSAL_MS = 50.0
"""Until a 429, at most, from the last byte of the request on: p99."""

LATE = 1.05
"""By how much p99 of the admitted may exceed the deadline: the answer travels, too."""

WASTED = 0.01
"""The share of the admitted that may miss their deadline (504): their work is for nothing."""


@dataclass(frozen=True)
class Round:
    """Requests a second answered at most (`peak`), offered and answered in time (`goodput`); milliseconds of the
    admitted from the moment they were due and of the refused from their last byte on; shares of all requests; the
    generator's share of the cores."""

    peak: float
    offered: float
    goodput: float
    admitted_p50: float
    admitted_p99: float
    refused: float
    refused_p50: float
    refused_p99: float
    missed: float
    faults: int
    generator: float


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Of each measurement.")
@click.option("--times", default=10.0, show_default=True, help="The capacity that is offered.")
@click.option("--timeout", default=2.0, show_default=True, help="Each request's deadline in seconds.")
@click.option("--clients", default=16, show_default=True, help="That measure the capacity.")
@click.option("--workers", default=1, show_default=True, help="Processes of the server.")
@click.option("--models", default="models", show_default=True, type=click.Path(path_type=Path, exists=True))
def main(
    rounds: int, seconds: float, times: float, timeout: float, clients: int, workers: int, models: Path
) -> None:
    """Print the medians of the rounds, and the machine."""
    with (
        TemporaryDirectory() as folder,
        running(models.absolute(), Path(folder) / "log", {"WORKERS": str(workers), "LOG_LEVEL": "warning"}) as server,
    ):
        target = Target.post(f"{server.url}/segment?output=mask&timeout={timeout:g}", photo(*SIZE), "image/jpeg")
        measured = asyncio.run(_rounds(target, rounds, seconds, times, clients))
    found = Round(*(median(values) for values in zip(*(asdict(one).values() for one in measured), strict=True)))
    click.echo(f"{machine()}; {workers} processes, {rounds} rounds of {seconds:g} s, deadline {timeout:g} s\n")
    click.echo(table([*measured, found]))
    if failures := broken_promises(found, sum(one.faults for one in measured), timeout):
        click.echo("\n".join(["", *failures]))
        sys.exit(1)


async def _rounds(target: Target, rounds: int, seconds: float, times: float, clients: int) -> list[Round]:
    """So many rounds, after one that warms up the server and what it knows of its own speed."""
    peak = await _peak(target, clients, WARM_SECONDS)
    await open_loop(target, times * peak, WARM_SECONDS)
    return [await _round(target, seconds, times, clients) for _ in range(rounds)]


async def _peak(target: Target, clients: int, seconds: float) -> float:
    start = perf_counter()
    replies = await closed_loop(target, clients, lambda: perf_counter() < start + seconds)
    return _rate(replies, start, seconds)


async def _round(target: Target, seconds: float, times: float, clients: int) -> Round:
    peak = await _peak(target, clients, seconds)
    start, cpu = perf_counter(), process_time()
    replies = await open_loop(target, times * peak, seconds)
    share = (process_time() - cpu) / (perf_counter() - start) / len(os.sched_getaffinity(0))
    statuses = Counter(reply.status for reply in replies)
    admitted = [(reply.ended - reply.due) * 1e3 for reply in replies if reply.status == 200]
    refused = [(reply.heard - reply.sent) * 1e3 for reply in replies if reply.status == 429]
    return Round(
        peak=peak,
        offered=len(replies) / seconds,
        goodput=_rate(replies, start, seconds),
        admitted_p50=percentile(admitted, 0.5),
        admitted_p99=percentile(admitted, 0.99),
        refused=statuses[429] / len(replies),
        refused_p50=percentile(refused, 0.5),
        refused_p99=percentile(refused, 0.99),
        missed=statuses[504] / max(statuses[504] + statuses[200], 1),
        faults=sum(count for status, count in statuses.items() if status not in (200, 429, 504)),
        generator=share,
    )


def _rate(replies: Sequence[Reply], start: float, seconds: float) -> float:
    """Good answers a second, of those that were there in time."""
    return sum(reply.status == 200 and reply.ended <= start + seconds for reply in replies) / seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many do not exceed; 0 where there are none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0
