"""`segserve serve`: options and environment in, a running server out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryDirectory

import click
import uvicorn
from pydantic import ValidationError

from service.app import create_app
from service.manifest import explain
from service.settings import Settings

PREFIX = "SEGSERVE_"


def application() -> Callable[..., object]:
    """The application with the settings of the environment; every server process calls this."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s")
    return create_app(Settings())


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each setting."""
    for name, field in reversed(Settings.model_fields.items()):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        text = f"{field.description}  [{PREFIX}{name.upper()}; default: {default}]"
        command = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=text)(command)
    return command


@click.command(name="serve")
@_options
def serve(**given: str | None) -> None:
    """Serve the models of a folder over HTTP.

    Every option is also an environment variable; the option wins.
    """
    os.environ.update({PREFIX + name.upper(): value for name, value in given.items() if value is not None})
    try:
        settings = Settings()
    except ValidationError as error:
        raise click.UsageError(explain(error)) from error
    with ExitStack() as stack:
        if settings.results is None and settings.workers > 1:
            # The workers share one; a process alone makes its own.
            folder = stack.enter_context(TemporaryDirectory(prefix="segserve-results-"))
            os.environ[f"{PREFIX}RESULTS"] = f"dir:{folder}"
        _run(settings)


def _run(settings: Settings) -> None:
    try:
        uvicorn.run(
            "service.cli:application",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            http="httptools",
            log_level="info",
            access_log=False,
        )
    except SystemExit as end:
        # uvicorn has said what was wrong, a port in use for instance; its exit codes are not ours.
        sys.exit(1 if end.code else 0)
