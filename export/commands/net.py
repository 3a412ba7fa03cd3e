"""`segserve-export net`: a net's name and its weights in, a proved bundle out."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import ValidationError

from export.bundle import Terms, export_bundle
from export.errors import UnknownNet
from export.pictures import golden_picture, read_pictures
from export.source import Bare, load_builtin
from service.errors import SegserveError
from service.manifest import explain, read_classes

File = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name", metavar="NET")
@click.option("--checkpoint", required=True, type=File, help="Weights: of segserve-train, or a bare state dict.")
@click.option("--classes", required=True, type=File, help="classes.json: ids, names and colours.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="models/NAME; takes the next version."
)
@click.option(
    "--images", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Pictures to prove it on."
)
@click.option(
    "--golden", type=File, help="The golden picture, at least 320x240; by default one that comes with segserve."
)
@click.option(
    "--min-agreement", default=0.9999, show_default=True, type=click.FloatRange(0, 1), help="Share of pixels."
)
@click.option("--description", default="", help="One paragraph for the model card.")
@click.option(
    "--license", "license_id", default="LicenseRef-not-stated", show_default=True, help="SPDX id or LicenseRef-."
)
@click.option("--net-width", type=int, help="Channels of the net's first stage, where they are not the paper's.")
@click.option("--height", type=int, help="For a bare state dict: the height in pixels to bring pictures to.")
@click.option("--width", type=int, help="For a bare state dict: the width in pixels to bring pictures to.")
@click.option("--mean", type=float, nargs=3, help="For a bare state dict: x = (value / 255 - mean) / std.")
@click.option("--std", type=float, nargs=3, help="See --mean.")
@click.option("--license-file", type=File, help="The licence's text.")
def net(
    name: str,
    checkpoint: Path,
    classes: Path,
    output: Path,
    images: Path | None,
    golden: Path | None,
    min_agreement: float,
    description: str,
    license_id: str,
    license_file: Path | None,
    net_width: int | None,
    height: int | None,
    width: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
) -> None:
    """Export the built-in NET (segnet, enet, unet) with trained weights."""
    try:
        text = license_file.read_text() if license_file else f"Licence: {license_id}\n"
        terms = Terms(description, license_id, text)
        bare = Bare(net_width, height, width, mean or (0.0, 0.0, 0.0), std or (1.0, 1.0, 1.0))
        trained = load_builtin(name, checkpoint, read_classes(classes), bare)
        pictures = read_pictures(images) if images else []
        folder, check = export_bundle(trained, output, terms, golden_picture(golden), pictures, min_agreement)
    except ValidationError as error:
        raise click.ClickException(explain(error)) from error
    except UnknownNet as error:
        raise click.UsageError(str(error)) from error
    except (SegserveError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for warning in check.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(
        f"{folder}: agrees with PyTorch at {check.argmax_agreement:.4%} of the pixels of {check.images} "
        f"{'picture' if check.images == 1 else 'pictures'}, "
        f"largest difference of a logit {check.max_abs_diff:.3g}"
    )
