"""A picture and its labels in, a randomly scaled, cropped, mirrored and tinted crop of both out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance


@dataclass(frozen=True)
class Augmentation:
    """Turn by right angles where `turn`, scale by a log-uniform factor, crop to (height, width), mirror, and multiply
    brightness, contrast and saturation by factors within 1 +- `jitter`; what is not in the picture is labelled `pad`.
    """

    height: int
    width: int
    scale_low: float
    scale_high: float
    flip: bool
    pad: int
    jitter: float = 0.0
    turn: bool = False

    def __call__(
        self, picture: NDArray[np.uint8], labels: NDArray[np.uint8], random: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Picture (H, W, 3) and labels (H, W), uint8, in; the same of size (height, width) out."""
        if self.turn:
            quarters = int(random.integers(4))
            picture, labels = np.rot90(picture, quarters), np.rot90(labels, quarters)
        scale = math.exp(random.uniform(math.log(self.scale_low), math.log(self.scale_high)))
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        scaled = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        relabelled = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        source_y, target_y = _place(size[1], self.height, random)
        source_x, target_x = _place(size[0], self.width, random)
        crop = np.zeros((self.height, self.width, 3), np.uint8)
        crop_labels = np.full((self.height, self.width), self.pad, np.uint8)
        crop[target_y, target_x] = scaled[source_y, source_x]
        crop_labels[target_y, target_x] = relabelled[source_y, source_x]
        if self.flip and random.random() < 0.5:
            crop, crop_labels = crop[:, ::-1], crop_labels[:, ::-1]
        if self.jitter:
            crop = _tinted(crop, random.uniform(1 - self.jitter, 1 + self.jitter, size=3))
        return np.ascontiguousarray(crop), np.ascontiguousarray(crop_labels)


def _tinted(picture: NDArray[np.uint8], factors: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`picture` with its brightness, contrast and saturation multiplied by `factors`."""
    tinted = Image.fromarray(picture)
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        tinted = enhance(tinted).enhance(float(factor))
    return np.array(tinted)


def _place(length: int, crop: int, random: np.random.Generator) -> tuple[slice, slice]:
    """Along one side: which part of the picture lands in which part of the crop."""
    if length >= crop:
        start = int(random.integers(0, length - crop, endpoint=True))
        return slice(start, start + crop), slice(0, crop)
    start = int(random.integers(0, crop - length, endpoint=True))
    return slice(0, length), slice(start, start + length)
