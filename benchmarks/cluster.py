"""`python -m benchmarks.cluster`: two Ray nodes with one CPU each beside one node, for single requests and for batches.

Batches: the same command over the same pictures, on one node with two CPUs and on two with one each. Requests: as many
as clients that never pause are answered, by one replica, by two on two nodes, and by segserve alone with one and with
two processes; each process has one core. All on this machine, whose cores they share with Ray and with the clients.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import click

from benchmarks.machine import machine
from benchmarks.photos import photo
from benchmarks.wire import Target, closed_loop
from tests.ray_cluster import ROOT, cluster
from tests.ray_serve import deployed
from tests.server import running

MODELS = ROOT / "models"
CLIENTS = 8
SECONDS = 10.0
WARM_SECONDS = 3.0


def batch(cpus: list[int], photos: Path) -> float:
    """Pictures a second, from the command's start to its end."""
    with TemporaryDirectory() as out, cluster(cpus) as nodes:
        command = ["segment", str(photos), "-o", out, "--models", str(MODELS), "--ray", "--views", "mask", "--json"]
        done = nodes.run("segserve", *command, seconds=1000)
        if done.returncode:
            sys.exit(done.stderr)
        report = json.loads(done.stdout.splitlines()[-1])
        return float(report["done"] / report["seconds"])


def requests(url: str) -> float:
    """Pictures a second that clients are answered which never pause."""
    target = Target.post(f"{url}/segment?output=mask", photo(480, 360), "image/jpeg")
    asyncio.run(closed_loop(target, CLIENTS, _for(WARM_SECONDS)))
    start = perf_counter()
    replies = asyncio.run(closed_loop(target, CLIENTS, _for(SECONDS)))
    seconds = perf_counter() - start
    if any(reply.status != 200 for reply in replies):
        sys.exit(f"{url}: not every answer was 200")
    return len(replies) / seconds


def _for(seconds: float) -> Callable[[], bool]:
    end = perf_counter() + seconds
    return lambda: perf_counter() < end


@contextmanager
def alone(workers: int) -> Iterator[str]:
    """A server by itself, one core a process."""
    settings = {"WORKERS": str(workers), "THREADS": "1", "RESULTS": "off"}
    with TemporaryDirectory() as folder, running(MODELS, Path(folder) / "log", settings) as server:
        yield server.url


@contextmanager
def on_ray(nodes: int) -> Iterator[str]:
    """A replica on each of so many nodes."""
    with (
        TemporaryDirectory() as folder,
        cluster([1] * nodes) as made,
        deployed(made, Path(folder), MODELS, nodes) as deployment,
    ):
        yield deployment.url


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--pictures", default=2000, show_default=True, help="Of each batch.")
def main(rounds: int, pictures: int) -> None:
    """Print a table of rates, each the median of the rounds, and the ratios of one round."""
    click.echo(machine())
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        with TemporaryDirectory() as folder:
            drawn = [photo(480, 360, seed=seed) for seed in range(20)]
            for picture in range(pictures):
                Path(folder, f"{picture:05d}.jpg").write_bytes(drawn[picture % len(drawn)])
            kinds = {"batch, one node with two CPUs": [2], "batch, two nodes with one CPU": [1, 1]}
            for name in sorted(kinds, reverse=bool(number % 2)):
                rates.setdefault(name, []).append(batch(kinds[name], Path(folder)))
        places = {
            "requests, segserve alone, one process": alone(1),
            "requests, segserve alone, two processes": alone(2),
            "requests, Ray, one node": on_ray(1),
            "requests, Ray, two nodes": on_ray(2),
        }
        for name, place in places.items():
            with place as url:
                rates.setdefault(name, []).append(requests(url))
        click.echo(json.dumps({name: round(rate[-1], 1) for name, rate in rates.items()}))
    click.echo("\n| | pictures/s |\n|---|---|")
    for name, rate in rates.items():
        click.echo(f"| {name} | {median(rate):.1f} |")
    names = list(rates)
    click.echo(f"\n{_ratio(rates, 'batch, two nodes with one CPU', 'batch, one node with two CPUs')}")
    click.echo(_ratio(rates, names[-1], names[-2]))
    click.echo(_ratio(rates, names[-1], names[-3]))


def _ratio(rates: dict[str, list[float]], one: str, other: str) -> str:
    ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
    return f"{one} / {other}: {median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


if __name__ == "__main__":
    main()
