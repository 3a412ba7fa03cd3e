"""`python -m benchmarks.rest URL...`: running servers in, what one client's call of each takes after a rest out.

Several, as of two versions or with two settings, are asked in turn in each round, in another order each time. Without a
rest, only the last of three calls in a row counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from statistics import median, quantiles
from time import sleep

import click
import httpx

from benchmarks.call import call
from benchmarks.machine import machine
from benchmarks.photos import SIZES, photo


@click.command()
@click.argument("urls", nargs=-1, required=True)
@click.option("--rounds", default=25, show_default=True)
@click.option("--model", default="camvid-lite", show_default=True)
@click.option("--views", default="mask,overlay", show_default=True)
@click.option("--pictures", default=",".join(SIZES), show_default=True)
@click.option("--rests", default="0,0.1,2.5", show_default=True, help="Seconds before each call.")
def main(urls: tuple[str, ...], rounds: int, model: str, views: str, pictures: str, rests: str) -> None:
    """Print medians (and 90th percentiles) in milliseconds, and the medians' ratio to those of the first server."""
    click.echo(f"{machine()}, {model}\n")
    click.echo(f"| picture | view | rest, s | {' | '.join(urls)} | ratio |")
    click.echo("|---" * (4 + len(urls)) + "|")
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=60)) for url in urls]
        photos = {size: photo(*SIZES[size]) for size in pictures.split(",")}
        for size, view, rest in product(photos, views.split(","), map(float, rests.split(","))):
            calls = [partial(call, client, photos[size], {"model": model, "output": view}) for client in clients]
            click.echo(f"| {size} | {view} | {rest:g} | {_row(calls, rounds, rest)} |")


def _row(calls: Sequence[Callable[[], float]], rounds: int, rest: float) -> str:
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for place in random.sample(range(len(calls)), len(calls)):
            for _ in range(1 if rest else 3):
                sleep(rest)
                milliseconds = calls[place]()
            if turn:  # the first warms up
                times[place].append(milliseconds)
    medians = [median(found) for found in times]
    cells = [f"{middle:.1f} ({quantiles(found, n=10)[-1]:.1f})" for middle, found in zip(medians, times, strict=True)]
    return " | ".join([*cells, ", ".join(f"{middle / medians[0]:.2f}" for middle in medians[1:])])


if __name__ == "__main__":
    main()
