"""A bundle's folder in, a usable model out: files checked, graph opened, golden picture answered right."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import BundleError, UnknownCard
from service.geometry import net_pixels, place
from service.golden import RUNS, Golden
from service.graph import Graph, Tensor
from service.manifest import GOLDEN, Manifest, Snapshot, Variant, read_manifest
from service.polite import politely
from service.segmenter import Segmenter, prepare
from service.sharing import Sharing, joined
from service.structure.parts import Structure
from service.structure.reading import structure_of
from service.turn import Turn

logger = logging.getLogger(__name__)

CARD = "README.md"
"""A bundle's file that tells people what the model is."""

LONGEST_CARD = 256 * 1024
"""Bytes of it that are shown."""

ONE_THREAD = Sharing()
"""For who asks from one thread, with onnxruntime's own choice of threads."""


@dataclass(frozen=True)
class Trial:
    """What came of trying a variant: the milliseconds that its net takes for the golden picture (None without one), or
    why it is refused."""

    id: str
    ms: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class _Opened:
    """A variant's graph, and the same on one core, for when others work beside it, if there is one; `ms` is what all
    cores and `core_ms` what one core takes for the golden picture, if there is one."""

    graph: Graph
    narrow: Graph | None
    ms: float | None
    core_ms: float | None


@dataclass(frozen=True)
class Model:
    """One version of a model, opened and right.

    `trials` are those of all its variants that were tried; `graph` is the chosen one, `narrow` the same for one core,
    for when others work beside it, if there is one; `together`: how many pictures are best run at once, as measured;
    `ms_per_megapixel`: about what one core takes for a megapixel of the net's input, None without a golden picture;
    `folder`: its bundle's; `golden`: what was there when it was opened.
    """

    manifest: Manifest
    variant: Variant
    segmenter: Segmenter
    proved: bool
    trials: tuple[Trial, ...]
    graph: Graph
    narrow: Graph | None
    together: int
    ms_per_megapixel: float | None
    folder: Path
    golden: Golden | None

    def run(self, tensor: Tensor, turn: Turn) -> dict[str, NDArray[np.generic]]:
        """What the graph itself answers a prepared batch of any length that it takes, by output.

        Raises DeadlineExceeded.
        """
        most = len(tensor) if isinstance(self.graph.shape[0], int) else self.together
        parts = [self._run(tensor[start : start + most], turn) for start in range(0, len(tensor), most)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, tensor: Tensor, turn: Turn) -> dict[str, NDArray[np.generic]]:
        with turn.spread() as cores:
            return (self.narrow if self.narrow and cores.shared else self.graph).run(tensor, turn.stop)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The bundle's version."""
        return self.manifest.version

    @property
    def snapshot(self) -> Snapshot:
        """What a result of it says of it."""
        return self.manifest.snapshot(self.variant.id)

    @cached_property
    def structure(self) -> Structure:
        """The stages of its net, read from the graph in use when first asked for; takes some milliseconds."""
        return structure_of(self.folder / self.variant.file, self.manifest.input, self.manifest.output)

    def prove(self) -> None:
        """Ask the net about the golden picture again, if there is one. Raises BundleError where the answer is wrong."""
        if self.golden is not None:
            self.golden.prove(self.folder / self.variant.file, self.segmenter, self.variant, runs=1)

    def card(self) -> str:
        """What its README.md says. Raises UnknownCard where there is none."""
        path = self.folder / CARD
        if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()):
            with path.open("rb") as file:
                return file.read(LONGEST_CARD).decode(errors="replace")
        raise UnknownCard(f"{self.name} version {self.version} has no card: there is no {CARD} in its bundle")

    @property
    def ms(self) -> float | None:
        """The milliseconds that the net takes for the golden picture with all cores; None without one."""
        return next(trial.ms for trial in self.trials if trial.id == self.variant.id)


def open_bundle(folder: Path, providers: Sequence[str], variant: str = "auto", sharing: Sharing = ONE_THREAD) -> Model:
    """Open the bundle in `folder`: of the variants listed for a provider in use, the fastest that proves right.

    `variant` names the only one to try, or is "auto". A net on the CPU is opened for all cores of `sharing` and for
    one, for when it is alone and when it is not. Raises BundleError, naming the folder and every reason.
    """
    manifest = read_manifest(folder)
    if (folder.parent.name, folder.name) != (manifest.name, str(manifest.version)):
        raise BundleError(
            f"{folder}: model.json says {manifest.name} version {manifest.version}; the folder must be "
            f"{manifest.name}/{manifest.version}"
        )
    listed = GOLDEN in manifest.sha256 or (folder / GOLDEN).exists()
    golden = Golden.load(_checked_file(folder, GOLDEN, manifest)) if listed else None
    usable: list[tuple[Variant, _Opened]] = []
    trials: list[Trial] = []
    for candidate in _candidates(folder, manifest, providers, variant):
        try:
            opened = _open_variant(folder, manifest, candidate, golden, providers, sharing)
        except Exception as error:  # whatever a foreign file may do, it does it to itself alone
            trials.append(Trial(candidate.id, refused=reason_for(folder / candidate.file, error)))
            logger.warning("variant refused: %s", trials[-1].refused)
        else:
            usable.append((candidate, opened))
            trials.append(Trial(candidate.id, opened.ms))
    if not usable:
        raise BundleError("; ".join(str(trial.refused) for trial in trials))
    chosen, opened = min(usable, key=lambda item: (item[1].core_ms if sharing.beside else item[1].ms) or 0.0)
    proved = golden is not None and chosen.check is not None and chosen.file in manifest.sha256
    segmenter, together = _shared(manifest, opened, golden, sharing)
    rate = None
    if golden is not None and opened.core_ms is not None:
        rate = opened.core_ms * 1e6 / net_pixels(manifest.input, *golden.size)
    graphs = (opened.graph, opened.narrow)
    return Model(manifest, chosen, segmenter, proved, tuple(trials), *graphs, together, rate, folder, golden)


def reason_for(path: Path, error: Exception) -> str:
    """Why what lies at `path` is refused; an error that is none of ours does not say itself where it happened."""
    return str(error) if isinstance(error, BundleError) else f"{path}: {error!r}"


def _candidates(folder: Path, manifest: Manifest, providers: Sequence[str], variant: str) -> list[Variant]:
    listed = [item for item in manifest.variants if set(item.providers) & set(providers)]
    if variant != "auto":
        listed = [item for item in listed if item.id == variant]
    if not listed:
        offered = ", ".join(f"{item.id} ({', '.join(item.providers)})" for item in manifest.variants)
        raise BundleError(f"{folder}: no variant for {', '.join(providers)}, variant {variant}; it has {offered}")
    return listed


def _open_variant(
    folder: Path,
    manifest: Manifest,
    variant: Variant,
    golden: Golden | None,
    providers: Sequence[str],
    sharing: Sharing,
) -> _Opened:
    """The variant, proved where there is a golden picture."""
    path = _checked_file(folder, variant.file, manifest)

    on_cpu = tuple(providers) == ("cpu",)

    def proved(cores: int, runs: int) -> tuple[Graph, float | None]:
        crowded = sharing.beside and on_cpu and cores == 1

        def work() -> tuple[Graph, float | None]:
            graph = Graph(path, manifest, providers, cores)
            return graph, golden.prove(path, Segmenter(manifest, graph), variant, runs, crowded) if golden else None

        return politely(work) if crowded else work()

    narrow, core_ms = proved(1, RUNS if sharing.beside else 1) if sharing.cores > 1 and on_cpu else (None, None)
    graph, ms = proved(sharing.cores, 1 if narrow and sharing.beside else RUNS)
    return _Opened(graph, narrow, ms, core_ms or ms)


def _shared(manifest: Manifest, opened: _Opened, golden: Golden | None, sharing: Sharing) -> tuple[Segmenter, int]:
    """The opened graph as its runs share the cores best, and how many pictures a run then takes."""
    if golden is not None and not sharing.beside:
        placement = place(manifest.input, *golden.size)[0]
        tensor = prepare(golden.picture, placement, manifest.input)
        together = joined(opened.graph, opened.narrow, tensor, sharing)
        if together is not None:
            return Segmenter(manifest, together), sharing.largest_batch
    return Segmenter(manifest, opened.graph, opened.narrow), 1


def _checked_file(folder: Path, name: str, manifest: Manifest) -> Path:
    """The file's path, after comparing it with its sha256, if the manifest has one."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path}: leads out of the bundle's folder")
    wanted = manifest.sha256.get(name)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if wanted else None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    if found != wanted:
        raise BundleError(
            f"{path}: its sha256 is {found}, model.json says {wanted}: the file is damaged or another one"
        )
    return path
