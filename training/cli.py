"""`segserve-train`: a data folder in, trained nets and their scores out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, get_args, get_origin

import click
import httpx
import numpy as np
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.errors import SegserveError
from service.manifest import explain
from service.scores import class_iou, mean_iou
from training import evaluate as scoring
from training.checkpoint import Checkpoint
from training.dataset import DataFolder
from training.loop import BEST, train
from training.nets import NETS
from training.recipe import Recipe
from training.scenes import write_scenes

DataPath = click.Path(exists=True, file_okay=False, path_type=Path)


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each choice of a recipe; pydantic checks the values."""
    for name, field in reversed(Recipe.model_fields.items()):
        many = len(field.default) if isinstance(field.default, tuple) else 1
        choices = "|".join(NETS if name == "net" else get_args(field.annotation) if _is_choice(field) else ())
        default = "" if field.default is None else f"  [default: {field.default}]"
        option = click.option(
            f"--{name.replace('_', '-')}",
            name,
            nargs=many,
            metavar=choices or " ".join(["VALUE"] * many),
            help=(field.description or "") + default,
        )
        command = option(command)
    return command


def _is_choice(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal


@click.group()
def main() -> None:
    """Train segmentation nets and score them."""


@main.command(name="train")
@click.argument("data", type=DataPath)
@click.option("-o", "--run", required=True, type=click.Path(path_type=Path), help="Folder for checkpoints and metrics.")
@click.option("--loaders", default=0, show_default=True, help="Processes that read and augment pictures.")
@click.option("--overwrite", is_flag=True, help="Train into a folder that holds a run, and lose that one.")
@_recipe_options
def train_command(data: Path, run: Path, loaders: int, overwrite: bool, **given: str | tuple[str, ...] | None) -> None:
    """Train a net on the data folder DATA: {train,val}/{images,masks} and classes.json."""
    try:
        recipe = Recipe.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise click.UsageError(explain(error)) from error
    try:
        best = train(data, recipe, run, loaders, overwrite=overwrite)
    except (ValueError, FloatingPointError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"val mIoU {best.metrics['miou']:.4f} at epoch {best.metrics['epoch']}: {run / BEST}")


@main.command(name="evaluate")
@click.argument("data", type=DataPath)
@click.argument("target")
@click.option("--split", default="val", show_default=True, help="The split to score.")
@click.option("--model", help="For a server: the model, by default its default one.")
def evaluate_command(data: Path, target: str, split: str, model: str | None) -> None:
    """Score TARGET on DATA: a checkpoint (.safetensors), a bundle's folder, or a server's URL."""
    try:
        folder = DataFolder.open(data)
        with _segment(target, model, folder) as segment:
            matrix = scoring.evaluate(segment, folder, folder.pairs(split))
    except (ValueError, OSError, SegserveError, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
    for spec, iou in zip(folder.classes.classes, class_iou(matrix), strict=True):
        if spec.id not in folder.classes.ignore:
            click.echo(f"{spec.name:>16} {'absent' if np.isnan(iou) else f'{iou:.4f}'}")
    click.echo(f"{'mIoU':>16} {mean_iou(matrix, folder.classes.ignore):.4f}")


@main.command(name="scenes")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--train", default=64, show_default=True, help="Training scenes.")
@click.option("--val", default=16, show_default=True, help="Validation scenes.")
@click.option("--height", default=240, show_default=True)
@click.option("--width", default=320, show_default=True)
@click.option("--seed", default=0, show_default=True)
def scenes_command(folder: Path, train: int, val: int, height: int, width: int, seed: int) -> None:
    """Write a data folder of synthetic street scenes with ground truth."""
    write_scenes(folder, train, val, height, width, seed)


def _segment(target: str, model: str | None, folder: DataFolder) -> AbstractContextManager[scoring.Segment]:
    if target.startswith(("http://", "https://")):
        return scoring.of_server(target, model)
    if not Path(target).exists():
        raise ValueError(f"there is no file or folder {target}; a server's URL begins with http://")
    if Path(target).is_dir():
        return nullcontext(scoring.of_bundle(Path(target)))
    checkpoint = Checkpoint.load(Path(target))
    return nullcontext(scoring.of_net(checkpoint.build(), checkpoint.recipe.input, folder.classes))
