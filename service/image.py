"""Bytes in, a picture as a person sees it out (RGB, upright, first frame): limits first, then the decoder."""

from __future__ import annotations

import ctypes
import logging
import re
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging

from service.errors import PictureCorrupt, PictureError, PictureFormatError, PictureMissing, PictureTooLarge
from service.screening import DECODING_READS, VALUES, RationedFile, count_values, screen_file, screen_picture
from service.settings import FORMATS

SIGNATURES = {
    "PNG": re.compile(rb"\x89PNG"),
    "JPEG": re.compile(rb"\xff\xd8"),
    "WEBP": re.compile(rb"RIFF(.{4}WEBP|.{0,4}$)", re.DOTALL),
    "GIF": re.compile(rb"GIF8"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\x00|MM\x00[*+]"),
}
"""How files of a format begin; tells a broken picture from something that is none."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of that EXIF orientation upright."""

LAST_ROW_FIRST = (3, 4, 6, 7)
"""Orientations in which the last row of the file is the first row, or column, of the upright picture."""

SPARE = 2
"""How many times as large as a thumbnail a JPEG is decoded at least, before the thumbnail is made of it."""

MAX_SIDE = 100_000
"""Pixels of a side, at most. Rows cost time and memory each, however short they are; JPEG and GIF end at 65,535."""

BAND_PIXELS = 2**20
"""Pixels that become RGB at a time, so that only the decoder's picture and the one that comes out are there whole.

That takes up to 8 bytes a pixel, 12 for a progressive JPEG in print colours, 17 for WebP and for TIFFs of one strip."""

# Pillow's own limit warns or raises at fixed sizes; ours comes from the settings and is checked before decoding.
Image.MAX_IMAGE_PIXELS = None
# What the decoders only warn about is a picture; hostile files have them warn of everything there is, at length.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# libtiff, past Python and its logs, writes to the standard error output: a line for every broken row of a fax.
with suppress(AttributeError, OSError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


@dataclass(frozen=True)
class Thumbnail:
    """All that is needed of a picture: a copy of `height` x `width` pixels, upright, scaled by that filter."""

    height: int
    width: int
    resample: Image.Resampling


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `rgb` uint8 (h, w, 3), the format that it came in, by Pillow's name, and its own `height` and
    `width` in pixels, upright: those of `rgb`, unless that is a thumbnail."""

    rgb: NDArray[np.uint8]
    format: str
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def is_thumbnail(self) -> bool:
        """Whether `rgb` is smaller than the picture."""
        return self.rgb.shape[:2] != self.size


def decode(
    data: bytes,
    max_pixels: int,
    formats: Collection[str] = FORMATS,
    needed: Callable[[int, int], Thumbnail | None] | None = None,
) -> Picture:
    """The picture in `data`.

    Turned by its EXIF orientation, transparency laid on white, the first frame of several; 16-bit values are scaled to
    8 bits. The size is checked against `max_pixels` from the header, before anything is decoded. Where `needed` says of
    its height and width that a thumbnail will do, and the format can be decoded at a fraction of its size (JPEG), only
    that is decoded.
    Raises PictureMissing, PictureFormatError, PictureTooLarge or PictureCorrupt.
    """
    if not data:
        raise PictureMissing("the picture is empty: send the bytes of an image file")
    screen_file(data)
    file = RationedFile(data)
    image = _open(data, file, formats)
    _check_size(image, max_pixels)
    file.pieces = DECODING_READS
    # Decoders raise whatever they like on hostile files: ValueError, SyntaxError, struct.error, ... All mean the same.
    try:
        screen_picture(image, data)
        return _thumbnail(image, needed) or _whole(image)
    except PictureError:
        raise
    except Exception as error:
        raise PictureCorrupt(f"the {image.format} picture is corrupt or truncated: {error}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    pixels, side = image.width * image.height, max(image.size)
    what = f"the picture has {image.width}x{image.height} = {pixels} pixels, the limit is"
    if pixels > max_pixels:
        raise PictureTooLarge(f"{what} {max_pixels}: send a smaller one", limit=max_pixels, actual=pixels)
    if side > MAX_SIDE:
        raise PictureTooLarge(f"{what} {MAX_SIDE} along a side: send a smaller one", limit=MAX_SIDE, actual=side)


def _whole(image: Image.Image) -> Picture:
    # Loading first: some formats carry their EXIF data behind the pixels, and Pillow turns TIFFs itself.
    image.load()
    rgb = _upright_rgb(image, _orientation(image))
    height, width = rgb.shape[:2]
    return Picture(rgb, "JPEG" if image.format == "MPO" else image.format or "", height, width)


def _upright_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """The pixels, band by band, each in its place in the upright picture."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    rgb = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image if rows >= height else image.crop((0, top, width, bottom))
        pixels = np.asarray(_upright(_to_rgb(band), orientation))
        place = slice(height - bottom, height - top) if orientation in LAST_ROW_FIRST else slice(top, bottom)
        if orientation >= 5:
            rgb[:, place] = pixels
        else:
            rgb[place] = pixels
    rgb.flags.writeable = False
    return rgb


def _thumbnail(image: Image.Image, needed: Callable[[int, int], Thumbnail | None] | None) -> Picture | None:
    """The picture as its thumbnail; None where it has none, or decoding would be no faster."""
    if needed is None or image.format != "JPEG":
        return None
    orientation = _orientation(image)
    turned = orientation >= 5
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    wanted = needed(height, width)
    if wanted is None:
        return None
    size = (wanted.height, wanted.width) if turned else (wanted.width, wanted.height)
    full = image.size
    draft = image.draft(None, (size[0] * SPARE, size[1] * SPARE))
    if draft is None or image.size == full:
        return None
    # The last column and row of a reduced JPEG may lie partly beyond the picture; the box leaves that out.
    small = _to_rgb(image).resize(size, wanted.resample, box=draft[1])
    return Picture(np.asarray(_upright(small, orientation)), "JPEG", height, width)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _open(data: bytes, file: RationedFile, formats: Collection[str]) -> Image.Image:
    """The picture with its header read, its pixels not yet."""
    try:
        return Image.open(file, formats=tuple(formats))
    except PictureError:
        raise
    except Exception as error:
        for name in formats:
            if SIGNATURES[name].match(data):
                reason = "its header cannot be read" if isinstance(error, UnidentifiedImageError) else str(error)
                raise PictureCorrupt(f"the {name} picture is corrupt or truncated: {reason}") from error
        raise PictureFormatError(
            f"the {len(data)} bytes are no picture of an accepted format: send {', '.join(formats)}"
        ) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture once it is turned upright."""
    return image.size[::-1] if _orientation(image) >= 5 else image.size


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the EXIF data is absent or broken: the pixels are good all the same."""
    try:
        exif = image.info.get("exif", b"")
        orientation = 1 if count_values(exif) > VALUES else int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1
    return orientation if orientation in UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1) * 255
        return Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
