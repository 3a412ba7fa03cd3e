"""`python -m benchmarks.page`: the page's first overlay in Chromium beside the bare calls for it, medians.

All begin with the same bytes in memory and a connection that is open; the page is one on which pictures have been
looked at, or one that has just been loaded, whose scripts the browser runs for the first time. The bare calls are the
page's own, for the mask of a picture that is stored, and the one for the overlay itself; they end when the answer has
been read. The page is done when the frame that shows the overlay has been painted. Browser and server share the
machine's cores.
"""

from __future__ import annotations

import shutil
from base64 import b64encode
from pathlib import Path
from statistics import median

import click
import httpx
from playwright.sync_api import Page, sync_playwright

from benchmarks.call import call
from benchmarks.machine import machine
from benchmarks.photos import SIZES, photo
from tests.server import running

CALLS = ({"output": "mask", "store": "true"}, {"output": "overlay"})

HEAD = """| picture | page | mask call, ms | overlay call, ms | first overlay, ms | to mask call | to overlay call |
|---|---|---|---|---|---|---|"""

PAUSE = 300
"""Milliseconds before each, in which browser and server end what is left of the last one."""

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
    """Print, for each size of picture, the bare calls, the page's first overlay, and how much longer it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"{machine()}, {model}\n\n{HEAD}")
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
                measured = [_measured(client, page, picture, model, url if anew else None) for _ in range(rounds + 1)]
                mask, overlay, shown = (median(times) for times in zip(*measured[1:], strict=True))
                state = "just loaded" if anew else "in use"
                times = f"{mask:.0f} | {overlay:.0f} | {shown:.0f} | {shown / mask:.2f} | {shown / overlay:.2f}"
                click.echo(f"| {name} | {state} | {times} |")


def _measured(client: httpx.Client, page: Page, picture: bytes, model: str, url: str | None) -> tuple[float, ...]:
    """Milliseconds of each bare call, then of the overlay on the page, as it is or loaded again from the URL."""
    if url:
        _load(page, url)
    _hand_over(page, picture)
    bare = []
    for parameters in CALLS:
        page.wait_for_timeout(PAUSE)
        bare.append(call(client, picture, {"model": model, **parameters}))
    page.wait_for_timeout(PAUSE)
    return *bare, float(page.evaluate(PAINTED))


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


if __name__ == "__main__":
    main()
