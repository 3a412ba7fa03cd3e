"""What schemathesis draws as a valid request in, one out that this server can accept: with a picture in its body.

OpenAPI cannot say that a body is a picture, which parameters have a meaning for which view, or which models there are.
Requests that are to be refused are left as they were drawn. `schemathesis.toml` names this module.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, HookContext

from tests.pictures import file

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF"}

MEANT = {
    "json": {"classes", "count", "min_area"},
    "mask": set(),
    "color": set(),
    "overlay": {"classes", "format"},
    "confidence": set(),
    "rle": {"classes"},
    "polygons": {"classes", "min_area", "simplify"},
    "geojson": {"classes", "min_area", "simplify"},
    "zip": {"classes"},
}
"""The parameters that each view takes, besides those that all take."""

EVERY = {"alpha", "model", "version", "output", "store", "timeout"}


def pictures(kind: str) -> st.SearchStrategy[bytes]:
    """Small pictures of a format, by Pillow's name."""
    side, level = st.integers(1, 40), st.integers(0, 255)
    images = st.builds(Image.new, st.just("RGB"), st.tuples(side, side), st.tuples(level, level, level))
    return images.map(lambda image: file(image, kind))


PICTURES = {f"image/{name}": pictures(kind) for name, kind in FORMATS.items()}

for media_type, strategy in PICTURES.items():
    schemathesis.openapi.media_type(media_type, strategy)
schemathesis.openapi.media_type("application/octet-stream", st.one_of(*PICTURES.values()))


@schemathesis.hook
def map_case(_: HookContext, case: Case[Any]) -> Case[Any]:
    """A valid case with values that the document cannot describe."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if case.query:
        case.query = _meaningful(dict(case.query), case.path_parameters or {})
    for name in {"name", "model"} & set(case.path_parameters or {}):
        case.path_parameters[name] = _model((case.operation.base_url or "").rstrip("/"))
    if case.operation.path.endswith("/infer"):
        case.media_type, case.body = (
            "application/json",
            {"inputs": [{"name": "picture", "shape": [1], "datatype": "BYTES", "data": [_small()]}]},
        )
    elif case.media_type == "application/json" and case.operation.path == "/hf/{model}":
        case.body = {"inputs": _small()}
    return case


def _meaningful(query: dict[str, Any], path: dict[str, Any]) -> dict[str, Any]:
    view = str(path.get("view") or query.get("output") or "json")
    query = {name: value for name, value in query.items() if name in MEANT[view] | EVERY}
    query |= {name: "0" for name in ("classes", "count") if name in query}
    if view == "json" and "count" not in query:
        query.pop("min_area", None)
    if "timeout" in query:
        query["timeout"] = max(float(query["timeout"]), 5.0)  # a deadline of microseconds ends as 504, as it should
    return query


@cache
def _model(url: str) -> str:
    name: str = httpx.get(f"{url}/models").json()["models"][0]["name"]
    return name


def _small() -> str:
    return base64.b64encode(file(Image.new("RGB", (20, 10), (1, 2, 3)), "PNG")).decode()
