"""A golden picture and what a net must see in it: read, written, and held against an opened net."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import thread_time

import numpy as np
from numpy.typing import NDArray

from service.errors import BundleError
from service.manifest import GOLDEN, Variant
from service.segmenter import Segmenter

RUNS = 3
"""How often a net is asked to know how long it takes: the first time it may allocate."""


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

    def prove(
        self, path: Path, segmenter: Segmenter, variant: Variant, runs: int = RUNS, crowded: bool = False
    ) -> float:
        """The milliseconds that the net takes for the picture, the least of so many runs.

        `crowded`: others use the cores meanwhile, so that only the time that this thread had one counts; the net must
        then run in no other. Raises BundleError, naming `path`, where the answer is not the stored one.
        """
        if variant.id not in self.masks:
            raise BundleError(f"{path}: {GOLDEN} holds no mask for the variant {variant.id}")
        wanted = self.masks[variant.id]
        try:
            answers = [self._timed(segmenter, crowded) for _ in range(runs)]
        except Exception as error:  # whatever a foreign graph may do
            raise BundleError(f"{path}: fails on the golden picture: {error}") from error
        seen = answers[0][0]
        if seen.shape != wanted.shape:
            raise BundleError(f"{path}: answers the golden picture at {seen.shape}, the golden mask is {wanted.shape}")
        agreement = float((seen == wanted).mean())
        if agreement < variant.golden_min:
            raise BundleError(
                f"{path}: agrees with the golden mask at {agreement:.4%} of the pixels, {variant.golden_min:.4%} are "
                "needed"
            )
        return min(milliseconds for _, milliseconds in answers)

    def _timed(self, segmenter: Segmenter, crowded: bool) -> tuple[NDArray[np.uint8], float]:
        """The mask at the net's resolution, and the milliseconds that it took."""
        start = thread_time()
        answer = segmenter(self.picture, confidence=False)
        # What surrounds the net's own time is a hundredth of it.
        return answer.coarse, (thread_time() - start) * 1e3 if crowded else answer.infer_ms
