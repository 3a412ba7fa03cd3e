"""A data folder in, pictures and class-id masks out.

Layout: `{train,val}/{images/*.jpg,masks/*.png}` and `classes.json`; a mask pixel is a class id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from service.errors import SegserveError
from service.image import decode, upright_size
from service.manifest import ClassList, read_classes
from training.augment import Augmentation

IGNORED = 255
"""The label of pixels that neither the loss nor the score counts."""

LARGEST = 1 << 28
"""Pixels of a picture: they are trusted files, which may be larger than what strangers may send."""

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Pair:
    """A picture's file and its mask's. What is wrong with either is a ValueError that names the file."""

    image: Path
    mask: Path

    def picture(self) -> NDArray[np.uint8]:
        """The picture as the service reads it, uint8 (H, W, 3), RGB."""
        try:
            return decode(self.image.read_bytes(), LARGEST).rgb
        except (OSError, SegserveError) as error:
            raise ValueError(f"{self.image} cannot be read: {error}") from error

    def ids(self) -> NDArray[np.uint8]:
        """The mask's class ids, uint8 (H, W), of the picture's size; of a JPEG only the header is read."""
        with _opened(self.image) as picture:
            width, height = upright_size(picture)
        with _opened(self.mask) as mask:
            if mask.mode not in ("L", "P"):
                raise ValueError(f"{self.mask} is a {mask.mode} picture: a mask is 8-bit, grey or palette")
            if mask.size != (width, height):
                sizes = f"{mask.width}x{mask.height}, its picture {width}x{height}"
                raise ValueError(f"{self.mask} is {sizes}: the sizes must be equal")
            return np.asarray(mask)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class DataFolder:
    """A data set on disk."""

    root: Path
    classes: ClassList

    @classmethod
    def open(cls, root: Path) -> DataFolder:
        """Raises ValueError where `classes.json` is missing or wrong."""
        path = root / "classes.json"
        if not path.is_file():
            raise ValueError(f"{path} is missing: a data folder holds classes.json, train/ and val/")
        folder = cls(root, read_classes(path))
        if len(folder.classes.channels) > IGNORED:
            raise ValueError(f"{path} has 256 classes; training takes 255, since label {IGNORED} means ignored")
        return folder

    def pairs(self, split: str) -> list[Pair]:
        """The pictures of a split, by name. Raises ValueError where there are none or a mask is missing."""
        folder = self.root / split
        images = sorted(path for path in (folder / "images").glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not images:
            raise ValueError(f"{folder / 'images'} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
        pairs = [Pair(image, folder / "masks" / f"{image.stem}.png") for image in images]
        for pair in pairs:
            if not pair.mask.is_file():
                raise ValueError(f"{pair.image} has no mask: {pair.mask} is missing")
        return pairs

    def labels(self, pair: Pair) -> NDArray[np.uint8]:
        """The mask of `pair`, uint8 (H, W), with the ignored ids set to IGNORED.

        Raises ValueError where the mask is not as it should be or holds an id that is no class.
        """
        mask = pair.ids()
        known = np.full(256, IGNORED, np.uint8)
        channels = len(self.classes.channels)
        known[:channels] = np.arange(channels)
        ignored = [*self.classes.ignore, IGNORED]
        known[ignored] = IGNORED
        strange = sorted(set(np.unique(mask).tolist()) - set(range(channels)) - set(ignored))
        if strange:
            raise ValueError(f"{pair.mask} holds the ids {strange}, which classes.json neither lists nor ignores")
        return known[mask]

    def count(self, pairs: list[Pair]) -> NDArray[np.int64]:
        """The number of pixels of each class in the masks of `pairs`, int64 (classes,). Reads every mask, and so raises
        ValueError for the first that is not as it should be."""
        counts = np.zeros(256, np.int64)
        for pair in pairs:
            counts += np.bincount(self.labels(pair).ravel(), minlength=256)
        return counts[: len(self.classes.channels)]


class TrainingSet(Dataset[tuple[Tensor, Tensor]]):
    """Augmented crops: item (epoch, index) is always the same one, whoever asks and in whatever order."""

    def __init__(self, folder: DataFolder, pairs: list[Pair], augmentation: Augmentation, seed: int) -> None:
        self.folder = folder
        self.pairs = pairs
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Picture uint8 (H, W, 3) and labels int64 (H, W)."""
        epoch, index = key
        pair = self.pairs[index]
        random = np.random.default_rng((self.seed, epoch, index))
        picture, labels = self.augmentation(pair.picture(), self.folder.labels(pair), random)
        return torch.from_numpy(picture), torch.from_numpy(labels).long()


class EpochSampler(Sampler[tuple[int, int]]):
    """The keys of one epoch, in an order that depends on the seed and the epoch only, but for the first `skip`."""

    def __init__(self, length: int, epoch: int, seed: int, skip: int = 0) -> None:
        self.length = length
        self.epoch = epoch
        self.seed = seed
        self.skip = skip

    def __len__(self) -> int:
        return self.length - self.skip

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order[self.skip :]])
