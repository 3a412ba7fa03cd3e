"""Options that several commands take: where the models are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


def place_options(command: F) -> F:
    """`--url`, `--key` and `--models`."""
    url = click.option("--url", metavar="URL", help="A server to ask, as in http://localhost:8000.")
    key = click.option("--key", envvar="SEGSERVE_KEY", metavar="KEY", help="Its API key.  [env: SEGSERVE_KEY]")
    folder = click.option(
        "--models",
        type=click.Path(file_okay=False, path_type=Path),
        help="A folder of models to use here, without a server.  [default: SEGSERVE_MODELS, else ./models]",
    )
    return url(key(folder(command)))


def check_place(url: str | None, models: Path | None) -> None:
    """Raise click.UsageError where both places are named, or a folder that is not there."""
    if url is not None and models is not None:
        raise click.UsageError("--url asks a server, --models a folder here: name one of them")
    if models is not None and not models.is_dir():
        raise click.UsageError(f"--models {models}: there is no such folder")


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """The models of the folder that the command would use."""
    folder = Path(ctx.params.get("models") or os.environ.get("SEGSERVE_MODELS") or "models")
    names = {path.parent.parent.name for path in folder.glob("*/*/model.json")}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
