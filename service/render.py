"""A Segmentation in, the body of an answer out: the views that there are, and the options that each takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from service import documents, drawing
from service.drawing import Body, ImageFormat
from service.errors import ParameterError
from service.image import Picture
from service.manifest import Snapshot
from service.segmenter import Segmentation
from service.turn import Turn

View = Literal["json", "mask", "color", "overlay", "confidence", "rle", "polygons", "geojson", "zip"]

VIEWS: tuple[View, ...] = get_args(View)

TAKES: Mapping[View, frozenset[str]] = {
    "json": frozenset({"classes", "count", "min_area"}),
    "mask": frozenset({"format"}),
    "color": frozenset({"format"}),
    "overlay": frozenset({"format", "classes"}),
    "confidence": frozenset({"format"}),
    "rle": frozenset({"classes"}),
    "polygons": frozenset({"classes", "min_area", "simplify"}),
    "geojson": frozenset({"classes", "min_area", "simplify"}),
    "zip": frozenset({"classes"}),
}
"""The options that mean something to a view, besides `alpha`, which only an overlay looks at."""


@dataclass(frozen=True)
class Options:
    """How a view is rendered.

    `alpha`: the palette's share of an overlay, 0 to 1. `format`: of an overlay; None: JPEG for a JPEG, else PNG.
    `classes`: the ids asked for, None: all. `min_area`: pixels that an outline or a counted area has at least.
    `simplify`: pixels by which outlines may move. `count`: ids whose separate areas the summary counts.
    """

    alpha: float = 0.5
    format: ImageFormat | None = None
    classes: frozenset[int] | None = None
    min_area: int | None = None
    simplify: float | None = None
    count: frozenset[int] | None = None

    def check(self, view: View) -> None:
        """Raise ParameterError where an option has no meaning for `view`."""
        given = [name for name in ("format", "classes", "min_area", "simplify", "count") if self._has(name)]
        for name in given:
            if name not in TAKES[view]:
                where = ", ".join(other for other in VIEWS if name in TAKES[other])
                raise ParameterError(f"{name}= has no meaning for output={view}, only for {where}")
        if view in ("mask", "color", "confidence") and self.format not in (None, "png"):
            raise ParameterError(f"format={self.format} cannot hold values exactly: output={view} is always png")
        if view == "json" and self.min_area is not None and self.count is None:
            raise ParameterError("min_area= says which areas count= counts: name classes with count=")

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


def needs_confidence(view: View) -> bool:
    """Whether the view shows how sure the net is."""
    return view in ("json", "confidence")


@dataclass(frozen=True)
class Kept:
    """Whether a result was stored: its id, or why it was not."""

    id: str | None = None
    reason: str = "off"

    def members(self) -> dict[str, Any]:
        """What the `json` view says of it."""
        if self.id is None:
            return {"id": None, "stored": self.reason, "links": {}}
        links = {view: f"/results/{self.id}/{view}" for view in VIEWS if view != "json"}
        return {"id": self.id, "stored": True, "links": {"self": f"/results/{self.id}", **links}}


def render(
    view: View,
    segmentation: Segmentation,
    model: Snapshot,
    picture: Callable[[], Picture],
    options: Options,
    kept: Kept,
    turn: Turn,
) -> Body:
    """The view's body; `picture` gives the whole picture, for those that show it.

    Raises ParameterError where the view cannot be had of this picture or model, and what `picture` raises.
    """
    mask, classes = segmentation.mask, options.classes
    least, simplify = options.min_area or 0, options.simplify or 0.0
    match view:
        case "json":
            facts = documents.summary(segmentation, model, classes, options.count or (), least)
            return Body(json.dumps({**kept.members(), **facts}, ensure_ascii=False).encode(), "application/json")
        case "mask":
            return drawing.mask(mask, turn)
        case "color":
            return drawing.color(mask, model, turn)
        case "overlay":
            return drawing.overlay(picture(), mask, model, options.alpha, classes, options.format, turn)
        case "confidence":
            if segmentation.confidence is None:
                raise ParameterError(f"{model.name} answers class ids without scores: it has no confidence to show")
            return drawing.enlarged(segmentation.confidence, (mask.shape[0], mask.shape[1]))
        case "rle":
            return documents.rle(segmentation, model, classes)
        case "polygons" | "geojson":
            write = documents.outlines if view == "polygons" else documents.geojson
            return write(segmentation, model, classes, least, simplify)
        case "zip":
            return documents.zipped(segmentation, model, classes)
