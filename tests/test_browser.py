"""What a person sees in a browser: Chromium opens the pages of a real server, without any other host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import chromium
from tests.server import Server, running

MODELS = Path(__file__).parent.parent / "models"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(MODELS, tmp_path_factory.mktemp("browser") / "log") as server:
        yield server


def test_the_api_docs_show_every_call_and_ask_no_other_host(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    # The page's policy lets no script run but the server's own; what it stopped would be named here.
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"{server.url}/docs")
    page.get_by_text("/segment", exact=True).first.wait_for()
    for call in ("/models", "/models/{name}", "/health/live", "/health/ready", "/health/startup"):
        assert page.locator(f'[data-path="{call}"]').count() == 1, call
    assert errors == []
    assert all(url.startswith((server.url, "data:")) for url in asked)
    page.close()


def test_a_picture_can_be_segmented_from_the_api_docs(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.goto(f"{server.url}/docs")
    page.locator('[data-path="/segment"]').click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("input[type=file]").set_input_files(MODELS.parent / "export" / "golden.png")
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table .highlight-code").get_by_text("camvid-lite").first.wait_for()
    page.close()


def test_the_api_docs_show_pictures_and_run_no_script_but_their_own(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.goto(f"{server.url}/docs")
    page.locator('[data-path="/models/{name}/legend.png"]').click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_placeholder("name", exact=True).fill("camvid-enet")
    page.get_by_role("button", name="Execute").click()
    legend = page.locator(".live-responses-table img")
    legend.wait_for()
    assert legend.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'strange = 1'}))")
    assert page.evaluate("typeof strange") == "undefined"
    page.close()
