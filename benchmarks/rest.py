"""`python -m benchmarks.rest URL...`: running servers in, what one client's call of each takes after a rest out.

Several, as of two versions or with two settings, are asked in turn in each round, in another order each time. Without a
rest, only the last of three calls in a row counts.
"""

from __future__ import annotations

import random
from statistics import median, quantiles
from time import perf_counter, sleep

import click
import httpx

from benchmarks.machine import machine
from benchmarks.photos import photo

SIZES = {"0.2 MP": (480, 360), "0.7 MP": (960, 720), "12 MP": (4000, 3000)}


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
    with httpx.Client(timeout=60) as client:
        for size in pictures.split(","):
            picture = photo(*SIZES[size])
            for view in views.split(","):
                for rest in map(float, rests.split(",")):
                    asks = [(client, url, picture, {"model": model, "output": view}) for url in urls]
                    click.echo(f"| {size} | {view} | {rest:g} | {_row(asks, rounds, rest)} |")


Ask = tuple[httpx.Client, str, bytes, dict[str, str]]


def _row(asks: list[Ask], rounds: int, rest: float) -> str:
    times: list[list[float]] = [[] for _ in asks]
    for turn in range(rounds + 1):
        for place in random.sample(range(len(asks)), len(asks)):
            for _ in range(1 if rest else 3):
                sleep(rest)
                milliseconds = _milliseconds(*asks[place])
            if turn:  # the first warms up
                times[place].append(milliseconds)
    medians = [median(found) for found in times]
    cells = [f"{middle:.1f} ({quantiles(found, n=10)[-1]:.1f})" for middle, found in zip(medians, times, strict=True)]
    return " | ".join([*cells, ", ".join(f"{middle / medians[0]:.2f}" for middle in medians[1:])])


def _milliseconds(client: httpx.Client, url: str, picture: bytes, parameters: dict[str, str]) -> float:
    start = perf_counter()
    headers = {"Content-Type": "image/jpeg"}
    client.post(f"{url}/segment", params=parameters, content=picture, headers=headers).raise_for_status()
    return 1000 * (perf_counter() - start)


if __name__ == "__main__":
    main()
