"""Replies in, typed values out: files, classes, models, problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segserve.errors import Problem, Refused, Unreadable
from segserve.flow import Reply
from segserve.retry import retry_after

SUFFIXES = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/webp": (".webp",),
    "application/zip": (".zip",),
    "application/json": (".json",),
    "application/geo+json": (".geojson", ".json"),
}
"""How files of a media type are named, the usual way first."""

BODY_SHOWN = 200
"""Characters of an answer that explains itself in no known way."""


@dataclass(frozen=True)
class File:
    """The bytes of a view, and their media type."""

    content: bytes = field(repr=False)
    media_type: str

    @property
    def suffix(self) -> str:
        """How a file of this type is named: `.png`."""
        return SUFFIXES.get(self.media_type, ("",))[0]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the bytes to `path`, and give it back.

        Raises OSError, and ValueError where the path's suffix is that of another type of file.
        """
        path = Path(path)
        suffix, own = path.suffix.lower(), SUFFIXES.get(self.media_type, ())
        if own and suffix not in own and any(suffix in others for others in SUFFIXES.values()):
            raise ValueError(
                f"{path} would hold {self.media_type}: name it {path.stem}{own[0]}, or ask for another format "
                "(an overlay takes format='jpeg', 'png' or 'webp')"
            )
        path.write_bytes(self.content)
        return path


@dataclass(frozen=True)
class SegmentedClass:
    """A class in a picture: its `pixels` and their `fraction` (0 to 1), the box around them (x0, y0, x1, y1 in pixels,
    x1 and y1 exclusive), and the net's mean confidence there (0 to 1; None where it gives none)."""

    id: int
    name: str
    color: str
    pixels: int
    fraction: float
    bbox: tuple[int, int, int, int]
    confidence: float | None


@dataclass(frozen=True)
class ModelName:
    """The model that segmented a picture."""

    name: str
    version: int
    variant: str


@dataclass(frozen=True)
class ModelClass:
    """A class of a model, and the colour (`#rrggbb`) that it is drawn in."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class ModelRecord:
    """A model that is served; `version` is the one that answers unless another of the `versions` is asked for."""

    name: str
    version: int
    versions: tuple[int, ...]
    default: bool
    classes: tuple[ModelClass, ...]
    license: str
    proved: bool
    variant: str
    description: str = ""
    check: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None

    @property
    def miou(self) -> float | None:
        """The mean intersection over union (0 to 1) that the model is said to reach; None where nothing is said."""
        value = (self.metrics or {}).get("miou")
        return float(value) if isinstance(value, int | float) else None


def accepted(reply: Reply) -> Reply:
    """The reply where it is what was asked for. Raises Refused."""
    if 200 <= reply.status < 300:
        return reply
    raise Refused(_problem(reply))


def _problem(reply: Reply) -> Problem:
    request_id, after = reply.headers.get("x-request-id"), retry_after(reply)
    members = _members(reply)
    detail, code = members.get("detail"), members.get("code")
    if not isinstance(detail, str):
        text = reply.content[: 4 * BODY_SHOWN].decode("utf-8", "replace").strip()[:BODY_SHOWN]
        where = f" to {reply.headers['location']}" if "location" in reply.headers else ""
        detail = f"the answer{where} says: {text or 'nothing'}"
    return Problem(reply.status, detail, code if isinstance(code, str) else None, request_id, after, members)


def _members(reply: Reply) -> dict[str, Any]:
    try:
        body = json.loads(reply.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def document(reply: Reply) -> dict[str, Any]:
    """The JSON object in a reply. Raises Unreadable."""
    try:
        body = json.loads(reply.content)
    except ValueError as error:
        raise Unreadable(f"the answer is no JSON ({error}): is it a segserve server that listens there?") from error
    if not isinstance(body, dict):
        raise Unreadable(f"the answer is a JSON {type(body).__name__}, segserve answers objects: who listens there?")
    return body


def grey(reply: Reply) -> NDArray[np.uint8]:
    """The values of a grey PNG, uint8 (H, W). Raises Unreadable."""
    try:
        with Image.open(BytesIO(reply.content), formats=("PNG",)) as image:
            array = np.asarray(image)
    except Exception as error:  # Pillow raises whatever it likes on bytes that are no PNG
        raise Unreadable(f"the answer is no PNG: {error}") from error
    if array.ndim != 2 or array.dtype != np.uint8:
        raise Unreadable(f"the answer is a PNG of {array.dtype} {array.shape}, not one of 8-bit grey")
    return array


def file(reply: Reply) -> File:
    """The reply's body as it is."""
    return File(reply.content, reply.headers.get("content-type", "").partition(";")[0].strip())


def model_record(given: Mapping[str, Any]) -> ModelRecord:
    """An entry of `GET /models`. Raises Unreadable."""
    try:
        return ModelRecord(
            name=given["name"],
            version=given["version"],
            versions=tuple(given["versions"]),
            default=given["default"],
            classes=tuple(ModelClass(spec["id"], spec["name"], spec["color"]) for spec in given["classes"]),
            license=given["license"],
            proved=given["proved"],
            variant=given["variant"],
            description=given.get("description", ""),
            check=given.get("check"),
            metrics=given.get("metrics"),
        )
    except (KeyError, TypeError) as error:
        raise Unreadable(
            f"the answer describes no model ({error!r}): is it a segserve server of this version?"
        ) from error
