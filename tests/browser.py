"""A real Chromium, the system's own: pages that complain of nothing, what is painted on them, what axe-core finds."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

from tests.programs import program

FLAGS = (
    "--no-sandbox",  # Chromium's own sandbox does not start as root, nor in most containers
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
"""A camera that shows a moving drawing, and that is always allowed."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, closed at the end."""
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, refusals: int = 0, **context: Any) -> Iterator[Page]:
    """A page in a context of its own.

    At the end it must have thrown nothing and asked no other host, and the console have complained of nothing (of what
    a policy stopped, say) but of `refusals` answers of the server at most.
    """
    session = browser.new_context(**context)
    page = session.new_page()
    complaints: list[str] = []
    asked: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", hear)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    session.close()
    answers = [text for text in complaints if text.startswith("Failed to load resource")]
    assert [text for text in complaints if text not in answers] == []
    assert len(answers) <= refusals, answers
    assert [place for place in asked if not place.startswith((url, "blob:", "data:"))] == []


def canvas_pixels(canvas: Locator) -> NDArray[np.uint8]:
    """What is painted on a canvas: RGBA, uint8 (H, W, 4)."""
    return _picture(base64.b64decode(canvas.evaluate("canvas => canvas.toDataURL().split(',')[1]")), "RGBA")


def seen_pixels(page: Page, place: Locator, width: int, height: int) -> NDArray[np.uint8]:
    """What a person sees in the middle of a place on the page: RGB, uint8 (height, width, 3)."""
    box = place.bounding_box()
    assert box is not None
    x, y = box["x"] + round((box["width"] - width) / 2), box["y"] + round((box["height"] - height) / 2)
    return _picture(page.screenshot(clip={"x": x, "y": y, "width": width, "height": height}), "RGB")


def _picture(data: bytes, mode: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(data)).convert(mode))


def grave_findings(page: Page) -> list[str]:
    """What axe-core finds on the page as it is now, and calls serious or critical."""
    found = Axe().run(page).response["violations"]
    grave = [finding for finding in found if finding["impact"] in ("serious", "critical")]
    return [f"{finding['id']}: {[node['html'] for node in finding['nodes']]}" for finding in grave]
