"""`python -m benchmarks.page`: the page's first overlay in Chromium beside the bare call that it waits for, medians.

Both begin with the same bytes in memory. The bare call ends when its mask has been read; the page is done when the
overlay is painted: the frame after the one that drew it has begun.
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

SIZES = {"0.7 MP": (960, 720), "12 MP": (4000, 3000)}

PAINTED = """async () => {
    const [input, data] = [document.getElementById('file'), new DataTransfer()];
    data.items.add(globalThis.benchmarked);
    performance.clearMarks();
    const start = performance.now();
    input.files = data.files;
    input.dispatchEvent(new Event('change'));
    while (performance.getEntriesByName('segserve:overlay').length === 0) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - start;
}"""


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--models", default="models", show_default=True, type=click.Path(path_type=Path))
@click.option("--folder", default="runs/bench", show_default=True, type=click.Path(path_type=Path))
def main(rounds: int, models: Path, folder: Path) -> None:
    """Print, for each size of picture, the bare call, the page's first overlay, and how much longer it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"{machine()}\n\n| picture | bare call, ms | first overlay, ms | ratio |\n|---|---|---|---|")
    with running(models, folder / "page.log") as server, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        page.goto(server.url)
        page.locator("#model:enabled").wait_for()
        for name, sides in SIZES.items():
            picture = photo(*sides)
            _hand_over(page, picture)
            pairs = [(_bare(server.url, picture), float(page.evaluate(PAINTED))) for _ in range(rounds + 1)][1:]
            bare, shown = (median(pair[index] for pair in pairs) for index in (0, 1))
            click.echo(f"| {name} | {bare:.0f} | {shown:.0f} | {shown / bare:.2f} |")


def _hand_over(page: Page, picture: bytes) -> None:
    """Make the picture a file of the page."""
    page.evaluate(
        """text => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            globalThis.benchmarked = new File([bytes], 'photo.jpg', { type: 'image/jpeg' });
        }""",
        b64encode(picture).decode(),
    )


def _bare(url: str, picture: bytes) -> float:
    """Milliseconds of the call itself, from a client that does nothing with the answer."""
    start = perf_counter()
    headers = {"Content-Type": "image/jpeg"}
    answer = httpx.post(f"{url}/segment", params={"output": "mask"}, content=picture, headers=headers, timeout=60)
    answer.raise_for_status()
    return 1000 * (perf_counter() - start)


if __name__ == "__main__":
    main()
