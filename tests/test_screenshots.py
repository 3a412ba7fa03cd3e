"""The pictures of the page in the documentation can be made again, from the page as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.screenshots import IMAGES, make


def opened(folder: Path) -> dict[str, Image.Image]:
    """The pictures of the page in a folder, by name."""
    return {path.name: Image.open(path).convert("RGB") for path in folder.glob("page-*.png")}


@pytest.mark.long
def test_every_picture_of_the_page_in_the_documentation_is_made(tmp_path: Path) -> None:
    make(tmp_path)
    made, shipped = opened(tmp_path), opened(IMAGES)
    assert {name: image.size for name, image in made.items()} == {name: image.size for name, image in shipped.items()}
    assert all(len(image.getcolors(1 << 24) or ()) > 100 for image in made.values())
