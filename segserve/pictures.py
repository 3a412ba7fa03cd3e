"""A picture as users have it in (path, bytes, open file, PIL image, array), the bytes of an image file out."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segserve.errors import UnusablePicture


class Readable(Protocol):
    """A file opened for reading bytes."""

    def read(self) -> bytes:
        """All that is left."""


PictureLike: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | NDArray[np.uint8]
)
"""What counts as a picture: a path, the bytes of an image file, a file open for reading bytes, a PIL image, or RGB as
uint8 (H, W, 3). The pixels of the last two are sent as they are: nothing turns them by EXIF."""

WRITABLE = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""PIL's modes that a PNG holds without loss; other images are converted to RGB."""

FAST_PNG = 1
"""zlib level for pictures that are encoded only to be sent."""


def picture_bytes(picture: PictureLike) -> bytes:
    """The bytes of an image file that shows `picture`.

    Raises OSError where a file cannot be read, UnusablePicture where it is nothing that can be sent.
    """
    match picture:
        case bytes() | bytearray() | memoryview():
            content = bytes(picture)
        case str() | os.PathLike():
            content = Path(picture).read_bytes()
        case Image.Image():
            return _encoded(picture)
        case np.ndarray():
            return _encoded(_image(picture))
        case _:
            content = _read(picture)
    if not content:
        raise UnusablePicture("the picture is empty: give the bytes of an image file")
    return content


def _read(picture: object) -> bytes:
    read = getattr(picture, "read", None)
    if read is None:
        raise UnusablePicture(
            f"a {type(picture).__name__} is no picture: give a path, the bytes of an image file, a file open for "
            "reading bytes, a PIL image, or an array uint8 (H, W, 3)"
        )
    content = read()
    if not isinstance(content, bytes):
        raise UnusablePicture("the file is open as text: open it for reading bytes, with mode 'rb'")
    return content


def _image(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UnusablePicture(
            f"the array is {array.dtype} {array.shape}, a picture is uint8 (H, W, 3), RGB from 0 to 255"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _encoded(image: Image.Image) -> bytes:
    if not image.width or not image.height:
        raise UnusablePicture(f"the image is {image.width}x{image.height}: it has no pixels")
    buffer = BytesIO()
    writable = image if image.mode in WRITABLE else image.convert("RGB")
    # Without its EXIF data: the service would turn the picture, and the mask would not fit what the caller holds.
    writable.save(buffer, "PNG", compress_level=FAST_PNG, exif=b"")
    return buffer.getvalue()
