"""`python -m benchmarks.export`: built-in nets in, a table out: how well and how fast each exported form answers.

Each net is exported once in each form that is right for it, and asked at several sizes and batches. It is compared with
PyTorch eager and, at the one size that it takes, with the graph that `torch.onnx.export` writes by itself.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import get_args

import click
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from benchmarks.__main__ import machine
from export.convert import convert
from export.errors import ExportError
from export.lowering import Form
from export.tracing import ServedNet, trace
from training.nets import NETS, build_net
from training.scenes import scene

Pictures = NDArray[np.uint8]
Run = Callable[[Pictures], NDArray[np.float32]]

SHIPPED = Path("models/camvid-enet/1/weights.safetensors")
EXAMPLE = (360, 480)
ASKED = [(EXAMPLE, 1), (EXAMPLE, 3), ((361, 481), 1)]
CLASSES = 11


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
    click.echo(f"{machine()}, torch {torch.__version__}, {threads} threads, medians of {rounds} interleaved rounds\n")
    click.echo("| net | form | size | batch | same class | ms | eager / this | torch.onnx.export / this |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name in nets.split(","):
        with TemporaryDirectory() as folder:
            contest = _contest(name, Path(folder), threads, compiled)
            for size, batch in ASKED:
                for line in _rows(contest, size, batch, rounds):
                    click.echo(line)


def _contest(name: str, folder: Path, threads: int, compiled: bool) -> Contest:
    """The net in PyTorch, in each form of ours, as PyTorch's own export has it, and compiled."""
    net = _net(name)
    served = ServedNet(net, 255, (0, 0, 0), (1, 1, 1)).eval()
    ways = {"eager": _in_torch(served)}
    for form in (*get_args(Form), "auto"):
        path = folder / f"{form}.onnx"
        try:
            lowering = convert(trace(served, NETS[name].stride, EXAMPLE), path, form)
        except ExportError:
            continue
        if form != "auto" or lowering.name == "none":
            ways[form if form != "auto" else "no unpooling"] = _in_onnxruntime(path, threads)
            if lowering.name == "none":
                break
    ways["torch.onnx.export"] = _in_onnxruntime(_plain_export(served, folder / "plain.onnx"), threads)
    if compiled:
        ways["torch.compile"] = _in_torch(torch.compile(served))
    return Contest(name, ways)


def _net(name: str) -> nn.Module:
    """ENet as shipped; the others with seeded weights and batch-norm statistics from pictures."""
    torch.manual_seed(1)
    net = build_net(name, CLASSES)
    if name == "enet":
        net.load_state_dict(load_file(SHIPPED))
        return net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.from_numpy(_pictures((180, 240), 2)).permute(0, 3, 1, 2) / 255)
    return net.eval()


def _plain_export(served: ServedNet, path: Path) -> Path:
    """What `torch.onnx.export` writes by itself."""
    image = torch.zeros((1, *EXAMPLE, 3), dtype=torch.uint8)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served, (image,), path, input_names=["image"], dynamo=True, verbose=False, external_data=False
        )
    logging.disable(logging.NOTSET)
    return path


def _rows(contest: Contest, size: tuple[int, int], batch: int, rounds: int) -> Iterator[str]:
    pictures = _pictures(size, batch)
    static = size != EXAMPLE or batch != 1
    ways = {way: run for way, run in contest.ways.items() if not (static and way == "torch.onnx.export")}
    classes = {way: run(pictures).argmax(axis=1) for way, run in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            run(pictures)  # the way before it has left the caches full of its own
            start = perf_counter()
            run(pictures)
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


def _pictures(size: tuple[int, int], batch: int) -> Pictures:
    return np.stack([scene(seed, *size)[0] for seed in range(batch)])


if __name__ == "__main__":
    main()
