"""`segserve segment`: pictures and folders in, files of their segmentations and a table of class shares out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NoReturn

import click

from segserve.batch import Batch, Crew, Threads
from segserve.containers import SUFFIXES
from segserve.engine import Engine, Wanted
from segserve.errors import SegserveClientError
from segserve.inputs import Item, find
from segserve.interrupt import INTERRUPTED, interruptible
from segserve.journal import FILES, PARQUET, Run, open_journal
from segserve.ledger import ROWS, FileLedger, TableLedger
from segserve.options import check_place, complete_model, place_options
from segserve.progress import progress
from segserve.report import Report, Target
from segserve.summary import check_summary, need_pyarrow, write_summary
from segserve.views import complete_views, parse_views
from segserve.whole import sweep
from segserve.work import Failure, Work

VIEWS = ("mask", "overlay")

REMOTE_JOBS = 4
"""Pictures at once against a server, which has its own idea of how many it works on."""


@dataclass(frozen=True)
class Place:
    """Where the models are: a server, or a folder (None: the usual one)."""

    url: str | None
    key: str | None
    models: Path | None


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the results."
)
@place_options
@click.option("--model", metavar="NAME", shell_complete=complete_model, help="The model.  [default: the default one]")
@click.option("--version", type=click.IntRange(1), metavar="N", help="Its version.  [default: the one that serves]")
@click.option(
    "--views",
    callback=parse_views,
    shell_complete=complete_views,
    help="What to make of each picture: "
    "json, mask, color, overlay, confidence, rle, polygons, geojson, zip; comma-separated.  [default: mask,overlay]",
)
@click.option("--alpha", type=click.FloatRange(0, 1), help="The palette's share of overlays.  [default: 0.5]")
@click.option(
    "--classes", metavar="NAMES", help="Names or ids, comma-separated: the classes to tint, list and outline."
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), metavar="N", help="Pictures at once.  [default: one a core; 4 with --url]"
)
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Table of class shares, .csv or .parquet.  [default: OUT/summary.csv]",
)
@click.option(
    "--format",
    type=click.Choice((FILES, PARQUET)),
    default=FILES,
    show_default=True,
    help="Files of each picture, or tables with a row for each: class shares, and the mask run-length encoded.",
)
@click.option(
    "--ray", "on_ray", is_flag=True, help="Work on the machines of a Ray cluster: RAY_ADDRESS, or a local one."
)
@click.option("--overwrite", is_flag=True, help="Make everything anew, and replace files that are in the way.")
@click.option("--progress/--no-progress", "bar", default=None, help="A progress bar.  [default: on a terminal]")
@click.option("--json", "as_json", is_flag=True, help="Print a report for programs on stdout.")
def segment(
    paths: tuple[Path, ...],
    out: Path,
    url: str | None,
    key: str | None,
    models: Path | None,
    model: str | None,
    version: int | None,
    views: tuple[str, ...] | None,
    alpha: float | None,
    classes: str | None,
    jobs: int | None,
    summary: Path | None,
    format: str,  # noqa: A002 - the option's name
    on_ray: bool,
    overwrite: bool,
    bar: bool | None,
    as_json: bool,
) -> None:
    """Segment pictures, and all pictures in folders, in tars (WebDataset) and in Parquet tables that are named, with
    the models of a folder or of a server.

    The results are OUT/NAME.VIEW.*, in folders like those of the pictures. Stopped by whatever it may be, the same
    command goes on where it was.
    """
    check_place(url, models)
    if on_ray and url is not None:
        raise click.UsageError("--ray works with the models of a folder, --url asks a server: name one of them")
    target = Target(out, summary or out / "summary.csv", overwrite)
    items, unlisted = _inputs(paths, target)
    wanted = Wanted(_views(views, format == PARQUET), alpha, _words(classes))
    with interruptible() as stop:
        try:
            engine = _engine(Place(url, key, models), model, version, wanted, jobs)
            work = Work(engine, wanted, out, stop, format == PARQUET)
            crew = _ray_crew(work, jobs) if on_ray else Threads(work, jobs or _jobs(url))
            report = _segment(items, unlisted, work, crew, target, bar)
        except KeyboardInterrupt:
            click.echo(f"interrupted; the same command{target.way_on} goes on where this one was", err=True)
            _leave(INTERRUPTED)
        except (SegserveClientError, OSError) as error:
            raise click.ClickException(str(error)) from error
    for line in report.lines():
        click.echo(line, err=True)
    if as_json:
        click.echo(report.to_json())
    if report.ran.dropped:
        _leave(report.exit_code)
    sys.exit(report.exit_code)


def _inputs(paths: Sequence[Path], target: Target) -> tuple[list[Item], list[Failure]]:
    """The pictures, and the folders that cannot be listed. Raises click.UsageError, click.ClickException."""
    out = target.out
    check_summary(target.summary)
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise click.UsageError(f"-o {out}: name a folder; the files in it are named after the pictures")
    if any(path.is_dir() and path.resolve() == out.resolve() for path in paths):
        raise click.UsageError(f"-o {out}: the results would lie among the pictures: name another folder")
    items, unreadable = find(paths, out)
    unlisted = [Failure(one.label, one.reason) for one in unreadable]
    if not items and not unlisted:
        kinds = ", ".join(sorted(SUFFIXES))
        raise click.ClickException(f"{', '.join(map(str, paths))}: there are no pictures ({kinds})")
    return items, unlisted


def _views(views: tuple[str, ...] | None, rows: bool) -> tuple[str, ...]:
    if not rows:
        return views or VIEWS
    if views is not None:
        raise click.UsageError("--views says which files are made, --format parquet makes none: name one of them")
    need_pyarrow("--format parquet", "leave it away for files")
    return ("rle",)


def _words(classes: str | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    words = sorted({word.strip() for word in classes.split(",") if word.strip()})
    if not words:
        raise click.UsageError("--classes is empty: name classes, comma-separated, or leave it away")
    return tuple(words)


def _engine(place: Place, model: str | None, version: int | None, wanted: Wanted, jobs: int | None) -> Engine:
    if place.url is None:
        from segserve.local import open_local, read_settings  # noqa: PLC0415 - a server's client needs no onnxruntime

        return open_local(read_settings(place.models), model, version, wanted, jobs)
    from segserve.remote import open_remote  # noqa: PLC0415 - and a folder's models need no HTTP

    return open_remote(place.url, place.key, model, version, wanted)


def _jobs(url: str | None) -> int:
    if url is not None:
        return REMOTE_JOBS
    from segserve.local import usable_cores  # noqa: PLC0415 - as above

    return usable_cores()


def _ray_crew(work: Work, jobs: int | None) -> Crew:
    from segserve.local import LocalEngine  # noqa: PLC0415 - as above
    from segserve.ray_crew import Order, RayCrew  # noqa: PLC0415 - Ray is there only where it is asked for

    engine = work.engine
    assert isinstance(engine, LocalEngine)
    settings = engine.settings.model_copy(update={"models": engine.settings.models.resolve()})
    order = Order(settings, engine.model, engine.version, work.wanted, work.out.resolve(), work.rows)
    return RayCrew(order, jobs, work.stop)


def _segment(
    items: Sequence[Item], unlisted: Sequence[Failure], work: Work, crew: Crew, target: Target, bar: bool | None
) -> Report:
    """Segment what is not done yet, and write the table of all that is. Raises click.UsageError, OSError."""
    engine, wanted = work.engine, work.wanted
    run = Run(engine.model, engine.version, wanted.alpha, wanted.classes, PARQUET if work.rows else FILES)
    start = monotonic()
    target.out.mkdir(parents=True, exist_ok=True)
    sweep(target.out)
    with open_journal(target.out, target.summary, run, engine.classes, target.overwrite) as journal:
        ledger = (
            TableLedger(journal, target.out, target.overwrite)
            if work.rows
            else FileLedger(journal, target.out, wanted.views)
        )
        todo = [item for item in items if not journal.is_done(item, (ROWS,) if work.rows else wanted.views)]
        skipped = len(items) - len(todo)
        with progress(len(items), skipped, bar) as tick:
            ran = Batch(crew, ledger, work.stop, tick).run(todo)
        ledger.close()
        write_summary(target.summary, journal.columns, journal.entries)
    failed = (*unlisted, *ran.failed)
    left = len(todo) - ran.done - len(ran.failed)
    return Report(ran, failed, skipped, left, monotonic() - start, target)


def _leave(code: int) -> NoReturn:
    """End at once, whatever threads are still doing: nobody waits for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
