"""A bundle in its place in, a copy to change out: the copy takes the bundle's place whole, or nothing happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def revision(folder: Path) -> Iterator[Path]:
    """A copy of the bundle in `folder`, called as the bundle is: NAME/<version>.

    At the end of the block it is renamed into the bundle's place; the old one is kept until it is there, and put back
    where that fails. Where the block fails, the bundle stays as it was, and nothing is left of the copy.
    """
    place = folder.resolve()
    # The copy lies beside the model, so that it can be renamed into its place, under a name the service passes over.
    root = Path(tempfile.mkdtemp(prefix=".export-", dir=place.parent.parent))
    copy, old = root / place.parent.name / place.name, root / "old"
    try:
        shutil.copytree(place, copy)
        yield copy
        place.rename(old)
        try:
            copy.rename(place)
        except BaseException:
            old.rename(place)
            raise
    finally:
        shutil.rmtree(root)
