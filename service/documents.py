"""A Segmentation in, documents for other programs out: JSON summary, COCO RLE, polygons, GeoJSON, zip of masks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any, cast
from zipfile import ZipFile, ZipInfo

import numpy as np
from pycocotools import mask as coco

from service import png
from service.drawing import Body
from service.manifest import ClassSpec, Snapshot
from service.segmenter import Segmentation
from service.shapes import components, polygons, rings

Classes = frozenset[int] | None
"""The ids that were asked for; None: all."""


def summary(
    segmentation: Segmentation, model: Snapshot, classes: Classes, count: Collection[int], min_area: int
) -> dict[str, Any]:
    """What the `json` view says: model, size, and the classes present, largest first; of those in `count`, how many
    separate areas of at least `min_area` pixels they have."""
    height, width = segmentation.mask.shape
    counts, boxes = segmentation.tally.pixels.tolist(), segmentation.tally.boxes.tolist()
    listed = []
    for spec in sorted(_present(segmentation, model, classes), key=lambda spec: -counts[spec.id]):
        facts = {
            **_named(spec),
            "color": spec.color,
            "pixels": counts[spec.id],
            "fraction": counts[spec.id] / (width * height),
            "bbox": boxes[spec.id],
            "confidence": segmentation.class_confidence(spec.id),
        }
        if spec.id in count:
            facts["components"] = components(segmentation.mask, spec.id, min_area)
        listed.append(facts)
    return {
        "model": {"name": model.name, "version": model.version, "variant": model.variant},
        "image": _size(segmentation),
        "classes": listed,
    }


def rle(segmentation: Segmentation, model: Snapshot, classes: Classes) -> Body:
    """The classes present, each as a run-length encoding as COCO's tools read it."""
    columns = np.asfortranarray(segmentation.mask)
    listed = []
    for spec in _present(segmentation, model, classes):
        encoded = coco.encode((columns == spec.id).view(np.uint8))
        counts = cast("bytes", encoded["counts"]).decode("ascii")
        listed.append({**_named(spec), "rle": {"size": list(encoded["size"]), "counts": counts}})
    return _json({**_size(segmentation), "classes": listed})


def outlines(segmentation: Segmentation, model: Snapshot, classes: Classes, min_area: int, simplify: float) -> Body:
    """The classes present, each as polygons with holes, corners in pixels, y down. Raises as `shapes.polygons`."""
    found = polygons(segmentation.mask, classes, min_area, simplify)
    listed = [
        {**_named(model.classes[class_id]), "polygons": [rings(shape) for shape in shapes]}
        for class_id, shapes in found.items()
    ]
    return _json({**_size(segmentation), "classes": listed})


def geojson(segmentation: Segmentation, model: Snapshot, classes: Classes, min_area: int, simplify: float) -> Body:
    """A FeatureCollection with a MultiPolygon a class, coordinates in pixels, y down. Raises as `shapes.polygons`."""
    found = polygons(segmentation.mask, classes, min_area, simplify)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": [rings(shape) for shape in shapes]},
            "properties": {
                **_named(model.classes[class_id]),
                "pixels": int(segmentation.tally.pixels[class_id]),
            },
        }
        for class_id, shapes in found.items()
    ]
    return _json({"type": "FeatureCollection", "features": features}, "application/geo+json")


def zipped(segmentation: Segmentation, model: Snapshot, classes: Classes) -> Body:
    """A zip with a PNG of 0 and 255 for each class that was asked for, present or not, and `classes.json`."""
    asked = [spec for spec in model.classes if classes is None or spec.id in classes]
    nothing = png.encode(np.zeros_like(segmentation.mask))
    listed = []
    file = BytesIO()
    with ZipFile(file, "w") as archive:  # PNGs are packed already
        for spec in asked:
            pixels = int(segmentation.tally.pixels[spec.id])
            stencil = png.stencil(segmentation.mask, spec.id) if pixels else nothing
            archive.writestr(ZipInfo(f"{spec.id}.png"), stencil)  # its date is always the same, as its content is
            listed.append({**_named(spec), "color": spec.color, "pixels": pixels})
        archive.writestr(
            ZipInfo("classes.json"), json.dumps({**_size(segmentation), "classes": listed}, ensure_ascii=False)
        )
    return Body(file.getvalue(), "application/zip")


def _present(segmentation: Segmentation, model: Snapshot, classes: Classes) -> list[ClassSpec]:
    counts = segmentation.tally.pixels
    return [spec for spec in model.classes if counts[spec.id] and (classes is None or spec.id in classes)]


def _named(spec: ClassSpec) -> dict[str, Any]:
    return {"id": spec.id, "name": spec.name}


def _size(segmentation: Segmentation) -> dict[str, int]:
    height, width = segmentation.mask.shape
    return {"width": width, "height": height}


def _json(document: Mapping[str, Any], media_type: str = "application/json") -> Body:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Body(text.encode(), media_type)
