"""A picture (RGB) in, a Segmentation out: preprocessing, the net, exact upsampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.cores import Cores
from service.errors import BundleError
from service.geometry import Placement, place
from service.graph import Answer, Net, Tensor
from service.image import Thumbnail
from service.manifest import InputSpec, Manifest, OutputSpec
from service.turn import Stop, Turn
from service.upsample import Tally, fill, fill_labels, nearest, winners_of

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


EXTREME = 1e30
"""A score beyond any that a net gives, small enough for sums and products of float32."""


@dataclass(frozen=True)
class Segmentation:
    """What a net sees in a picture.

    `mask`: class ids, uint8, (H, W), the picture's size; `tally`: how much of it each takes. `coarse`: class ids at the
    net's resolution (h, w), before anything was interpolated. `confidence`: 255 x the highest probability at the net's
    resolution, uint8, (h, w); None where the net gives no scores, or where it was not asked for. `infer_ms` and
    `upsample_ms`: what the net and the rest took.
    """

    mask: NDArray[np.uint8]
    tally: Tally
    coarse: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    infer_ms: float
    upsample_ms: float

    def class_confidence(self, class_id: int) -> float | None:
        """The mean confidence, 0 to 1, where the net itself saw this class; None where it did nowhere."""
        if self.confidence is None:
            return None
        values = self.confidence[self.coarse == class_id]
        return float(values.mean() / 255) if values.size else None


class Segmenter:
    """A net and the manifest that says how to feed it and how to read it; may be called by several threads at once.

    `narrow`, if given, is the same net on one core, for when others work beside it.
    """

    def __init__(self, manifest: Manifest, net: Net, narrow: Net | None = None) -> None:
        self.manifest = manifest
        self._net = net
        self._narrow = narrow

    def thumbnail(self, height: int, width: int) -> Thumbnail | None:
        """All that the net needs of a picture of that size, where that is less than the picture.

        None where it sees the picture's own pixels, or samples them without a filter.
        """
        spec = self.manifest.input
        if spec.fit == "tile" or not spec.antialias or spec.resample == "nearest":
            return None
        run = place(spec, height, width)[0]
        inner_height, inner_width = run.y.content.length, run.x.content.length
        if inner_height >= height or inner_width >= width:
            return None
        return Thumbnail(inner_height, inner_width, RESAMPLING[spec.resample])

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        turn: Turn | None = None,
        size: tuple[int, int] | None = None,
        confidence: bool = True,
    ) -> Segmentation:
        """Segment a picture, uint8 (H, W, 3), or the thumbnail of one whose `size` is (H, W).

        Raises BundleError where the net's answer is not what the manifest says, DeadlineExceeded once the turn's
        stop is set.
        """
        turn = turn or Turn()
        size = size or (rgb.shape[0], rgb.shape[1])
        mask = np.empty(size, np.uint8)
        coarse: _Coarse | None = None
        infer, counts = 0.0, []
        start = perf_counter()
        for placement in place(self.manifest.input, *size):
            tensor = prepare(rgb, placement if size == rgb.shape[:2] else placement.of_thumbnail, self.manifest.input)
            # A net of one kind runs wherever it is asked: it may be waiting for others to join it.
            answer, seconds = (None, 0.0) if self._narrow else _timed(self._net, tensor, turn.stop)
            with turn.spread() as cores:
                if self._narrow:
                    answer, seconds = _timed(self._narrow if cores.shared else self._net, tensor, turn.stop)
                assert answer is not None
                infer += seconds
                reading = _Reading.of(answer, self.manifest, confidence, cores)
                counts.append(reading.fill(mask, placement, self.manifest.output.align_corners, cores))
            coarse = coarse or _Coarse.sized_for(placement, reading, size)
            coarse.fill(placement, reading, size)
        assert coarse is not None
        rest = perf_counter() - start - infer
        tally = Tally.of(np.concatenate(counts))
        return Segmentation(mask, tally, coarse.winners, coarse.confidence, infer * 1e3, rest * 1e3)


def _timed(net: Net, tensor: Tensor, stop: Stop) -> tuple[Answer, float]:
    """The net's answer, and the seconds that it took."""
    start = perf_counter()
    return net(tensor, stop), perf_counter() - start


def prepare(rgb: NDArray[np.uint8], placement: Placement, spec: InputSpec) -> Tensor:
    """The net's input for one run: (1, h, w, C) or (1, C, h, w), of the dtype and normalisation that `spec` names."""
    y, x = placement.y, placement.x
    pixels = rgb[y.source.slice, x.source.slice]
    if pixels.shape[:2] != (y.content.length, x.content.length):
        pixels = np.asarray(_resize(Image.fromarray(pixels), x.content.length, y.content.length, spec))
    if spec.channels == "GRAY":
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    if (y.content.length, x.content.length) != (y.canvas, x.canvas):
        canvas = np.empty((y.canvas, x.canvas, spec.depth), np.uint8)
        canvas[:] = np.array(spec.pad_value, np.uint8)
        canvas[y.content.slice, x.content.slice] = pixels
        pixels = canvas
    if spec.channels == "BGR":
        pixels = pixels[..., ::-1]
    batch = pixels[None] if spec.layout == "NHWC" else pixels.transpose(2, 0, 1)[None]
    if spec.dtype == "uint8":
        return np.ascontiguousarray(batch)
    along = (-1,) if spec.layout == "NHWC" else (-1, 1, 1)
    mean, std = (np.array(values, np.float32).reshape(along) for values in (spec.mean, spec.std))
    tensor: NDArray[np.float32] = (np.ascontiguousarray(batch, np.float32) / np.float32(spec.scale) - mean) / std
    return tensor


def _resize(image: Image.Image, width: int, height: int, spec: InputSpec) -> Image.Image:
    method = RESAMPLING[spec.resample]
    if spec.antialias:
        return image.resize((width, height), method)
    # An affine transform samples at the same positions as a resize, without widening the filter when it shrinks.
    scale = (image.width / width, 0, 0, 0, image.height / height, 0)
    return image.transform((width, height), Image.Transform.AFFINE, scale, method)


@dataclass(frozen=True)
class _Reading:
    """A net's answer to one run, understood.

    `winners`: the class of each sample, uint8 (h, w). `scores`: what is compared, float32 (C, h, w), and `probability`,
    the highest one, float32 (h, w), where the net gives scores. `labels`: class ids computed in the graph, if any.
    """

    winners: NDArray[np.uint8]
    scores: NDArray[np.float32] | None = None
    probability: NDArray[np.float32] | None = None
    labels: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, answer: Answer, manifest: Manifest, confidence: bool, cores: Cores) -> _Reading:
        """Raises BundleError where the number of classes is not the manifest's."""
        if answer.scores is None:
            assert answer.labels is not None
            return cls(answer.labels)
        given = answer.scores
        channels, classes = given.shape[0], len(manifest.classes)
        if channels not in manifest.score_channels:
            raise BundleError(
                f"{manifest.name}: the net answers {channels} channels ({manifest.output.activation}), "
                f"model.json lists {classes} classes"
            )
        scores = given
        if channels < classes:
            scores = np.concatenate([np.full_like(given, _threshold(manifest.output)), given])
        try:
            winners = winners_of(scores, cores)
        except (
            FloatingPointError
        ):  # infinite scores become the highest or lowest that can be interpolated, NaN the lowest
            finite = np.nan_to_num(given, nan=-EXTREME, posinf=EXTREME, neginf=-EXTREME)
            return cls.of(replace(answer, scores=finite), manifest, confidence, cores)
        probability = _probability(given, manifest.output) if confidence else None
        return cls(winners, scores, probability, answer.labels)

    def fill(
        self, mask: NDArray[np.uint8], placement: Placement, align_corners: bool, cores: Cores
    ) -> NDArray[np.int64]:
        """Write the class ids of the run's target into the whole picture's mask; returns parts of its tally."""
        size = mask.shape[0], mask.shape[1]
        y, x = placement.y.target, placement.x.target
        origin = y.start, x.start
        if self.labels is not None and self.labels.shape == size:
            return fill_labels(mask, origin, self.labels[y.slice, x.slice])
        rows, columns = self._positions(placement, size, size, align_corners)
        if self.scores is None:
            return fill_labels(mask, origin, nearest(self.winners, rows, columns))
        return fill(mask, origin, self.scores, self.winners, rows, columns, cores)

    def coarse(
        self, placement: Placement, size: tuple[int, int], cells: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """The winners and the confidence (0 to 255) in the run's share of `cells` over a picture of `size`."""
        if cells == self.winners.shape and placement.is_whole:
            return self.winners, None if self.probability is None else _levels(self.probability)
        rows, columns = self._positions(placement, size, cells, align_corners=False)
        winners = nearest(self.winners, rows, columns)
        if self.probability is None:
            return winners, None
        return winners, nearest(_levels(self.probability), rows, columns)

    def _positions(
        self, placement: Placement, size: tuple[int, int], cells: tuple[int, int], align_corners: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        height, width = self.winners.shape
        rows = placement.y.score_positions(size[0], cells[0], height, align_corners)
        columns = placement.x.score_positions(size[1], cells[1], width, align_corners)
        return rows, columns


def _threshold(output: OutputSpec) -> float:
    """The score that a single channel must exceed."""
    if output.activation == "probabilities":
        return output.threshold
    if output.threshold in (0, 1):
        return -EXTREME if output.threshold == 0 else EXTREME
    return math.log(output.threshold / (1 - output.threshold))


def _probability(scores: NDArray[np.float32], output: OutputSpec) -> NDArray[np.float32]:
    """The highest probability, (h, w), after temperature; of one channel, its own or that of its opposite."""
    best: NDArray[np.float32] = scores.max(axis=0)
    if output.activation == "softmax":
        softmax: NDArray[np.float32] = 1 / np.exp((scores - best) / np.float32(output.temperature)).sum(axis=0)
        return softmax
    if output.activation == "sigmoid":
        # The logistic function, written so that no exponential overflows.
        best = (1 + np.tanh(best / np.float32(2 * output.temperature))) / 2
    if scores.shape[0] == 1:
        best = np.maximum(best, 1 - best)
    return best.clip(0, 1)


def _levels(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(probability * 255).astype(np.uint8)


@dataclass(frozen=True)
class _Coarse:
    """Winners and confidence over a whole picture at the net's resolution, while the runs fill them in."""

    winners: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None

    @classmethod
    def sized_for(cls, placement: Placement, reading: _Reading, size: tuple[int, int]) -> _Coarse:
        """Empty arrays for a picture of `size` (height, width), of which `placement` is any run."""
        height, width = reading.winners.shape
        cells = placement.y.resolution(size[0], height), placement.x.resolution(size[1], width)
        confidence = None if reading.probability is None else np.empty(cells, np.uint8)
        return cls(np.empty(cells, np.uint8), confidence)

    def fill(self, placement: Placement, reading: _Reading, size: tuple[int, int]) -> None:
        """Write a run's share."""
        cells = self.winners.shape[0], self.winners.shape[1]
        share = placement.y.cells(size[0], cells[0]).slice, placement.x.cells(size[1], cells[1]).slice
        winners, confidence = reading.coarse(placement, size, cells)
        self.winners[share] = winners
        if self.confidence is not None and confidence is not None:
            self.confidence[share] = confidence
