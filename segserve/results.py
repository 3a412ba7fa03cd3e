"""What is asked of the service in, conversations that answer it out; shared by `Client` and `AsyncClient`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from segserve.answers import File, ModelName, ModelRecord, SegmentedClass, accepted, document, file, grey, model_record
from segserve.errors import Refused, Unreachable, Unreadable
from segserve.flow import Call, Flow, Reply
from segserve.retry import Patience

ImageFormat = Literal["png", "jpeg", "webp"]

Words = str | Iterable[str | int]
"""Classes by name or id: several, or one string that separates them by commas."""

GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
"""What a server answers about a result that it no longer has, or that none of its kind keeps."""


@dataclass(frozen=True)
class Result:
    """A segmented picture as the service described it, and the picture itself, for when the service forgets it."""

    id: str | None
    stored: bool | str
    model: ModelName
    width: int
    height: int
    classes: tuple[SegmentedClass, ...]
    document: Mapping[str, Any] = field(repr=False)
    picture: bytes = field(repr=False)
    patience: Patience = field(repr=False)

    def mask(self) -> Flow[NDArray[np.uint8]]:
        """Class ids, uint8 (H, W)."""
        return grey((yield from self._show("mask", {})))

    def confidence(self) -> Flow[NDArray[np.uint8]]:
        """255 x confidence, uint8 (H, W)."""
        return grey((yield from self._show("confidence", {})))

    def file(self, view: str, parameters: Mapping[str, str]) -> Flow[File]:
        """A view's bytes."""
        return file((yield from self._show(view, parameters)))

    def shapes(self, view: str, parameters: Mapping[str, str]) -> Flow[dict[str, Any]]:
        """A view that is JSON."""
        return document((yield from self._show(view, parameters)))

    def forget(self) -> Flow[None]:
        """Make the service forget the result; nothing where it has none."""
        if self.id is not None:
            reply = yield from self.patience.ask(Call("DELETE", f"/results/{quote(self.id, safe='')}"))
            if reply.status not in GONE:
                accepted(reply)

    def _show(self, view: str, parameters: Mapping[str, str]) -> Flow[Reply]:
        """The stored result's view; where none is stored, or no longer, that of the picture sent again."""
        if self.id is not None:
            call = Call("GET", f"/results/{quote(self.id, safe='')}/{view}", parameters)
            reply = yield from self.patience.ask(call)
            if reply.status not in GONE:
                return accepted(reply)
        asked = {"output": view, "store": "false", "timeout": f"{self.patience.timeout}", **parameters}
        # The very model that answered at first: the server's default may be another by now.
        asked |= {"model": self.model.name, "version": str(self.model.version)}
        reply = yield from self.patience.ask(Call("POST", "/segment", asked, self.picture))
        return accepted(reply)


def segment(picture: bytes, model: str | None, version: int | None, store: bool, patience: Patience) -> Flow[Result]:
    """Segment the bytes of an image file."""
    asked = {"output": "json", "store": "true" if store else "false", "timeout": f"{patience.timeout}"}
    if model is not None:
        asked["model"] = model
    if version is not None:
        asked["version"] = str(version)
    reply = yield from patience.ask(Call("POST", "/segment", asked, picture))
    return _result(document(accepted(reply)), picture, patience)


def models(patience: Patience) -> Flow[tuple[ModelRecord, ...]]:
    """The models that are served."""
    listed = (yield from model_documents(patience))["models"]
    return tuple(model_record(entry) for entry in listed)


def model_documents(patience: Patience) -> Flow[dict[str, Any]]:
    """The answer to `GET /models`."""
    body = document(accepted((yield from patience.ask(Call("GET", "/models")))))
    if not isinstance(body.get("models"), list):
        raise Unreadable("the answer lists no models: is it a segserve server that listens there?")
    return body


def ready(timeout: float) -> Flow[bool]:
    """Whether the service is there and ready; asked once."""
    try:
        reply = yield from Patience(timeout, retries=0).ask(Call("GET", "/health/ready"))
        accepted(reply)
    except Unreachable:
        return False
    except Refused as error:
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        raise
    return True


def shown(
    alpha: float | None = None,
    format: ImageFormat | None = None,  # noqa: A002 - the name of the parameter
    classes: Words | None = None,
    min_area: int | None = None,
    simplify: float | None = None,
) -> dict[str, str]:
    """The options of a view as parameters of the query; what is None is left to the service."""
    words = classes if classes is None or isinstance(classes, str) else ",".join(map(str, classes))
    given = {"alpha": alpha, "format": format, "classes": words, "min_area": min_area, "simplify": simplify}
    return {name: f"{value}" for name, value in given.items() if value is not None}


def _result(body: dict[str, Any], picture: bytes, patience: Patience) -> Result:
    try:
        return Result(
            id=body["id"],
            stored=body["stored"],
            model=ModelName(body["model"]["name"], body["model"]["version"], body["model"]["variant"]),
            width=body["image"]["width"],
            height=body["image"]["height"],
            classes=tuple(_class(entry) for entry in body["classes"]),
            document=body,
            picture=picture,
            patience=patience,
        )
    except (KeyError, TypeError) as error:
        raise Unreadable(f"the answer describes no segmentation ({error!r}): is it a segserve server?") from error


def _class(entry: Mapping[str, Any]) -> SegmentedClass:
    x0, y0, x1, y1 = entry["bbox"]
    return SegmentedClass(
        id=entry["id"],
        name=entry["name"],
        color=entry["color"],
        pixels=entry["pixels"],
        fraction=entry["fraction"],
        bbox=(x0, y0, x1, y1),
        confidence=entry["confidence"],
    )


@dataclass(frozen=True)
class Described:
    """What both kinds of segmentation tell without asking the service."""

    result: Result

    @property
    def id(self) -> str | None:
        """What the service keeps the result under; None where it does not."""
        return self.result.id

    @property
    def stored(self) -> bool | str:
        """True where the service keeps the result, else why it does not."""
        return self.result.stored

    @property
    def model(self) -> ModelName:
        """The model that segmented the picture."""
        return self.result.model

    @property
    def width(self) -> int:
        """The picture's width in pixels, as a person sees it."""
        return self.result.width

    @property
    def height(self) -> int:
        """The picture's height in pixels, as a person sees it."""
        return self.result.height

    @property
    def classes(self) -> tuple[SegmentedClass, ...]:
        """The classes in the picture, the largest first."""
        return self.result.classes

    def json(self) -> dict[str, Any]:
        """The summary as the service answered it."""
        return dict(self.result.document)
