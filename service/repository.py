"""The model folder in, usable models by name and version out."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from service.batching import BatchLimits
from service.bundle import Model, open_bundle, reason_for
from service.errors import ModelNotReady, ModelRequired, ModelUnloaded, UnknownModel
from service.manifest import MANIFEST, NAME
from service.policy import Policy, PolicyFile
from service.settings import Settings
from service.sharing import Sharing
from service.warm import warm

logger = logging.getLogger(__name__)


VERSION = re.compile("[1-9][0-9]{0,8}")

Key = tuple[str, int]
"""A model's name and a version."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Of each file of a bundle: its name, inode, size and time of change."""


@dataclass(frozen=True)
class Refusal:
    """A version that is not served, and why."""

    name: str
    version: int
    reason: str


@dataclass(frozen=True)
class Catalog:
    """What a look at the model folder found; `unloaded` are the models that an administrator does not want served."""

    models: Mapping[str, Mapping[int, Model]] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    unloaded: frozenset[str] = frozenset()
    loaded: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All models, usable or not, by name."""
        return tuple(sorted({*self.models, *self.unloaded, *(refusal.name for refusal in self.refused)}))

    def refusals(self, name: str) -> dict[int, str]:
        """The refused versions of a model, and why."""
        return {refusal.version: refusal.reason for refusal in self.refused if refusal.name == name}


class Repository:
    """The models of one folder; `load` opens them, from then on they answer, and `refresh` keeps up with the folder."""

    def __init__(self, settings: Settings, cores: int = 1) -> None:
        """`cores`: how many the nets are opened for."""
        self._settings = settings
        self._sharing = Sharing(cores, BatchLimits(settings.batch, settings.batch_ms))
        self._policy = PolicyFile(settings.models)
        self._catalog = Catalog()
        self._failure: str | None = None
        self._models: dict[Key, Model] = {}
        self._refused: dict[Key, Refusal] = {}
        self._tried: dict[Key, Stamp] = {}
        self._seen: dict[Key, Stamp] = {}

    @property
    def catalog(self) -> Catalog:
        """What is there now; a snapshot that does not change."""
        return self._catalog

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self._settings.models

    def load(self, unloaded: frozenset[str] = frozenset()) -> None:
        """Open every bundle of the folder; takes seconds. A bundle that cannot be opened is refused, not fatal.

        Raises what makes the service itself unusable; it is then never ready, and says why.
        """
        try:
            warm()
            found = look(self.folder) if self.folder.is_dir() else {}
            self._update(found, list(found), unloaded, self._sharing)
        except Exception as error:
            self._failure = f"loading failed: {error!r}"
            logger.exception("loading failed")
            raise
        for problem in self.problems():
            logger.error("not ready: %s", problem)

    def refresh(self, unloaded: frozenset[str], at_once: bool) -> None:
        """Look at the folder again: open what is new or has changed, beside what serves; let go of what is gone.

        A bundle is opened once it has not changed between two looks: it may be on its way; `at_once` does not wait for
        that, and tries refused ones again. Not to be called by two threads at once. Raises OSError where the folder
        cannot be read; then everything stays as it is.
        """
        found = look(self.folder)
        if at_once:
            self._tried = {key: stamp for key, stamp in self._tried.items() if key not in self._refused}
        settled = found if at_once else {key: stamp for key, stamp in found.items() if stamp == self._seen.get(key)}
        self._seen = found
        new = [key for key, stamp in settled.items() if stamp != self._tried.get(key) and key[0] not in unloaded]
        self._update(found, new, unloaded, replace(self._sharing, beside=True))

    def _update(self, found: Mapping[Key, Stamp], new: list[Key], unloaded: frozenset[str], sharing: Sharing) -> None:
        wanted = {key for key in found if key[0] not in unloaded}
        for kept in (self._models, self._refused, self._tried):
            for key in set(kept) - wanted:
                del kept[key]
        self._publish(unloaded)
        for key in new:
            if key in wanted:
                self._tried[key] = found[key]
                self._open(key, sharing)
                self._publish(unloaded)
        self._catalog = replace(self._catalog, loaded=True)

    def _open(self, key: Key, sharing: Sharing) -> None:
        """Open a bundle; one that was good goes on serving where what lies there instead is refused."""
        name, version = key
        path = self.folder / name / str(version)
        self._refused.pop(key, None)
        try:
            model = open_bundle(path, self._settings.providers, self._settings.variant, sharing)
        except Exception as error:  # one bad bundle must not keep the others from being served
            reason = reason_for(path, error)
            logger.error("%s version %d refused: %s", name, version, reason)
            self._refused[key] = Refusal(name, version, reason)
            return
        self._models[key] = model
        tried = ", ".join(f"{trial.id} {trial.ms:.1f} ms" for trial in model.trials if trial.ms is not None)
        logger.info(
            "%s version %d is ready (%s; measured: %s); licence: %s",
            *(name, version, model.variant.id, tried or "nothing", model.manifest.license),
        )

    def _publish(self, unloaded: frozenset[str]) -> None:
        """Make what is there the catalog that requests see."""
        models: dict[str, dict[int, Model]] = {}
        for name, version in sorted(self._models):
            models.setdefault(name, {})[version] = self._models[name, version]
        frozen = MappingProxyType({name: MappingProxyType(versions) for name, versions in models.items()})
        refused = tuple(self._refused[key] for key in sorted(self._refused))
        catalog = Catalog(frozen, refused, unloaded, self._catalog.loaded)
        for name in sorted(set(self._catalog.names) - set(catalog.names)):
            logger.info("%s is gone from the model folder", name)
        self._catalog = catalog

    def default(self) -> str | None:
        """The model for requests that name none, if there is one. Raises ModelNotReady where that cannot be said."""
        return self._default(self._catalog)

    def _default(self, catalog: Catalog) -> str | None:
        policy = self._readable_policy()
        only = catalog.names[0] if len(catalog.names) == 1 else None
        return policy.default or self._settings.default_model or only

    def get(self, name: str | None = None, version: int | None = None) -> Model:
        """The model of that name (or the default one) in that version (or the pinned one, else the highest).

        Raises ModelRequired, UnknownModel or ModelNotReady.
        """
        return self._chosen(self.loaded_catalog(), name, version)

    def versions(self, name: str) -> list[int]:
        """Those of a model that can be asked; none where it is gone."""
        return sorted(self._catalog.models.get(name, {}))

    def _chosen(self, catalog: Catalog, name: str | None, version: int | None = None) -> Model:
        """As `get`, among what was there at one moment."""
        if not catalog.names and name is None:
            raise ModelNotReady(f"the folder {self.folder} holds no models (<name>/<version>/model.json)")
        chosen = name or self._default(catalog)
        if chosen is None:
            raise ModelRequired(f"say which model with model=, one of: {', '.join(catalog.names)}")
        if chosen not in catalog.names:
            there = f"there are: {', '.join(catalog.names) or 'none'}"
            if name is None:
                raise ModelNotReady(f"the default model {chosen!r} is not there; {there}")
            raise UnknownModel(f"there is no model {chosen!r}; {there}")
        if chosen in catalog.unloaded:
            raise ModelUnloaded(f"{chosen} has been unloaded by an administrator, who can load it again")
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
        found, catalog = [], self.loaded_catalog()
        for name in catalog.names:
            with suppress(ModelNotReady, ModelUnloaded):
                found.append(self._chosen(catalog, name))
        return found

    def problems(self) -> list[str]:
        """Why the service is not ready; empty where it is."""
        catalog = self._catalog
        if not catalog.loaded:
            return [self._failure or "the models are still loading"]
        if not catalog.names:
            return self._trouble(catalog, None)
        problem = self._policy.read().problem
        found = [problem] if problem else []
        with suppress(ModelRequired):
            found += self._trouble(catalog, None)
        for name in catalog.names:
            found += self._trouble(catalog, name)
        if self._settings.ready == "any" and self.serving():
            return []
        return list(dict.fromkeys(found))

    def _trouble(self, catalog: Catalog, name: str | None) -> list[str]:
        try:
            self._chosen(catalog, name)
        except ModelUnloaded:
            return []  # as it should be
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


def look(folder: Path) -> dict[Key, Stamp]:
    """Every <name>/<version>/ folder, by name and version, and what tells that one has changed. A folder without
    model.json is not finished: no bundle. Raises OSError where `folder` cannot be read."""
    found = {}
    for path in sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)):
        with suppress(OSError):  # no folder, or not for us
            for inner in path.iterdir():
                if VERSION.fullmatch(inner.name) and (inner / MANIFEST).exists():
                    found[path.name, int(inner.name)] = _stamp(inner)
    return found


def _stamp(folder: Path) -> Stamp:
    """Changes when a file of the folder does."""
    stamp = []
    for path in sorted(folder.iterdir()):
        with suppress(OSError):  # removed meanwhile, or a link to nowhere
            status = path.stat()
            stamp.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamp)
