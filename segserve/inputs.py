"""Files and folders in, the pictures among them out, each with the name that its results have."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import click

from segserve.containers import SUFFIXES, Member, members


@dataclass(frozen=True)
class Item:
    """A picture: its file's `path` as the user would write it, where in that it lies (None: it is the file), and the
    `stem` of its results' names under OUT, with `/`."""

    path: Path
    stem: str
    member: Member | None = None

    @property
    def label(self) -> str:
        """What the user would know it by."""
        return str(self.path) if self.member is None else f"{self.path}:{self.member.name}"

    @cached_property
    def source(self) -> str:
        """What tells it from every other one."""
        whole = str(self.path.resolve())
        return whole if self.member is None else f"{whole}:{self.member.name}"


@dataclass(frozen=True)
class Unreadable:
    """A folder or a picture that cannot be read, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class _Found:
    """A picture, and its place among the results."""

    path: Path
    relative: PurePath
    member: Member | None = None

    @property
    def label(self) -> str:
        return Item(self.path, "", self.member).label


def find(paths: Sequence[Path], out: Path) -> tuple[list[Item], list[Unreadable]]:
    """The pictures in `paths`, in order, each once: files as they are, folders with all that is below them, tars and
    Parquet tables that are named themselves with all that is in them.

    Left out are hidden files and folders, and `out` where it lies inside. Two pictures that differ only in their suffix
    keep it in the stem. Raises click.UsageError where two would still be called the same.
    """
    unreadable: list[Unreadable] = []
    found: dict[str, _Found] = {}
    for path in paths:
        for one in _walk(path, out.resolve(), unreadable) if path.is_dir() else _inside(path, unreadable):
            if one.label == _printable(one.label):
                found.setdefault(Item(one.path, "", one.member).source, one)
            else:
                unreadable.append(Unreadable(_printable(one.label), "its name is not UTF-8"))
    return _named(list(found.values()), out), unreadable


def _inside(path: Path, unreadable: list[Unreadable]) -> Iterator[_Found]:
    """The file itself, or what it holds."""
    try:
        held = members(path)
    except OSError as error:
        unreadable.append(Unreadable(str(path), error.strerror or str(error)))
        return
    if held is None:
        yield _Found(path, PurePath(path.name))
        return
    for member in held:
        one = _Found(path, PurePath(path.stem) / member.name, member)
        if not one.relative.is_relative_to(path.stem) or ".." in one.relative.parts:
            unreadable.append(Unreadable(_printable(one.label), "its name leads out of the folder of results"))
        else:
            yield one


def _printable(text: str) -> str:
    """With what is no Unicode written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _walk(root: Path, out: Path, unreadable: list[Unreadable]) -> Iterator[_Found]:
    def note(error: OSError) -> None:
        unreadable.append(Unreadable(_printable(error.filename), error.strerror or repr(error)))

    for folder, below, names in os.walk(root, onerror=note):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith(".") and (here / name).resolve() != out)
        for name in sorted(names):
            if not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES:
                file = here / name
                yield _Found(file, file.relative_to(root))


def _named(files: Sequence[_Found], out: Path) -> list[Item]:
    """The items; where a stem is not the only one of its kind, it is the whole file name."""
    stems = [file.relative.with_suffix("").as_posix() for file in files]
    whole = [file.relative.as_posix() for file in files]
    while True:
        count = Counter(stem.casefold() for stem in stems)
        shared = [index for index, stem in enumerate(stems) if count[stem.casefold()] > 1]
        short = [index for index in shared if stems[index] != whole[index]]
        if not short:
            break
        for index in short:
            stems[index] = whole[index]
    if shared:
        same = [files[index].label for index in shared if stems[index].casefold() == stems[shared[0]].casefold()]
        raise click.UsageError(
            f"the results of {' and '.join(same)} would have the same names in {out}: segment them in runs of "
            "their own, each with an -o of its own"
        )
    return [Item(file.path, stem, file.member) for file, stem in zip(files, stems, strict=True)]
