"""`segserve-export verify`: a bundle in, whether its graph still answers as it should out."""

from __future__ import annotations

from pathlib import Path

import click

from export.compare import Picture
from export.pictures import read_picture
from export.verify import verify as verified
from service.errors import SegserveError
from service.settings import PROVIDERS

Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(short_help="Compare a bundle's graph with its reference again.")
@click.argument("bundle", type=Folder)
@click.option("--images", type=Folder, help="Pictures to compare on, besides the golden one.")
@click.option(
    "--provider", default="cpu", show_default=True, type=click.Choice(list(PROVIDERS)), help="Where the graph runs."
)
@click.option("--variant", metavar="ID", help="Which graph; by default the reference, the first one.")
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), help="A folder for report.json and pictures."
)
def verify(bundle: Path, images: Path | None, provider: str, variant: str | None, report: Path | None) -> None:
    """Compare the graph of BUNDLE (models/NAME/VERSION) with its reference again.

    The reference is PyTorch where the bundle holds a built-in net's weights; else the golden mask, and for another
    variant than the first, or another execution provider than cpu, the first variant on cpu.
    """
    try:
        verdict = verified(bundle, _named(images) if images else {}, provider, variant, report)
    except (SegserveError, ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    if not verdict.holds:
        raise click.ClickException(f"{bundle} does not hold: {verdict}")
    click.echo(f"{bundle} holds: {verdict}")


def _named(folder: Path) -> dict[str, Picture]:
    """All pictures of a folder, by file name. Raises ValueError where there are none or a file is no picture."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise ValueError(f"{folder} holds no pictures")
    return {path.name: read_picture(path) for path in files}
