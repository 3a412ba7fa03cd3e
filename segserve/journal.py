"""What was done to which picture in, lines of a file in OUT out: what a later run knows of the ones before it.

A line is added when a picture is begun and when its files are in place, so that whatever ends a run, the next one knows
what is done, and which files are its own to overwrite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import click

from segserve.inputs import Item
from segserve.views import file_names

NAME = ".segserve.jsonl"

FILES, PARQUET = "files", "parquet"
"""What results are: files of each picture, or rows of tables."""


@dataclass(frozen=True)
class Run:
    """What all results in a folder have in common."""

    model: str
    version: int
    alpha: float | None
    classes: tuple[str, ...] | None
    format: str = FILES


@dataclass(frozen=True)
class Source:
    """A picture's file as it was: its absolute path (and where in it the picture lies), its size in bytes, and when it
    was changed."""

    path: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, item: Item) -> Source:
        """Raises OSError."""
        status = item.path.stat()
        return cls(item.source, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """A picture that is done: its row in the summary, and its files by view, relative to OUT."""

    path: str
    width: int
    height: int
    shares: Mapping[str, float]
    source: Source
    files: Mapping[str, str]


@dataclass
class _Read:
    """What the lines of a journal say."""

    run: Run | None = None
    columns: tuple[str, ...] = ()
    begun: dict[str, str] = field(default_factory=dict)
    done: dict[str, Entry] = field(default_factory=dict)
    earlier: dict[str, Entry] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)

    def line(self, line: str) -> None:
        """Take a line in; one that was cut off in the middle says nothing."""
        try:
            said = json.loads(line)
            match said:
                case {"run": run, "columns": columns}:
                    classes = None if run["classes"] is None else tuple(run["classes"])
                    self.run = Run(run["model"], run["version"], run["alpha"], classes, run.get("format", FILES))
                    self.columns = tuple(columns)
                case {"begun": stem, "source": source}:
                    self.begin(stem, source)
                case {"gone": stem}:
                    self.done.pop(stem, None)
                case {"table": name}:
                    self.tables.append(name)
                case {"summary": path}:
                    self.summaries.append(path)
                case {"done": stem, "entry": entry}:
                    self.finish(stem, Entry(**{**entry, "source": Source(**entry["source"])}))
        except (ValueError, KeyError, TypeError):
            return

    def begin(self, stem: str, source: str) -> None:
        """What was done of it before is still there, and not of the picture as it is now."""
        self.begun[stem] = source
        if stem in self.done:
            self.earlier[stem] = self.done.pop(stem)

    def finish(self, stem: str, entry: Entry) -> None:
        """All files are of the picture as it is now."""
        self.done[stem] = entry
        self.earlier.pop(stem, None)

    def anew(self) -> _Read:
        """Where nothing is done yet, but what is there is known as this command's own."""
        begun = {**self.begun, **{stem: entry.source.path for stem, entry in self.done.items()}}
        return _Read(begun=begun, tables=self.tables, summaries=self.summaries)


class Journal:
    """The journal of a folder of results, open for one run; used by one thread."""

    def __init__(self, out: Path, read: _Read, file: IO[str], overwrite: bool) -> None:
        self._out = out
        self._read = read
        self._file = file
        self._overwrite = overwrite

    @property
    def columns(self) -> tuple[str, ...]:
        """The classes that the summary has a column for: the model's, or where they are not known, those seen."""
        seen = (name for entry in self.entries for name in entry.shares)
        return tuple(dict.fromkeys([*self._read.columns, *seen]))

    @property
    def entries(self) -> list[Entry]:
        """Every picture that is done, by path."""
        return sorted(self._read.done.values(), key=lambda entry: entry.path)

    def is_done(self, item: Item, views: Iterable[str]) -> bool:
        """Whether the picture, as it is now, has been segmented, and its files with these views are all there."""
        entry = self._read.done.get(item.stem)
        if entry is None or not set(views) <= set(entry.files):
            return False
        return _is_unchanged(item, entry) and all((self._out / entry.files[view]).is_file() for view in views)

    def entry(self, item: Item) -> Entry | None:
        """What was written of the picture when it was done, if it was."""
        return self._read.done.get(item.stem)

    def foreign(self, item: Item, views: Iterable[str]) -> str | None:
        """The name of a file that is in the way of the picture's own and does not come from it, if there is one."""
        if self._overwrite or self._read.begun.get(item.stem) == item.source:
            return None
        return next((name for name in file_names(item.stem, views) if (self._out / name).exists()), None)

    def begin(self, item: Item) -> None:
        """The picture's files may appear from now on; those that an earlier run made of the same picture still hold."""
        known = self._read.done.get(item.stem)
        if known is None or not _is_unchanged(item, known):
            self._read.begin(item.stem, item.source)
            self._write({"begun": item.stem, "source": item.source})

    def finish(self, item: Item, entry: Entry) -> None:
        """The picture's files are all in place. Those of an earlier run stay where the picture is the same as then, and
        are removed where it is not."""
        earlier = self._read.done.get(item.stem) or self._read.earlier.get(item.stem)
        if earlier is not None and earlier.source == entry.source:
            entry = replace(entry, files={**earlier.files, **entry.files})
        elif earlier is not None:
            for name in set(earlier.files.values()) - set(entry.files.values()):
                (self._out / name).unlink(missing_ok=True)
        self._read.finish(item.stem, entry)
        self._write({"done": item.stem, "entry": asdict(entry)})

    @property
    def tables(self) -> frozenset[str]:
        """The names of the tables in OUT that are of this run or an earlier one, whole or not."""
        return frozenset(self._read.tables)

    def begin_table(self, name: str) -> None:
        """A table of that name may appear from now on."""
        self._read.tables.append(name)
        self._write({"table": name})

    def forget(self, files: Set[str]) -> None:
        """Whoever has a file of such a name is not done."""
        for stem, entry in list(self._read.done.items()):
            if files & set(entry.files.values()):
                del self._read.done[stem]
                self._write({"gone": stem})

    def repeat(self) -> None:
        """Say again what is this command's own."""
        for stem, source in self._read.begun.items():
            self._write({"begun": stem, "source": source})
        for name in self._read.tables:
            self._write({"table": name})
        for path in self._read.summaries:
            self._write({"summary": path})

    def claim(self, summary: Path) -> None:
        """The summary may appear there from now on."""
        path = str(summary.resolve())
        if path not in self._read.summaries:
            self._read.summaries.append(path)
            self._write({"summary": path})

    def _write(self, said: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(said, ensure_ascii=False) + "\n")
        self._file.flush()


@contextmanager
def open_journal(out: Path, summary: Path, run: Run, columns: tuple[str, ...], overwrite: bool) -> Iterator[Journal]:
    """The journal of `out`, which is made if need be; with `overwrite`, one in which nothing is done.

    Raises click.UsageError where the results in `out` are those of another model or look, or where `summary` is there
    and of no earlier run; OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / NAME
    read = _Read()
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                read.line(line)
    if overwrite:
        read = read.anew()
    if summary.exists() and str(summary.resolve()) not in read.summaries and not overwrite:
        raise click.UsageError(
            f"{summary} is there and not of an earlier run: --overwrite replaces it, --summary names another"
        )
    if read.run is not None and read.run != run:
        raise click.UsageError(
            f"{out} holds results of {_differing(read.run, run)}: ask for the same to go on with them, "
            "--overwrite to make all anew, or name another folder with -o"
        )
    with path.open("w" if overwrite else "a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")  # the last line may have been cut off
        journal = Journal(out, read, file, overwrite)
        if read.run is None:
            file.write(json.dumps({"run": asdict(run), "columns": columns}, ensure_ascii=False) + "\n")
            file.flush()
            read.columns = columns
        if overwrite:
            journal.repeat()
        journal.claim(summary)
        yield journal


def _is_unchanged(item: Item, entry: Entry) -> bool:
    """Whether the picture is the one, and as it was, when it was done."""
    try:
        return Source.of(item) == entry.source
    except OSError:
        return False


def _differing(there: Run, now: Run) -> str:
    old, new = asdict(there), asdict(now)
    return ", ".join(f"{name} {old[name]}, not {new[name]}" for name in old if old[name] != new[name])
