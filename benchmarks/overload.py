"""`python -m benchmarks.overload`: ten times the requests that a server can answer in, what it makes of them out.

In rounds: first its capacity, by clients that wait for each answer; then so many times that, on a fixed schedule, each
request with a deadline. Exits with 1 where the goodput, the time of the admitted or that of the refused is not as
promised. The load generator runs on the same cores: what it takes of them in the second part beyond the first is taken
off the peak, before the goodput is compared with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import click
import uvloop

from benchmarks.machine import machine
from benchmarks.photos import photo
from benchmarks.wire import BROKEN, Reply, Target, closed_loop, open_loop, percentile
from tests.server import running

HEAD = (
    "| round | peak/s | offered/s | goodput/s | of the peak | less the load | admitted p50 / p99 ms | 504 | 429 |"
    " 429 p50 / p99 ms | faults | load |"
)

SIZE = (480, 360)
WARM_SECONDS = 3.0

GOODPUT = 0.9
"""Of the peak, at least."""

REFUSAL_MS = 50.0
"""Until a 429, at most, from the last byte of the request on: p99."""

LATE = 1.05
"""By how much p99 of the admitted may exceed the deadline: the answer travels, too."""

EXPECTED = (200, 429, 504)

WASTED = 0.01
"""The share of the admitted that may miss their deadline (504): their work is for nothing."""


@dataclass(frozen=True)
class Round:
    """Requests a second answered at most (`peak`), offered and answered in time (`goodput`); milliseconds of the
    admitted from the moment they were due and of the refused from their last byte on; shares of all requests (`missed`:
    of the admitted); the share of the cores that the generator took, `more` of them than at the peak."""

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
    more: float

    @property
    def kept(self) -> float:
        """The share of the peak that is left, of the cores that the generator leaves."""
        return self.goodput / (self.peak * (1 - self.more))


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Of each measurement.")
@click.option("--times", default=10.0, show_default=True, help="The capacity that is offered.")
@click.option("--timeout", default=2.0, show_default=True, help="Each request's deadline in seconds.")
@click.option("--clients", default=16, show_default=True, help="That measure the capacity.")
@click.option("--workers", default=1, show_default=True, help="Processes of the server.")
@click.option("--models", default="models", show_default=True, type=click.Path(path_type=Path, exists=True))
def main(rounds: int, seconds: float, times: float, timeout: float, clients: int, workers: int, models: Path) -> None:
    """Print the rounds, their medians, and the machine."""
    with (
        TemporaryDirectory() as folder,
        running(models.absolute(), Path(folder) / "log", {"WORKERS": str(workers)}) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        target = Target.post(f"{server.url}/segment?output=mask&timeout={timeout:g}", photo(*SIZE), "image/jpeg")
        measured = runner.run(_rounds(target, rounds, seconds, times, clients))
    found = Round(*(median(values) for values in zip(*(asdict(one).values() for one in measured), strict=True)))
    click.echo(f"{machine()}; processes: {workers}, {rounds} rounds of {seconds:g} s, deadline {timeout:g} s\n")
    click.echo(table([*measured, found]))
    if failures := broken_promises(found, sum(one.faults for one in measured), timeout):
        click.echo("\n".join(["", *failures]))
        sys.exit(1)


async def _rounds(target: Target, rounds: int, seconds: float, times: float, clients: int) -> list[Round]:
    """So many rounds, after one that warms up the server and what it knows of its own speed."""
    warm = min(WARM_SECONDS, seconds)
    peak, _ = await _peak(target, clients, warm)
    await open_loop(target, times * peak, warm)
    return [await _round(target, seconds, times, clients) for _ in range(rounds)]


async def _peak(target: Target, clients: int, seconds: float) -> tuple[float, float]:
    """Good answers a second, and the generator's share of the cores."""
    start = perf_counter()
    replies, share = await _measured(closed_loop(target, clients, lambda: perf_counter() < start + seconds))
    if rate := _rate(replies, start, seconds):
        return rate, share
    raise click.ClickException(f"the server answered no request: {Counter(reply.status for reply in replies)}")


async def _round(target: Target, seconds: float, times: float, clients: int) -> Round:
    peak, resting = await _peak(target, clients, seconds)
    start = perf_counter()
    replies, share = await _measured(open_loop(target, times * peak, seconds))
    statuses = Counter(reply.status for reply in replies)
    click.echo(f"statuses ({BROKEN}: a broken connection): {dict(statuses)}", err=True)
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
        faults=sum(count for status, count in statuses.items() if status not in EXPECTED),
        generator=share,
        more=share - resting,
    )


async def _measured(asking: Coroutine[None, None, list[Reply]]) -> tuple[list[Reply], float]:
    """The replies, and the share of the cores that asking took."""
    start, cpu = perf_counter(), process_time()
    replies = await asking
    return replies, (process_time() - cpu) / (perf_counter() - start) / len(os.sched_getaffinity(0))


def _rate(replies: Sequence[Reply], start: float, seconds: float) -> float:
    """Good answers a second, of those that were there in time."""
    return sum(reply.status == 200 and reply.ended <= start + seconds for reply in replies) / seconds


def table(rounds: Sequence[Round]) -> str:
    """A line a round; the last one is the median."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for number, one in enumerate(rounds, 1):
        name = number if number < len(rounds) else "median"
        speed = (
            f"{one.peak:.1f} | {one.offered:.0f} | {one.goodput:.1f} | {one.goodput / one.peak:.1%} | {one.kept:.1%}"
        )
        admitted = f"{one.admitted_p50:.0f} / {one.admitted_p99:.0f} | {one.missed:.1%}"
        refused = f"{one.refused:.1%} | {one.refused_p50:.1f} / {one.refused_p99:.1f}"
        lines.append(f"| {name} | {speed} | {admitted} | {refused} | {one.faults:.0f} | {one.generator:.1%} |")
    return "\n".join(lines)


def broken_promises(found: Round, faults: int, deadline: float) -> list[str]:
    """What did not hold, each as a line."""
    failures = []
    if found.kept < GOODPUT:
        failures.append(f"the goodput is {found.kept:.1%} of the peak less the load, not {GOODPUT:.0%} and more")
    if found.admitted_p99 > LATE * deadline * 1e3:
        failures.append(f"p99 of the admitted is {found.admitted_p99:.0f} ms, the deadline {deadline:g} s")
    if found.refused_p99 > REFUSAL_MS:
        failures.append(f"p99 of the refused is {found.refused_p99:.1f} ms, not at most {REFUSAL_MS:g}")
    if found.missed > WASTED:
        failures.append(f"{found.missed:.1%} of the admitted missed their deadline, not at most {WASTED:.0%}")
    if faults:
        failures.append(f"{faults} requests were answered with none of {EXPECTED}, or not at all")
    return failures


if __name__ == "__main__":
    main()
