"""A tar of pictures (WebDataset) or a Parquet table with a column of them in, where each picture lies in it out."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""What pictures in a folder or a tar are called; a file that is named itself may be called anything."""

COLUMN = "image"
"""The column of pictures in a table: the bytes of their files, or as Hugging Face's `datasets` writes it, a struct
with `bytes`."""

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

KEPT = 2
"""Row groups in memory: rows are asked for in order, by threads of which some are still at the one before."""


@dataclass(frozen=True)
class TarMember:
    """A picture that is `length` bytes of a tar, from `start` on."""

    name: str
    start: int
    length: int


@dataclass(frozen=True)
class TableRow:
    """A picture that is a row of a row group of a Parquet table; `name` is its number in the whole table."""

    name: str
    group: int
    row: int


Member: TypeAlias = TarMember | TableRow
"""Where in a file a picture lies; its `name` is unique there."""


def members(path: Path) -> Sequence[Member] | None:
    """The pictures in a file, in order; None where it is no container by its suffix.

    Raises OSError where it cannot be read or is not as it must be, click.ClickException where a package is missing.
    """
    if path.name.lower().endswith(COMPRESSED):
        raise OSError("is a compressed tar, in which pictures cannot be found one by one: decompress it first")
    match path.suffix.lower():
        case ".tar":
            return list(_tar_members(path))
        case ".parquet":
            return list(_table_rows(path))
        case _:
            return None


def _tar_members(path: Path) -> Iterator[TarMember]:
    """The files `KEY.SUFFIX` that are pictures; what else has the key (`KEY.seg.png`, `KEY.json`) is passed over."""
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                name = PurePosixPath(info.name)
                if info.isfile() and name.suffix.lower() in SUFFIXES and name.stem and "." not in name.stem:
                    yield TarMember(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise OSError(f"is no tar, or a compressed or damaged one: {error}") from error


def _table_rows(path: Path) -> Iterator[TableRow]:
    with _opened(path) as table:
        names = table.schema_arrow.names
        if COLUMN not in names:
            raise OSError(f"has no column {COLUMN!r} with the pictures' bytes; it has {', '.join(names)}")
        counts = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    number = 0
    for group, count in enumerate(counts):
        for row in range(count):
            yield TableRow(f"{number:07d}", group, row)
            number += 1


@dataclass
class Shelf:
    """Reads pictures wherever they lie, for several threads; of tables, it keeps the row groups that it read last."""

    _groups: dict[tuple[Path, int], pa.ChunkedArray] = field(default_factory=dict)
    _reading: Lock = field(default_factory=Lock)

    def read(self, path: Path, member: Member | None) -> bytes:
        """The bytes of a picture's own file, which is `path` or lies in it. Raises OSError."""
        match member:
            case None:
                return path.read_bytes()
            case TarMember():
                return _cut(path, member)
            case TableRow():
                return self._row(path, member)

    def _row(self, path: Path, member: TableRow) -> bytes:
        with self._reading:
            key = (path, member.group)
            if key not in self._groups:
                while len(self._groups) >= KEPT:
                    del self._groups[next(iter(self._groups))]
                self._groups[key] = _row_group(path, member.group)
            value = self._groups[key][member.row].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise OSError(f"row {member.name} has no picture's bytes")
        return data


def _cut(path: Path, member: TarMember) -> bytes:
    with path.open("rb") as file:
        file.seek(member.start)
        data = file.read(member.length)
    if len(data) < member.length:
        raise OSError(f"the file ends in the middle of {member.name}")
    return data


def _row_group(path: Path, group: int) -> pa.ChunkedArray:
    with _opened(path) as table:
        try:
            return table.read_row_group(group, columns=[COLUMN])[COLUMN]
        except Exception as error:  # whatever a damaged file does to the library
            raise OSError(f"row group {group} cannot be read: {error}") from error


def _opened(path: Path) -> Any:
    """The Parquet file. Raises OSError, click.ClickException."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - only who gives Parquet needs it
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException(
            f"{path}: Parquet needs the package pyarrow, which is not installed: `pip install pyarrow`"
        ) from error
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise OSError(f"is no Parquet file, or a damaged one: {error}") from error
