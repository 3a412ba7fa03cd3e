"""The model folder in, usable models by name and version out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from service.batching import BatchLimits
from service.bundle import Model, open_bundle, reason_for
from service.errors import ModelNotReady, ModelRequired, UnknownModel
from service.manifest import NAME
from service.policy import Policy, PolicyFile
from service.settings import Settings
from service.sharing import Sharing
from service.warm import warm

logger = logging.getLogger(__name__)


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

    def refusals(self, name: str) -> dict[int, str]:
        """The refused versions of a model, and why."""
        return {refusal.version: refusal.reason for refusal in self.refused if refusal.name == name}


class Repository:
    """The models of one folder; `load` opens them, from then on they answer."""

    def __init__(self, settings: Settings, cores: int = 1) -> None:
        """`cores`: how many the nets are opened for."""
        self._settings = settings
        self._sharing = Sharing(cores, BatchLimits(settings.batch, settings.batch_ms))
        self._policy = PolicyFile(settings.models)
        self._catalog = Catalog()
        self._failure: str | None = None

    @property
    def catalog(self) -> Catalog:
        """What is there now; a snapshot that does not change."""
        return self._catalog

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self._settings.models

    def load(self) -> None:
        """Open every bundle of the folder; takes seconds. A bundle that cannot be opened is refused, not fatal.

        Raises what makes the service itself unusable; it is then never ready, and says why.
        """
        try:
            warm()
            self._open_all()
        except Exception as error:
            self._failure = f"loading failed: {error!r}"
            logger.exception("loading failed")
            raise

    def _open_all(self) -> None:
        models: dict[str, dict[int, Model]] = {}
        refused = []
        for name, version, path in _bundles(self.folder):
            try:
                model = open_bundle(path, self._settings.providers, self._settings.variant, self._sharing)
            except Exception as error:  # one bad bundle must not keep the others from being served
                reason = reason_for(path, error)
                logger.error("%s version %d refused: %s", name, version, reason)
                refused.append(Refusal(name, version, reason))
                continue
            models.setdefault(name, {})[version] = model
            tried = ", ".join(f"{trial.id} {trial.ms:.1f} ms" for trial in model.trials if trial.ms is not None)
            logger.info(
                "%s version %d is ready (%s; measured: %s); licence: %s",
                *(name, version, model.variant.id, tried or "nothing", model.manifest.license),
            )
        frozen = {name: MappingProxyType(versions) for name, versions in models.items()}
        self._catalog = Catalog(MappingProxyType(frozen), tuple(refused), loaded=True)
        for problem in self.problems():
            logger.error("not ready: %s", problem)

    def default(self) -> str | None:
        """The model for requests that name none, if there is one. Raises ModelNotReady where that cannot be said."""
        policy = self._readable_policy()
        only = self.catalog.names[0] if len(self.catalog.names) == 1 else None
        return policy.default or self._settings.default_model or only

    def get(self, name: str | None = None, version: int | None = None) -> Model:
        """The model of that name (or the default one) in that version (or the pinned one, else the highest).

        Raises ModelRequired, UnknownModel or ModelNotReady.
        """
        catalog = self.loaded_catalog()
        if not catalog.names and name is None:
            raise ModelNotReady(f"the folder {self.folder} holds no models (<name>/<version>/model.json)")
        chosen = name or self.default()
        if chosen is None:
            raise ModelRequired(f"say which model with model=, one of: {', '.join(catalog.names)}")
        if chosen not in catalog.names:
            there = f"there are: {', '.join(catalog.names) or 'none'}"
            if name is None:
                raise ModelNotReady(f"the default model {chosen!r} is not there; {there}")
            raise UnknownModel(f"there is no model {chosen!r}; {there}")
        if version is not None:
            return self._version(catalog, chosen, version)
        return self._serving_version(catalog, chosen)

    def loaded_catalog(self) -> Catalog:
        """The catalog. Raises ModelNotReady while it is being loaded."""
        if not self._catalog.loaded:
            raise ModelNotReady(self._failure or "the models are still loading: try again in a few seconds")
        return self._catalog

    def serving(self) -> list[Model]:
        """The version that serves each model which has a usable one, by name. Raises ModelNotReady while loading."""
        found = []
        for name in self.loaded_catalog().names:
            with suppress(ModelNotReady):
                found.append(self.get(name))
        return found

    def problems(self) -> list[str]:
        """Why the service is not ready; empty where it is."""
        if not self._catalog.loaded:
            return [self._failure or "the models are still loading"]
        if not self._catalog.names:
            return self._trouble(None)
        problem = self._policy.read().problem
        found = [problem] if problem else []
        with suppress(ModelRequired):
            found += self._trouble(None)
        for name in self._catalog.names:
            found += self._trouble(name)
        if self._settings.ready == "any" and self.serving():
            return []
        return list(dict.fromkeys(found))

    def _trouble(self, name: str | None) -> list[str]:
        try:
            self.get(name)
        except ModelNotReady as error:
            return [str(error)]
        return []

    def _version(self, catalog: Catalog, name: str, version: int) -> Model:
        """The version that a client asked for."""
        versions = catalog.models.get(name, {})
        if version in versions:
            return versions[version]
        refused = catalog.refusals(name)
        if version in refused:
            raise ModelNotReady(f"{name} version {version} is not usable: {refused[version]}")
        known = ", ".join(map(str, sorted({*versions, *refused})))
        raise UnknownModel(f"{name} has no version {version}; it has: {known}")

    def _serving_version(self, catalog: Catalog, name: str) -> Model:
        """The pinned version, else the highest usable one."""
        versions, refused = catalog.models.get(name, {}), catalog.refusals(name)
        pinned = self._readable_policy().pin.get(name)
        if pinned is not None and pinned not in versions:
            reason = refused.get(pinned, f"there are: {', '.join(map(str, sorted(versions))) or 'none'}")
            raise ModelNotReady(f"{name} is pinned to version {pinned}, which is not usable: {reason}")
        if not versions:
            raise ModelNotReady(f"{name} has no usable version: {'; '.join(refused.values())}")
        return versions[pinned or max(versions)]

    def _readable_policy(self) -> Policy:
        reading = self._policy.read()
        if reading.policy is None:
            raise ModelNotReady(reading.problem)
        return reading.policy


def _bundles(folder: Path) -> list[tuple[str, int, Path]]:
    """Every <name>/<version>/ folder, by name and version. A folder without model.json is not finished: no bundle."""
    found = []
    for path in folder.glob("*/*/model.json"):
        version, name = path.parent.name, path.parent.parent.name
        if version.isdecimal() and int(version) > 0 and NAME.fullmatch(name):
            found.append((name, int(version), path.parent))
    return sorted(found)
