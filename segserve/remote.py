"""A server's URL in, an engine out that segments there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import click

from segserve.answers import File, ModelRecord
from segserve.client import Client, Segmentation
from segserve.engine import Outcome, Wanted
from segserve.errors import SegserveClientError

TIMEOUT = 120.0
"""Seconds that a picture may take: whoever has many can wait."""

RETRIES = 8
"""How often a picture is sent again: long enough for a server to start anew."""


@dataclass(frozen=True)
class RemoteEngine:
    """A model of a server."""

    client: Client
    model: str
    version: int
    classes: tuple[str, ...]

    def __call__(self, data: bytes, wanted: Wanted) -> Outcome:
        """Segment the bytes of an image file: one run of the net, then each view of the stored result."""
        others = [view for view in wanted.views if view != "json"]
        seen = self.client.segment(data, self.model, self.version, store=bool(others))
        try:
            return Outcome.of(seen.json(), {view: _file(seen, view, wanted) for view in others}, wanted)
        finally:
            with suppress(SegserveClientError):  # it expires by itself
                seen.forget()


def connect(url: str, key: str | None) -> Client:
    """A client that soon says that nobody is there. Raises click.UsageError."""
    try:
        return Client(url, key=key)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def open_remote(url: str, key: str | None, model: str | None, version: int | None, wanted: Wanted) -> RemoteEngine:
    """The engine for a model (None: the default one) in a version (None: the one that serves now).

    Raises SegserveClientError, click.ClickException, or click.UsageError for a model or class that is not there.
    """
    with connect(url, key) as brisk:
        record = _chosen(brisk.models(), model)
    client = Client(url, key=key, timeout=TIMEOUT, retries=RETRIES)
    if version is not None and version not in record.versions:
        known = ", ".join(map(str, record.versions))
        raise click.UsageError(f"the server has no version {version} of {record.name}; it has: {known}")
    chosen = record.version if version is None else version
    if chosen != record.version:
        return RemoteEngine(client, record.name, chosen, ())  # the server tells the classes of the serving version only
    strange = set(wanted.classes or ()) - {word for spec in record.classes for word in (spec.name, str(spec.id))}
    if strange:
        names = ", ".join(spec.name for spec in record.classes)
        raise click.UsageError(
            f"{', '.join(sorted(strange))}: not among the classes of {record.name}, which are {names}"
        )
    return RemoteEngine(client, record.name, chosen, tuple(spec.name for spec in record.classes))


def _chosen(records: tuple[ModelRecord, ...], model: str | None) -> ModelRecord:
    names = ", ".join(record.name for record in records) or "none"
    if model is not None:
        for record in records:
            if record.name == model:
                return record
        raise click.UsageError(f"the server has no model {model!r}; it has: {names}")
    if not records:
        raise click.ClickException("the server has no usable model; its /health/ready says why")
    default = [record for record in records if record.default] or list(records)
    if len(default) > 1:
        raise click.UsageError(f"say which model with --model, one of: {names}")
    return default[0]


def _file(seen: Segmentation, view: str, wanted: Wanted) -> File:
    return seen.view(view, alpha=wanted.alpha if view == "overlay" else None, classes=_classes(view, wanted))


def _classes(view: str, wanted: Wanted) -> tuple[str, ...] | None:
    return None if view in ("mask", "color", "confidence") else wanted.classes
