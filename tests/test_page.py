"""The workbench, as a person uses it: a real Chromium, a real server, and the pixels that are seen."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Error, Page, Route, expect

from service.keys import digest
from tests.browser import canvas_pixels, chromium, grave_findings, opened, seen_pixels
from tests.bundles import BLUE, GREEN, RED, Net, bands, encoded, write_bundle
from tests.programs import program
from tests.server import Server, free_port, running

UI = Path(__file__).parent.parent / "service" / "ui"
PICTURE = bands((190, 60, 40), (60, 150, 40), (40, 80, 170), (101, 100, 99), height=200, width=320)
"""Red, green, blue, and red by a little only: of other shades than the classes' colours."""

PNG = encoded(PICTURE)
KEY = "open-sesame"
SWAPPED = Net(weights=((0, 1, 0), (1, 0, 0), (0, 0, 1)))
"""Calls red green, and green red."""

VIEWS = ("overlay", "mask", "color", "confidence", "json", "rle", "polygons", "geojson", "zip")
LEFT, RIGHT = '[data-pane="left"]', '[data-pane="right"]'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_bundle(root, "rgb")
    write_bundle(root, "swapped", nets=SWAPPED)
    return root


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with running(models, models.parent / "page.log", {"DEFAULT_MODEL": "rgb", "MAX_PIXELS": "1000000"}) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with opened(browser, f"{server.url}/", viewport={"width": 1280, "height": 800}) as page:
        page.locator("#model:enabled").wait_for()
        yield page


def show(page: Page, picture: bytes = PNG, name: str = "street.png", kind: str = "image/png") -> None:
    """Open a picture, and wait until its classes are on the screen."""
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": picture})
    wait_for_result(page)


def wait_for_result(page: Page) -> None:
    expect(page.locator("#summary")).to_contain_text(re.compile(r"\d ms"))


def eventually(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until it holds; the page goes on meanwhile."""
    for _ in range(100):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came to hold")


def ask(server: Server, view: str, **options: str | float) -> bytes:
    """The API's own answer for the picture."""
    params = {"output": view, "model": "rgb", **options}
    headers = {"Content-Type": "image/png", "Authorization": f"Bearer {KEY}"}
    return httpx.post(f"{server.url}/segment", params=params, content=PNG, headers=headers).raise_for_status().content


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(data)))


def overlay(server: Server, **options: str | float) -> NDArray[np.uint8]:
    return pixels(ask(server, "overlay", format="png", **options))


def seen(page: Page, pane: str = LEFT) -> NDArray[np.uint8]:
    """The picture's own pixels, as they are seen in the middle of a pane at its own size."""
    page.locator("#view").press("1")
    page.locator("#view").press("Escape")
    return seen_pixels(page, page.locator(pane), PICTURE.shape[1], PICTURE.shape[0])


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Equal but for rounding: the browser and the service blend in numbers of different fineness."""
    return one.shape == other.shape and int(np.abs(one.astype(int) - other.astype(int)).max()) <= 2


DROP = """bytes => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], 'street.png', { type: 'image/png' }));
    for (const kind of ['dragenter', 'dragover', 'drop']) {
        document.getElementById('empty').dispatchEvent(new DragEvent(kind, { bubbles: true, dataTransfer: data }));
    }
}"""
COPY = """bytes => navigator.clipboard.write([
    new ClipboardItem({ 'image/png': new Blob([new Uint8Array(bytes)], { type: 'image/png' }) })
])"""


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_is_overlaid_with_what_the_api_answers(way: str, page: Page, server: Server) -> None:
    if way == "choose":
        with page.expect_file_chooser() as choosing:
            page.get_by_role("button", name="Open picture").click()
        choosing.value.set_files({"name": "street.png", "mimeType": "image/png", "buffer": PNG})
    elif way == "drop":
        page.evaluate(DROP, list(PNG))
    else:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.evaluate(COPY, list(PNG))
        page.keyboard.press("Control+V")
    wait_for_result(page)
    expect(page.locator("#empty")).to_be_hidden()
    assert alike(seen(page), overlay(server))
    assert (canvas_pixels(page.locator(f"{LEFT} .tint"))[..., :3] == pixels_of_palette(server)).all()


def pixels_of_palette(server: Server) -> NDArray[np.uint8]:
    return np.array((RED, GREEN, BLUE), np.uint8)[pixels(ask(server, "mask"))]


def test_the_sample_is_one_click_away(page: Page) -> None:
    page.get_by_role("button", name="Try the sample").click()
    expect(page.locator("#summary")).to_contain_text("720 \N{MULTIPLICATION SIGN} 540")


def test_the_slider_sets_the_share_of_the_palette(page: Page, server: Server) -> None:
    show(page)
    for alpha in (0.2, 1.0, 0.0):
        page.get_by_label("Opacity").fill(str(alpha))
        assert alike(seen(page), overlay(server, alpha=alpha))
        expect(page.locator("#alpha-out")).to_have_text(f"{100 * alpha:.0f} %")


def test_classes_are_hidden_and_shown_one_by_one_alone_and_all(page: Page, server: Server) -> None:
    show(page)
    shares = page.locator("#classes li").all_inner_texts()
    assert [text.split()[0] for text in shares] == ["red", "green", "blue"]
    assert [text.split()[-2] for text in shares] == ["50", "25", "25"]
    page.get_by_role("checkbox", name="green").uncheck()
    assert alike(seen(page), overlay(server, classes="red,blue"))
    page.get_by_role("button", name="Only blue").click()
    assert alike(seen(page), overlay(server, classes="blue"))
    page.get_by_role("button", name="Hide all listed classes").click()
    assert alike(seen(page), PICTURE)
    page.get_by_role("button", name="Show all listed classes").click()
    assert alike(seen(page), overlay(server))


def test_pointing_names_the_class_and_how_sure_the_net_is(page: Page, server: Server) -> None:
    show(page)
    page.locator("#view").press("1")
    box = page.locator("#view").bounding_box()
    assert box is not None
    left, top = round((box["width"] - 320) / 2), round((box["height"] - 200) / 2)
    mask, levels = pixels(ask(server, "mask")), pixels(ask(server, "confidence"))
    for column in (40, 120, 200, 280):
        page.mouse.move(box["x"] + left + column, box["y"] + top + 50)
        name = ("red", "green", "blue")[mask[50, column]]
        expect(page.locator("#readout")).to_have_text(f"{name}{100 * int(levels[50, column]) / 255:.0f} % sure")
    page.mouse.move(5, 5)
    expect(page.locator("#readout")).to_be_hidden()


def test_everything_can_be_done_without_a_mouse(page: Page, server: Server) -> None:
    def tab_to(identifier: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == identifier:
                return
        raise AssertionError(f"no tab reaches {identifier}")

    page.on("filechooser", lambda chooser: None)  # from here on, so that the key cannot be faster than the listening
    tab_to("choose")
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Enter")
    choosing.value.set_files({"name": "street.png", "mimeType": "image/png", "buffer": PNG})
    wait_for_result(page)
    page.evaluate("document.activeElement.blur()")
    tab_to("view")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#spoken")).to_have_text("blue, 100 % sure")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#spoken")).to_have_text("green, 100 % sure")
    before = page.locator("#scale").inner_text()
    page.keyboard.press("+")
    expect(page.locator("#scale")).not_to_have_text(before)
    page.keyboard.press("0")
    expect(page.locator("#scale")).to_have_text(before)
    tab_to("alpha")
    page.keyboard.press("End")
    expect(page.locator("#alpha-out")).to_have_text("100 %")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") != ""
    page.locator("[name=layout]:checked").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#divider")).to_be_visible()
    tab_to("divider")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#divider")).to_have_attribute("aria-valuenow", "3")


def test_swiping_compares_the_picture_with_the_overlay(page: Page, server: Server) -> None:
    show(page)
    page.get_by_label("Swipe").check()
    both = seen(page, "#view")
    tinted = overlay(server)
    assert alike(both[:, :135], PICTURE[:, :135]) and alike(both[:, 185:], tinted[:, 185:])
    box = page.locator("#view").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + 60
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 100, middle[1], steps=3)
    page.mouse.up()
    page.mouse.move(5, 5)
    both = seen(page, "#view")
    assert alike(both[:60, :55], PICTURE[:60, :55]) and alike(both[:60, 65:], tinted[:60, 65:])


def test_side_by_side_shows_the_picture_beside_the_overlay(page: Page, server: Server) -> None:
    show(page)
    page.get_by_label("Side by side").check()
    assert alike(seen(page, LEFT), PICTURE)
    assert alike(seen(page, RIGHT), overlay(server))


def test_two_models_are_compared_and_where_they_disagree_is_marked(page: Page, server: Server) -> None:
    show(page)
    page.get_by_label("With").select_option("swapped")
    expect(page.locator("#disagreement")).to_have_text("They disagree on 75 % of the picture.")
    ours, theirs = (pixels(ask(server, "mask", model=name)) for name in ("rgb", "swapped"))
    for pane in (LEFT, RIGHT):
        marks = canvas_pixels(page.locator(f"{pane} .marks"))
        assert ((marks[..., 3] > 0) == (ours != theirs)).all()
    page.get_by_label("Mark where they disagree").uncheck()
    expect(page.locator(f"{LEFT} .tag")).to_have_text("rgb")
    expect(page.locator(f"{RIGHT} .tag")).to_have_text("swapped")
    assert alike(seen(page, LEFT), overlay(server))
    assert alike(seen(page, RIGHT), overlay(server, model="swapped"))


def test_confidence_is_a_heat_map_that_is_brightest_where_the_net_is_least_sure(page: Page, server: Server) -> None:
    show(page)
    page.get_by_label("Confidence", exact=True).check()
    expect(page.locator("#heat")).to_be_visible()
    levels = pixels(ask(server, "confidence"))
    assert levels[100, 40] > 250 and levels[100, 280] < 180

    def brightness() -> tuple[int, int]:
        heat = canvas_pixels(page.locator(f"{LEFT} .tint"))[..., :3].astype(int).sum(axis=-1)
        return int(heat[levels > 250].max()), int(heat[levels < 180].min())

    eventually(page, lambda: brightness()[0] < brightness()[1])


def test_a_download_holds_what_the_api_answers_for_what_is_on_the_screen(page: Page, server: Server) -> None:
    show(page)
    page.get_by_label("Opacity").fill("0.7")
    page.get_by_role("checkbox", name="green").uncheck()
    for view in VIEWS:
        with page.expect_download() as saving:
            page.get_by_role("button", name=view, exact=True).click()
        content = saving.value.path().read_bytes()
        options: dict[str, str | float] = {"alpha": 0.7} if view == "overlay" else {}
        if view not in ("mask", "color", "confidence"):
            options["classes"] = "red,blue"
        expected = ask(server, view, **options)
        if view == "json":
            content, expected = (re.sub(rb'"id": .*?, "model"', b"", text) for text in (content, expected))
        assert content == expected, view
        assert saving.value.suggested_filename.startswith("street.")


@pytest.mark.parametrize("language", ["curl", "Python"])
def test_the_lines_of_code_give_what_is_on_the_screen(
    language: str, page: Page, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "it's a street, wet.png"
    Path(name).write_bytes(PNG)
    show(page, name=name)
    page.get_by_label("Opacity").fill("0.3")
    page.get_by_role("checkbox", name="green").uncheck()
    page.get_by_label(language).check()
    expect(page.locator("#code")).to_contain_text("classes=")
    lines = page.locator("#code").inner_text()
    if language == "curl":
        program("curl", "curl")
        subprocess.run(["sh", "-c", lines], check=True, capture_output=True)
    else:
        exec(compile(lines, "page", "exec"), {})
    shown = Path("it's a street, wet.overlay.png").read_bytes()
    assert shown == ask(server, "overlay", alpha=0.3, classes="red,blue")


def test_wheel_and_drag_move_the_picture_and_fit_brings_it_back(page: Page) -> None:
    show(page)
    box = page.locator("#view").bounding_box()
    assert box is not None
    start = page.locator(f"{LEFT} .world").evaluate("world => world.style.transform")
    fitted = page.locator("#scale").inner_text()
    place = box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"]
    page.mouse.move(*place)
    expect(page.locator("#readout")).to_contain_text("green")
    for _ in range(6):
        page.mouse.wheel(0, -200)
    expect(page.locator("#readout")).to_contain_text("green")
    zoomed = page.locator(f"{LEFT} .world").evaluate("world => world.style.transform")
    page.mouse.down()
    page.mouse.move(place[0] + 150, place[1], steps=4)
    page.mouse.up()
    dragged = page.locator(f"{LEFT} .world").evaluate("world => world.style.transform")
    assert len({start, zoomed, dragged}) == 3
    page.get_by_role("button", name="Fit").click()
    expect(page.locator("#scale")).to_have_text(fitted)
    assert page.locator(f"{LEFT} .world").evaluate("world => world.style.transform") == start


def test_a_turned_photo_is_shown_and_overlaid_upright(page: Page) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    file = BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG", exif=turned)
    show(page, file.getvalue(), "turned.jpg", "image/jpeg")
    expect(page.locator("#summary")).to_contain_text("200 \N{MULTIPLICATION SIGN} 320")
    tint = canvas_pixels(page.locator(f"{LEFT} .tint"))
    assert tint.shape == (320, 200, 4)
    assert tint[40, 100].tolist() == [*RED, 255] and tint[120, 100].tolist() == [*GREEN, 255]


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_large_photo_is_decoded_small_until_it_is_seen_closer(browser: Browser, server: Server, turn: int) -> None:
    photo, upright = _large_photo(turn)
    height, width, _ = upright.shape
    with opened(browser, f"{server.url}/", viewport={"width": 760, "height": 560}) as page:
        page.locator("#model:enabled").wait_for()
        show(page, photo, "photo.jpg", "image/jpeg")
        expect(page.locator("#summary")).to_contain_text(f"{width} \N{MULTIPLICATION SIGN} {height}")
        page.get_by_label("Opacity").fill("0")
        page.get_by_label("Side by side").check()
        for pane in (LEFT, RIGHT):
            small = canvas_pixels(page.locator(f"{pane} canvas").first)[..., :3]
            assert 0 < small.shape[0] < height / 1.9
            assert _nearly(small, np.asarray(Image.fromarray(upright).resize(small.shape[1::-1], Image.Resampling.BOX)))
            expect(page.locator(f"{pane} img[src]")).to_have_count(0)
        page.get_by_label("Single").check()
        page.locator("#view").press("1")
        page.locator("#view").press("Escape")
        expect(page.locator(f"{LEFT} canvas").first).to_be_hidden()
        assert _nearly(_corner(page), upright[:200, :200])


def _large_photo(turn: int) -> tuple[bytes, NDArray[np.uint8]]:
    """A JPEG of four colours in noise, a megapixel in more than a quarter of a megabyte, stored as EXIF's orientation
    `turn` says; and how a person sees it, uint8 (H, W, 3)."""
    corners = np.array([[RED, GREEN], [BLUE, (101, 100, 99)]], np.int16).repeat(400, axis=0).repeat(600, axis=1)
    noise = np.random.default_rng(3).integers(-60, 60, (800, 1200, 1))
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = turn
    Image.fromarray(np.clip(corners + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=95, exif=exif)
    assert file.tell() > 2**18
    return file.getvalue(), np.asarray(ImageOps.exif_transpose(Image.open(file)))


def _corner(page: Page) -> NDArray[np.uint8]:
    """What is seen in the corner of the left pane once a larger picture was dragged there: RGB, uint8 (200, 200, 3)."""
    box = page.locator(LEFT).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 3000, box["y"] + 3000, steps=3)
    page.mouse.up()
    page.mouse.move(1, 1)
    return pixels(page.screenshot(clip={"x": box["x"], "y": box["y"], "width": 200, "height": 200}))[..., :3]


def _nearly(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Equal but for how a decoder rounds and scales: seldom more than a few levels apart."""
    return one.shape == other.shape and float(np.abs(one.astype(int) - other).mean()) < 6


def test_a_picture_that_the_browser_cannot_show_is_shown_by_the_server(page: Page, server: Server) -> None:
    show(page, encoded(PICTURE, "TIFF"), "street.tif", "image/tiff")
    apart = np.abs(seen(page).astype(int) - overlay(server).astype(int))
    assert np.median(apart) <= 2  # a JPEG on its way


def test_an_oversized_picture_is_refused_in_words_that_help(browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/", refusals=1) as page:
        page.locator("#model:enabled").wait_for()
        big = encoded(bands(RED, height=1200, width=1200))
        page.locator("#file").set_input_files({"name": "big.png", "mimeType": "image/png", "buffer": big})
        notice = page.get_by_role("alert")
        expect(notice).to_contain_text("The picture has 1200x1200 = 1440000 pixels, the limit is 1000000")
        expect(notice.get_by_role("button", name="Open another picture")).to_be_visible()
        show(page)
        expect(notice).to_be_hidden()


def test_a_slow_upload_shows_how_far_it_is(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 600, 3), np.uint8)
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 700_000}
    network.send("Network.emulateNetworkConditions", slow)
    page.locator("#file").set_input_files({"name": "n.png", "mimeType": "image/png", "buffer": encoded(noise)})
    expect(page.locator("#doing")).to_have_text(re.compile(r"Sending \d\d? %"))
    assert 0 < float(page.locator("#progress").get_attribute("value") or 0) < 1
    network.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    wait_for_result(page)


@pytest.mark.parametrize("layer", ["Classes", "Confidence"])
def test_a_damaged_mask_is_told_of_and_asked_for_again(layer: str, page: Page, server: Server) -> None:
    damaged = ask(server, "mask")[:-40]
    page.route("**/segment?*", lambda route: route.fulfill(body=damaged, content_type="image/png"), times=1)
    page.get_by_role("radio", name=layer).check()
    page.locator("#file").set_input_files({"name": "street.png", "mimeType": "image/png", "buffer": PNG})
    expect(page.locator("#notice")).to_contain_text("damaged")
    page.get_by_label("Side by side").check()
    page.get_by_role("button", name="Try again").click()
    wait_for_result(page)
    page.get_by_role("radio", name="Classes").check()
    assert alike(seen(page, RIGHT), overlay(server))


def test_a_server_that_stops_is_told_of_and_found_again(browser: Browser, models: Path, tmp_path: Path) -> None:
    port, settings = free_port(), {"DEFAULT_MODEL": "rgb"}
    with ExitStack() as ends:
        with running(models, tmp_path / "first", settings, port=port) as server:
            page = ends.enter_context(opened(browser, f"{server.url}/", refusals=1))
            page.locator("#model:enabled").wait_for()
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PNG})
        notice = page.get_by_role("alert")
        expect(notice).to_contain_text("The server does not answer")
        with running(models, tmp_path / "again", settings, port=port):
            notice.get_by_role("button", name="Try again").click()
            wait_for_result(page)
            expect(notice).to_be_hidden()


def test_a_server_with_keys_asks_for_one(browser: Browser, models: Path, tmp_path: Path) -> None:
    settings = {"API_KEYS": digest(KEY.encode()), "DEFAULT_MODEL": "rgb", "RESULTS": "off"}
    with running(models, tmp_path / "log", settings) as server, opened(browser, f"{server.url}/", refusals=2) as page:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This server asks for a key")
        dialog.get_by_label("API key").fill("wrong")
        dialog.get_by_label("API key").press("Enter")
        expect(dialog).to_contain_text("The API key is none of this server's")
        dialog.get_by_label("API key").fill(KEY)
        dialog.get_by_role("button", name="Use this key").click()
        page.locator("#model:enabled").wait_for()
        show(page)
        with page.expect_download() as saving:  # nothing is stored: the picture is sent again
            page.get_by_role("button", name="mask", exact=True).click()
        assert saving.value.path().read_bytes() == ask(server, "mask")
        assert KEY not in page.locator("#code").inner_text()
        assert "$SEGSERVE_KEY" in page.locator("#code").inner_text()
        page.reload()
        page.locator("#model:enabled").wait_for()


def test_on_a_phone_nothing_is_wider_than_the_screen_and_fingers_do_all(browser: Browser, server: Server) -> None:
    sides = {"width": 360, "height": 740}
    with opened(browser, f"{server.url}/", viewport=sides, has_touch=True, is_mobile=True) as page:
        page.locator("#model:enabled").wait_for()
        show(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        box = page.locator("#view").bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.touchscreen.tap(middle[0] - 50, middle[1])
        expect(page.locator("#readout")).to_contain_text("green")
        before = page.locator("#scale").inner_text()
        fingers = page.context.new_cdp_session(page)
        for kind, apart in (("touchStart", 20), ("touchMove", 50), ("touchMove", 90)):
            points = [{"x": middle[0] + side * apart, "y": middle[1], "id": side + 1} for side in (-1, 1)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert percent(page.locator("#scale").inner_text()) > 2 * percent(before)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def percent(text: str) -> float:
    return float(text.removesuffix("%"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave(scheme: str, browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/", refusals=1, color_scheme=scheme) as page:
        page.locator("#model:enabled").wait_for()
        assert grave_findings(page) == []
        show(page)
        page.get_by_label("With").select_option("swapped")
        expect(page.locator("#disagreement")).not_to_be_empty()
        page.get_by_label("Swipe").check()
        page.get_by_label("Confidence", exact=True).check()
        page.get_by_role("button", name="Live").click()
        page.locator("#view").press("ArrowLeft")
        assert grave_findings(page) == []
        page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
        expect(page.get_by_role("alert")).to_be_visible()
        assert grave_findings(page) == []


def test_a_picture_that_fails_leaves_nothing_of_the_one_before(browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/", refusals=1) as page:
        page.locator("#model:enabled").wait_for()
        show(page)
        saved = page.get_by_role("button", name="mask", exact=True)
        expect(saved).to_be_enabled()
        page.locator("#file").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": PNG[:200]})
        expect(page.locator("#notice")).to_contain_text("corrupt or truncated")
        expect(saved).to_be_disabled()
        expect(page.locator("#summary")).to_be_empty()
        show(page)
        expect(saved).to_be_enabled()


def test_the_picture_before_stays_in_view_while_the_net_looks_at_the_next(page: Page) -> None:
    show(page)
    summary, notice = page.locator("#summary"), page.locator("#notice")
    meanwhile = f"""bytes => {{
        const image = document.querySelector('{LEFT} img');
        ({DROP})(bytes);
        document.querySelector('[data-view="mask"]').click();
        return [document.getElementById('summary').textContent, image.isConnected];
    }}"""
    text, shown = page.evaluate(meanwhile, list(encoded(PICTURE[:100])))
    assert ("320 \N{MULTIPLICATION SIGN} 200" in text, shown) == (True, True)
    expect(summary).to_contain_text("320 \N{MULTIPLICATION SIGN} 100")
    expect(notice).to_be_hidden()


def test_sending_a_picture_changes_nothing_that_is_drawn(page: Page) -> None:
    """A frame takes its time from the net, and the overlay would have to wait for the screen's next one."""
    send = """bytes => {
        const [input, data] = [document.getElementById('file'), new DataTransfer()];
        data.items.add(new File([new Uint8Array(bytes)], 'street.png', { type: 'image/png' }));
        const observer = new MutationObserver(() => {});
        observer.observe(document, { attributes: true, childList: true, subtree: true });
        input.files = data.files;
        input.dispatchEvent(new Event('change'));
        const changed = observer.takeRecords().map(({ target }) => target);
        observer.disconnect();
        return changed.filter(({ parentElement }) => parentElement.checkVisibility()).map(({ id }) => id);
    }"""
    for height in (200, 100):
        assert page.evaluate(send, list(encoded(PICTURE[:height]))) == []
        expect(page.locator("#summary")).to_contain_text(f"320 \N{MULTIPLICATION SIGN} {height}")


def test_while_a_picture_that_the_browser_cannot_show_is_awaited_nothing_is_said_of_the_one_before(page: Page) -> None:
    show(page)
    held: list[Route] = []
    page.route("**/segment?*", lambda route: held.append(route))  # noqa: PLW0108 - as below
    unseen = encoded(PICTURE, "TIFF")
    page.locator("#file").set_input_files({"name": "a.tif", "mimeType": "image/tiff", "buffer": unseen})
    expect(page.locator("#summary")).to_be_empty()
    expect(page.get_by_role("button", name="mask", exact=True)).to_be_disabled()
    held[0].continue_()
    wait_for_result(page)


def test_comparing_that_is_switched_off_is_not_answered_later(page: Page) -> None:
    show(page)
    answers: list[Route] = []
    page.route("**/segment?*model=swapped*", lambda route: answers.append(route))  # noqa: PLW0108 - playwright marks it
    page.get_by_label("With").select_option("swapped")
    eventually(page, lambda: len(answers) == 1)
    page.get_by_label("With").select_option("")
    with suppress(Error):  # the page may have ended the request
        answers[0].continue_()
    page.wait_for_timeout(300)
    expect(page.locator("#disagreement")).to_be_empty()


PROMPT = """() => {
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.given = [];
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((allow) => { window.allow = allow; });
        const stream = await real(wanted);
        window.given.push(stream);
        return stream;
    };
}"""


def test_a_camera_that_is_allowed_too_late_goes_off_again(page: Page) -> None:
    page.evaluate(PROMPT)
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="Start").click()
    eventually(page, lambda: bool(page.evaluate("typeof window.allow === 'function'")))
    show(page)
    page.evaluate("window.allow()")
    eventually(page, lambda: bool(page.evaluate("window.given.length === 1")))
    eventually(
        page, lambda: bool(page.evaluate("window.given[0].getTracks().every((track) => track.readyState === 'ended')"))
    )
    expect(page.locator("#live-start")).to_have_text("Start")
    expect(page.locator("#summary")).to_contain_text("red")
    expect(page.get_by_role("button", name="mask", exact=True)).to_be_enabled()


def test_the_camera_is_segmented_live_and_a_frame_can_be_kept(page: Page) -> None:
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#live-stats")).to_contain_text(re.compile(r"[\d.]+ frames a second, \d+ ms each"))
    tint = canvas_pixels(page.locator(f"{LEFT} .tint"))
    frame = canvas_pixels(page.locator(f"{LEFT} canvas").first)
    named = np.argmax(frame[::2, ::2, :3], axis=-1)
    agreed = (np.argmax(tint[::2, ::2, :3], axis=-1) == named)[np.ptp(frame[::2, ::2, :3], axis=-1) > 100]
    assert agreed.mean() > 0.9  # the frame under the mask is the one that the mask is of
    page.get_by_role("checkbox", name="green").uncheck()
    expect(page.locator("#code")).to_contain_text("classes=")
    eventually(page, lambda: bool((canvas_pixels(page.locator(f"{LEFT} .tint"))[..., 3] == 0).any()))
    page.get_by_role("button", name="Keep this frame").click()
    wait_for_result(page)
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    expect(page.get_by_role("button", name="geojson")).to_be_enabled()


def test_parts_of_the_page_are_sent_once_and_no_other_files(server: Server) -> None:
    home = httpx.get(server.url)
    assert home.headers["content-type"] == "text/html; charset=utf-8"
    assert "unsafe" not in home.headers["content-security-policy"]
    assert httpx.get(server.url, headers={"If-None-Match": home.headers["etag"]}).status_code == 304
    head = httpx.head(f"{server.url}/ui/app.js")
    assert (head.status_code, head.content, head.headers["cache-control"]) == (200, b"", "no-cache")
    assert head.headers["content-type"] == "text/javascript; charset=utf-8"
    for path in ("/ui/", "/ui/nothing.js", "/ui/..%2Fapp.py", "/ui/%2e%2e/app.py", "/ui/index.html", "/ui/app.js/"):
        assert httpx.get(server.url + path).status_code == 404, path


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in UI.iterdir()) < 150_000
