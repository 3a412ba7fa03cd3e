"""The place of a bundle in, a folder to write its next version into out: it appears there whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from service.bundle import open_bundle
from service.errors import BundleError
from service.manifest import MANIFEST, NAME


@dataclass(frozen=True)
class Terms:
    """What cannot be seen in a net: the bundle's description, its licence and the licence's text."""

    description: str
    license: str
    license_text: str


@contextmanager
def draft(target: Path) -> Iterator[Path]:
    """A folder for the next version of `target` (models/NAME), called as the bundle will be: NAME/<version>.

    At the end of the block the service's own code opens what was written, and it is renamed into its place, `target` /
    the folder's name. Raises ExportError where that is refused; then, and where the block fails, nothing is left.
    """
    version = next_version(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The draft lies beside its place, so that it can be renamed into it, under a name that the service passes over.
    root = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    folder = root / target.name / str(version)
    try:
        folder.mkdir(parents=True)
        yield folder
        open_bundle(folder, providers=("cpu",))
        target.mkdir(exist_ok=True)
        try:
            folder.rename(target / folder.name)
        except OSError as error:
            raise ExportError(f"{target} version {version} was taken meanwhile: run it again") from error
    except BundleError as error:
        reason = " ".join(str(error).replace(f"{folder}/", "").split())
        raise ExportError(f"the service would refuse the bundle: {reason}") from error
    finally:
        shutil.rmtree(root)


def next_version(target: Path) -> int:
    """One above the highest version there is. Raises ExportError where `target` is no place for a model."""
    if not NAME.fullmatch(target.name):
        raise ExportError(f"{target.name!r} is no model name: use letters, digits, '.', '_' and '-'")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} is a file: name the model's folder, as in models/streets")
    if (target / MANIFEST).exists():
        raise ExportError(f"{target} is a bundle: name the model's folder, {target.parent}; the version is added")
    taken = [int(path.name) for path in target.glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1
