"""`segserve-export adopt`: a foreign ONNX file and its classes in, a bundle out; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from export.adopt import adopt as adopted
from export.adopt import summary
from export.draft import Terms
from export.feeding import Said
from export.pictures import golden_picture
from service.errors import SegserveError
from service.manifest import explain, read_classes

File = click.Path(exists=True, dir_okay=False, path_type=Path)
Layout = click.Choice(["NCHW", "NHWC"])


@click.command(short_help="Make a bundle of a foreign ONNX file.")
@click.argument("file", metavar="FILE.onnx", type=File)
@click.option(
    "-o",
    "target",
    required=True,
    metavar="models/NAME",
    type=click.Path(path_type=Path),
    help="Takes the next version.",
)
@click.option("--classes", required=True, type=File, help="classes.json: ids, names and colours.")
@click.option("--output", metavar="NAME", help="Which of the graph's outputs is the answer.")
@click.option("--layout", type=Layout, help="Where the input has its channels, if its shape does not show it.")
@click.option("--output-layout", type=Layout, help="Where the output has its classes, if its shape does not show it.")
@click.option("--channels", type=click.Choice(["RGB", "BGR", "GRAY"]), help="What the net was trained with.")
@click.option("--scale", type=float, help="For a float32 input: x = (value / scale - mean) / std; else 255.")
@click.option("--mean", type=float, nargs=3, help="See --scale; for a grey input, the same value three times.")
@click.option("--std", type=float, nargs=3, help="See --mean.")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "letterbox", "tile", "native"]),
    help="How a picture is brought to the input; by default native where sides are free, else stretch.",
)
@click.option("--height", type=click.IntRange(1), help="For free sides: the height in pixels to bring pictures to.")
@click.option("--width", type=click.IntRange(1), help="For free sides: the width in pixels to bring pictures to.")
@click.option("--multiple-of", type=click.IntRange(1), help="For free sides: found by asking the graph, if not said.")
@click.option("--max-pixels", type=click.IntRange(1), help="For free sides: larger pictures are shrunk to this.")
@click.option(
    "--activation",
    type=click.Choice(["softmax", "sigmoid", "probabilities"]),
    help="What makes the scores probabilities; seen from the golden answer, if not said.",
)
@click.option("--golden", type=File, help="The golden picture, at least 320x240; by default one of segserve's.")
@click.option("--description", default="", help="One paragraph for the model card.")
@click.option(
    "--license", "license_id", default="LicenseRef-not-stated", show_default=True, help="SPDX id or LicenseRef-."
)
@click.option("--license-file", type=File, help="The licence's text.")
def adopt(
    file: Path,
    target: Path,
    classes: Path,
    golden: Path | None,
    description: str,
    license_id: str,
    license_file: Path | None,
    **options: Any,
) -> None:
    """Make a bundle of FILE.onnx, an ONNX file that some other tool wrote.

    How to feed it and how to read it is read off the graph and its answer to the golden picture; what these do not show
    is asked for. There is no PyTorch net to compare with: the model is served as not proved.
    """
    try:
        text = license_file.read_text() if license_file else f"Licence: {license_id}\n"
        terms = Terms(description, license_id, text)
        done = adopted(file, target, read_classes(classes), terms, Said(**options), golden_picture(golden))
    except ValidationError as error:
        raise click.ClickException(explain(error)) from error
    except (SegserveError, ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{done.folder}: {summary(done.manifest)}; not proved: there was no PyTorch net to compare with")
