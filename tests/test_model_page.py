"""The page of a model, as a person sees it: what it shows is what the API says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import helper
from playwright.sync_api import Browser, Page

from service.keys import digest
from tests.browser import chromium, grave_findings, opened
from tests.bundles import write_bundle
from tests.server import Server, running

SHIPPED = Path(__file__).parent.parent / "models" / "camvid-enet"
CARD = "# A <b>card</b>\n\n<script>strange = 1</script> [out](https://example.org) [in](javascript:alert(1))\n\n- one\n"
KEY = "open-sesame"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped model; one with a strange card; and one whose graph makes something unknown of its maps."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(SHIPPED, root / SHIPPED.name)
    (write_bundle(root, "rgb") / "README.md").write_text(CARD)
    foreign = write_bundle(root, "foreign", sha256=False)
    model = onnx.load(foreign / "model.onnx")
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Einsum", ["before"], ["logits"], equation="nchw->nchw"))
    onnx.save(model, foreign / "model.onnx")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with running(models, models.parent / "log", {"DEFAULT_MODEL": "camvid-enet"}) as server:
        yield server


def shown(page: Page, server: Server, name: str) -> None:
    """Go to the page of a model, and wait for it."""
    page.goto(f"{server.url}/models/{name}/page")
    page.locator("#drawing").wait_for()


def test_the_page_says_what_the_api_says(browser: Browser, server: Server) -> None:
    said = httpx.get(f"{server.url}/models/camvid-enet").json()
    structure = httpx.get(f"{server.url}/models/camvid-enet/structure").json()
    with opened(browser, f"{server.url}/") as page:
        shown(page, server, "camvid-enet")
        assert page.get_by_role("heading", level=1).inner_text() == "camvid-enet"
        main = page.locator("main").inner_text()
        for text in (said["description"], said["license"], "Not for commercial use", structure["summary"]):
            assert text in main
        rows = page.locator(".palette li")
        for row, spec in zip(rows.all(), said["classes"], strict=True):
            iou = f"{100 * said['metrics']['iou'][spec['name']]:.1f} %"
            assert row.inner_text().split("\n")[:2] == [str(spec["id"]), spec["name"]]
            assert iou in row.inner_text()
            red, green, blue = bytes.fromhex(spec["color"][1:])
            assert row.locator(".swatch").evaluate("e => e.style.backgroundColor") == f"rgb({red}, {green}, {blue})"
        assert page.locator("#miou").inner_text() == f"{100 * said['metrics']['miou']:.1f} %"
        assert page.locator("#agreement").inner_text() == f"{100 * said['check']['argmax_agreement']:.4f} %"
        assert f"{said['trials'][0]['ms']:.1f} ms" in main
        assert "epochs" in page.locator(".prose").inner_text()
        assert str(SHIPPED.parent) not in page.content()


def test_the_structure_is_drawn_and_listed(browser: Browser, server: Server) -> None:
    structure = httpx.get(f"{server.url}/models/camvid-enet/structure").json()
    assert [stage["scale"] for stage in structure["stages"]] == ["1/2", "1/4", "1/8", "1/4", "1/2", "1"]
    passes = [(one["from"], one["to"], one["how"]) for one in structure["passes"]]
    assert passes == [(0, 4, "indices"), (1, 3, "indices")]
    with opened(browser, f"{server.url}/") as page:
        shown(page, server, "camvid-enet")
        drawing = page.locator("#drawing")
        assert drawing.evaluate("image => image.decode().then(() => image.naturalWidth)") > 400
        assert structure["summary"] in (drawing.get_attribute("alt") or "")
        page.get_by_text("The same as a table").click()
        rows = page.locator("#stages table").first.locator("tbody tr").all_inner_texts()
        assert [row.split("\t")[1] for row in rows] == [stage["scale"] for stage in structure["stages"]]
        assert page.locator("#stages").get_by_text("pool indices").count() == 2


def test_the_drawing_stands_alone_in_its_own_colours(browser: Browser, server: Server) -> None:
    answer = httpx.get(f"{server.url}/models/camvid-enet/structure.svg")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    fills = []
    for scheme in ("light", "dark"):
        with opened(browser, f"{server.url}/models/camvid-enet/structure.svg", color_scheme=scheme) as page:
            fills.append(page.locator(".encoder").first.evaluate("box => getComputedStyle(box).fill"))
    assert fills == ["rgb(226, 233, 251)", "rgb(34, 43, 73)"]  # its policy lets its own style in


def test_a_card_is_shown_and_never_run(browser: Browser, server: Server) -> None:
    assert httpx.get(f"{server.url}/models/rgb/card").text == CARD
    with opened(browser, f"{server.url}/") as page:
        shown(page, server, "rgb")
        card = page.locator(".prose")
        assert card.get_by_role("heading").inner_text() == "A <b>card</b>"
        assert "<script>strange = 1</script>" in card.inner_text()
        assert page.evaluate("typeof strange") == "undefined"
        assert [link.get_attribute("href") for link in card.locator("a").all()] == ["https://example.org"]
        assert page.get_by_text("Nobody has measured how well it segments.").is_visible()


def test_a_graph_that_makes_no_sense_is_counted(browser: Browser, server: Server) -> None:
    missing = httpx.get(f"{server.url}/models/foreign/card")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown-card")
    with opened(browser, f"{server.url}/", refusals=1) as page:
        shown(page, server, "foreign")
        assert "The stages of this net could not be told apart" in page.locator("#summary").inner_text()
        page.get_by_text("The same as a table").click()
        assert page.locator("#stages").get_by_text("Einsum").is_visible()
        assert page.get_by_text("This model came without a card.").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(scheme: str, browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/", color_scheme=scheme, viewport={"width": 360, "height": 740}) as page:
        shown(page, server, "camvid-enet")
        page.get_by_text("The same as a table").click()
        assert grave_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_an_unknown_model_is_told_kindly(browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/", refusals=8) as page:
        page.goto(f"{server.url}/models/nobody/page")
        told = page.get_by_role("alert")
        told.wait_for()
        assert "there is no model 'nobody'" in told.inner_text()
        page.get_by_label("Model").select_option("rgb")
        page.locator("#drawing").wait_for()
        assert page.get_by_role("heading", level=1).inner_text() == "rgb"


def test_the_page_is_open_and_what_it_shows_needs_the_key(models: Path, browser: Browser, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"API_KEYS": digest(KEY.encode())}) as server:
        for call in ("card", "structure", "structure.svg"):
            assert httpx.get(f"{server.url}/models/rgb/{call}").status_code == 401
        assert httpx.get(f"{server.url}/models/a/b/page").status_code == 401
        with opened(browser, f"{server.url}/", refusals=8) as page:
            page.goto(f"{server.url}/models/rgb/page")
            page.get_by_label("API key").fill(KEY)
            page.get_by_role("button", name="Use this key").click()
            page.locator("#drawing").wait_for()
            assert page.get_by_role("heading", level=1).inner_text() == "rgb"
