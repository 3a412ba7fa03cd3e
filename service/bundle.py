"""A bundle's folder in, a usable model out: files checked, graph opened, golden picture answered right."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import BundleError
from service.geometry import place
from service.graph import Graph, Tensor
from service.manifest import GOLDEN, Manifest, Snapshot, Variant, read_manifest
from service.segmenter import Segmenter, prepare
from service.sharing import Sharing, joined
from service.turn import Turn

logger = logging.getLogger(__name__)

ONE_THREAD = Sharing()
"""For who asks from one thread, with onnxruntime's own choice of threads."""


@dataclass(frozen=True)
class Golden:
    """A picture and what the net must see in it: `masks` holds, per variant id, class ids at the net's resolution."""

    picture: NDArray[np.uint8]
    masks: dict[str, NDArray[np.uint8]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.picture.shape[0], self.picture.shape[1]

    def save(self, path: Path) -> None:
        """Write `golden.npz`: the picture as `picture`, each mask as `mask.<variant id>`."""
        arrays = {f"mask.{variant}": mask for variant, mask in self.masks.items()}
        np.savez_compressed(path, allow_pickle=False, picture=self.picture, **arrays)

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Raises BundleError where the file is not as `save` writes it."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                picture = arrays["picture"]
                masks = {name[5:]: arrays[name] for name in arrays.files if name.startswith("mask.")}
        except Exception as error:  # a damaged file fails anywhere in zipfile, zlib or numpy
            raise BundleError(f"{path}: cannot be read: {error}") from error
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise BundleError(f"{path}: the picture is {picture.dtype} {picture.shape}, not uint8 (H, W, 3)")
        return cls(picture, masks)


@dataclass(frozen=True)
class Trial:
    """What came of trying a variant: the milliseconds that its net takes for the golden picture (None without one), or
    why it is refused."""

    id: str
    ms: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class _Opened:
    """A variant's graph, and the same on one core, for when others work beside it, if there is one."""

    graph: Graph
    narrow: Graph | None


@dataclass(frozen=True)
class Model:
    """One version of a model, opened and right.

    `trials` are those of all its variants that were tried; `graph` is the chosen one, `narrow` the same for one core,
    for when others work beside it, if there is one; `together`: how many pictures are best run at once, as measured.
    """

    manifest: Manifest
    variant: Variant
    segmenter: Segmenter
    proved: bool
    trials: tuple[Trial, ...]
    graph: Graph
    narrow: Graph | None
    together: int

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
            opened, milliseconds = _open_variant(folder, manifest, candidate, golden, providers, sharing.cores)
        except Exception as error:  # whatever a foreign file may do, it does it to itself alone
            trials.append(Trial(candidate.id, refused=reason_for(folder / candidate.file, error)))
            logger.warning("variant refused: %s", trials[-1].refused)
        else:
            usable.append((candidate, opened))
            trials.append(Trial(candidate.id, milliseconds))
    if not usable:
        raise BundleError("; ".join(str(trial.refused) for trial in trials))
    times = [trial.ms or 0.0 for trial in trials if trial.refused is None]
    chosen, opened = usable[times.index(min(times))]
    proved = golden is not None and chosen.check is not None and chosen.file in manifest.sha256
    segmenter, together = _shared(manifest, opened, golden, sharing)
    return Model(manifest, chosen, segmenter, proved, tuple(trials), opened.graph, opened.narrow, together)


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
    cores: int,
) -> tuple[_Opened, float | None]:
    """The variant, proved where there is a golden picture, and the milliseconds that it then takes."""
    path = _checked_file(folder, variant.file, manifest)
    graph = Graph(path, manifest, providers, cores)
    narrow = Graph(path, manifest, providers, 1) if cores > 1 and tuple(providers) == ("cpu",) else None
    opened = _Opened(graph, narrow)
    if golden is None:
        return opened, None
    for one in filter(None, (graph, narrow)):
        _prove(path, Segmenter(manifest, one), variant, golden)
    return opened, _time(Segmenter(manifest, graph), golden)


def _shared(manifest: Manifest, opened: _Opened, golden: Golden | None, sharing: Sharing) -> tuple[Segmenter, int]:
    """The opened graph as its runs share the cores best, and how many pictures a run then takes."""
    if golden is not None:
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


def _prove(path: Path, segmenter: Segmenter, variant: Variant, golden: Golden) -> None:
    """Compare the answer to the golden picture with the stored one."""
    if variant.id not in golden.masks:
        raise BundleError(f"{path}: {GOLDEN} holds no mask for the variant {variant.id}")
    wanted = golden.masks[variant.id]
    try:
        seen = segmenter(golden.picture).coarse
    except Exception as error:  # whatever a foreign graph may do
        raise BundleError(f"{path}: fails on the golden picture: {error}") from error
    if seen.shape != wanted.shape:
        raise BundleError(f"{path}: answers the golden picture at {seen.shape}, the golden mask is {wanted.shape}")
    agreement = float((seen == wanted).mean())
    if agreement < variant.golden_min:
        raise BundleError(
            f"{path}: agrees with the golden mask at {agreement:.4%} of the pixels, {variant.golden_min:.4%} are needed"
        )


def _time(segmenter: Segmenter, golden: Golden) -> float:
    """The milliseconds that the net takes for the golden picture, the least of a few."""
    return min(segmenter(golden.picture, confidence=False).infer_ms for _ in range(3))
