"""Query parameters in, what a view is rendered with out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.drawing import ImageFormat
from service.errors import ParameterError
from service.manifest import Snapshot
from service.render import Options, View


class ViewQuery(BaseModel):
    """How a view is shown; a misspelt parameter is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="The palette's share of the overlay.")
    format: ImageFormat | None = Field(None, description="The overlay's format; by default JPEG for JPEG, else PNG.")
    classes: str | None = Field(
        None,
        description="Names or ids, comma-separated: the classes to list, to tint or to outline.",
        examples=["road,car"],
    )
    min_area: int | None = Field(None, ge=0, description="Pixels that an outline or a counted area has at least.")
    simplify: float | None = Field(
        None, ge=0, le=1000, allow_inf_nan=False, description="Pixels by which outlines may move to have fewer corners."
    )
    count: str | None = Field(
        None,
        description="Names or ids, comma-separated: the classes whose separate areas `json` counts.",
        examples=["car"],
    )

    def options(self, view: View, format: ImageFormat | None, model: Snapshot) -> Options:
        """Raises ParameterError where a parameter has no meaning for the view, or names a class that is none."""
        options = Options(
            alpha=self.alpha,
            format=self.format or format,
            classes=_ids("classes", self.classes, model),
            min_area=self.min_area,
            simplify=self.simplify,
            count=_ids("count", self.count, model),
        )
        options.check(view)
        return options


class SegmentQuery(ViewQuery):
    """The parameters of `POST /segment`."""

    model: str | None = Field(None, description="The model; by default the repository's default one.")
    version: int | None = Field(None, gt=0, description="Its version; by default the pinned or highest usable one.")
    output: View | None = Field(None, description="The view; by default what Accept asks for.")
    store: bool | None = Field(
        None, description="Whether the result may be fetched again later; by default for `json` alone."
    )
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False, description="Seconds the answer may take.")


def _ids(name: str, given: str | None, model: Snapshot) -> frozenset[int] | None:
    if given is None:
        return None
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not words:
        raise ParameterError(f"{name}= is empty: name classes, comma-separated, or leave it away")
    return model.class_ids(words)
