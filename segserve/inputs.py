"""Files and folders in, the pictures among them out, each with the name that its results have."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import click

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""What pictures in a folder are called; a file that is named itself may be called anything."""


@dataclass(frozen=True)
class Item:
    """A picture: its `path` as the user would write it, and the `stem` of its results' names under OUT, with `/`."""

    path: Path
    stem: str


@dataclass(frozen=True)
class Unreadable:
    """A folder that cannot be listed, and why."""

    path: Path
    reason: str


def find(paths: Sequence[Path], out: Path) -> tuple[list[Item], list[Unreadable]]:
    """The pictures in `paths`, in order, each once: files as they are, folders with all that is below them.

    Left out are hidden files and folders, and `out` where it lies inside. Two pictures that differ only in their suffix
    keep it in the stem. Raises click.UsageError where two would still be called the same.
    """
    unreadable: list[Unreadable] = []
    found: dict[Path, tuple[Path, PurePath]] = {}
    for path in paths:
        inside = _walk(path, out.resolve(), unreadable) if path.is_dir() else [(path, PurePath(path.name))]
        for file, relative in inside:
            found.setdefault(file.resolve(), (file, relative))
    return _named(list(found.values()), out), unreadable


def _walk(root: Path, out: Path, unreadable: list[Unreadable]) -> Iterator[tuple[Path, PurePath]]:
    def note(error: OSError) -> None:
        unreadable.append(Unreadable(Path(error.filename), error.strerror or repr(error)))

    for folder, below, names in os.walk(root, onerror=note):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith(".") and (here / name).resolve() != out)
        for name in sorted(names):
            if not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES:
                file = here / name
                yield file, file.relative_to(root)


def _named(files: Sequence[tuple[Path, PurePath]], out: Path) -> list[Item]:
    """The items; where a stem is not the only one of its kind, it is the whole file name."""
    stems = [relative.with_suffix("").as_posix() for _, relative in files]
    whole = [relative.as_posix() for _, relative in files]
    while True:
        count = Counter(stem.casefold() for stem in stems)
        shared = [index for index, stem in enumerate(stems) if count[stem.casefold()] > 1]
        short = [index for index in shared if stems[index] != whole[index]]
        if not short:
            break
        for index in short:
            stems[index] = whole[index]
    if shared:
        one, other = (files[index][0] for index in shared if stems[index].casefold() == stems[shared[0]].casefold())
        raise click.UsageError(
            f"the results of {one} and {other} would have the same names in {out}: segment them in two runs, each "
            "with an -o of its own"
        )
    return [Item(path, stem) for (path, _), stem in zip(files, stems, strict=True)]
