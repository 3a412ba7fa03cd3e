"""`/stream`: frames over a websocket, from real servers, with a client of another project and with bare sockets."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.keys import digest
from service.manifest import Color
from tests.bundles import BLUE, ENDLESS, GREEN, RED, Net, bands, encoded, write_bundle
from tests.load import wait_for
from tests.metrics import Metrics
from tests.pictures import noise
from tests.server import Server, running
from tests.views import of_png

ROOT = Path(__file__).parent.parent
PICTURE = encoded(bands(RED, GREEN, BLUE))
KEY, WRONG = "live-key-31d0", "wrong-key-77e2"
SLOW = Net(turns=300_000)
"""Takes a good part of a second."""


def hashed(key: str) -> str:
    return digest(key.encode())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    write_bundle(folder)
    write_bundle(folder, name="slow", nets=SLOW, golden=False)
    write_bundle(folder, name="endless", nets=Net(turns=ENDLESS), golden=False)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One core: a frame that is not let go of would be noticed."""
    settings = {
        "THREADS": "1",
        "DEFAULT_MODEL": "rgb",
        "MAX_PIXELS": "100000",
        "MAX_BYTES": "4MiB",
        "CORS_ORIGINS": "https://app.example",
    }
    with running(models, tmp_path_factory.mktemp("open") / "log", settings) as started:
        yield started


@pytest.fixture(scope="module")
def strict(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Keys, and tight limits."""
    settings = {
        "DEFAULT_MODEL": "rgb",
        "API_KEYS": hashed(KEY),
        "STREAMS": "2",
        "STREAM_IDLE": "2",
        "UPLOAD_TIMEOUT": "1",
        "MAX_BYTES": "1MiB",
        "MEMORY_BYTES": "1MiB",
    }
    with running(models, tmp_path_factory.mktemp("strict") / "log", settings) as started:
        yield started


def address(server: Server, query: str = "") -> str:
    return f"{server.url.replace('http', 'ws')}/stream{query}"


def stream(server: Server, query: str = "", **options: Any) -> ClientConnection:
    client: ClientConnection = connect(address(server, query), max_size=None, **options)
    return client


def keyed(server: Server, query: str = "") -> ClientConnection:
    return stream(server, query, additional_headers={"X-API-Key": KEY})


def said(client: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.recv(60))
    return found


def seen(client: ClientConnection, picture: bytes) -> bytes:
    """The body that answers a picture."""
    client.send(picture)
    assert "status" not in (words := said(client)), words
    body = client.recv(60)
    assert isinstance(body, bytes)
    return body


def post(server: Server, query: str, picture: bytes) -> httpx.Response:
    return httpx.post(
        f"{server.url}/segment{query}", content=picture, headers={"Content-Type": "image/png"}, timeout=60
    )


def is_working(server: Server) -> bool:
    return Metrics.of(server.url)("segserve_work_queued_seconds") > 0


def closed(client: ClientConnection) -> tuple[int, str]:
    """The code and the reason that the server ends a stream with; what it says before is let go."""
    ended = None
    while ended is None:
        try:
            client.recv(60)
        except ConnectionClosed as error:
            ended = error
    assert ended.rcvd is not None, ended
    return ended.rcvd.code, ended.rcvd.reason


def refused(server: Server, query: str = "", **options: Any) -> tuple[int, dict[str, Any]]:
    """The status and the problem that a handshake is answered with."""
    with pytest.raises(InvalidStatus) as error, stream(server, query, **options):
        pass
    response = error.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-ID"]
    return response.status_code, json.loads(bytes(response.body))


@contextmanager
def raw(server: Server, head: Mapping[str, str] | None = None, path: str = "/stream") -> Iterator[socket.socket]:
    """A bare connection that has asked for a websocket; `head` are other headers than a client has."""
    parts = urlsplit(server.url)
    headers = {
        "Host": parts.netloc,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        **(head or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value), "", ""]
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        yield connection


def status(connection: socket.socket) -> int:
    """That of the answer, whose head is read."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += (piece := connection.recv(1))
        assert piece, found
    return int(found.split()[1])


def everything(connection: socket.socket) -> bytes:
    """What comes until the connection ends."""
    found = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return found


def masked(data: bytes = b"", opcode: int = 2, fin: bool = True, length: int | None = None) -> bytes:
    """A client's frame, masked with zeros; `length`: what its head claims."""
    size = len(data) if length is None else length
    short = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8, "big")
    return bytes([0x80 * fin | opcode]) + short + bytes(4) + data


# Answers


@pytest.mark.parametrize("view", ["mask", "color", "overlay", "confidence", "zip"])
def test_a_frame_is_answered_with_what_segment_gives(server: Server, view: str) -> None:
    with stream(server, f"?output={view}") as client:
        for number, picture in enumerate((PICTURE, encoded(bands(BLUE, RED, height=40, width=60), "JPEG"))):
            client.send(picture)
            words, body = said(client), client.recv(60)
            answer = post(server, f"?output={view}", picture)
            assert body == answer.content
            height, width = (240, 320) if number == 0 else (40, 60)
            timing = words.pop("timing")
            assert words == {
                "frame": number,
                "dropped": 0,
                "width": width,
                "height": height,
                "view": view,
                "media_type": answer.headers["Content-Type"],
            }
            assert list(timing) == ["queue", "decode", "infer", "upsample", "encode", "total"]
            assert timing["total"] >= max(timing.values())


@pytest.mark.parametrize("view", ["json", "rle", "polygons", "geojson"])
def test_a_view_in_json_comes_with_the_words(server: Server, view: str) -> None:
    with stream(server, f"?output={view}") as client:
        client.send(PICTURE)
        answer = post(server, f"?output={view}&store=false", PICTURE)
        assert said(client)["body"] == answer.json()
        client.send(PICTURE)
        assert said(client)["frame"] == 1, "no binary message is between"


def test_a_stream_takes_the_options_of_its_view(server: Server) -> None:
    query = "?model=rgb&version=1&output=overlay&alpha=0.7&format=webp&classes=red&timeout=20"
    with stream(server, query) as client:
        assert seen(client, PICTURE) == post(server, query, PICTURE).content


def test_a_picture_may_come_in_fragments(server: Server) -> None:
    pieces = [PICTURE[start : start + 100] for start in range(0, len(PICTURE), 100)]
    with stream(server) as client:
        client.send(pieces)
        assert said(client)["frame"] == 0
        assert client.recv(60) == post(server, "?output=mask", PICTURE).content


def test_only_the_newest_frame_waits(server: Server) -> None:
    colors: list[Color] = [RED, GREEN, BLUE, RED, GREEN, BLUE]
    before = Metrics.of(server.url)
    with stream(server, "?model=slow") as client:
        for color in colors:
            client.send(encoded(bands(color)))  # all of one size: what such frames take is learned
        answered = 0
        while True:
            words, body = said(client), client.recv(60)
            assert isinstance(body, bytes)
            assert words["dropped"] == words["frame"] - answered
            answered += 1
            np.testing.assert_array_equal(of_png(body), colors.index(colors[words["frame"]]))
            if words["frame"] == len(colors) - 1:
                break
    assert words["dropped"] >= 3, "one was worked on meanwhile, or two"
    after = Metrics.of(server.url)
    for outcome, count in (("answered", answered), ("dropped", words["dropped"]), ("refused", 0)):
        counted = "segserve_frames_total"
        assert after(counted, outcome=outcome) - before(counted, outcome=outcome) == count
    assert after("segserve_pictures_total", model="slow") - before("segserve_pictures_total", model="slow") == answered


def test_streams_and_requests_take_turns(server: Server) -> None:
    with stream(server, "?model=slow") as client:
        for _ in range(3):
            client.send(PICTURE)
            answer = post(server, "?output=mask", PICTURE)
            assert answer.status_code == 200, answer.text
            said(client), client.recv(60)


# Frames that are refused


def test_a_frame_that_is_refused_answers_a_problem_and_the_stream_goes_on(server: Server) -> None:
    huge = encoded(np.zeros((400, 400, 3), np.uint8))
    messages: list[tuple[bytes | str, int, str]] = [
        (PICTURE[:-200], 422, "picture-corrupt"),
        (b"no picture", 415, "picture-format-error"),
        (huge, 413, "picture-too-large"),
        (b"", 400, "picture-missing"),
        ("text", 415, "body-type-error"),
        ("\0" * 100_000, 415, "body-type-error"),
    ]
    before = Metrics.of(server.url)
    with stream(server) as client:
        for number, (message, code, word) in enumerate(messages):
            client.send(message)
            problem = said(client)
            assert (problem["frame"], problem["status"], problem["code"]) == (2 * number, code, word)
            assert problem["title"] and problem["detail"]
            if word == "picture-too-large":
                assert (problem["limit"], problem["actual"]) == (100_000, 160_000)
            assert seen(client, PICTURE) == post(server, "?output=mask", PICTURE).content
    after = Metrics.of(server.url)
    for word in {word for _, _, word in messages}:
        count = sum(other == word for _, _, other in messages)
        assert after("segserve_errors_total", code=word) - before("segserve_errors_total", code=word) == count


def test_a_frame_that_misses_its_deadline_answers_so_and_frees_the_core(server: Server) -> None:
    with stream(server, "?model=endless&timeout=0.3") as client:
        for number in range(2):
            client.send(PICTURE)
            assert (said(client) | {"detail": ""}).items() >= {"frame": number, "status": 504}.items()
    with stream(server) as client:
        assert seen(client, PICTURE)


def test_a_frame_too_many_is_told_when_to_come_again(server: Server) -> None:
    with stream(server, "?model=endless&timeout=100") as busy, stream(server, "?timeout=0.02") as client:
        busy.send(PICTURE)
        wait_for(lambda: is_working(server), "the only core to be taken")
        client.send(PICTURE)
        problem = said(client)
        assert (problem["status"], problem["code"]) == (429, "overloaded")
        assert problem["retry_after"] >= 1


# Handshakes


def test_a_plain_request_is_told_what_this_is(server: Server) -> None:
    answer = httpx.get(f"{server.url}/stream")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade-required")
    assert answer.headers["Upgrade"] == "websocket"
    assert httpx.head(f"{server.url}/stream").status_code == 426
    assert httpx.get(f"{server.url}/stream?model=none").status_code == 404


@pytest.mark.parametrize(
    ("query", "code", "word"),
    [
        ("?model=none", 404, "unknown-model"),
        ("?version=7", 404, "unknown-model"),
        ("?output=picture", 422, "parameter-error"),
        ("?store=true", 422, "parameter-error"),
        ("?classes=none&output=rle", 422, "parameter-error"),
        ("?format=jpeg", 422, "parameter-error"),
        ("?timeout=0", 422, "parameter-error"),
        ("?alpha=1&alpha=0", 422, "parameter-error"),
        ("s", 404, "not-found"),
    ],
)
def test_what_no_frame_could_be_answered_with_refuses_the_stream(
    server: Server, query: str, code: int, word: str
) -> None:
    found, problem = refused(server, query)
    assert (found, problem["status"], problem["code"]) == (code, code, word)


def test_pages_of_other_origins_may_not_listen(server: Server) -> None:
    netloc = urlsplit(server.url).netloc
    for origin in ("https://evil.example", "null", f"http://{netloc}.evil.example", "http://127.0.0.1", "file://"):
        found, problem = refused(server, origin=origin)
        assert (found, problem["code"]) == (403, "forbidden")
    for origin in (f"http://{netloc}", f"https://{netloc}", "https://app.example"):
        with stream(server, origin=origin) as client:
            assert seen(client, PICTURE)


def test_without_a_right_key_there_is_no_stream(strict: Server) -> None:
    assert refused(strict)[0] == 401
    assert refused(strict, subprotocols=["segserve"])[0] == 401
    assert refused(strict, subprotocols=["segserve.bearer.*"])[0] == 401
    for headers in ({"Authorization": f"Bearer {WRONG}"}, {"X-API-Key": WRONG}):
        assert refused(strict, additional_headers=headers)[0] == 403
    assert refused(strict, subprotocols=["segserve", as_subprotocol(WRONG)])[0] == 403
    assert refused(strict, "?model=none", additional_headers={"X-API-Key": WRONG})[0] == 403


def as_subprotocol(key: str) -> Any:
    return f"segserve.bearer.{base64.urlsafe_b64encode(key.encode()).decode().rstrip('=')}"


def test_a_key_comes_as_a_header_or_as_a_subprotocol(strict: Server) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        with stream(strict, additional_headers=headers) as client:
            assert seen(client, PICTURE)
            assert client.subprotocol is None
    with stream(strict, subprotocols=["segserve", as_subprotocol(KEY)]) as client:
        assert seen(client, PICTURE)
        assert client.subprotocol == "segserve"
    assert KEY not in strict.log.read_text()


def test_messages_are_not_compressed(server: Server) -> None:
    with stream(server, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ({"Sec-WebSocket-Key": ""}, 426),
        ({"Sec-WebSocket-Key": "short"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Cookie": "x" * 9000}, 431),
        ({"Host": ""}, 400),
    ],
    ids=["no key", "short key", "old version", "another protocol", "no upgrade", "long line", "no host"],
)
def test_a_broken_handshake_is_an_answer_of_http(server: Server, head: dict[str, str], code: int) -> None:
    with raw(server, head) as connection:
        assert status(connection) == code


def test_who_sends_before_the_handshake_is_answered_is_refused(server: Server) -> None:
    with raw(server, {"X-Rest": "1\r\n\r\n\x82\x80"}) as connection:
        assert status(connection) == 400


# Limits


def test_a_message_beyond_the_limit_ends_the_stream_before_it_is_read(server: Server) -> None:
    with stream(server) as client:
        with suppress(ConnectionClosed):
            client.send(bytes(5 * 2**20))
        assert closed(client)[0] == 1009
    with raw(server) as connection:
        assert status(connection) == 101
        connection.sendall(masked(length=2**40))
        assert b"\x03\xf1" in everything(connection), "1009"


def test_fragments_count_together(server: Server) -> None:
    with stream(server) as client:
        with suppress(ConnectionClosed):
            client.send([bytes(2**20)] * 5)
        assert closed(client)[0] == 1009


def test_a_stream_that_sends_nothing_is_ended(strict: Server) -> None:
    with keyed(strict) as client:
        assert seen(client, PICTURE)
        assert closed(client) == (1001, "no frame for 2 s")


def test_a_stream_that_waits_for_its_answer_is_not_idle(strict: Server) -> None:
    with keyed(strict, "?model=endless&timeout=3") as client:
        client.send(PICTURE)
        assert said(client)["status"] == 504


def test_a_message_must_arrive_in_time(strict: Server) -> None:
    with raw(strict, {"X-API-Key": KEY}) as connection:
        assert status(connection) == 101
        connection.sendall(masked(PICTURE[:100], length=len(PICTURE)))
        assert b"the message did not arrive within 1 s" in everything(connection)


def test_messages_that_are_not_there_yet_take_room_in_memory(strict: Server) -> None:
    half = masked(bytes(700_000), length=2**20)
    wait_for(lambda: open_streams(strict) == 0, "the streams before to be over")
    with raw(strict, {"X-API-Key": KEY}) as first, raw(strict, {"X-API-Key": KEY}) as second:
        for connection in (first, second):
            assert status(connection) == 101
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(half)
        reasons = everything(first), everything(second)
    assert sum(b"too many bytes of pictures are in memory" in reason for reason in reasons) == 1
    with keyed(strict) as client:
        assert seen(client, PICTURE), "the room is free again"


def test_there_are_only_so_many_streams(strict: Server) -> None:
    wait_for(lambda: open_streams(strict) == 0, "the streams before to be over")
    with keyed(strict), keyed(strict):
        found, problem = refused(strict, additional_headers={"X-API-Key": KEY})
        assert (found, problem["code"]) == (429, "overloaded")
        assert "the limit is 2" in problem["detail"]
    wait_for(lambda: open_streams(strict) == 0, "their places to be free")
    with keyed(strict) as client:
        assert seen(client, PICTURE)


def open_streams(server: Server) -> float:
    answer = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": KEY}, timeout=30)
    return Metrics.read(answer.text)("segserve_streams")


def test_a_client_that_vanishes_takes_its_frame_and_its_place_with_it(server: Server) -> None:
    with stream(server, "?model=endless&timeout=100") as client:
        client.send(PICTURE)
        wait_for(lambda: is_working(server), "its frame to be worked on")
        client.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: open_streams(server) == 0, "the place to be free")
    assert post(server, "?output=mask&timeout=10", PICTURE).status_code == 200, "the only core is free"


def test_who_does_not_read_keeps_nobody_waiting(server: Server) -> None:
    frame = masked(encoded(noise(300, 300)), length=None)
    (worker,) = server.workers
    before = psutil.Process(worker).memory_info().rss
    with raw(server, path="/stream?output=overlay&format=png") as connection:
        assert status(connection) == 101
        for _ in range(300):
            connection.sendall(frame)
        connection.sendall(masked(bytes(100), opcode=9) * 100_000)
        assert post(server, "?output=mask", PICTURE).status_code == 200
        assert psutil.Process(worker).memory_info().rss - before < 64 * 2**20
    wait_for(lambda: open_streams(server) == 0, "the place to be free")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (masked() * 100_000, b"more than 500 websocket frames"),
        (masked(b"x", fin=False) + masked(b"x", opcode=0, fin=False) * 100_000, b"more than 500 websocket frames"),
        (masked(opcode=9) * 100_000, b"more than 500 websocket frames"),
        (b"\x82\x01x", b"\x03\xea"),
        (masked(b"x", opcode=3), b"\x03\xea"),
        (masked(b"x", opcode=0), b"\x03\xea"),
        (masked(b"\xff\xff", opcode=1), b"\x03\xef"),
        (b"\xc2\x80\0\0\0\0", b"\x03\xea"),
    ],
    ids=["empty", "fragments", "pings", "unmasked", "opcode", "continuation", "no utf-8", "packed"],
)
def test_hostile_frames_end_their_own_stream_only(server: Server, data: bytes, reason: bytes) -> None:
    with raw(server) as connection, stream(server) as other:
        assert status(connection) == 101
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        assert reason in everything(connection)
        assert seen(other, PICTURE)


def test_nothing_of_it_was_a_fault_of_the_servers(server: Server, strict: Server) -> None:
    for log in (server.log.read_text(), strict.log.read_text()):
        assert "Traceback" not in log
        assert " ERROR " not in log


# The end of the server


def test_a_server_that_ends_answers_the_frame_in_hand_and_says_so(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"THREADS": "1", "DEFAULT_MODEL": "slow"}) as server:
        with stream(server) as client, stream(server) as idle:
            client.send(PICTURE)
            wait_for(lambda: is_working(server), "the frame to be worked on")
            os.kill(server.pid, signal.SIGTERM)
            wait_for(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503, "draining")
            found, problem = refused(server)
            assert (found, problem["code"]) == (503, "draining")
            assert closed(idle)[0] == 1012
            assert said(client)["frame"] == 0
            assert client.recv(60)
            assert closed(client) == (1012, "the server is about to end: connect again")
        process = psutil.Process(server.pid)
        process.wait(30)
    assert "ERROR" not in (tmp_path / "log").read_text()


# The documents


def test_the_example_of_the_document_runs(server: Server, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "stream.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    for number in range(3):
        (tmp_path / f"frame-{number}.jpg").write_bytes(encoded(bands(RED, GREEN), "JPEG"))
    script = tmp_path / "example.py"
    script.write_text(example[1].replace("ws://localhost:8000", server.url.replace("http", "ws")))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.png")), done.stdout
