"""`python -m benchmarks`: nets and pictures in, one table out: bare loops, segserve, and the same file behind others.

Everything is measured in rounds, each way once a round, and what is compared is the median of the rounds.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

import click
import httpx

from benchmarks.bare import bare
from benchmarks.load import Body, Load, load
from benchmarks.machine import machine
from benchmarks.nets import Subject, write
from benchmarks.photos import SIZES, photo
from benchmarks.systems import SYSTEMS, Plan, running

VIEWS = ("mask", "overlay")
CLIENTS = (1, 8)
LOOP = "bare loop"
READY_SECONDS = 180

HEAD = "| net | file | picture | view | clients | system | requests/s | p50 ms | p99 ms | CPU s/request | MB | load |"


@dataclass(frozen=True)
class Case:
    """What is measured. `file` is `own` (as segserve exports it) or `plain` (as `torch.onnx.export` does)."""

    net: str
    file: str
    clients: int
    system: str
    picture: str
    view: str


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Times that everything is measured.")
@click.option("--seconds", default=3.0, show_default=True, help="Of each measurement of the light net.")
@click.option("--nets", default="enet,segnet", show_default=True)
@click.option("--files", default="own,plain", show_default=True, help="Which exports of the nets are served.")
@click.option(
    "--systems", default=",".join([LOOP, *SYSTEMS]).replace("FastAPI, textbook", "textbook"), show_default=True
)
@click.option("--pictures", default="0.2 MP,12 MP", show_default=True)
@click.option("--folder", default="runs/bench", show_default=True, type=click.Path(path_type=Path))
def main(rounds: int, seconds: float, nets: str, files: str, systems: str, pictures: str, folder: Path) -> None:
    """Print the table and write it, and every measurement, into the folder."""
    if shutil.which("wrk") is None:
        raise click.ClickException("the load generator wrk is not installed (Debian, Ubuntu: apt install wrk)")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in (LOOP, *SYSTEMS) if any(word in name for word in systems.split(","))]
    photos = {size: photo(*SIZES[size]) for size in pictures.split(",")}
    found: dict[Case, list[Load]] = {}
    for _ in range(rounds):
        for net in nets.split(","):
            for file in files.split(","):
                subject = write(folder, net, plain=file == "plain")
                for clients in CLIENTS:
                    for name in wanted:
                        case = Case(net, file, clients, name, "", "")
                        for done, measured in _measured(case, subject, photos, seconds, folder):
                            found.setdefault(done, []).append(measured)
                            click.echo(f"{done} {measured.rate:.1f}/s p50 {measured.p50:.1f}", err=True)
        text = _keep(found, folder)  # a run that is cut off leaves the rounds that it has done
    click.echo(text)


def _keep(found: dict[Case, list[Load]], folder: Path) -> str:
    """Write what has been measured, and return the table."""
    text = f"{machine()}\n\n{table(found)}\n"
    (folder / "table.md").write_text(text)
    results = [{**asdict(case), "rounds": [asdict(one) for one in loads]} for case, loads in found.items()]
    (folder / "results.json").write_text(json.dumps({"machine": machine(), "results": results}, indent=1))
    return text


def _measured(
    case: Case, subject: Subject, photos: dict[str, bytes], seconds: float, folder: Path
) -> Iterator[tuple[Case, Load]]:
    """One system on one file, with every picture and view. A heavy net gets three times as long."""
    long = seconds if case.net == "enet" else 3 * seconds
    asked = [(picture, view) for picture in photos for view in VIEWS]
    if case.system == LOOP:
        for picture, view in asked:
            done = Case(case.net, case.file, case.clients, LOOP, picture, view)
            yield done, bare(subject, photos[picture], view, case.clients, long, folder)
        return
    system = SYSTEMS[case.system]
    with running(system, subject, Plan.best(case.clients), folder) as (url, pid):
        for picture, view in asked:
            body = system.body(photos[picture], view)
            address = f"{url}?output={view}" if system.peer is None else url
            enough = 4 * case.clients * _warm_up(address, body)
            done = Case(case.net, case.file, case.clients, case.system, picture, view)
            yield done, load(address, body, case.clients, max(long, enough), pid, folder)


def _warm_up(url: str, body: Body) -> float:
    """Ask until the server answers, then a few times more, for each of its processes; the last answer's seconds."""
    end = time.monotonic() + READY_SECONDS
    headers, good = {"Content-Type": body.media_type}, 0
    while good < 4:
        start = time.perf_counter()
        try:
            answer = httpx.post(url, content=body.content, headers=headers, timeout=120)
            good += answer.status_code == 200
        except httpx.TransportError:
            answer = None
        if time.monotonic() > end:
            raise click.ClickException(f"{url} does not answer: {answer and answer.text[:300]}")
        if not good:
            time.sleep(0.3)
    return time.perf_counter() - start


def table(found: dict[Case, list[Load]]) -> str:
    """Medians, what is compared next to each other."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    order = sorted(found, key=lambda case: (case.net, case.picture, case.view, case.clients, case.file != "own"))
    for _, group in groupby(order, key=lambda case: (case.net, case.picture, case.view, case.clients)):
        for case in group:
            middle = {name: median(asdict(one)[name] for one in found[case]) for name in asdict(found[case][0])}
            what = f"{case.net} | {case.file} | {case.picture} | {case.view} | {case.clients} | {case.system}"
            speed = f"{middle['rate']:.1f} | {middle['p50']:.1f} | {middle['p99']:.1f} | {middle['cpu']:.3f}"
            beside = f"{middle['memory']:.0f} | {middle['generator']:.1%}" if case.system != LOOP else " | "
            lines.append(f"| {what} | {speed} | {beside} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
