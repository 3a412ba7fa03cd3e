"""What came of each picture in, the results as they were asked for out: files with a journal, or tables with rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segserve.inputs import Item
from segserve.journal import Journal
from segserve.whole import whole
from segserve.work import Done

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 500
"""Rows of a table: as many as are made again at most where a run is cut off."""

TABLE = re.compile(r"masks-(\d{5,})\.parquet")

ROWS = "rows"
"""What the journal calls the table that a picture is a row of, where it names views elsewhere."""


@dataclass(frozen=True)
class FileLedger:
    """For files, which whoever works on a picture has put in place."""

    journal: Journal
    out: Path
    views: tuple[str, ...]

    def obstacle(self, item: Item) -> str | None:
        """A file of somebody else."""
        other = self.journal.foreign(item, self.views)
        return other and f"{self.out / other} is there and not of this picture: --overwrite replaces it"

    def begin(self, item: Item) -> None:
        """As in `Ledger`."""
        self.journal.begin(item)

    def finish(self, item: Item, done: Done) -> None:
        """As in `Ledger`."""
        self.journal.finish(item, done.entry)

    def close(self) -> None:
        """Nothing is held back."""


class TableLedger:
    """For rows of the tables `masks-00001.parquet`, ... in OUT; those that wait for their table are written by `close`.

    A row is `path`, `width`, `height`, `shares` (of each class that is there, 0 to 1) and `masks`: of each such class
    its `id`, `name` and `rle`, as COCO's tools read it: `size` (height, width) and `counts`.
    """

    def __init__(self, journal: Journal, out: Path, overwrite: bool) -> None:
        """Tables that the journal does not know all rows of are of a run that was cut off, and are removed; what was in
        tables that are gone is to be done again. Raises click.UsageError for a table of somebody else's."""
        self._journal = journal
        self._out = out
        self._waiting: list[tuple[Item, Done]] = []
        known = Counter(entry.files[ROWS] for entry in journal.entries)
        there = [path for path in out.iterdir() if TABLE.fullmatch(path.name)]
        foreign = [path for path in there if path.name not in journal.tables]
        if foreign and not overwrite:
            raise click.UsageError(
                f"{foreign[0]} is there and not of this command: --overwrite removes it, -o names another folder"
            )
        for path in there:
            if overwrite or _rows(path) != known[path.name]:
                path.unlink()
        journal.forget({name for name in known if not (out / name).exists()})

    def obstacle(self, item: Item) -> str | None:
        """A row that has its place already."""
        entry = self._journal.entry(item)
        if entry is None:
            return None
        if entry.source.path != item.source:
            return f"{entry.path} has its name in {self._out}: name another folder with -o"
        return "it has changed since it became a row of a table: --overwrite makes all anew"

    def begin(self, item: Item) -> None:
        """As in `Ledger`."""
        self._journal.begin(item)

    def finish(self, item: Item, done: Done) -> None:
        """As in `Ledger`."""
        self._waiting.append((item, done))
        if len(self._waiting) >= SHARD:
            self.close()

    def close(self) -> None:
        """Write the rows that wait, by rename, and then that they are done. Raises OSError."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - only who asks for tables needs it

        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        numbers = [int(found[1]) for path in self._out.iterdir() if (found := TABLE.fullmatch(path.name))]
        path = self._out / f"masks-{max(numbers, default=0) + 1:05d}.parquet"
        self._journal.begin_table(path.name)
        with whole(path) as part:
            pq.write_table(_table([done for _, done in waiting]), part, compression="zstd")
        for item, done in waiting:
            self._journal.finish(item, replace(done.entry, files={ROWS: path.name}))


def _rows(path: Path) -> int | None:
    """How many a table has; None where it is damaged."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        count: int = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        return None
    return count


def _table(done: list[Done]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - as above

    rle = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
    mask = pa.struct([("id", pa.int32()), ("name", pa.string()), ("rle", rle)])
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("shares", pa.map_(pa.string(), pa.float64())),
            ("masks", pa.list_(mask)),
        ]
    )
    rows = [
        {
            "path": one.entry.path,
            "width": one.entry.width,
            "height": one.entry.height,
            "shares": list(one.entry.shares.items()),
            "masks": json.loads(one.rle or b"{}").get("classes", []),
        }
        for one in done
    ]
    return pa.Table.from_pylist(rows, schema=schema)
