"""The model folder in, usable models by name and version out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydantic import Field, ValidationError

from service.bundle import Model, open_bundle
from service.errors import BundleError, ModelNotReady, ModelRequired, UnknownModel
from service.manifest import Record, explain
from service.settings import Settings

logger = logging.getLogger(__name__)

POLICY = "repository.json"


class Policy(Record):
    """`repository.json`: the model for requests that name none, and the version that serves a model."""

    default: str | None = None
    pin: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A version that is not served, and why."""

    name: str
    version: int
    reason: str


@dataclass(frozen=True)
class Catalog:
    """What a look at the model folder found."""

    models: Mapping[str, Mapping[int, Model]] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    loaded: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All models, usable or not, by name."""
        return tuple(sorted({*self.models, *(refusal.name for refusal in self.refused)}))


class Repository:
    """The models of one folder; `load` opens them, from then on they answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalog = Catalog()

    @property
    def catalog(self) -> Catalog:
        """What is there now; a snapshot that does not change."""
        return self._catalog

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self._settings.models

    def load(self) -> None:
        """Open every bundle of the folder; takes seconds. A bundle that cannot be opened is refused, not fatal."""
        models: dict[str, dict[int, Model]] = {}
        refused = []
        for name, version, path in _bundles(self.folder):
            try:
                model = open_bundle(path, self._settings.providers, self._settings.variant)
            except BundleError as error:
                logger.error("%s version %d refused: %s", name, version, error)
                refused.append(Refusal(name, version, str(error)))
                continue
            models.setdefault(name, {})[version] = model
            logger.info(
                "%s version %d is ready (%s); licence: %s", name, version, model.variant.id, model.manifest.license
            )
        frozen = {name: MappingProxyType(versions) for name, versions in models.items()}
        self._catalog = Catalog(MappingProxyType(frozen), tuple(refused), loaded=True)

    def policy(self) -> Policy:
        """`repository.json` as it is now. Raises ModelNotReady where it cannot be understood."""
        path = self.folder / POLICY
        try:
            return Policy.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Policy()
        except OSError as error:
            raise ModelNotReady(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ModelNotReady(f"{path}: {explain(error)}") from error

    def default(self) -> str | None:
        """The model for requests that name none, if there is one."""
        only = self.catalog.names[0] if len(self.catalog.names) == 1 else None
        return self.policy().default or self._settings.default_model or only

    def get(self, name: str | None = None, version: int | None = None) -> Model:
        """The model of that name (or the default one) in that version (or the pinned one, else the highest).

        Raises ModelRequired, UnknownModel or ModelNotReady.
        """
        catalog, policy = self.catalog, self.policy()
        if not catalog.loaded:
            raise ModelNotReady("the models are still loading: try again in a few seconds")
        name = name or self.default()
        if name is None:
            raise ModelRequired(f"say which model with model=, one of: {', '.join(catalog.names) or 'none is there'}")
        if name not in catalog.names:
            raise UnknownModel(f"there is no model {name!r}; there are: {', '.join(catalog.names) or 'none'}")
        versions = catalog.models.get(name, {})
        wanted = version or policy.pin.get(name)
        refused = {refusal.version: refusal.reason for refusal in catalog.refused if refusal.name == name}
        if wanted is None and versions:
            return versions[max(versions)]
        if wanted is not None and wanted in versions:
            return versions[wanted]
        if wanted is not None and wanted not in refused:
            known = ", ".join(map(str, sorted({*versions, *refused})))
            raise UnknownModel(f"{name} has no version {wanted}; it has: {known}")
        raise ModelNotReady(f"{name} has no usable version: {'; '.join(refused.values())}")

    def serving(self) -> list[Model]:
        """The version that serves each model which has a usable one, by name."""
        found = []
        for name in self.catalog.names:
            with suppress(ModelNotReady, UnknownModel):
                found.append(self.get(name))
        return found

    def problems(self) -> list[str]:
        """Why the service is not ready; empty where it is."""
        catalog = self.catalog
        if not catalog.loaded:
            return ["the models are still loading"]
        if not catalog.names:
            return [f"the folder {self.folder} holds no models (<name>/<version>/model.json)"]
        missing = []
        try:
            default = self.default()
        except ModelNotReady as error:
            return [str(error)]
        if default is not None and default not in catalog.names:
            missing.append(f"the default model {default!r} is not there; there are: {', '.join(catalog.names)}")
        for name in catalog.names:
            try:
                self.get(name)
            except (ModelNotReady, UnknownModel) as error:
                missing.append(str(error))
        if self._settings.ready == "any" and self.serving():
            return []
        return missing


def _bundles(folder: Path) -> list[tuple[str, int, Path]]:
    """Every <name>/<version>/ folder, by name and version. A folder without model.json is not finished: no bundle."""
    found = []
    for path in folder.glob("*/*/model.json"):
        version, name = path.parent.name, path.parent.parent.name
        if version.isdecimal() and int(version) > 0 and not name.startswith("."):
            found.append((name, int(version), path.parent))
    return sorted(found)
