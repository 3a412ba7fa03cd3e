"""`python -m benchmarks.swap`: a server under constant load and a new version of its model in, what clients felt out.

For ENet, as shipped, and SegNet with random weights: twice as many clients as there are cores ask without pause, over
connections that are kept; then the new version is renamed into the model folder. Exits with 1 where a request failed,
or where p99 of those that were under way while the versions changed is more than three times that before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import click

from benchmarks.machine import machine
from benchmarks.nets import SHIPPED, SIZE, pictures, write
from benchmarks.photos import photo
from benchmarks.wire import Reply, Target, closed_loop, percentile
from service.golden import Golden
from service.graph import Graph
from service.manifest import GOLDEN, read_manifest
from service.segmenter import Segmenter
from tests.server import running

HEAD = (
    "| net | round | requests during | before p50 / p99 / worst ms | during | after | seconds to the new version |"
    " errors | p99 during / before |"
)

MOST = 3.0
"""p99 during the change, at most so many times that before."""

CLIENTS_PER_CORE = 2
WATCH = "0.5"
A_LITTLE = 0.5
"""Seconds after the change that still count as a part of it."""

LONGEST = 300.0
VERSION = re.compile(rb'"version": ?(\d+)')


@dataclass(frozen=True)
class Phase:
    """Milliseconds of the answers of a stretch of time."""

    count: int
    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, replies: Sequence[Reply]) -> Phase:
        """Of these answers."""
        times = [(reply.ended - reply.due) * 1e3 for reply in replies]
        return cls(len(times), percentile(times, 0.5), percentile(times, 0.99), max(times, default=0.0))

    def __str__(self) -> str:
        return f"{self.p50:.0f} / {self.p99:.0f} / {self.worst:.0f}"


@dataclass(frozen=True)
class Change:
    """One change of versions: the answers around it, seconds until the new version answered, requests that failed."""

    before: Phase
    during: Phase
    after: Phase
    seconds: float
    errors: int

    @property
    def ratio(self) -> float:
        """How many times longer p99 was during it."""
        return self.during.p99 / self.before.p99 if self.before.p99 else math.inf


@click.command()
@click.option("--nets", default="enet,segnet", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Changes of versions.")
@click.option("--seconds", default=20.0, show_default=True, help="Before and after each, for ENet; for others thrice.")
@click.option("--workers", default=1, show_default=True, help="Processes of the server.")
@click.option("--folder", default="runs/bench/swap", show_default=True, type=click.Path(path_type=Path))
def main(nets: str, rounds: int, seconds: float, workers: int, folder: Path) -> None:
    """Print the changes, and the machine."""
    found = {}
    for net in nets.split(","):
        long = seconds if net == "enet" else 3 * seconds
        with repository(net, rounds, folder) as (models, versions):
            settings = {"WATCH": WATCH, "WORKERS": str(workers)}
            with running(models, models.parent / "log", settings) as server:
                target = Target.post(f"{server.url}/segment?output=json&store=false", picture(), "image/jpeg")
                found[net] = asyncio.run(changes(target, models, versions, long))
    click.echo(f"{machine()}; processes: {workers}, clients: {clients()}\n")
    click.echo(table(found))
    if failures := broken_promises(found):
        click.echo("\n".join(["", *failures]))
        sys.exit(1)


def picture() -> bytes:
    """Of the net's size: nothing but the net takes long."""
    return photo(SIZE[1], SIZE[0])


def clients() -> int:
    """How many ask at once."""
    return CLIENTS_PER_CORE * len(os.sched_getaffinity(0))


@contextmanager
def repository(net: str, rounds: int, folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A model folder with version 1 of the net, and further versions beside it, ready to be renamed into it."""
    first = SHIPPED if net == "enet" else exported(net, folder)
    name = first.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as made:
        place = Path(made).absolute()
        versions = [place / "next" / name / str(version) for version in range(2, rounds + 2)]
        for version, target in enumerate([place / "models" / name / "1", *versions], 1):
            shutil.copytree(first, target)
            manifest = target / "model.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": version}))
        yield place / "models", versions


def exported(net: str, folder: Path) -> Path:
    """The net with seeded weights as a bundle, with what it answers itself as its golden mask."""
    subject = write(folder, net, plain=False)
    bundle = subject.file.parent
    manifest = read_manifest(bundle)
    if not (bundle / GOLDEN).exists():
        golden = pictures(SIZE, 1)[0]
        seen = Segmenter(manifest, Graph(subject.file, manifest, ("cpu",)))(golden, confidence=False)
        Golden(golden, {manifest.variants[0].id: seen.coarse}).save(bundle / GOLDEN)
        sums = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in (subject.file.name, GOLDEN)}
        (bundle / "model.json").write_text(manifest.model_copy(update={"sha256": sums}).to_json())
    return bundle


async def changes(target: Target, models: Path, versions: Sequence[Path], seconds: float) -> list[Change]:
    """What happened at each change, under the same load."""
    replies: list[Reply] = []
    ended = asyncio.Event()
    load = asyncio.create_task(closed_loop(target, clients(), lambda: not ended.is_set(), replies))
    await until(lambda: len(replies) >= 2 * clients(), load)
    found = []
    for version in versions:
        found.append(await change(models, version, replies, seconds, load))
        shutil.rmtree(models / version.parent.name / str(int(version.name) - 1))
        await asyncio.sleep(2 * float(WATCH) + A_LITTLE)
    ended.set()
    await load
    return found


async def change(
    models: Path, version: Path, replies: list[Reply], seconds: float, load: asyncio.Task[list[Reply]]
) -> Change:
    """Rename the version into the folder, and look at the answers before, until all come from it, and after that."""
    begun = perf_counter()
    await asyncio.sleep(seconds)
    renamed = perf_counter()
    version.rename(models / version.parent.name / version.name)
    wanted = version.name.encode()
    await until(lambda: all(answered_by(reply, wanted) for reply in replies[-3 * clients() :]), load)
    moved = perf_counter() + A_LITTLE
    await asyncio.sleep(A_LITTLE + seconds)
    seen = [reply for reply in replies if reply.due >= begun]
    new = min(reply.ended for reply in seen if answered_by(reply, wanted))
    return Change(
        before=Phase.of([reply for reply in seen if reply.ended < renamed]),
        during=Phase.of([reply for reply in seen if reply.ended >= renamed and reply.due < moved]),
        after=Phase.of([reply for reply in seen if reply.due >= moved]),
        seconds=new - renamed,
        errors=sum(reply.status != 200 for reply in seen),
    )


def answered_by(reply: Reply, version: bytes) -> bool:
    """Whether this version gave the answer."""
    found = VERSION.search(reply.body)
    return found is not None and found[1] == version


async def until(condition: Callable[[], bool], load: asyncio.Task[list[Reply]]) -> None:
    """Until it is so, while the load goes on."""
    end = perf_counter() + LONGEST
    while not condition():
        if load.done() or perf_counter() > end:
            raise click.ClickException(f"the new version did not answer within {LONGEST:g} s, or the load broke off")
        await asyncio.sleep(0.02)


def table(found: dict[str, list[Change]]) -> str:
    """A line a change."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for net, rounds in found.items():
        for number, one in enumerate(rounds, 1):
            times = f"{one.before} | {one.during} | {one.after} | {one.seconds:.1f}"
            lines.append(f"| {net} | {number} | {one.during.count} | {times} | {one.errors} | {one.ratio:.2f} |")
    return "\n".join(lines)


def broken_promises(found: dict[str, list[Change]]) -> list[str]:
    """What did not hold, each as a line."""
    failures = []
    for net, rounds in found.items():
        if errors := sum(one.errors for one in rounds):
            failures.append(f"{net}: {errors} requests failed")
        if (ratio := median(one.ratio for one in rounds)) > MOST:
            failures.append(f"{net}: p99 during the change is {ratio:.2f} times that before, not at most {MOST:g}")
    return failures


if __name__ == "__main__":
    main()
