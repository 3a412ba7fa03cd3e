"""Pictures that are done in, how far a run is on stderr out: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import click
from tqdm import tqdm

LINE_SECONDS = 15.0
"""Between two lines where there is no terminal."""

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"


@contextmanager
def progress(total: int, before: int, bar: bool | None) -> Iterator[Callable[[], object]]:
    """What is to be called for each picture; `before` of the `total` were done earlier.

    `bar`: True shows one wherever stderr leads, False none, None where it is a terminal.
    """
    if bar or (bar is None and sys.stderr.isatty()):
        with tqdm(total=total, initial=before, unit=" pictures", bar_format=BAR, file=sys.stderr) as shown:
            yield shown.update
        return
    yield _Lines(total, before)


class _Lines:
    """A line of text now and then."""

    def __init__(self, total: int, before: int) -> None:
        self._total = total
        self._before = before
        self._done = 0
        self._start = self._told = monotonic()

    def __call__(self) -> None:
        """One picture more."""
        self._done += 1
        now = monotonic()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        rate = self._done / (now - self._start)
        left = (self._total - self._before - self._done) / rate
        click.echo(
            f"{self._before + self._done} of {self._total} pictures, {rate:.1f} pictures/s, about {clock(left)} left",
            err=True,
        )


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours, minutes and seconds: `1:02`, `2:00:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
