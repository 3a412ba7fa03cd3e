"""`python -m benchmarks.export`: built-in nets in, a table out: how well and how fast each exported form answers.

Each net is exported once in each form that is right for it, and with its convolutions in int8, and asked at several
sizes and batches. It is compared with PyTorch eager and, at the one size that it takes, with the graph that
`torch.onnx.export` writes by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import get_args

import click
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.nets import SIZE, lively, pictures, plain_export, served
from export.calibrate import ranges
from export.convert import convert
from export.errors import ExportError
from export.int8 import OPERATORS, convolutions, preprocess, to_int8
from export.lowering import Form
from export.tracing import trace
from service.manifest import InputSpec
from training.nets import NETS

Pictures = NDArray[np.uint8]
Run = Callable[[Pictures], NDArray[np.float32]]

ASKED = [(SIZE, 1), (SIZE, 3), ((361, 481), 1)]
WITH_PRELU = ("enet",)
SETTLE = 0.1
"""Seconds in which the threads of the way before it come to rest."""

FEW = 3
"""Rounds at the sizes and batches after the first, which no claim rests on."""


@dataclass(frozen=True)
class Contest:
    """One net's ways to answer, by name, `eager` first."""

    net: str
    ways: dict[str, Run]


@click.command()
@click.option("--nets", default="enet,segnet,segnet-basic,unet,linknet,erfnet,light", show_default=True)
@click.option("--rounds", default=7, show_default=True, help="Interleaved measurements of each way.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True, help="For PyTorch and onnxruntime.")
@click.option("--compile/--no-compile", "compiled", default=False, help="Also torch.compile; needs a C++ compiler.")
def main(nets: str, rounds: int, threads: int, compiled: bool) -> None:
    """Print agreement with PyTorch eager and speed relative to it, medians of interleaved rounds."""
    torch.set_num_threads(threads)
    click.echo(f"{machine()}, torch {torch.__version__}, {threads} threads, medians of {rounds} interleaved rounds")
    click.echo(f"({FEW} beyond {SIZE[0]}x{SIZE[1]} in batches of 1)\n")
    click.echo("| net | form | size | batch | same class | ms | eager / this | torch.onnx.export / this |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name in nets.split(","):
        with TemporaryDirectory() as folder:
            contest = _contest(name, Path(folder), threads, compiled)
            for size, batch in ASKED:
                few = rounds if (size, batch) == ASKED[0] else min(rounds, FEW)
                for line in _rows(contest, size, batch, few):
                    click.echo(line)


def _contest(name: str, folder: Path, threads: int, compiled: bool) -> Contest:
    """The net in PyTorch, in each form of ours, as PyTorch's own export has it, and compiled."""
    net = served(lively(name))
    ways = {"eager": _in_torch(net)}
    for form in (*get_args(Form), "auto"):
        path = folder / f"{form}.onnx"
        try:
            lowering = convert(trace(net, NETS[name].stride, SIZE), path, form)
        except ExportError:
            continue
        if lowering.name == "none":
            ways["no unpooling"] = _in_onnxruntime(path, threads)
            break
        if form != "auto":
            ways[form] = _in_onnxruntime(path, threads)
    if name in WITH_PRELU:
        convert(trace(net, NETS[name].stride, SIZE), close := folder / "close.onnx", prelu="close")
        ways["PReLU close"] = _in_onnxruntime(close, threads)
    ways["int8"] = _in_onnxruntime(_in_int8(path, folder / "int8.onnx"), threads)
    plain_export(net, plain := folder / "plain.onnx")
    ways["torch.onnx.export"] = _in_onnxruntime(plain, threads)
    if compiled:
        torch.compiler.reset()  # else it gives up on a net after several others
        ways["torch.compile"] = _in_torch(torch.compile(net))
    return Contest(name, ways)


def _in_int8(source: Path, target: Path) -> Path:
    """The graph with every convolution but the last in int8; what that costs is a question for trained weights."""
    prepared = target.with_suffix(".prepared.onnx")
    preprocess(source, prepared)
    spec = InputSpec(height=SIZE[0], width=SIZE[1])
    found = ranges(prepared, list(pictures(SIZE, 4)), spec, OPERATORS, "minmax")
    to_int8(prepared, target, found, convolutions(onnx.load(prepared)))
    return target


def _rows(contest: Contest, size: tuple[int, int], batch: int, rounds: int) -> Iterator[str]:
    asked = pictures(size, batch)
    static = size != SIZE or batch != 1
    ways = {way: run for way, run in contest.ways.items() if not (static and way == "torch.onnx.export")}
    classes = {way: run(asked).argmax(axis=1) for way, run in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            sleep(SETTLE)
            run(asked)  # the way before it has left the caches full of its own
            start = perf_counter()
            run(asked)
            times[way].append((perf_counter() - start) * 1e3)
    for way in ways:
        same = (classes[way] == classes["eager"]).mean()
        ratios = [_ratio(times[base], times[way]) if base in ways else "" for base in ("eager", "torch.onnx.export")]
        shape = f"{size[0]}x{size[1]} | {batch}"
        yield f"| {contest.net} | {way} | {shape} | {same:.4%} | {median(times[way]):.1f} | {' | '.join(ratios)} |"


def _ratio(base: list[float], other: list[float]) -> str:
    """How many times as fast the other is: the median of the rounds' ratios."""
    return f"{median(slow / fast for slow, fast in zip(base, other, strict=True)):.2f}"


def _in_torch(served: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    def run(pictures: Pictures) -> NDArray[np.float32]:
        with torch.inference_mode():
            return served(torch.from_numpy(pictures)).numpy()

    return run


def _in_onnxruntime(path: Path, threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options)
    return lambda pictures: np.asarray(session.run(None, {"image": pictures})[0])


if __name__ == "__main__":
    main()
