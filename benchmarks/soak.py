"""`python -m benchmarks.soak`: thousands of mixed requests in, statuses and memory over time out.

Pictures of many sizes and formats, all views, stored results again, and hostile bodies among them, over a few
connections that are kept. Exits with 1 where an answer was not as documented, or where memory has grown.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from threading import Event
from time import perf_counter

import click
import httpx
import psutil

from benchmarks.asking import Ask, Mixture
from benchmarks.load import family
from benchmarks.machine import machine
from tests.server import running

SAMPLE_SECONDS = 0.5

ROWS = 10

WARM = slice(2, 4)
"""The tenths that the last one is compared with: those after the first fifth."""

GROWTH = 1.05

ENOUGH = 2_000
"""Requests, at least, for memory to say something."""

ERRORS = Path("docs/errors.md")


@dataclass(frozen=True)
class Sample:
    """After so many requests: the memory of all processes of the server in MB, shared pages counted once (`pss`) and
    in each process (`rss`)."""

    done: int
    pss: float
    rss: float


@dataclass
class Soak:
    """What came of the requests so far: statuses with the codes of errors, answers that are not as documented, and the
    addresses of stored results."""

    documented: frozenset[str]
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stored: deque[str] = field(default_factory=lambda: deque(maxlen=500))
    samples: list[Sample] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Requests that were answered."""
        return self.statuses.total()

    def note(self, ask: Ask, answer: httpx.Response) -> None:
        """An answer, and whether it is one of those that the request may get."""
        status = str(answer.status_code)
        if answer.is_error and "problem" in answer.headers.get("content-type", ""):
            status = f"{status} {answer.json()['code']}"
        self.statuses[status] += 1
        right = ask.may_succeed if answer.is_success else ask.may_fail and status in self.documented
        if not right:
            self.wrong.append(f"{ask.what}: {status}: {answer.text[:200] if answer.is_error else ''}")
        if where := answer.headers.get("content-location"):
            self.stored.append(where)


@click.command()
@click.option("--requests", default=10_000, show_default=True)
@click.option("--megapixels", default=12.0, show_default=True, help="Of the largest picture.")
@click.option("--clients", default=4, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Processes of the server.")
@click.option("--models", default="models", show_default=True, type=click.Path(path_type=Path, exists=True))
def main(requests: int, megapixels: float, clients: int, workers: int, models: Path) -> None:
    """Print statuses, requests a second and memory over time, and the machine."""
    mixture, soak = Mixture.drawn(megapixels), Soak(documented())
    settings = {"WORKERS": str(workers), "RESULTS_BYTES": "128MiB"}
    with TemporaryDirectory() as folder, running(models.absolute(), Path(folder) / "log", settings) as server:
        start = perf_counter()
        with sampling(server.pid, soak), ThreadPoolExecutor(clients) as pool:
            numbers = count()
            asking = [pool.submit(client, server.url, mixture, soak, numbers, requests) for _ in range(clients)]
            for one in asking:
                one.result()
        seconds = perf_counter() - start
    rows = tenths(soak.samples, requests)
    click.echo(f"{machine()}; processes: {workers}, clients: {clients}\n")
    click.echo(f"{requests} requests in {seconds:.0f} s, {requests / seconds:.1f} a second\n")
    click.echo(tables(soak, rows))
    if failures := broken_promises(soak, rows, requests):
        click.echo("\n".join(["", *failures]))
        sys.exit(1)


def documented() -> frozenset[str]:
    """The errors of requests that docs/errors.md lists: status and code."""
    return frozenset(
        f"{status} {code}" for status, code in re.findall(r"\| (4\d\d) \| `([a-z-]+)`", ERRORS.read_text())
    )


def client(url: str, mixture: Mixture, soak: Soak, numbers: Iterator[int], requests: int) -> None:
    """Send the next request, until all have been sent."""
    with httpx.Client(base_url=url, timeout=120) as connection:
        while (number := next(numbers)) < requests:
            ask = mixture.ask(number, soak.stored)
            try:
                answer = connection.send(ask.request(connection))
            except httpx.TransportError as error:
                soak.statuses["broken"] += 1
                soak.wrong.append(f"{ask.what}: {error!r}")
            else:
                soak.note(ask, answer)


@contextmanager
def sampling(pid: int, soak: Soak) -> Iterator[None]:
    """While the block runs, the memory of the server's processes is looked at now and then."""
    ended = Event()

    def look() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            try:
                memory = [process.memory_full_info() for process in family(pid)]
            except psutil.NoSuchProcess:
                continue
            soak.samples.append(
                Sample(soak.done, sum(one.pss for one in memory) / 1e6, sum(one.rss for one in memory) / 1e6)
            )

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield
        finally:
            ended.set()
        looking.result()


def tenths(samples: Sequence[Sample], requests: int) -> list[list[Sample]]:
    """The samples of each tenth of the requests."""
    rows: list[list[Sample]] = [[] for _ in range(ROWS)]
    for sample in samples:
        rows[min(sample.done * ROWS // requests, ROWS - 1)].append(sample)
    return rows


def tables(soak: Soak, rows: Sequence[Sequence[Sample]]) -> str:
    """How often each status came, and memory over time."""
    lines = ["| status | answers |", "|---|---|"]
    lines += [f"| {status} | {number} |" for status, number in sorted(soak.statuses.items())]
    lines += ["", "| requests | mean MB | highest MB | mean RSS MB |", "|---|---|---|---|"]
    for number, row in enumerate(rows, 1):
        if row:
            rss = mean(sample.rss for sample in row)
            top = max(sample.pss for sample in row)
            lines.append(f"| to {number / ROWS:.0%} | {mean(one.pss for one in row):.1f} | {top:.1f} | {rss:.1f} |")
    return "\n".join(lines)


def broken_promises(soak: Soak, rows: Sequence[Sequence[Sample]], requests: int) -> list[str]:
    """What did not hold, each as a line."""
    failures = [f"{len(soak.wrong)} answers are not as documented, as: {soak.wrong[0]}"] if soak.wrong else []
    if requests < ENOUGH:
        return failures
    before = mean(sample.pss for row in rows[WARM] for sample in row)
    after = mean(sample.pss for sample in rows[-1])
    if after > GROWTH * before:
        failures.append(f"memory has grown: {after:.1f} MB in the last tenth, {before:.1f} MB after the first fifth")
    return failures


if __name__ == "__main__":
    main()
