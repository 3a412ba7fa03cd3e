"""`segserve-export net`: a net and its weights in, a proved bundle out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from export.bundle import Bar, Exported, export_bundle
from export.draft import Terms
from export.errors import ExportError, UnknownNet
from export.feed import Activation, Channels, Feed, Fit
from export.lowering import Choice, Provider
from export.pictures import golden_picture, read_pictures
from export.request import Request
from export.rewrite import Prelu
from export.source import TrainedNet, load_builtin
from export.theirs import Foreign
from service.errors import SegserveError
from service.manifest import ClassList, explain, read_classes

Command = TypeVar("Command", bound=Callable[..., Any])

File = click.Path(exists=True, dir_okay=False, path_type=Path)
Folder = click.Path(exists=True, file_okay=False, path_type=Path)

OPTIONS = (
    click.option("--checkpoint", type=File, help="Weights: of segserve-train, or as your own training wrote them."),
    click.option("--weights-key", metavar="KEY", help="Where in the checkpoint the weights are, as `ema.module`."),
    click.option("--classes", required=True, type=File, help="classes.json: ids, names and colours."),
    click.option(
        "-o",
        "target",
        metavar="models/NAME",
        required=True,
        type=click.Path(path_type=Path),
        help="Takes the next version.",
    ),
    click.option(
        "--path", "paths", multiple=True, type=Folder, help="Where module:factory is found; here, if it is not said."
    ),
    click.option("--arg", "arguments", multiple=True, metavar="NAME=VALUE", help="For the factory; the value as JSON."),
    click.option("--output", metavar="NAME|INDEX", help="Which part of the net's answer holds the scores."),
    click.option("--activation", type=click.Choice(get_args(Activation)), help="What makes scores probabilities."),
    click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="For one channel."),
    click.option("--native-stride", is_flag=True, help="Leave out a last upsampling: the service does it exactly."),
    click.option("--channels", type=click.Choice(get_args(Channels)), default="RGB", show_default=True),
    click.option("--fourth-channel", type=float, metavar="VALUE", help="For a net of 4: what the fourth always is."),
    click.option("--scale", type=float, default=255, show_default=True, help="x = (value / scale - mean) / std."),
    click.option("--mean", type=float, nargs=3, help="See --scale; for GRAY, the same value three times."),
    click.option("--std", type=float, nargs=3, help="See --mean."),
    click.option("--height", type=click.IntRange(1), help="The height in pixels to bring pictures to."),
    click.option("--width", type=click.IntRange(1), help="The width in pixels to bring pictures to."),
    click.option("--fit", type=click.Choice(get_args(Fit)), help="How; by default native, or stretch to a size."),
    click.option("--net-width", type=int, help="For a built-in net: channels of its first stage, if not the paper's."),
    click.option(
        "--half-weights",
        is_flag=True,
        help="For a built-in net: round its weights to float16, for a weights.safetensors of half the size; the graph "
        "computes in float32 with the same rounded weights.",
    ),
    click.option("--images", type=Folder, help="Pictures to prove it on."),
    click.option("--golden", type=File, help="The golden picture, at least 320x240; by default one of segserve's."),
    click.option(
        "--min-agreement", default=0.9999, show_default=True, type=click.FloatRange(0, 1), help="Share of pixels."
    ),
    click.option(
        "--lowering", type=click.Choice(get_args(Choice)), default="auto", show_default=True, help="Form of unpooling."
    ),
    click.option(
        "--provider", type=click.Choice(get_args(Provider)), default="cpu", show_default=True, help="What will run it."
    ),
    click.option(
        "--prelu",
        type=click.Choice(get_args(Prelu)),
        default="exact",
        show_default=True,
        help="For the CPU: value for value, or but for rounding and a little faster.",
    ),
    click.option(
        "--timeout",
        type=float,
        default=1800,
        show_default=True,
        help="Seconds that your net may take to be traced or run.",
    ),
    click.option("--description", default="", help="One paragraph for the model card."),
    click.option(
        "--license", "license_id", default="LicenseRef-not-stated", show_default=True, help="SPDX id or LicenseRef-."
    ),
    click.option("--license-file", type=File, help="The licence's text."),
)


def with_options(command: Command) -> Command:
    """The command with all of OPTIONS, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("name", metavar="NET")
@with_options
def net(name: str, target: Path, classes: Path, **said: Any) -> None:
    """Export NET: a built-in one's name, module:factory, or a .pt2 file."""
    try:
        text = said["license_file"].read_text() if said["license_file"] else f"Licence: {said['license_id']}\n"
        terms = Terms(said["description"], said["license_id"], text)
        pictures = read_pictures(said["images"]) if said["images"] else []
        written = said["lowering"], said["provider"], said["prelu"]
        bar = Bar(golden_picture(said["golden"]), pictures, said["min_agreement"], *written)
        with _trained(name, read_classes(classes), said) as trained:
            exported = export_bundle(trained, target, terms, bar)
    except ValidationError as error:
        raise click.ClickException(explain(error)) from error
    except UnknownNet as error:
        raise click.UsageError(str(error)) from error
    except (SegserveError, ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    _report(exported, trained.remarks)


@contextmanager
def _trained(name: str, classes: ClassList, said: dict[str, Any]) -> Iterator[TrainedNet]:
    """The net that NET names. Raises UnknownNet, ExportError and ValueError as its loaders do."""
    feed = Feed(**{key: said[key] for key in ("channels", "scale", "mean", "std", "height", "width", "fit")})
    if ":" in name or name.endswith(".pt2"):
        foreign = Foreign(_request(name, feed, said), feed, said["activation"], said["threshold"])
        with foreign.load(classes, said["timeout"]) as trained:
            yield trained
        return
    _refuse(
        said, "for your own net alone", paths=(), arguments=(), output=None, fourth_channel=None, native_stride=False
    )
    _refuse(said, "not for a built-in net, whose scores take softmax", activation=None, threshold=0.5)
    if said["checkpoint"] is None:
        raise click.UsageError(f"{name} needs --checkpoint")
    yield load_builtin(
        name, said["checkpoint"], classes, feed, said["net_width"], said["weights_key"], said["half_weights"]
    )


def _request(name: str, feed: Feed, said: dict[str, Any]) -> Request:
    _refuse(said, "for a built-in net alone; --arg gives your factory its arguments", net_width=None)
    _refuse(said, "for a built-in net alone", half_weights=False)
    if name.endswith(".pt2"):
        _refuse(
            said,
            "not for a .pt2 file, which holds its weights",
            checkpoint=None,
            weights_key=None,
            arguments=(),
            paths=(),
        )
        name = str(Path(name).resolve())
    checkpoint = said["checkpoint"]
    return Request(
        net=name,
        path=tuple(str(path.resolve()) for path in said["paths"] or (Path(),)),
        arguments=dict(_argument(text) for text in said["arguments"]),
        checkpoint=str(checkpoint.resolve()) if checkpoint else None,
        weights_key=said["weights_key"],
        scale=feed.scale,
        mean=feed.shift(),
        std=feed.deviation(),
        depth=feed.depth,
        fourth=said["fourth_channel"],
        output=said["output"],
        size=feed.size,
        native_stride=said["native_stride"],
    )


def _refuse(said: dict[str, Any], why: str, **unsaid: object) -> None:
    """Raise UsageError for an option that was given and means nothing here."""
    for key, value in unsaid.items():
        if said[key] != value:
            option = {"paths": "path", "arguments": "arg"}.get(key, key.replace("_", "-"))
            raise click.UsageError(f"--{option} is {why}")


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE: the value as JSON, or, where it is none, as it stands."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ExportError(f"--arg {text}: NAME=VALUE is needed")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _report(exported: Exported, remarks: tuple[str, ...]) -> None:
    check, spec = exported.check, exported.input
    for warning in check.warnings:
        click.echo(f"Warning: {warning}", err=True)
    for remark in remarks:
        click.echo(remark)
    size = (
        f"{spec.height}x{spec.width} (height x width)" if spec.height else f"any size, multiples of {spec.multiple_of}"
    )
    click.echo(f"input: {spec.fit}, {size}{f'; no freer, since {exported.why}' if exported.why else ''}")
    click.echo(f"max-unpooling: {exported.lowering.name}: {exported.lowering.reason}")
    click.echo(
        f"{exported.folder}: agrees with PyTorch at {check.argmax_agreement:.4%} of the pixels of {check.images} "
        f"{'picture' if check.images == 1 else 'pictures'}, "
        f"largest difference of a logit {check.max_abs_diff:.3g}"
    )
