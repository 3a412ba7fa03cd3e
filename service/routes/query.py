"""Query parameters in, what a view is rendered with out."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.requests import HTTPConnection

from service.drawing import ImageFormat
from service.errors import ParameterError
from service.manifest import Snapshot
from service.render import Options, View

T = TypeVar("T")


class _LeftAway:
    """Says in the API's description that a parameter may be left away, and not that some text means nothing."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema: JsonSchemaValue = next(kind for kind in handler(core)["anyOf"] if kind != {"type": "null"})
        return schema


Maybe = Annotated[T | None, _LeftAway()]


class ViewQuery(BaseModel):
    """How a view is shown; a misspelt parameter is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="The palette's share of the overlay.")
    format: Maybe[ImageFormat] = Field(None, description="The overlay's format; by default JPEG for JPEG, else PNG.")
    classes: Maybe[str] = Field(
        None,
        description="Names or ids, comma-separated: the classes to list, to tint or to outline.",
        examples=["road,car"],
    )
    min_area: Maybe[int] = Field(
        None, ge=0, lt=2**31, description="Pixels that an outline or a counted area has at least."
    )
    simplify: Maybe[float] = Field(
        None, ge=0, le=1000, allow_inf_nan=False, description="Pixels by which outlines may move to have fewer corners."
    )
    count: Maybe[str] = Field(
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


class PictureQuery(ViewQuery):
    """Which model sees a picture, and within which time."""

    model: Maybe[str] = Field(None, description="The model; by default the repository's default one.")
    version: Maybe[int] = Field(None, gt=0, description="Its version; by default the pinned or highest usable one.")
    timeout: Maybe[float] = Field(None, gt=0, allow_inf_nan=False, description="Seconds the answer may take.")


class SegmentQuery(PictureQuery):
    """The parameters of `POST /segment`."""

    output: Maybe[View] = Field(None, description="The view; by default what Accept asks for.")
    store: Maybe[bool] = Field(
        None, description="Whether the result may be fetched again later; by default for `json` alone."
    )


class StreamQuery(PictureQuery):
    """The parameters of `/stream`, for each of its frames."""

    output: View = "mask"


async def _once(request: HTTPConnection) -> None:
    given = Counter(name for name, _ in request.query_params.multi_items())
    twice = [name for name, count in given.items() if count > 1]
    if twice:
        raise ParameterError(f"{', '.join(twice)}: given more than once; say it once")


Once = Depends(_once)
"""Refuses a query that gives a parameter twice: which of them counts would be a guess."""


def _ids(name: str, given: str | None, model: Snapshot) -> frozenset[int] | None:
    if given is None:
        return None
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not words:
        raise ParameterError(f"{name}= is empty: name classes, comma-separated, or leave it away")
    return model.class_ids(words)
