"""A folder of models in, an engine out that segments in this process, with the service's own code.

The only module of this room that opens models; it is itself imported only where pictures are segmented here.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import click
from pydantic import ValidationError

from segserve.answers import File
from segserve.engine import Outcome, Wanted
from segserve.errors import UnusablePicture
from service.bundle import Model
from service.cores import CorePool, usable_cores
from service.errors import ModelRequired, ParameterError, SegserveError, UnknownModel
from service.manifest import explain
from service.render import TAKES, Kept, Options, View, render
from service.repository import Repository
from service.settings import Settings
from service.task import Seen, look
from service.turn import Turn

__all__ = ["LocalEngine", "model_documents", "open_local", "open_repository", "read_settings", "usable_cores"]


@dataclass(frozen=True)
class LocalEngine:
    """A model of a folder; its calls share the cores of `pool` as a server's requests do."""

    opened: Model
    settings: Settings
    options: Options
    pool: CorePool

    @property
    def model(self) -> str:
        """The model's name."""
        return self.opened.name

    @property
    def version(self) -> int:
        """Its version."""
        return self.opened.version

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, by id."""
        return tuple(spec.name for spec in self.opened.manifest.classes)

    def __call__(self, data: bytes, wanted: Wanted) -> Outcome:
        """Segment the bytes of an image file once, for all views. Raises UnusablePicture."""
        self.pool.expect()
        try:
            with self.pool.inside():
                return self._outcome(data, wanted)
        except SegserveError as error:
            raise UnusablePicture(str(error)) from error
        finally:
            self.pool.forget()

    def _outcome(self, data: bytes, wanted: Wanted) -> Outcome:
        turn = Turn(pool=self.pool)
        seen = look(data, self.opened, self.settings, turn, whole="overlay" in wanted.views, confidence=True)
        document = json.loads(self._rendered("json", seen, turn).content)
        others = [view for view in wanted.views if view != "json"]
        return Outcome.of(document, {view: self._rendered(view, seen, turn) for view in others}, wanted)

    def _rendered(self, view: str, seen: Seen, turn: Turn) -> File:
        known = cast("View", view)
        shows_classes = view != "json" and "classes" in TAKES[known]
        options = self.options if shows_classes else replace(self.options, classes=None)
        body = render(known, seen.segmentation, self.opened.snapshot, seen.whole, options, Kept(), turn)
        return File(body.content, body.media_type)


def read_settings(folder: Path | None) -> Settings:
    """Those of the environment, with the models of `folder` (None: SEGSERVE_MODELS, else ./models).

    Raises click.UsageError for settings that are wrong.
    """
    try:
        return Settings() if folder is None else Settings(models=folder)
    except ValidationError as error:
        raise click.UsageError(f"SEGSERVE_...: {explain(error)}") from error


def open_repository(settings: Settings, cores: int) -> Repository:
    """The models that the settings name, opened for `cores`; takes seconds. Raises click.ClickException."""
    # What the service would log is told as this program's own message.
    logging.getLogger("service").addHandler(logging.NullHandler())
    repository = Repository(settings, cores)
    try:
        repository.load()
    except Exception as error:
        raise click.ClickException(f"the models in {settings.models} cannot be loaded: {error}") from error
    if not repository.catalog.names:
        raise click.ClickException(
            f"the folder {settings.models} holds no models (<name>/<version>/model.json): name another with --models, "
            "or a server with --url"
        )
    return repository


def open_local(
    settings: Settings, model: str | None, version: int | None, wanted: Wanted, jobs: int | None
) -> LocalEngine:
    """The engine for a model (None: the default one) in a version (None: the one that would serve).

    Raises as `open_repository`, and click.UsageError for a model or class that is not there.
    """
    cores = jobs or usable_cores()
    repository = open_repository(settings, cores)
    try:
        opened = repository.get(model, version)
        classes = None if wanted.classes is None else opened.snapshot.class_ids(wanted.classes)
    except ModelRequired as error:
        raise click.UsageError(
            f"say which model with --model, one of: {', '.join(repository.catalog.names)}"
        ) from error
    except (UnknownModel, ParameterError) as error:
        raise click.UsageError(str(error)) from error
    except SegserveError as error:
        raise click.ClickException(str(error)) from error
    options = Options(classes=classes) if wanted.alpha is None else Options(alpha=wanted.alpha, classes=classes)
    return LocalEngine(opened, settings, options, CorePool(cores))


def model_documents(folder: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The usable models of `folder` as `GET /models` describes them, and a line for each version that is refused.

    Raises as `read_settings` and `open_repository`.
    """
    from service.routes.models import describe  # noqa: PLC0415 - segmenting needs no web framework

    repository = open_repository(read_settings(folder), usable_cores())
    refused = [f"{refusal.name} version {refusal.version}: {refusal.reason}" for refusal in repository.catalog.refused]
    try:
        return [describe(repository, model) for model in repository.serving()], refused
    except SegserveError as error:
        raise click.ClickException(str(error)) from error
