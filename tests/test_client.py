"""The Python client against a real server, and against sockets that answer what no healthy server would."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import segserve
from segserve import (
    AsyncClient,
    Client,
    Refused,
    Segmentation,
    SegserveClientError,
    Unreachable,
    Unreadable,
    UnusablePicture,
)
from segserve.pictures import PictureLike
from tests.bundles import BLUE, GREEN, RED, bands, encoded, write_bundle
from tests.server import Server, free_port, running

ROOT = Path(__file__).parent.parent
FLAG = bands(RED, GREEN, BLUE, height=60, width=90)
PNG, JPEG = encoded(FLAG), encoded(FLAG, "JPEG")
IDS = np.repeat(np.arange(3, dtype=np.uint8), 30)[None].repeat(60, axis=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("client")
    write_bundle(folder / "models")
    with running(folder / "models", folder / "log", {"MAX_PIXELS": "100000"}) as started:
        yield started


@pytest.fixture(scope="module")
def storeless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("storeless")
    write_bundle(folder / "models")
    with running(folder / "models", folder / "log", {"RESULTS": "off"}) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as opened:
        yield opened


@dataclass(frozen=True)
class Asked:
    """A request that a scripted server got."""

    method: str
    path: str
    headers: Mapping[str, str]


Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


@dataclass
class Script:
    """Answers in order, the last one for ever; None hangs up."""

    answers: Sequence[Answer | None]
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def scripted(*answers: Answer | None) -> Iterator[tuple[str, list[Asked]]]:
    """A server that follows a script; yields its URL and what it was asked."""
    script = Script(answers)

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer = script.answers[min(len(script.asked), len(script.answers) - 1)]
            script.asked.append(Asked(self.command, self.path, dict(self.headers.items())))
            if answer is None:
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the standard library

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}", script.asked
        finally:
            listening.shutdown()
            thread.join()


GOOD: Answer = (200, {}, b'{"models": []}')


def busy(status: int, retry_after: str | None = None) -> Answer:
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    return status, headers, json.dumps({"status": status, "detail": "not now", "code": "overloaded"}).encode()


def test_the_line_of_the_documents_works(server: Server, tmp_path: Path) -> None:
    (tmp_path / "street.jpg").write_bytes(JPEG)
    saved = Client(server.url).segment(f"{tmp_path}/street.jpg").overlay(alpha=0.6).save(tmp_path / "out.jpg")
    assert (
        saved.read_bytes()
        == httpx.post(f"{server.url}/segment?output=overlay&alpha=0.6", files={"image": JPEG}).content
    )


@pytest.mark.parametrize("stored", [True, False])
def test_the_client_says_what_http_says(server: Server, client: Client, stored: bool) -> None:
    def raw(view: str, **options: str | float) -> httpx.Response:
        return httpx.post(f"{server.url}/segment", params={"output": view, **options}, files={"image": JPEG})

    seen = client.segment(JPEG, model="rgb", version=1, store=stored)
    wanted = raw("json").json()
    assert (seen.id is not None) is stored
    assert (seen.width, seen.height, seen.model.name, seen.model.version) == (90, 60, "rgb", 1)
    assert [vars(found) | {"bbox": list(found.bbox)} for found in seen.classes] == wanted["classes"]
    assert seen.json()["classes"] == wanted["classes"]
    mask, confidence = seen.mask(), seen.confidence()
    assert mask.dtype == confidence.dtype == np.uint8
    np.testing.assert_array_equal(mask, decoded(raw("mask").content))
    np.testing.assert_array_equal(confidence, decoded(raw("confidence").content))
    assert seen.color().content == raw("color").content
    assert seen.color().media_type == "image/png"
    overlay = seen.overlay(alpha=0.3, format="webp", classes=["red", 1])
    assert overlay.content == raw("overlay", alpha=0.3, format="webp", classes="red,1").content
    assert seen.overlay(classes="blue") == seen.view("overlay", classes=["blue"])
    assert seen.rle() == raw("rle").json()
    assert seen.polygons(min_area=9, simplify=1.5) == raw("polygons", min_area=9, simplify=1.5).json()
    assert seen.geojson(classes="red") == raw("geojson", classes="red").json()
    assert unzipped(seen.zip().content) == unzipped(raw("zip").content)


def decoded(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png)))


def unzipped(content: bytes) -> dict[str, bytes]:
    with ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_kind_of_picture_is_taken(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "flag.png"
    path.write_bytes(PNG)
    pictures: list[PictureLike] = [
        str(path), path, PNG, bytearray(PNG), memoryview(PNG), BytesIO(PNG), FLAG, FLAG[:, ::-1][:, ::-1],
        Image.open(path), Image.fromarray(FLAG).convert("YCbCr"), Image.fromarray(FLAG).convert("RGBA"),
    ]  # fmt: skip
    for picture in pictures:
        np.testing.assert_array_equal(client.segment(picture).mask(), IDS)
    with path.open("rb") as file:
        np.testing.assert_array_equal(client.segment(file).mask(), IDS)


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        (b"", "empty"),
        (7, "int"),
        (FLAG.astype(np.float32), "float32"),
        (FLAG[..., 0], r"\(60, 90\)"),
        (FLAG[:0], r"\(0, 90, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused_before_it_is_sent(client: Client, picture: PictureLike, word: str) -> None:
    with pytest.raises(UnusablePicture, match=word):
        client.segment(picture)


def test_a_file_that_cannot_be_read_says_so(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        client.segment(tmp_path / "none.png")
    (tmp_path / "text").write_text("x")
    with (tmp_path / "text").open() as file, pytest.raises(UnusablePicture, match="rb"):
        client.segment(file)  # type: ignore[arg-type]


def test_a_file_is_turned_and_pixels_in_memory_are_not(client: Client, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(FLAG).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(client.segment(tmp_path / "turned.png").mask(), np.rot90(IDS, -1))
    np.testing.assert_array_equal(client.segment(Image.open(tmp_path / "turned.png")).mask(), IDS)


def assert_asked(server: Server, *requests: str) -> None:
    """The latest segmentations and views in the server's log, which may lag behind its answers, are these."""
    end = time.monotonic() + 2
    asked: list[str] = []
    while asked[-len(requests) :] != list(requests) and time.monotonic() < end:
        asked = re.findall(r"((?:POST|GET|DELETE) /(?:segment|results)\S*) \d", server.log.read_text())
    assert asked[-len(requests) :] == list(requests)


def test_a_stored_result_is_shown_without_sending_the_picture_again(server: Server, client: Client) -> None:
    seen = client.segment(PNG)
    seen.mask()
    seen.overlay()
    assert_asked(server, "POST /segment", f"GET /results/{seen.id}/mask", f"GET /results/{seen.id}/overlay")


def test_a_result_that_has_gone_is_segmented_again(server: Server, client: Client) -> None:
    seen = client.segment(PNG)
    assert httpx.delete(f"{server.url}/results/{seen.id}").status_code == 204
    np.testing.assert_array_equal(seen.mask(), IDS)
    assert_asked(server, f"DELETE /results/{seen.id}", f"GET /results/{seen.id}/mask", "POST /segment")


def test_where_nothing_is_stored_views_are_segmented_again(storeless: Server) -> None:
    with Client(storeless.url) as client:
        seen = client.segment(PNG)
        assert (seen.id, seen.stored) == (None, "off")
        np.testing.assert_array_equal(seen.mask(), IDS)
        seen.forget()
    assert_asked(storeless, "POST /segment", "POST /segment")


def test_a_forgotten_result_is_gone_and_may_be_forgotten_again(server: Server, client: Client) -> None:
    seen = client.segment(PNG)
    seen.forget()
    assert httpx.get(f"{server.url}/results/{seen.id}").status_code == 404
    seen.forget()


def test_a_refusal_tells_what_the_server_said(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        client.segment(b"no picture")
    error = refused.value
    assert (error.status, error.code) == (415, "picture-format-error")
    assert error.request_id is not None and len(error.request_id) == 32
    assert error.detail in str(error) and error.request_id in str(error)
    with pytest.raises(Refused) as refused:
        client.segment(np.zeros((400, 400, 3), np.uint8))
    assert (refused.value.status, refused.value.limit, refused.value.actual) == (413, 100_000, 160_000)
    with pytest.raises(Refused, match="rgb"):
        client.segment(PNG, model="none")


def test_nobody_there_is_said_with_the_way_out() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retries=1) as client, pytest.raises(Unreachable, match=rf"{url} .*segserve serve.*tried 2 times"):
        client.segment(PNG)
    with Client(url) as client:
        assert client.ready() is False


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_after_as_long_as_it_says(status: int) -> None:
    with scripted(busy(status, "1"), GOOD) as (url, asked), Client(url) as client:
        start = time.monotonic()
        assert client.models() == ()
        assert 1 <= time.monotonic() - start < 2
        assert len(asked) == 2


def test_a_wait_that_ends_after_the_timeout_is_not_begun() -> None:
    with scripted(busy(429, "60")) as (url, asked), Client(url, timeout=5) as client:
        start = time.monotonic()
        with pytest.raises(Refused, match="not now") as refused:
            client.models()
        assert time.monotonic() - start < 1
        assert (len(asked), refused.value.problem.retry_after) == (1, 60)


def test_patience_has_an_end() -> None:
    with scripted(busy(503)) as (url, asked), Client(url, retries=2) as client:
        with pytest.raises(Refused):
            client.models()
        assert len(asked) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 500, 502, 504])
def test_other_answers_are_final(status: int) -> None:
    with scripted(busy(status, "0"), GOOD) as (url, asked), Client(url) as client:
        with pytest.raises(Refused):
            client.models()
        assert len(asked) == 1


@pytest.mark.parametrize("status", [500, 502, 504])
def test_where_what_stands_before_the_service_answers_it_is_asked_again(status: int) -> None:
    gone = (status, {"Content-Type": "text/plain"}, b"The actor died unexpectedly before finishing this task.")
    with scripted(gone, GOOD) as (url, asked), Client(url) as client:
        assert client.models() == ()
        assert len(asked) == 2


def test_a_broken_connection_is_tried_again() -> None:
    with scripted(None, GOOD) as (url, asked), Client(url) as client:
        client.models()
        assert len(asked) == 2


def test_a_slow_server_is_given_up() -> None:
    with scripted(None) as (url, _), Client(url, timeout=0.3, retries=50) as client:
        start = time.monotonic()
        with pytest.raises(Unreachable, match="tried"):
            client.models()
        assert time.monotonic() - start < 2


def test_the_key_is_sent_and_not_shown() -> None:
    with scripted(GOOD) as (url, asked), Client(url, key="s3cret") as client:
        client.models()
        assert asked[0].headers["Authorization"] == "Bearer s3cret"
        assert "s3cret" not in repr(vars(client))


def test_somebody_else_behind_the_url_is_noticed() -> None:
    for body in (b"<html>", b"[]", b'{"id": 1}'):
        with scripted((200, {}, body)) as (url, _), Client(url) as client:
            with pytest.raises(Unreadable):
                client.segment(PNG)
            with pytest.raises(Unreadable):
                client.models()
    with scripted((404, {}, b"<html>nothing</html>")) as (url, _), Client(url) as client:
        with pytest.raises(Refused, match="<html>nothing") as refused:
            client.segment(PNG)
        assert refused.value.code is None
        with pytest.raises(Refused):
            client.ready()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://here",
        "http://",
        "http://:80",
        "http://here/?a=1",
        "http://here:80a0",
        "http://here:99999",
        "http://here:0",
    ],
)
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Client(url)


def test_values_without_meaning_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="timeout=0"):
        Client(timeout=0)
    with pytest.raises(ValueError, match="retries=-1"):
        Client(retries=-1)
    with pytest.raises(ValueError, match="key"):
        Client(key="a\nb")


def test_a_path_before_the_routes_is_kept() -> None:
    with scripted(GOOD) as (url, asked), Client(f"{url}/behind/proxy/") as client:
        client.models()
        assert asked[0].path == "/behind/proxy/models"


def test_models_are_records(client: Client) -> None:
    (record,) = client.models()
    assert (record.name, record.version, record.versions, record.default) == ("rgb", 1, (1,), True)
    assert record.classes[0] == segserve.ModelClass(0, "red", "#ff0000")
    assert (record.proved, record.license, record.miou) == (True, "Apache-2.0", None)
    assert client.ready() is True


def test_a_server_that_is_not_ready_is_not(tmp_path: Path) -> None:
    with scripted(busy(503, "5")) as (url, asked), Client(url) as client:
        assert client.ready() is False
        assert len(asked) == 1


def test_a_file_is_not_saved_under_the_name_of_another_kind(client: Client, tmp_path: Path) -> None:
    seen = client.segment(PNG)
    with pytest.raises(ValueError, match=r"image/png.*out\.png.*format='jpeg'"):
        seen.overlay().save(tmp_path / "out.jpg")
    seen.overlay(format="jpeg").save(tmp_path / "out.jpg")
    seen.zip().save(tmp_path / "masks")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.format == "JPEG"


def test_the_awaited_client_says_the_same(server: Server, client: Client) -> None:
    async def ask() -> None:
        async with AsyncClient(server.url) as asking:
            assert await asking.ready()
            assert await asking.models() == client.models()
            several = await asyncio.gather(*(asking.segment(picture) for picture in (PNG, FLAG, BytesIO(PNG))))
            for seen in several:
                np.testing.assert_array_equal(await seen.mask(), IDS)
            seen, same = several[0], client.segment(PNG)
            assert seen.classes == same.classes
            np.testing.assert_array_equal(await seen.confidence(), same.confidence())
            assert await seen.color() == same.color()
            assert await seen.overlay(alpha=1, classes=["red"]) == same.overlay(alpha=1, classes=["red"])
            assert await seen.view("overlay") == same.view("overlay")
            assert await seen.rle() == same.rle()
            assert await seen.polygons(min_area=3) == same.polygons(min_area=3)
            assert await seen.geojson() == same.geojson()
            assert unzipped((await seen.zip()).content) == unzipped(same.zip().content)
            await seen.forget()
            np.testing.assert_array_equal(await seen.mask(), IDS)
            with pytest.raises(Refused):
                await asking.segment(b"x")

    asyncio.run(ask())


def test_the_awaited_client_is_as_patient() -> None:
    async def ask(url: str) -> float:
        async with AsyncClient(url) as asking:
            start = time.monotonic()
            await asking.models()
            return time.monotonic() - start

    with scripted(busy(429, "1"), None, GOOD) as (url, asked):
        assert 1 <= asyncio.run(ask(url)) < 3
        assert len(asked) == 3


def test_both_clients_offer_the_same_calls() -> None:
    for one, other in ((Client, AsyncClient), (Segmentation, segserve.AsyncSegmentation)):
        own, theirs = ({name for name in vars(kind) if not name.startswith("_")} for kind in (one, other))
        assert own - theirs <= {"model_documents"} and theirs <= own


def test_the_public_names_are_there_and_cost_nothing_before_they_are_used() -> None:
    for name in segserve.__all__:
        assert getattr(segserve, name)
    errors = [getattr(segserve, name) for name in ("Refused", "Unreachable", "Unreadable", "UnusablePicture")]
    assert all(issubclass(error, SegserveClientError) for error in errors)
    with pytest.raises(AttributeError, match="nothing"):
        segserve.nothing  # type: ignore[attr-defined]  # noqa: B018
    program = "import sys, segserve, segserve.cli; print({'httpx', 'numpy', 'PIL', 'service'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def test_the_examples_of_the_documents_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)
    for block in blocks:
        program = block.replace("http://localhost:8000", server.url)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), block
    assert len(blocks) >= 4
