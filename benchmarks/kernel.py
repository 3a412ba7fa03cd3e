"""`python -m benchmarks.kernel`: scores in, a table out: a mask and an overlay, made as we do and as usual.

12 classes at 480x360 to a mask of 4000x3000 pixels, on all cores. Memory is what a fresh process needs beyond what it
had with its inputs and its output in place.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from benchmarks.machine import machine
from service.blend import blend
from service.cores import CorePool, usable_cores
from service.upsample import fill, winners_of
from service.warm import warm

SIZE, CELLS, CLASSES = (3000, 4000), (360, 480), 12
ROUNDS = 7


class Work:
    """Scores as a net gives them: large areas, noisy at their borders."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        low = torch.from_numpy(rng.normal(size=(1, CLASSES, 24, 32)).astype(np.float32))
        self.scores = F.interpolate(low, CELLS, mode="bicubic")[0].numpy().copy()
        self.scores += rng.normal(scale=0.02, size=self.scores.shape).astype(np.float32)
        self.rows, self.columns = (
            np.clip((np.arange(length) + 0.5) * (cells / length) - 0.5, 0, cells - 1)
            for length, cells in zip(SIZE, CELLS, strict=True)
        )
        self.mask = np.zeros(SIZE, np.uint8)
        self.pool = CorePool(usable_cores())
        self.rgb = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        self.palette = rng.integers(0, 256, (CLASSES, 3)).astype(np.float64)
        self.blended = np.zeros((*SIZE, 4), np.uint8)

    def ours(self) -> None:
        """Winners, then the mask, with the size of each class."""
        with self.pool.inside(), self.pool.spread() as cores:
            winners = winners_of(self.scores, cores)
            fill(self.mask, (0, 0), self.scores, winners, self.rows, self.columns, cores)

    def torchs(self) -> NDArray[np.uint8]:
        """Scores interpolated at every pixel, then compared."""
        large = F.interpolate(torch.from_numpy(self.scores)[None], SIZE, mode="bilinear")
        ids: NDArray[np.uint8] = large[0].argmax(0).to(torch.uint8).numpy()
        return ids

    def overlay(self) -> None:
        """Picture and palette in one pass."""
        with self.pool.inside(), self.pool.spread() as cores:
            blend(self.rgb, self.mask, self.palette, np.full(CLASSES, 0.5), self.blended, cores)

    def numpys(self) -> NDArray[np.uint8]:
        """The palette taken, then mixed."""
        mixed: NDArray[np.uint8] = (self.rgb * 0.5 + self.palette[self.mask] * 0.5).astype(np.uint8)
        return mixed

    def enlarged(self) -> NDArray[np.uint8]:
        """Class ids enlarged: fast, and jagged."""
        small = Image.fromarray(self.scores.argmax(0).astype(np.uint8))
        return np.asarray(small.resize(SIZE[::-1], Image.Resampling.NEAREST))


PAIRS = {"mask": ("ours", "torchs"), "overlay": ("overlay", "numpys")}


@click.command()
@click.option("--memory", type=click.Choice([name for pair in PAIRS.values() for name in pair]), hidden=True)
def main(memory: str | None) -> None:
    """Print medians of interleaved rounds, their ratio, and memory."""
    if memory:
        click.echo(f"{_memory(memory):.1f}")
        return
    work = Work()
    compiling = warm()
    click.echo(f"{machine()}, torch {torch.__version__}, {usable_cores()} threads, medians of {ROUNDS} rounds")
    click.echo(f"compiled functions ready after {compiling:.2f} s\n")
    click.echo(
        "| 12 MP, 12 classes | ms | MB beyond the output | the other way, ms | MB | ratio |\n|---|---|---|---|---|---|"
    )
    for what, (ours, theirs) in PAIRS.items():
        times = [[_seconds(getattr(work, name)) for name in (ours, theirs)] for _ in range(ROUNDS)]
        (mine, other), ratio = np.median(times, axis=0) * 1e3, median(slow / fast for fast, slow in times)
        needed = [
            subprocess.run(
                [sys.executable, "-m", "benchmarks.kernel", "--memory", name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for name in (ours, theirs)
        ]
        click.echo(f"| {what} | {mine:.1f} | {needed[0]} | {other:.1f} | {needed[1]} | {ratio:.1f} |")
    work.ours()
    exact, jagged = work.torchs(), work.enlarged()
    click.echo(
        f"\npixels that differ from torch's: {(work.mask != exact).sum()}; enlarged ids: {(jagged != exact).mean():.2%}"
    )


def _seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def _memory(name: str) -> float:
    """The most that this process needs for one call, in MB, beyond what it has before it; Linux."""
    work = Work()
    warm()
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here on
    before = _status("VmRSS")
    getattr(work, name)()
    return max(0.0, _status("VmHWM") - before) / 1e3


def _status(name: str) -> float:
    """In kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
