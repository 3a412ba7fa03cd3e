"""Bodies of the views in, the class mask that they stand for out: read with the tools that users read them with."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

Mask = NDArray[np.uint8]

NONE = 255
"""What a pixel is that no class covers."""


def of_png(body: bytes) -> Mask:
    """`mask` and `color`."""
    return np.asarray(Image.open(BytesIO(body)))


def of_rle(body: bytes) -> Mask:
    """`rle`, by pycocotools."""
    document = json.loads(body)
    found = np.full((document["height"], document["width"]), NONE, np.uint8)
    for entry in document["classes"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools has numpy's older word for copies
            covered = coco.decode(entry["rle"]).astype(bool)
        assert (found[covered] == NONE).all()
        found[covered] = entry["id"]
    return found


def of_polygons(body: bytes) -> Mask:
    """`polygons`, valid by shapely, filled by rasterio."""
    document = json.loads(body)
    shapes = [
        ({"type": "Polygon", "coordinates": rings}, entry["id"])
        for entry in document["classes"]
        for rings in entry["polygons"]
    ]
    return _filled(shapes, (document["height"], document["width"]))


def of_geojson(body: bytes, size: tuple[int, int]) -> Mask:
    """`geojson`, valid by shapely, filled by rasterio."""
    features = json.loads(body)["features"]
    return _filled([(feature["geometry"], feature["properties"]["id"]) for feature in features], size)


def of_zip(body: bytes) -> Mask:
    """`zip`."""
    with ZipFile(BytesIO(body)) as archive:
        document = json.loads(archive.read("classes.json"))
        found = np.full((document["height"], document["width"]), NONE, np.uint8)
        for entry in document["classes"]:
            stencil = np.asarray(Image.open(BytesIO(archive.read(f"{entry['id']}.png"))))
            assert set(np.unique(stencil)) <= {0, 255}
            assert (stencil == 255).sum() == entry["pixels"]
            found[stencil == 255] = entry["id"]
    return found


def check_the_same(views: Mapping[str, bytes]) -> None:
    """Every view says the same of every pixel as the mask does."""
    mask = of_png(views["mask"])
    size = mask.shape[0], mask.shape[1]
    readers: dict[str, Callable[[bytes], Mask]] = {
        "color": of_png,
        "rle": of_rle,
        "polygons": of_polygons,
        "geojson": lambda body: of_geojson(body, size),
        "zip": of_zip,
    }
    for view, read in readers.items():
        np.testing.assert_array_equal(read(views[view]), mask, err_msg=view)


def _filled(shapes: list[tuple[dict[str, Any], int]], size: tuple[int, int]) -> Mask:
    for geometry, _ in shapes:
        shape = shapely.geometry.shape(geometry)
        assert shape.is_valid, shapely.is_valid_reason(shape)
    filled: Mask = rasterio.features.rasterize(shapes, out_shape=size, fill=NONE, dtype=np.uint8)
    return filled
