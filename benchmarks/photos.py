"""A size in, a drawn scene as a picture file of that size out."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from training.scenes import scene

SIZES = {"0.2 MP": (480, 360), "0.7 MP": (960, 720), "12 MP": (4000, 3000)}
"""Width and height of the pictures that tables are about."""


def photo(width: int, height: int, kind: str = "JPEG", seed: int = 1) -> bytes:
    """A drawn scene in a format of Pillow's."""
    file = BytesIO()
    drawn = Image.fromarray(scene(seed, 360, 480)[0]).resize((width, height), Image.Resampling.BICUBIC)
    drawn.save(file, kind, quality=90)
    return file.getvalue()
