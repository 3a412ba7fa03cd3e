"""`segserve-export quantize`: a bundle in, the same with a variant in reduced precision out; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError

from export.calibrate import Method
from export.quantize import Quantized, Wish
from export.quantize import quantize as quantized
from service.errors import SegserveError
from service.manifest import explain
from service.settings import PROVIDERS

Folder = click.Path(exists=True, file_okay=False, path_type=Path)
Share = click.FloatRange(0, 1)

PROVIDER = {"int8": "cpu", "fp16": "cuda"}
"""What each precision is for, unless said otherwise."""

UNSCORED = 0.9
"""The least agreement where nothing says what a disagreement costs."""


@click.command(short_help="Add a variant in int8 or float16 to a bundle.")
@click.argument("bundle", type=Folder)
@click.option("--precision", required=True, type=click.Choice(list(PROVIDER)))
@click.option("--images", type=Folder, help="Pictures of the model's field, without masks: needed for int8.")
@click.option(
    "--labelled", type=Folder, help="A data folder, classes.json and {val}/{images,masks}: measures the mIoU."
)
@click.option("--split", default="val", show_default=True, help="Which part of --labelled.")
@click.option(
    "--max-miou-drop", type=float, default=1.0, show_default=True, help="Points of mIoU that it may lose at most."
)
@click.option(
    "--min-agreement", type=Share, help=f"Share of pixels that must agree; {UNSCORED} without --labelled, else any."
)
@click.option(
    "--agreement",
    type=Share,
    default=0.995,
    show_default=True,
    help="Layers that hurt stay float until this is reached.",
)
@click.option("--keep-float", default="auto", show_default=True, metavar="N|auto", help="Or: so many groups.")
@click.option("--calibration", type=click.Choice(get_args(Method)), help="How ranges are found; chosen if not said.")
@click.option("--reduce-range", is_flag=True, help="int8 weights of 7 bits: right on CPUs without VNNI too.")
@click.option("--provider", "providers", multiple=True, type=click.Choice(list(PROVIDERS)), help="What will run it.")
@click.option("--id", "name", metavar="ID", help="What the variant is called; by default as its precision.")
@click.option("--overwrite", is_flag=True, help="Replace the variant of that id.")
def quantize(
    bundle: Path,
    precision: Any,
    images: Path | None,
    labelled: Path | None,
    min_agreement: float | None,
    keep_float: str,
    providers: tuple[str, ...],
    name: str | None,
    **options: Any,
) -> None:
    """Add a variant in reduced precision to BUNDLE (models/NAME/VERSION), measured against its first variant.

    int8 is for CPUs with VNNI, or any with --reduce-range; fp16 is for GPUs. Where it costs more than allowed, the
    bundle stays as it was.
    """
    if precision == "int8" and images is None:
        raise click.UsageError("int8 needs --images, a folder of pictures to find the range of each layer on")
    if keep_float != "auto" and not keep_float.isdecimal():
        raise click.UsageError(f"--keep-float is a number of groups of layers or auto, not {keep_float!r}")
    bar = min_agreement if min_agreement is not None else UNSCORED if labelled is None else 0.0
    wish = Wish(
        precision=precision,
        id=name or precision,
        providers=providers or (PROVIDER[precision],),
        images=images,
        labelled=labelled,
        min_agreement=bar,
        keep_float=None if keep_float == "auto" else int(keep_float),
        **options,
    )
    try:
        done = quantized(bundle, wish, click.echo)
    except ValidationError as error:
        raise click.ClickException(explain(error)) from error
    except (SegserveError, ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    _report(bundle, done)


def _report(bundle: Path, done: Quantized) -> None:
    for warning in done.check.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if done.choice is not None:
        kept = sum(len(group.layers) for group in done.choice.kept)
        click.echo(f"{len(done.choice.reduced)} convolutions in int8, {kept} that hurt stay float")
        for group in done.choice.kept:
            click.echo(f"  {', '.join(group.layers)}: in int8 alone, {group.cost:.3%} of the pixels change class")
    if "miou" in done.measured:
        click.echo(f"mIoU {done.measured['miou']:.4f}, {done.measured['miou_drop']:.2f} points lost")
    speed = done.measured["speed"]
    if speed is not None:
        click.echo(
            f"{speed:.2f} x as fast here" + ("" if speed > 1 else ": the service will go on using the other one")
        )
    click.echo(
        f"{bundle}: variant {done.variant.id} ({', '.join(done.variant.providers)}) agrees with the reference at "
        f"{done.check.argmax_agreement:.4%} of the pixels of {done.check.images} pictures; of the golden mask "
        f"{done.variant.golden_min:.2%} are needed"
    )
