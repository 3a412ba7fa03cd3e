"""A class mask in, the outlines of its areas on pixel corners out: polygons with holes, for drawing and measuring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from service.errors import NotPossible, ParameterError

Ring = list[list[int]]
"""Corners [x, y] in pixels, y down, the first one again at the end."""

SHIFT = Affine.translation(1, 1)
"""Where rasterio puts the picture's corner: of pixels that are their own coordinates it warns, as if of a fault."""

MAX_BORDER = 1_000_000
"""Pixel sides, between classes and around the picture, that outlines are made of at most: beyond it they are larger
than the picture, and while they are traced nothing else runs in the process."""


def polygons(
    mask: NDArray[np.uint8], classes: frozenset[int] | None = None, min_area: int = 0, simplify: float = 0.0
) -> dict[int, list[shapely.Polygon]]:
    """The areas of each class (None: of all) in a mask, uint8 (H, W), as polygons with holes, in pixels.

    An area is what hangs together by pixel sides; those of less than `min_area` pixels are left out. With `simplify`,
    in pixels, corners are left out where that moves the outline by about as much; borders stay shared. Without it,
    filling the polygons gives the mask. Exteriors run counterclockwise, in the numbers as they are.

    Raises ParameterError where there are more outlines than pictures have.
    """
    _check_border(mask)
    found = list(_areas(mask, None if simplify else classes))
    shapes = shapely.transform(np.array([shape for _, shape in found], dtype=object), lambda corners: corners - 1)
    enough = shapely.area(shapes) >= min_area
    if simplify:
        # Neighbours must have their corners in common, also where one of them goes straight on.
        shapes = shapely.coverage_simplify(shapely.transform(shapely.segmentize(shapes, 1.0), np.rint), simplify)
    grouped: dict[int, list[shapely.Polygon]] = {}
    for (class_id, _), shape, large in zip(found, shapely.orient_polygons(shapes), enough, strict=True):
        if large and (classes is None or class_id in classes):
            grouped.setdefault(class_id, []).append(shape)
    return dict(sorted(grouped.items()))


def rings(polygon: shapely.Polygon) -> list[Ring]:
    """The exterior and the holes of a polygon."""
    return [
        np.rint(shapely.get_coordinates(ring)).astype(int).tolist() for ring in (polygon.exterior, *polygon.interiors)
    ]


def components(mask: NDArray[np.uint8], class_id: int, min_area: int = 0) -> int:
    """How many separate areas of at least `min_area` pixels a class has; pixels that touch at a corner belong together.

    Raises ParameterError as `polygons` does.
    """
    own = (mask == class_id).astype(np.uint8)
    _check_border(own)
    return sum(_area(shape) >= min_area for shape, _ in _traced(own, own.astype(bool), 8))


def _areas(mask: NDArray[np.uint8], classes: frozenset[int] | None) -> Iterator[tuple[int, shapely.Polygon]]:
    wanted = np.ones(mask.shape, bool) if classes is None else np.isin(mask, list(classes))
    for shape, value in _traced(mask, wanted, 4):
        exterior, *holes = shape["coordinates"]
        yield int(value), shapely.Polygon(exterior, holes)


def _traced(
    values: NDArray[np.uint8], wanted: NDArray[np.bool_], connectivity: int
) -> Iterator[tuple[dict[str, Any], float]]:
    """Each area of one value, as GeoJSON has polygons, where `wanted` says so."""
    try:
        # Imported here: where the system lacks a library (libexpat, in some slim images), only outlines are missing.
        import rasterio  # noqa: PLC0415
        from rasterio.features import shapes  # noqa: PLC0415
    except ImportError as error:
        raise NotPossible(f"this machine cannot trace outlines: {error}; ask for output=rle or zip") from error
    height, width = values.shape
    # Of bare arrays rasterio warns too, within catch_warnings, which lets warnings out when threads do it at once.
    with rasterio.open(
        "", "w", driver="MEM", height=height, width=width, count=2, dtype="uint8", transform=SHIFT
    ) as raster:
        raster.write(np.stack([values, wanted]))
        yield from shapes(rasterio.band(raster, 1), mask=rasterio.band(raster, 2), connectivity=connectivity)


def _area(shape: dict[str, Any]) -> float:
    exterior, *holes = shape["coordinates"]
    return abs(_signed_area(exterior)) - sum(abs(_signed_area(hole)) for hole in holes)


def _signed_area(ring: list[tuple[float, float]]) -> float:
    x, y = np.asarray(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _check_border(mask: NDArray[np.uint8]) -> None:
    border = np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1])
    border += 2 * sum(mask.shape)
    if border > MAX_BORDER:
        raise ParameterError(
            f"the borders of the areas are {border} pixel sides long, outlines have {MAX_BORDER} at most: "
            "ask for output=rle, which any mask fits in"
        )
