"""The pictures that are done in, a table of them out: path, width, height, and the share of each class, 0 to 1."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from segserve.journal import Entry
from segserve.whole import whole

FIXED = ("path", "width", "height")


def check_summary(path: Path) -> None:
    """Raise click.UsageError for a file name of no known kind, click.ClickException where a package is missing."""
    if path.suffix not in (".csv", ".parquet"):
        raise click.UsageError(f"--summary {path}: name a file that ends in .csv or .parquet")
    if path.suffix == ".parquet":
        need_pyarrow(f"--summary {path}", "name a .csv file")


def need_pyarrow(option: str, otherwise: str) -> None:
    """Raise click.ClickException where Parquet cannot be written."""
    if find_spec("pyarrow") is None:
        raise click.ClickException(
            f"{option}: Parquet needs the package pyarrow, which is not installed: `pip install pyarrow`, or "
            f"{otherwise}"
        )


def write_summary(path: Path, classes: Sequence[str], entries: Sequence[Entry]) -> None:
    """Write the table, by rename. Raises OSError."""
    columns = [f"{name} (class)" if name in FIXED else name for name in classes]
    with whole(path) as part:
        if path.suffix == ".parquet":
            _write_parquet(part, columns, classes, entries)
        else:
            _write_csv(part, columns, classes, entries)


def _write_csv(path: Path, columns: Sequence[str], classes: Sequence[str], entries: Sequence[Entry]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*FIXED, *columns])
        for entry in entries:
            shares = (entry.shares.get(name, 0.0) for name in classes)
            writer.writerow([entry.path, entry.width, entry.height, *shares])


def _write_parquet(path: Path, columns: Sequence[str], classes: Sequence[str], entries: Sequence[Entry]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - only who asks for Parquet needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    fields = [pa.field("path", pa.string()), pa.field("width", pa.int32()), pa.field("height", pa.int32())]
    fields += [pa.field(name, pa.float64()) for name in columns]
    values: list[list[object]] = [
        [entry.path for entry in entries],
        [entry.width for entry in entries],
        [entry.height for entry in entries],
    ]
    values += [[entry.shares.get(name, 0.0) for entry in entries] for name in classes]
    pq.write_table(pa.table(values, schema=pa.schema(fields)), path)
