"""A bundle in its place in, a copy to change out: the copy takes the bundle's place whole, or nothing happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import ExportError
from service.manifest import MANIFEST


@contextmanager
def revision(folder: Path) -> Iterator[Path]:
    """A copy of the bundle in `folder`, called as the bundle is: NAME/<version>.

    At the end of the block it is renamed into the bundle's place; the old one is kept until it is there, and put back
    where that fails. Where the block fails, the bundle stays as it was, and nothing is left of the copy. Raises
    ExportError where somebody else has changed the bundle meanwhile.
    """
    place = folder.resolve()
    # The copy lies beside the model, so that it can be renamed into its place, under a name the service passes over.
    root = Path(tempfile.mkdtemp(prefix=".export-", dir=place.parent.parent))
    copy, old = root / place.parent.name / place.name, root / "old"
    try:
        shutil.copytree(place, copy)
        before = (copy / MANIFEST).read_bytes()
        yield copy
        if (place / MANIFEST).read_bytes() != before:
            raise ExportError(f"{folder} was changed meanwhile, and stays as it is now: run it again")
        place.rename(old)
        copy.rename(place)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        shutil.rmtree(root)
