"""`segserve serve`: options and environment in, a running server out."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from pydantic import ValidationError

from service import logs
from service.manifest import explain
from service.settings import Settings
from service.supervisor import Supervisor

logger = logging.getLogger(__name__)

PREFIX = "SEGSERVE_"

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder in which the workers count together."""

BACKLOG = 2048
"""Connections that the system holds until a worker takes them."""


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
    for name in ("api_keys", "admin_keys"):
        if digests := getattr(settings, name):
            # A worker that is replaced later has the same keys, whatever has become of a file that lists them.
            os.environ[PREFIX + name.upper()] = ",".join(digests)
    logs.configure(settings)
    with ExitStack() as stack:
        _make_home(stack, settings)
        listener = stack.enter_context(_listen(settings.host, settings.port))
        seconds = settings.drain_delay + settings.drain_seconds
        supervisor = Supervisor(listener, settings.workers, seconds, _forget)
        if not asyncio.run(supervisor.run()):
            sys.exit(1)


def _make_home(stack: ExitStack, settings: Settings) -> None:
    """A private folder for what the workers share, unless the settings name another place for it; it ends with the
    server. Where none can be made, the service does without."""
    try:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="segserve-", ignore_cleanup_errors=True)))
        metrics = home / "metrics"
        metrics.mkdir()
    except OSError as error:
        logger.error("no temporary folder can be made (%s): what needs one is not kept", error)
        return
    if settings.results is None:
        os.environ[f"{PREFIX}RESULTS"] = f"dir:{home / 'results'}"
    if settings.state is None:
        os.environ[f"{PREFIX}STATE"] = str(home / "state")
    os.environ[METRICS] = str(metrics)


def _forget(pid: int) -> None:
    """What a worker process measured of itself ends with it; what it counted stays."""
    if METRICS in os.environ:
        try:
            from service.exposition import retire  # noqa: PLC0415 - most servers end without it
        except OSError as error:  # the machine has no file left that could be opened
            logger.error("what the worker process %d counted is lost: %s", pid, error)
        else:
            retire(pid)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from error
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    logger.info("listening on http://%s:%d", shown, listener.getsockname()[1])
    return listener
