"""Picture files in, RGB arrays as the service reads them out: what exports are proved on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import PictureError
from service.image import decode

MAX_PIXELS = 50_000_000
GOLDEN_SIDES = (240, 320)
"""The least height and width of a golden picture."""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as the service reads it, uint8 (H, W, 3). Raises ValueError, naming the file."""
    try:
        return decode(path.read_bytes(), MAX_PIXELS).rgb
    except PictureError as error:
        raise ValueError(f"{path}: {error}") from error


def read_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """All pictures of `folder`, by name. Raises ValueError where there are none or a file is no picture."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise ValueError(f"{folder} holds no pictures")
    return [read_picture(path) for path in found]


def golden_picture(path: Path | None) -> NDArray[np.uint8]:
    """The picture in `path`, or the one that comes with segserve. Raises ValueError where it is too small."""
    picture = read_picture(path) if path else decode((files("export") / "golden.png").read_bytes(), MAX_PIXELS).rgb
    height, width = GOLDEN_SIDES
    if picture.shape[0] < height or picture.shape[1] < width:
        raise ValueError(
            f"the golden picture is {picture.shape[1]}x{picture.shape[0]}, at least {width}x{height} is needed"
        )
    return picture
