"""A picture and an engine in, its files in OUT and an entry for the journal out; or a row of a table, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from segserve.answers import File
from segserve.containers import Shelf
from segserve.engine import Engine, Outcome, Wanted
from segserve.errors import SegserveClientError
from segserve.inputs import Item
from segserve.journal import Entry, Source
from segserve.views import file_name
from segserve.whole import whole


@dataclass(frozen=True)
class Failure:
    """A picture or folder of which nothing came, and why."""

    path: str
    reason: str
    error: Exception | None = None


@dataclass(frozen=True)
class Done:
    """A picture of which everything came; `rle` is its mask, run-length encoded (the `rle` view), where it goes into a
    table instead of files."""

    entry: Entry
    rle: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Work:
    """What is done to each picture, in any thread: `wanted` becomes files under `out`, or with `rows` a row."""

    engine: Engine
    wanted: Wanted
    out: Path
    stop: Event
    rows: bool = False
    shelf: Shelf = field(default_factory=Shelf)

    def __call__(self, item: Item) -> Done | Failure | None:
        """What came of a picture; None once a stop was asked for."""
        if self.stop.is_set():
            return None
        try:
            source = Source.of(item)
            outcome = self.engine(self.shelf.read(item.path, item.member), self.wanted)
            done = Done(Entry(item.label, outcome.width, outcome.height, outcome.shares, source, {}))
            return self._row(done, outcome) if self.rows else self._files(done, outcome, item)
        except SegserveClientError as error:
            return Failure(item.label, str(error), error)
        except OSError as error:
            where = f" ({error.filename})" if error.filename and error.filename != str(item.path) else ""
            return Failure(item.label, f"{error.strerror or error}{where}", error)
        except Exception as error:  # whatever a foreign graph may do, it does to one picture
            return Failure(item.label, repr(error), error)

    def _files(self, done: Done, outcome: Outcome, item: Item) -> Done:
        """With its files in place."""
        named = {view: (file_name(item.stem, view, file), file) for view, file in outcome.files.items()}
        _write(self.out, dict(named.values()))
        return Done(replace(done.entry, files={view: name for view, (name, _) in named.items()}))

    def _row(self, done: Done, outcome: Outcome) -> Done:
        return replace(done, rle=outcome.files["rle"].content)


def _write(out: Path, files: Mapping[str, File]) -> None:
    """Write files under `out`; each takes its place when all are written. Raises OSError."""
    with ExitStack() as places:
        for name, file in files.items():
            places.enter_context(whole(out / name)).write_bytes(file.content)
