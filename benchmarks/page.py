"""`python -m benchmarks.page`: the page's first overlay in Chromium beside the bare call that it waits for, medians.

Both begin with the same bytes in memory and a connection that is open; the page is one on which pictures have been
looked at, or one that has just been loaded, whose scripts the browser runs for the first time. The bare call is the
page's own, the mask of a picture that is stored, and ends when it has been read; the page is done when the frame that
shows the overlay has been painted. Browser and server share the machine's cores.
"""

from __future__ import annotations

import shutil
from base64 import b64encode
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import httpx
from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import machine
from benchmarks.photos import photo
from tests.server import running

SIZES = {"0.2 MP": (480, 360), "0.7 MP": (960, 720), "12 MP": (4000, 3000)}

PAUSE = 300
"""Milliseconds in which the browser ends what is left of the last round."""

PAINTED = """async () => {
    const [input, data] = [document.getElementById('file'), new DataTransfer()];
    data.items.add(globalThis.benchmarked);
    const drawn = new Promise((resolve) => {
        performance.mark = (name) => name === 'segserve:overlay' && resolve(); // an observer hears of it a frame late
    });
    const start = performance.now();
    input.files = data.files;
    input.dispatchEvent(new Event('change'));
    await drawn;
    const { port1, port2 } = new MessageChannel();
    const painted = new Promise((resolve) => { port1.onmessage = resolve; });
    requestAnimationFrame(() => port2.postMessage(0));
    await painted;
    return performance.now() - start;
}"""


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--model", default="camvid-lite", show_default=True)
@click.option("--models", default="models", show_default=True, type=click.Path(path_type=Path))
@click.option("--folder", default="runs/bench", show_default=True, type=click.Path(path_type=Path))
def main(rounds: int, model: str, models: Path, folder: Path) -> None:
    """Print, for each size of picture, the bare call, the page's first overlay, and how much longer it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(
        f"{machine()}, {model}\n\n| picture | page | bare call, ms | first overlay, ms | ratio |\n|---|---|---|---|---|"
    )
    with (
        running(models, folder / "page.log") as server,
        sync_playwright() as playwright,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        url = f"{server.url}/?model={model}"
        _load(page, url)
        for name, sides in SIZES.items():
            picture = photo(*sides)
            for anew in (False, True):
                pairs = [_pair(client, page, picture, model, url if anew else None) for _ in range(rounds + 1)][1:]
                bare, shown = (median(pair[index] for pair in pairs) for index in (0, 1))
                state = "just loaded" if anew else "in use"
                click.echo(f"| {name} | {state} | {bare:.0f} | {shown:.0f} | {shown / bare:.2f} |")


def _pair(client: httpx.Client, page: Page, picture: bytes, model: str, url: str | None) -> tuple[float, float]:
    """Milliseconds of the bare call and of the overlay, on the page as it is or loaded again from the URL."""
    if url:
        _load(page, url)
    _hand_over(page, picture)
    page.wait_for_timeout(PAUSE)
    return _bare(client, picture, model), float(page.evaluate(PAINTED))


def _load(page: Page, url: str) -> None:
    """Until a picture can be opened."""
    page.goto(url)
    page.locator("#model:enabled").wait_for()


def _hand_over(page: Page, picture: bytes) -> None:
    """Make the picture a file of the page."""
    page.evaluate(
        """text => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            globalThis.benchmarked = new File([bytes], 'photo.jpg', { type: 'image/jpeg' });
        }""",
        b64encode(picture).decode(),
    )


def _bare(client: httpx.Client, picture: bytes, model: str) -> float:
    """Milliseconds of the call itself, from a client that does nothing with the answer."""
    start = perf_counter()
    parameters, headers = {"model": model, "output": "mask", "store": "true"}, {"Content-Type": "image/jpeg"}
    client.post("/segment", params=parameters, content=picture, headers=headers).raise_for_status()
    return 1000 * (perf_counter() - start)


if __name__ == "__main__":
    main()
