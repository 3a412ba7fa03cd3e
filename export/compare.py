"""Two nets' answers to a picture in, how far they agree out, pixel by pixel and in sum.

Where the classes differ, the reference's scores say why. A near-tie: its two classes are no further apart than rounding
moves two scores, so that either is right. Everything else is a real difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from service.graph import Answer
from service.manifest import Check, OutputSpec
from service.segmenter import EXTREME

Picture = NDArray[np.uint8]
Mask = NDArray[np.uint8]

SAME, NEAR_TIE, REAL = range(3)
"""What a pixel's two classes are to each other."""

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 1e-1}
"""By precision: how far rounding may move a logit, as a share of the largest logit in the same answer."""

USUAL = 0.99
"""The rounding seen is what this share of the logits stays within; the largest difference would excuse every pixel."""

EACH = 0.99
"""Share of the pixels at which each single answer in fp32 has to agree at least: in the sum, small pictures would not
weigh anything beside large ones."""

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
PLAIN = OutputSpec()


@dataclass(frozen=True)
class Comparison:
    """Two nets' answers to one picture.

    `seen` is the picture as the nets saw it, uint8 (H, W, 3); `wanted` and `found` are the two class masks at the nets'
    resolution; `kinds` says of each pixel SAME, NEAR_TIE or REAL. `rounding` is the difference that the usual logit
    stays within, `beyond` counts the logits whose difference is more than the tolerance.
    """

    name: str
    seen: Picture
    wanted: Mask
    found: Mask
    kinds: Mask
    batch: int = 1
    logits: int = 0
    beyond: int = 0
    max_abs_diff: float = 0.0
    rounding: float = 0.0
    largest: float = 0.0

    @property
    def near_ties(self) -> int:
        """Pixels whose classes differ because rounding decides between them."""
        return int((self.kinds == NEAR_TIE).sum())

    @property
    def real(self) -> int:
        """Pixels whose classes differ for another reason."""
        return int((self.kinds == REAL).sum())

    @property
    def agreement(self) -> float:
        """Share of the pixels with the same class, 0 to 1."""
        return 1 - (self.near_ties + self.real) / self.kinds.size


@dataclass(frozen=True)
class Proof:
    """How far two nets agreed on everything they were asked: pixels compared at the nets' resolution, those with
    another class, the largest difference of a logit, the largest logit, and the logits beyond the tolerance."""

    pixels: int = 0
    near_ties: int = 0
    real: int = 0
    max_abs_diff: float = 0.0
    largest: float = 0.0
    logits: int = 0
    beyond: int = 0
    pictures: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    batch: int = 1
    least: float = 1.0
    """Share of the pixels with the same class in the answer with the fewest."""
    where: str = ""
    """Which answer that was."""

    @classmethod
    def of(cls, comparisons: Iterable[Comparison], pictures: int) -> Proof:
        """The sum of all of them, made of this many pictures."""
        return replace(reduce(cls._and, comparisons, cls()), pictures=pictures)

    def _and(self, one: Comparison) -> Proof:
        size = one.seen.shape[0], one.seen.shape[1]
        return Proof(
            pixels=self.pixels + one.kinds.size,
            near_ties=self.near_ties + one.near_ties,
            real=self.real + one.real,
            max_abs_diff=max(self.max_abs_diff, one.max_abs_diff),
            largest=max(self.largest, one.largest),
            logits=self.logits + one.logits,
            beyond=self.beyond + one.beyond,
            sizes=tuple(dict.fromkeys((*self.sizes, size))),
            batch=max(self.batch, one.batch),
            least=min(self.least, one.agreement),
            where=one.name if one.agreement < self.least else self.where,
        )

    @property
    def agreement(self) -> float:
        """Share of the pixels with the same class, 0 to 1."""
        return 1 - (self.near_ties + self.real) / self.pixels

    def check(self, min_agreement: float, warnings: Sequence[str]) -> Check:
        """The record that the manifest keeps."""
        return Check(
            argmax_agreement=self.agreement,
            max_abs_diff=self.max_abs_diff,
            images=self.pictures,
            sizes=self.sizes,
            versions={package: version(package) for package in PACKAGES},
            min_agreement=min_agreement,
            warnings=tuple(warnings),
        )


def compare(
    name: str,
    seen: Picture,
    wanted: Answer,
    found: Answer,
    output: OutputSpec = PLAIN,
    tolerance: float = TOLERANCE["fp32"],
    batch: int = 1,
) -> Comparison:
    """What two nets say about one picture. Raises ExportError where their answers differ in shape, or where the first
    says nothing: NaN at every pixel."""
    if wanted.scores is not None and np.isnan(wanted.scores).any(axis=0).all():
        raise ExportError(f"{name}: the reference itself answers NaN: are these weights of a run that diverged?")
    masks = _winners(wanted, output), _winners(found, output)
    if masks[0].shape != masks[1].shape:
        raise ExportError(f"{name}: the graph answers at {masks[1].shape}, its reference at {masks[0].shape}")
    differ = masks[0] != masks[1]
    if wanted.scores is None or found.scores is None:
        return Comparison(name, seen, *masks, kinds=np.where(differ, REAL, SAME).astype(np.uint8), batch=batch)
    scores = _planes(wanted.scores, output)
    difference = np.abs(_finite(wanted.scores) - _finite(found.scores))
    largest = float(np.abs(_finite(wanted.scores)).max())
    usual = float(np.quantile(difference, USUAL))
    ours, theirs = (np.take_along_axis(scores, mask[None].astype(np.intp), axis=0)[0] for mask in masks)
    # Two scores that each move by the rounding change places up to twice that. Beyond the tolerance it is no rounding.
    tied = ours - theirs <= 2 * min(usual, tolerance * largest)
    kinds = np.where(differ, np.where(tied, NEAR_TIE, REAL), SAME).astype(np.uint8)
    beyond = int((difference > tolerance * largest).sum())
    return Comparison(
        name, seen, *masks, kinds, batch, difference.size, beyond, float(difference.max()), usual, largest
    )


def _winners(answer: Answer, output: OutputSpec) -> Mask:
    if answer.scores is None:
        assert answer.labels is not None
        return answer.labels
    winners: NDArray[np.intp] = _planes(answer.scores, output).argmax(axis=0)
    return winners.astype(np.uint8)


def _planes(scores: NDArray[np.float32], output: OutputSpec) -> NDArray[np.float32]:
    """Scores that can be compared: before a single channel comes the plane that it must exceed."""
    scores = _finite(scores)
    if scores.shape[0] > 1:
        return scores
    bar = output.threshold
    if output.activation != "probabilities":
        bar = math.log(max(bar, 1 / EXTREME) / max(1 - bar, 1 / EXTREME))
    return np.concatenate([np.full_like(scores, bar), scores])


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(scores, nan=-EXTREME, posinf=EXTREME, neginf=-EXTREME)
