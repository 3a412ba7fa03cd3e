"""A picture and what is asked of it in, the answer's body out: a request's work, done in one thread of the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from service import drawing
from service.bundle import Model
from service.cost import DECODE_JPEG, Cost, segmenting, showing_again
from service.drawing import Body
from service.errors import ResultError, StoreFull
from service.image import Picture, decode
from service.manifest import Snapshot
from service.render import Kept, Options, View, needs_confidence, render
from service.results import OFF, Result
from service.segmenter import Segmentation
from service.settings import Settings
from service.store import Store, new_id
from service.turn import Turn
from service.visit import Segmented, Work

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A body, the id that it can be had again under, and what was done for it."""

    body: Body
    id: str | None
    work: Work


@dataclass(frozen=True)
class Seen:
    """What a net saw in a picture; `whole` gives the whole picture, which is decoded only if it was not yet."""

    segmentation: Segmentation
    whole: Callable[[], Picture]
    decode_ms: float

    @property
    def steps(self) -> Mapping[str, float]:
        """The milliseconds that each step took."""
        seen = self.segmentation
        return {"decode": self.decode_ms, "infer": seen.infer_ms, "upsample": seen.upsample_ms}


@dataclass(frozen=True)
class Segment:
    """One picture's way through the house, for one view of it; kept in `store`, if there is one."""

    data: bytes
    model: Model
    view: View
    options: Options
    settings: Settings
    submitted: float
    store: Store | None = None
    unstored: str = OFF

    @property
    def cost(self) -> Cost:
        """What it is estimated to take."""
        return segmenting(self.data, self.model, self.view, self.settings, self.store is not None)

    def __call__(self, turn: Turn) -> Answer:
        """The answer. Raises a PictureError, ParameterError or DeadlineExceeded."""
        begun = perf_counter()
        model = self.model.snapshot
        confidence = needs_confidence(self.view) or self.store is not None
        seen = look(self.data, self.model, self.settings, turn, whole=self.view == "overlay", confidence=confidence)
        turn.stop.check()
        start = perf_counter()
        kept, mask = Kept(reason=self.unstored), None
        if self.store is not None:
            mask = drawing.mask(seen.segmentation.mask, turn)
            kept = _keep(self.store, Result.of(self.data, seen.segmentation, model, mask.content))
        if mask is not None and self.view == "mask":
            body = mask
        else:
            body = render(self.view, seen.segmentation, model, seen.whole, self.options, kept, turn)
        steps = {"queue": (begun - self.submitted) * 1e3, **seen.steps, "encode": (perf_counter() - start) * 1e3}
        pictures = (segmented(seen.segmentation, model),)
        stored = kept.reason if kept.id is None else True
        return Answer(body, kept.id, work_by(model, self.submitted, steps, pictures, self.view, stored))


@dataclass(frozen=True)
class ShowAgain:
    """A view of a result that is stored under `id`; no net runs."""

    store: Store
    id: str
    view: View
    options: Callable[[Snapshot], Options]
    settings: Settings
    submitted: float
    known: bool = False

    @property
    def cost(self) -> Cost:
        """What it is estimated to take."""
        return showing_again()

    def __call__(self, turn: Turn) -> Answer | None:
        """The answer; None where the result is there and the client has the answer already (`known`).

        Raises UnknownResult, StoreUnavailable or ParameterError.
        """
        begun = perf_counter()
        data = self.store.get(self.id)
        if self.known:
            return None
        result = Result.unpack(data)
        segmentation = None if self.view == "mask" else result.segmentation()
        fetched = perf_counter()
        turn.stop.check()
        options = self.options(result.model)
        if segmentation is None:
            body = Body(result.mask, "image/png")
        else:
            picture = partial(_decoded, result.picture, self.settings)
            body = render(self.view, segmentation, result.model, picture, options, Kept(self.id), turn)
        steps = {
            "queue": (begun - self.submitted) * 1e3,
            "decode": (fetched - begun) * 1e3,
            "encode": (perf_counter() - fetched) * 1e3,
        }
        return Answer(body, self.id, work_by(result.model, self.submitted, steps, view=self.view))


def work_by(
    model: Snapshot,
    submitted: float,
    steps: Mapping[str, float],
    pictures: tuple[Segmented, ...] = (),
    view: View | None = None,
    stored: bool | str | None = None,
) -> Work:
    """What a model's work for a request was."""
    return Work(model.name, model.version, model.variant, submitted, steps, view, pictures, stored)


def segmented(seen: Segmentation, model: Snapshot) -> Segmented:
    """What there is to say of a picture once it has been answered."""
    counts = seen.tally.pixels
    present = {spec.name: int(counts[spec.id]) for spec in model.classes if counts[spec.id]}
    return Segmented(seen.mask.shape[1], seen.mask.shape[0], present)


def look(data: bytes, model: Model, settings: Settings, turn: Turn, whole: bool, confidence: bool) -> Seen:
    """What the model sees in a picture's bytes; with `whole`, all its pixels are decoded as well, beside the net where
    that is faster. Raises a PictureError, BundleError or DeadlineExceeded."""
    begun = perf_counter()
    segmenter = model.segmenter
    picture = decode(data, settings.max_pixels, settings.formats, segmenter.thumbnail if settings.thumbnails else None)
    decoded = perf_counter()
    later = partial(_decoded, data, settings)
    if not picture.is_thumbnail or not whole:
        segmentation = segmenter(picture.rgb, turn, picture.size, confidence=confidence)
        return Seen(segmentation, later if picture.is_thumbnail else lambda: picture, (decoded - begun) * 1e3)
    with turn.beside(later, partial(_is_lighter, model, picture)) as (own, all_of_it):
        segmentation = segmenter(picture.rgb, own, picture.size, confidence=confidence)
        segmented = perf_counter()
        entire = all_of_it()
    return Seen(segmentation, lambda: entire, (decoded - begun + perf_counter() - segmented) * 1e3)


def _is_lighter(model: Model, picture: Picture, cores: int) -> bool:
    """Whether the net loses less on one core instead of `cores` than is won by decoding the picture meanwhile."""
    decoding = DECODE_JPEG * picture.height * picture.width / 1e6
    return model.ms is not None and model.ms * (cores - 1) < decoding


def _decoded(data: bytes, settings: Settings) -> Picture:
    return decode(data, settings.max_pixels, settings.formats)


def _keep(store: Store, result: Result) -> Kept:
    """Store a result; one that cannot be kept is an answer all the same."""
    name = new_id()
    try:
        store.put(name, result.pack())
    except StoreFull as error:
        logger.warning("a result was not kept: %s", error)
        return Kept(reason="store full")
    except ResultError as error:
        logger.warning("a result was not kept: %s", error)
        return Kept(reason="store unavailable")
    return Kept(name)
