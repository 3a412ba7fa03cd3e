"""`python -m benchmarks`: a model in, a table out: one client over HTTP against the same work in a bare loop."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import click
import httpx
from PIL import Image

from service.bundle import Model, open_bundle
from service.image import decode
from service.render import Options, render_image
from tests.server import running
from training.scenes import scene

SIZES = {"0.2 MP": (480, 360), "12 MP": (4000, 3000)}
VIEWS: tuple[Literal["mask", "overlay"], ...] = ("mask", "overlay")
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds."""

    size: str
    view: str
    net: float
    bare: float
    http: float


@click.command()
@click.option("--bundle", default="models/camvid-enet/1", type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=15, show_default=True, help="Interleaved measurements of each way.")
def main(bundle: Path, rounds: int) -> None:
    """Print medians and ratios for one client: the net alone, the bare loop, and HTTP."""
    model = open_bundle(bundle.absolute(), ("cpu",))
    with (
        tempfile.TemporaryDirectory() as folder,
        running(bundle.absolute().parent.parent, Path(folder) / "log") as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        rows = [_measure(model, client, size, view, rounds) for size in SIZES for view in VIEWS]
    click.echo(machine())
    click.echo(f"model {model.name} version {model.version}, one client, medians of {rounds} interleaved rounds, ms\n")
    click.echo("| picture | view | net alone | bare loop | over HTTP | HTTP / bare |")
    click.echo("|---|---|---|---|---|---|")
    for row in rows:
        ratio = row.http / row.bare
        click.echo(f"| {row.size} | {row.view} | {row.net:.1f} | {row.bare:.1f} | {row.http:.1f} | {ratio:.2f} |")


def _measure(model: Model, client: httpx.Client, size: str, view: Literal["mask", "overlay"], rounds: int) -> Row:
    photo = _photo(*SIZES[size])
    parameters = {"output": view, "model": model.name}

    def bare() -> float:
        picture = decode(photo, MAX_PIXELS)
        segmentation = model.segmenter(picture.rgb)
        render_image(view, model.manifest, picture, segmentation, Options())
        return segmentation.infer_ms

    def http() -> None:
        client.post("/segment", params=parameters, files={"image": photo}).raise_for_status()

    times: list[tuple[float, float, float]] = []
    for _ in range(rounds + 2):
        net, bare_ms = _timed(bare)
        _, http_ms = _timed(http)
        times.append((net or 0.0, bare_ms, http_ms))
    columns = [median(column) for column in zip(*times[2:], strict=True)]
    return Row(size, view, *columns)


def _timed(work: Callable[[], float | None]) -> tuple[float | None, float]:
    start = perf_counter()
    result = work()
    return result, (perf_counter() - start) * 1e3


def _photo(width: int, height: int) -> bytes:
    """A scene as a JPEG of that size."""
    file = BytesIO()
    Image.fromarray(scene(1, 360, 480)[0]).resize((width, height), Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=90
    )
    return file.getvalue()


def machine() -> str:
    """The processor, its cores, and the versions that matter."""
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout.splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("Model name")), platform.processor())
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "pillow", "uvicorn", "fastapi"))
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}, {packages}"


if __name__ == "__main__":
    main()
