"""`python -m tests.screenshots`: the shipped models in, the pictures of the page in docs/images/ out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser import chromium, opened
from tests.server import running

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
TALL = {"viewport": {"width": 1280, "height": 1060}}
DARK = {"color_scheme": "dark"}


def make(images: Path) -> None:
    """Open the page as people have it, and keep what they see in the folder."""
    with (
        TemporaryDirectory() as folder,
        running(ROOT / "models", Path(folder) / "log") as server,
        chromium() as browser,
    ):
        scenes: Mapping[str, tuple[dict[str, Any], Any]] = {
            "desktop": (DESK, overlay),
            "dark": (DESK | DARK, swipe),
            "confidence": (DESK, confidence),
            "phone": (PHONE, show),
            "model": (DESK | TALL, about),
        }
        for name, (context, act) in scenes.items():
            with opened(browser, f"{server.url}/", **context) as page:
                act(page)
                keep(page, images / f"page-{name}.png")


def show(page: Page) -> None:
    """The sample, segmented."""
    page.get_by_role("button", name="Try the sample").click()
    expect(page.locator("#summary")).to_contain_text("720 \N{MULTIPLICATION SIGN} 540")
    page.wait_for_timeout(300)


def overlay(page: Page) -> None:
    """The sample with the pointer on it."""
    show(page)
    page.mouse.move(660, 470)
    expect(page.locator("#readout")).to_contain_text("sure")


def swipe(page: Page) -> None:
    """The picture on the left, what the net saw on the right."""
    show(page)
    page.get_by_label("Swipe").check()


def confidence(page: Page) -> None:
    """Beside the picture, where the net was not sure."""
    show(page)
    page.get_by_label("Side by side").check()
    page.get_by_label("Confidence", exact=True).check()
    page.get_by_label("Python").check()
    page.wait_for_timeout(1000)


def about(page: Page) -> None:
    """What is known of the shipped model."""
    page.get_by_role("link", name="About the model").click()
    page.locator("#drawing").wait_for()
    page.wait_for_timeout(300)


def keep(page: Page, path: Path) -> None:
    """Write what is seen as a PNG, in steps of colour that nobody sees and that make the file a third as large."""
    shot = Image.open(BytesIO(page.screenshot())).convert("RGB")
    shot.point(lambda level: min(255, 8 * round(level / 8))).save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    make(IMAGES)
