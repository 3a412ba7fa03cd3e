"""The page's own reader of masks, in a real Chromium: grey PNGs to the last level, and what is damaged is refused."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from service.cores import ONE_CORE, CorePool
from service.png import encode
from tests.browser import chromium, opened
from tests.bundles import write_bundle
from tests.pictures import packed_png, png
from tests.server import running

READ = """async (files) => {
    const { parseGrey, sampled } = await import('/ui/png.js');
    const read = (text) => {
        try {
            const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
            const mask = parseGrey(bytes.buffer);
            const { width, height } = mask;
            const levels = mask.read();
            for (const step of [2, 3, 64]) {
                if (mask.read(step).join() !== sampled(levels, mask, step).join()) return `not every ${step}`;
            }
            return [width, height, Array.from(levels, (level) => level.toString(16).padStart(2, '0')).join('')];
        } catch (problem) {
            return problem.message;
        }
    };
    return files.map(read);
}"""

DAMAGED = "The mask that the server sent is damaged: try again."


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    root = tmp_path_factory.mktemp("png")
    write_bundle(root / "models", "rgb")
    with (
        running(root / "models", root / "page.log") as server,
        chromium() as browser,
        opened(browser, f"{server.url}/") as page,
    ):
        page.locator("#model:enabled").wait_for()
        yield page


def read(page: Page, files: list[bytes]) -> list[NDArray[np.uint8] | str]:
    """What the page reads in each file: levels, uint8 (H, W), or its complaint."""
    answers: list[list[int | str] | str] = page.evaluate(READ, [b64encode(one).decode() for one in files])
    return [answer if isinstance(answer, str) else _levels(*answer) for answer in answers]


def _levels(width: int | str, height: int | str, levels: int | str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(str(levels)), np.uint8).reshape(int(height), int(width))


def pictures() -> list[NDArray[np.uint8]]:
    """Of every kind that packs differently: noise, few levels, steep counts, runs, repeated rows, a single pixel."""
    random = np.random.default_rng(8)
    return [
        random.integers(0, 256, (61, 83), dtype=np.uint8),
        (random.random((90, 64)) ** 6 * 256).astype(np.uint8),
        (random.random((200, 300)) > 0.99).astype(np.uint8).cumsum(axis=1).astype(np.uint8),
        np.repeat(np.repeat(random.integers(0, 12, (9, 11), dtype=np.uint8), 40, axis=0), 60, axis=1),
        np.tile(random.integers(0, 256, (1, 301), dtype=np.uint8), (120, 1)),
        np.array([[7]], np.uint8),
        np.zeros((300, 5), np.uint8),
        np.repeat(random.integers(0, 12, (6, 4000), dtype=np.uint8), 10, axis=1),
    ]


STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_grey_png_is_read_exactly_however_it_is_packed(page: Page, strategy: int) -> None:
    expected, files = [], []
    for level in (0, 1, 6, 9):
        for picture in pictures():
            buffer = BytesIO()
            Image.fromarray(picture).save(buffer, "PNG", compress_level=level, compress_type=strategy)
            expected.append(picture)
            files.append(buffer.getvalue())
    for picture, found in zip(expected, read(page, files), strict=True):
        np.testing.assert_array_equal(found, picture)


def test_every_filter_of_rows_is_undone(page: Page) -> None:
    """The rows are noise in which each has the filter of its turn; Pillow says what they stand for."""
    random = np.random.default_rng(9)
    files = []
    for width in (1, 4, 37, 64):
        rows = random.integers(0, 256, (50, width + 1), dtype=np.uint8)
        rows[:, 0] = random.integers(0, 5, 50)
        files.append(png(width, 50, 8, 0, rows.tobytes()))
    for file, found in zip(files, read(page, files), strict=True):
        np.testing.assert_array_equal(found, np.asarray(Image.open(BytesIO(file))))


def test_the_services_own_masks_are_read_exactly(page: Page) -> None:
    random = np.random.default_rng(7)
    coarse = random.integers(0, 12, (30, 20), dtype=np.uint8)
    masks = [
        *pictures(),
        coarse.repeat(9, axis=0).repeat(7, axis=1),
        random.integers(0, 256, (300, 201), dtype=np.uint8),
    ]
    pool = CorePool(3)
    with pool.inside(), pool.spread() as share:
        files = [encode(mask, cores=cores) for cores in (ONE_CORE, share) for mask in masks]
    for mask, found in zip(masks * 2, read(page, files), strict=True):
        np.testing.assert_array_equal(found, mask)


def test_a_mask_that_was_cut_off_is_refused(page: Page) -> None:
    files = []
    for picture in pictures()[:5]:
        packed = zlib.compress(np.insert(picture, 0, 0, axis=1).tobytes())
        files += [_with_stream(picture, packed[:kept]) for kept in (0, 1, 3, len(packed) // 2, len(packed) - 6)]
    assert read(page, files) == [DAMAGED] * len(files)


def test_a_mask_of_another_size_than_it_says_is_refused(page: Page) -> None:
    picture = pictures()[0]
    rows = np.insert(picture, 0, 0, axis=1).tobytes()
    files = [_with_stream(picture, zlib.compress(data)) for data in (rows + b"\0", rows[:-1], b"", rows * 300)]
    assert read(page, files) == [DAMAGED] * len(files)


def test_bits_that_are_wrong_end_in_a_mask_or_a_complaint(page: Page) -> None:
    random = np.random.default_rng(10)
    seen = pictures()[:5] * 20
    files = []
    for picture in seen:
        stream = bytearray(zlib.compress(np.insert(picture, 0, 0, axis=1).tobytes(), int(random.integers(10))))
        for place in random.integers(2, len(stream), 3):
            stream[place] ^= 1 << int(random.integers(8))
        files.append(_with_stream(picture, bytes(stream)))
    answers = read(page, files)
    assert {answer for answer in answers if isinstance(answer, str)} == {DAMAGED}
    masks = [(found, picture) for found, picture in zip(answers, seen, strict=True) if not isinstance(found, str)]
    assert 0 < len(masks) < len(seen)
    assert all(found.shape == picture.shape for found, picture in masks)


def _with_stream(picture: NDArray[np.uint8], stream: bytes) -> bytes:
    """A PNG of the picture's size that holds this zlib stream."""
    height, width = picture.shape
    return packed_png(width, height, 8, 0, stream)
