"""`segserve-train`: a data folder in, trained nets and their scores out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import httpx
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.errors import SegserveError
from service.manifest import explain, read_manifest
from training import evaluate as scoring
from training.checkpoint import Checkpoint
from training.dataset import DataFolder
from training.loop import train
from training.memory import keep_freed_memory
from training.nets import NETS
from training.recipe import Recipe
from training.report import Wanted, examine, ids_of, write_report
from training.run import RunFolder
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
@click.option("--resume", is_flag=True, help="Go on with the run in the folder by its recipe, or begin one.")
@click.option(
    "--save-seconds", default=60.0, show_default=True, help="Seconds between two states that --resume can go on from."
)
@click.option(
    "--recipe",
    "repeated",
    type=click.Path(exists=True, path_type=Path),
    help="Choose as this did: a recipe.json, a checkpoint, or a bundle's folder; options beside it prevail, and none "
    "takes back a width, weights to begin with, a teacher or patience.",
)
@_recipe_options
def train_command(
    data: Path,
    run: Path,
    repeated: Path | None,
    loaders: int,
    overwrite: bool,
    resume: bool,
    save_seconds: float,
    **given: str | tuple[str, ...] | None,
) -> None:
    """Train a net on the data folder DATA: {train,val}/{images,masks} and classes.json."""
    if overwrite and resume:
        raise click.UsageError("--overwrite loses the run that --resume would go on with: pass one of them")
    recorded = RunFolder(run).recipe
    chosen = {name: _unless_none(name, value) for name, value in given.items() if value is not None}
    try:
        source = recorded if resume and recorded.exists() else repeated
        base = _recipe_of(source) if source else Recipe()
        recipe = Recipe.model_validate(_choices(base, chosen) | chosen)
    except ValidationError as error:
        raise click.UsageError(explain(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    keep_freed_memory()
    try:
        best = train(data, recipe, run, loaders, overwrite=overwrite, resume=resume, save_seconds=save_seconds)
    except (ValueError, FloatingPointError, OSError) as error:
        raise click.ClickException(_last_line(error)) from error
    except RuntimeError as error:  # of torch: memory, a loader process that was killed
        hint = "where memory is short, a smaller --batch or crop and fewer --loaders help"
        raise click.ClickException(f"{_last_line(error)}; {hint}") from error
    except KeyboardInterrupt as interrupt:
        raise click.ClickException("interrupted; the same command with --resume goes on") from interrupt
    click.echo(f"val mIoU {best.metrics['miou']:.4f} at epoch {best.metrics['epoch']}: {RunFolder(run).best}")


def _choices(base: Recipe, chosen: dict[str, Any]) -> dict[str, Any]:
    """What was chosen in `base`; its normalisation belongs to the weights that it begins with, so it goes with them."""
    given = base.model_dump(exclude_unset=True)
    return {name: value for name, value in given.items() if name not in ("mean", "std")} if "init" in chosen else given


def _unless_none(name: str, value: Any) -> Any:
    """`none` takes back what has no default: a width, a teacher, weights to begin with."""
    return None if value == "none" and Recipe.model_fields[name].default is None else value


def _recipe_of(path: Path) -> Recipe:
    """Raises ValueError where there is none."""
    if path.suffix == ".json":
        return Recipe.model_validate_json(path.read_text())
    return Checkpoint.load(path).recipe


def _last_line(error: Exception) -> str:
    """What an error says; one that comes from a loader process has that process's traceback before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("ValueError: ")


@main.command(name="evaluate")
@click.argument("data", type=DataPath)
@click.argument("target")
@click.option("--split", default="val", show_default=True, help="The split to score.")
@click.option("--model", help="For a server: the model, by default its default one.")
@click.option("--together", help="Classes (by name, comma-separated) to take as one, whose Dice score is printed.")
@click.option("--count", help="A class whose separate areas are counted, and held against those of the labels.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="A folder for scores.json, the confusion matrix and the worst pictures.",
)
def evaluate_command(
    data: Path,
    target: str,
    split: str,
    model: str | None,
    together: str | None,
    count: str | None,
    report: Path | None,
) -> None:
    """Score TARGET on DATA: a checkpoint (.safetensors), a bundle's folder, or a server's URL."""
    try:
        folder = DataFolder.open(data)
        group = ids_of(together.split(","), folder.classes) if together else ()
        counted = ids_of([count], folder.classes)[0] if count else None
        with _segment(target, model, folder) as segment:
            found = examine(segment, folder, folder.pairs(split), Wanted(group, counted))
            if report:
                write_report(found, segment, folder, report)
    except (ValueError, OSError, SegserveError, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
    for line in found.lines():
        click.echo(line)


@main.command(name="scenes")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--train", default=64, show_default=True, help="Training scenes.")
@click.option("--val", default=16, show_default=True, help="Validation scenes.")
@click.option("--height", default=240, show_default=True)
@click.option("--width", default=320, show_default=True)
@click.option("--seed", default=0, show_default=True)
def scenes_command(folder: Path, train: int, val: int, height: int, width: int, seed: int) -> None:
    """Write a data folder of synthetic street scenes with ground truth."""
    try:
        write_scenes(folder, train, val, height, width, seed)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _segment(target: str, model: str | None, folder: DataFolder) -> AbstractContextManager[scoring.Segment]:
    if target.startswith(("http://", "https://")):
        return scoring.of_server(target, model)
    if not Path(target).exists():
        raise ValueError(f"there is no file or folder {target}; a server's URL begins with http://")
    channels = folder.classes.channels
    if Path(target).is_dir():
        manifest = read_manifest(Path(target))
        if not folder.classes.fits(manifest):
            names, known = ([spec.name for spec in specs] for specs in (channels, manifest.classes))
            raise ValueError(
                f"{target} has the classes {', '.join(known)}, {folder.root} {', '.join(names)}: not the same"
            )
        return nullcontext(scoring.of_bundle(Path(target)))
    checkpoint = Checkpoint.load(Path(target))
    if checkpoint.classes != len(channels):
        raise ValueError(f"{target} tells {checkpoint.classes} classes apart, {folder.root} has {len(channels)}")
    return nullcontext(scoring.of_net(checkpoint.build(), checkpoint.recipe.input, channels, checkpoint.temperature))
