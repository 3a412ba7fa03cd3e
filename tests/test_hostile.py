"""What the service says to input that it cannot use: the documented status, a problem body, and it goes on."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.bundles import write_bundle
from tests.pictures import png
from tests.server import Server, running

LIMIT = 32 * 2**20

MEMORY_SLACK = 64 * 2**20
"""How much the server may have grown after all of it: less than one of the hostile pictures would need."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    write_bundle(folder / "models")
    with running(folder / "models", folder / "log", {"UPLOAD_TIMEOUT": "2"}) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as opened:
        yield opened


def photo(wanted: str = "JPEG") -> bytes:
    file = BytesIO()
    Image.effect_noise((320, 240), 60).convert("RGB").save(file, wanted)
    return file.getvalue()


def huge_png(side: int = 30_000) -> bytes:
    """A valid PNG header of side x side pixels, with hardly any data behind it."""
    return png(side, side, 8, 2, bytes(side * 3 + 1))


GIF_BOMB = b"".join(
    [
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6),  # the screen, two colours
        b"!\xf9\x04" + bytes(5),  # graphic control
        b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0),  # the first frame, as large as the screen
        b"\x02\x03\x44\x01\x05\x00;",  # three bytes of pixels
    ]
)


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    body: dict[str, Any] = answer.json()
    assert (body["status"], bool(body["title"]), bool(body["detail"])) == (status, True, True)
    return body


@pytest.fixture(autouse=True)
def still_serving(client: httpx.Client) -> Iterator[None]:
    yield
    assert client.post("/segment", files={"image": photo()}).status_code == 200


def test_nothing_is_400(client: httpx.Client) -> None:
    assert "curl" in assert_problem(client.post("/segment"), 400)["detail"]
    assert_problem(client.post("/segment", content=b"", headers={"Content-Type": "image/png"}), 400)
    assert_problem(client.post("/segment", files={"image": b""}), 400)


def test_text_is_415(client: httpx.Client) -> None:
    assert "curl" in assert_problem(client.post("/segment", content=b"hello"), 415)["detail"]
    for content_type in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
        answer = client.post("/segment", content=b"hello", headers={"Content-Type": content_type})
        assert "curl" in assert_problem(answer, 415)["detail"]
    assert "PNG, JPEG" in assert_problem(client.post("/segment", files={"image": b"hello"}), 415)["detail"]


@pytest.mark.parametrize("wanted", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_picture_is_422(client: httpx.Client, wanted: str) -> None:
    whole = photo(wanted)
    for share in (0.9, 0.3):
        assert_problem(client.post("/segment", files={"image": whole[: int(len(whole) * share)]}), 422)


def test_a_bomb_of_44_bytes_is_413_with_limit_and_actual(client: httpx.Client) -> None:
    assert len(GIF_BOMB) == 44
    body = assert_problem(client.post("/segment", files={"image": GIF_BOMB}), 413)
    assert (body["limit"], body["actual"]) == (50_000_000, 65535 * 65535)


def test_a_png_of_30000_by_30000_pixels_is_413(client: httpx.Client) -> None:
    body = assert_problem(client.post("/segment", files={"image": huge_png()}), 413)
    assert (body["limit"], body["actual"]) == (50_000_000, 900_000_000)


def test_a_declared_body_of_100_mb_is_413(client: httpx.Client) -> None:
    answer = client.post("/segment", content=bytes(100 * 10**6), headers={"Content-Type": "image/png"})
    body = assert_problem(answer, 413)
    assert (body["limit"], body["actual"]) == (LIMIT, 100 * 10**6)


def test_a_declared_body_is_refused_before_it_is_sent(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000000\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_of_100_mb_is_413(client: httpx.Client) -> None:
    chunks = (bytes(10**6) for _ in range(100))
    answer = client.post("/segment", content=chunks, headers={"Content-Type": "application/octet-stream"})
    assert assert_problem(answer, 413)["limit"] == LIMIT


def test_a_multipart_body_of_100_mb_is_413(client: httpx.Client) -> None:
    assert assert_problem(client.post("/segment", files={"image": bytes(100 * 10**6)}), 413)["limit"] == LIMIT
    barely = client.post("/segment", files={"image": bytes(LIMIT + 1)})
    assert assert_problem(barely, 413)["actual"] == LIMIT + 1


def test_a_slow_upload_is_408(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head + b"\x89PNG")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_an_unknown_model_or_version_is_404_and_names_those_there_are(client: httpx.Client) -> None:
    body = assert_problem(client.post("/segment?model=nothing", files={"image": photo()}), 404)
    assert "'nothing'" in body["detail"]
    assert "rgb" in body["detail"]
    assert_problem(client.post("/segment?model=rgb&version=9", files={"image": photo()}), 404)
    assert_problem(client.post("/segment?model=../../etc", files={"image": photo()}), 404)
    assert_problem(client.get("/models/nothing"), 404)


@pytest.mark.parametrize(
    "query",
    [
        "alpha=7",
        "alpha=-0.1",
        "alpha=nan",
        "alpha=half",
        "output=video",
        "format=gif",
        "version=0",
        "version=one",
        "timeout=0",
        "timeout=inf",
        "store=perhaps",
        "classes=purple",
        "outptu=mask",
        "classes=",
        "output=mask&classes=red",
        "output=color&classes=red",
        "output=mask&format=jpeg",
        "output=color&format=webp",
    ],
)
def test_a_wrong_parameter_is_422(client: httpx.Client, query: str) -> None:
    parameter = query.rsplit("&", maxsplit=1)[-1].split("=", maxsplit=1)[0]
    assert parameter in assert_problem(client.post(f"/segment?{query}", files={"image": photo()}), 422)["detail"]


def test_an_accept_that_nothing_meets_is_406(client: httpx.Client) -> None:
    answer = client.post("/segment", files={"image": photo()}, headers={"Accept": "application/pdf"})
    assert "image/png" in assert_problem(answer, 406)["detail"]


def test_an_unknown_route_is_404_and_a_wrong_method_405(client: httpx.Client) -> None:
    assert_problem(client.get("/nothing"), 404)
    answer = client.get("/segment")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_multipart_mistakes_are_400_and_say_what_is_wrong(client: httpx.Client) -> None:
    two = [("image", ("a.jpg", photo())), ("image", ("b.jpg", photo()))]
    assert "2 parts" in assert_problem(client.post("/segment", files=two), 400)["detail"]
    other = assert_problem(client.post("/segment", files={"picture": photo()}), 400)
    assert "its parts: picture" in other["detail"]
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    text = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nphoto.jpg\r\n--b--\r\n'
    assert "@" in assert_problem(client.post("/segment", content=text, headers=form), 400)["detail"]
    cut = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nhalf a'
    for body in (cut, b"--c\r\n\r\n--c--", b"no parts at all", b""):
        assert_problem(client.post("/segment", content=body, headers=form), 400)
    nameless = {"Content-Type": "multipart/form-data"}
    assert "boundary" in assert_problem(client.post("/segment", content=text, headers=nameless), 400)["detail"]
    many = {f"field{index}": b"x" for index in range(100)} | {"image": photo()}
    assert_problem(client.post("/segment", files=many), 400)


def test_a_trailing_slash_is_another_route(client: httpx.Client) -> None:
    assert_problem(client.post("/segment/", files={"image": photo()}, headers={"Host": "elsewhere.example"}), 404)


def test_health_answers_while_a_hostile_multipart_body_is_read(client: httpx.Client) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=a"}
    with ThreadPoolExecutor(1) as other:
        hostile = other.submit(client.post, "/segment", content=b"\r\n--a\r" * 400_000, headers=form)
        while not hostile.done():
            assert client.get("/health/live").status_code == 200
        assert_problem(hostile.result(), 400)


def test_a_side_beyond_the_formats_limit_is_422(client: httpx.Client) -> None:
    file = BytesIO()
    Image.new("RGB", (17_000, 2)).save(file, "PNG")
    answer = client.post("/segment?output=overlay&format=webp", files={"image": file.getvalue()})
    assert "16383" in assert_problem(answer, 422)["detail"]


def test_memory_stays_flat_under_all_of_it(server: Server, client: httpx.Client) -> None:
    def assault() -> None:
        for data in (GIF_BOMB, huge_png(), photo()[:2000], b"text"):
            assert client.post("/segment", files={"image": data}).status_code in {413, 415, 422}
        chunks = (bytes(10**6) for _ in range(100))
        image = {"Content-Type": "image/png"}
        assert client.post("/segment", content=chunks, headers=image).status_code == 413
        assert client.post("/segment", content=bytes(100 * 10**6), headers=image).status_code == 413
        assert client.post("/segment", files={"image": photo()}).status_code == 200

    assault()
    before = server.memory_bytes()
    for _ in range(5):
        assault()
    assert server.memory_bytes() - before < MEMORY_SLACK


def test_no_request_above_was_a_fault_of_the_server(server: Server) -> None:
    log = server.log.read_text()
    assert "Traceback" not in log
    assert json.dumps("ERROR").strip('"') not in log
