"""A path in, a place to write what will lie there out: a file is there whole or not at all, whoever else writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

PART = ".segserve-part"
"""What unfinished files end in; they are hidden."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write the file, which becomes `path` at the end, or is removed where anything fails. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{token_hex(4)}{PART}")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what runs left unfinished that were killed. Raises OSError."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)
