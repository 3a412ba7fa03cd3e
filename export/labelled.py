"""A data folder and nets in, the mIoU of each out, on masks of the pictures' own size, as the service answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import ExportError
from export.pictures import read_picture
from service.manifest import Manifest, read_classes
from service.scores import confusion, mean_iou
from service.segmenter import Segmenter

IGNORED = 255
"""The label of pixels that are not counted."""

SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Labelled:
    """A split of a data folder, `{split}/{images,masks}`: each picture's file and its mask's, and the label ids that
    are not counted."""

    pairs: Sequence[tuple[Path, Path]]
    ignore: frozenset[int]

    @classmethod
    def open(cls, root: Path, split: str, manifest: Manifest) -> Labelled:
        """Raises ValueError or OSError where the folder is not as described, ExportError where its classes are not the
        manifest's."""
        classes = read_classes(root / "classes.json")
        if not classes.fits(manifest):
            names, known = ([spec.name for spec in specs] for specs in (classes.channels, manifest.classes))
            raise ExportError(f"{root} has the classes {', '.join(names)}, the bundle {', '.join(known)}: not the same")
        images = sorted(path for path in (root / split / "images").glob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise ValueError(f"{root / split / 'images'} holds no pictures ({', '.join(SUFFIXES)})")
        pairs = [(image, root / split / "masks" / f"{image.stem}.png") for image in images]
        for image, mask in pairs:
            if not mask.is_file():
                raise ValueError(f"{image} has no mask: {mask} is missing")
        return cls(pairs, frozenset({*classes.ignore, IGNORED}))

    def miou(self, segmenters: Mapping[str, Segmenter]) -> dict[str, float]:
        """The mIoU of each net, over one confusion matrix of all pictures. Raises ValueError for a mask that is not as
        it should be, and where no pixel counts."""
        classes = max(len(one.manifest.classes) for one in segmenters.values())
        totals = {name: np.zeros((classes, classes), np.int64) for name in segmenters}
        for image, mask in self.pairs:
            picture, labels = read_picture(image), self._labels(mask, classes)
            if labels.shape != picture.shape[:2]:
                raise ValueError(f"{mask} is {labels.shape}, its picture {picture.shape[:2]}: the sizes must be equal")
            for name, segmenter in segmenters.items():
                totals[name] += confusion(labels, segmenter(picture).mask, classes, ignore=(IGNORED,))
        if not any(total.any() for total in totals.values()):
            raise ValueError(f"every pixel of the {len(self.pairs)} masks is ignored: there is nothing to score")
        return {name: mean_iou(total, sorted(self.ignore)) for name, total in totals.items()}

    def _labels(self, path: Path, classes: int) -> NDArray[np.uint8]:
        """A mask's class ids, uint8 (H, W), those that do not count as IGNORED."""
        try:
            with Image.open(path) as mask:
                if mask.mode not in ("L", "P"):
                    raise ValueError(f"{path} is a {mask.mode} picture: a mask is 8-bit, grey or palette")
                ids = np.asarray(mask)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        counted = ~np.isin(ids, list(self.ignore))
        strange = sorted(set(np.unique(ids[counted]).tolist()) - set(range(classes)))
        if strange:
            raise ValueError(f"{path} holds the ids {strange}, which classes.json neither lists nor ignores")
        return np.where(counted, ids, np.uint8(IGNORED))
