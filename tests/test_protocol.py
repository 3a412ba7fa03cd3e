"""What a connection may do before it is a request: broken, ambiguous, endless and silent ones end, and say why."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from service import protocol
from service.settings import Settings
from tests.bundles import RED, bands, encoded, write_bundle
from tests.pictures import noise
from tests.server import Server, running

CONNECTIONS = 20

PICTURE = encoded(bands(RED, height=24, width=32))

HOST = b"Host: x\r\n"

POST = b"POST /segment?output=mask HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\n"

LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol") / "models"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    settings = {"HEADER_TIMEOUT": "2", "CONNECTIONS": str(CONNECTIONS)}
    with running(models, models.parent / "log", settings) as started:
        yield started


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.settimeout(20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # what is not read waits on the server's side
    connection.connect((host, int(port)))
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    parts = []
    while part := connection.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def ask(server: Server, request: bytes) -> bytes:
    """All that is answered to a request after which the connection ends."""
    with connected(server.url) as connection:
        connection.sendall(request)
        return read_all(connection)


def assert_refused(answer: bytes, status: int, code: str) -> None:
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    lines = head.lower()
    assert b"content-type: application/problem+json" in lines
    assert b"connection: close" in lines
    assert re.search(rb"x-request-id: [0-9a-f]{32}", lines)
    assert (problem := json.loads(body))["code"] == code
    assert problem["status"] == status and problem["detail"]


AMBIGUOUS = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nabcde",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nabcde",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nabcde",
    "a length beyond numbers": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "no length": POST + b"Content-Length: \r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a coding that ends with another": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunks in HTTP 1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nabcde",
    "a folded header": POST + b"X-A: b\r\n c\r\n\r\n",
    "a folded length": POST + b"Content-Length:\r\n 5\r\n\r\nabcde",
    "bare line feeds": b"GET /health/live HTTP/1.1\nHost: x\n\n",
    "a bare line feed": b"GET /health/live HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "a bare carriage return": b"GET /health/live HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "NUL in a name": b"GET /health/live HTTP/1.1\r\nHo\0st: x\r\n\r\n",
    "NUL in a value": b"GET /health/live HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "NUL in the target": b"GET /health\0/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target beyond ASCII": b"GET /health\xff/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a space": b"GET /health /live HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a path": b"GET http://elsewhere HTTP/1.1\r\nHost: x\r\n\r\n",
    "a proxy's request": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP 0.9": b"GET /health/live\r\n\r\n",
    "HTTP 2.0": b"GET /health/live HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another method": b"BREW /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "no number of bytes": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "too large a number of bytes": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\nabc\r\n",
    "a length after the body": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 7\r\n\r\n",
}
"""Requests that two readers could understand differently, or that none can."""


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_is_not_understood_in_one_way_is_400_and_ends_the_connection(server: Server, what: str) -> None:
    smuggled = b"DELETE /results/0 HTTP/1.1\r\nHost: x\r\n\r\n"
    assert_refused(ask(server, AMBIGUOUS[what] + smuggled), 400, "malformed-request")


def test_a_refusal_under_v2_has_the_form_of_its_clients(server: Server) -> None:
    answer = ask(server, b"GET /v2/health/live HTTP/1.1\r\n\r\n")
    assert list(json.loads(answer.split(b"\r\n\r\n")[1])) == ["error"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://elsewhere/health/live HTTP/1.1\r\nHost: x\r\n",
        b"GET /health/live HTTP/1.0\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        b"\r\n\r\nGET /health/live HTTP/1.1\r\nHost: [\r\n",
    ],
    ids=["another server's name", "HTTP 1.0", "an offer of HTTP/2", "a host that is none"],
)
def test_what_is_unusual_but_clear_is_answered(server: Server, head: bytes) -> None:
    answer = ask(server, head + b"Connection: close\r\n\r\n" if b"Upgrade" not in head else head + b"\r\n" + b"X" * 9)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"status":"live"}')


def test_a_body_sent_with_an_offer_of_another_protocol_is_read(server: Server) -> None:
    # As Java's client sends it unless it is told to speak HTTP/1.1 alone.
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    head = POST + offer + b"Content-Length: %d\r\n\r\n" % len(PICTURE)
    with connected(server.url) as connection:
        connection.sendall(head + PICTURE[:50])
        time.sleep(0.1)
        connection.sendall(PICTURE[50:] + LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"content-type: image/png" in answer
    assert answer.endswith(b'{"status":"live"}')


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PUT", "PATCH"])
def test_a_method_that_no_route_has_is_405_with_those_it_has(server: Server, method: str) -> None:
    answer = httpx.request(method, f"{server.url}/results/some")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, DELETE")


@pytest.mark.parametrize(
    "lines",
    [b"X: " + b"y" * 70_000 + b"\r\n\r\n", b"X: " + b"y" * 400_000, b"X: y\r\n" * 101 + b"\r\n", b"a" * 400_000],
    ids=["long", "endless", "many", "endless name"],
)
def test_a_head_that_is_too_large_is_431(server: Server, lines: bytes) -> None:
    assert_refused(ask(server, b"GET /health/live HTTP/1.1\r\n" + HOST + lines), 431, "head-too-large")


def test_a_target_that_is_too_long_is_431(server: Server) -> None:
    assert_refused(ask(server, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"), 431, "head-too-large")


def test_a_head_of_the_usual_size_is_read(server: Server) -> None:
    headers = {f"x-{index}": "y" * 600 for index in range(90)}
    assert httpx.get(f"{server.url}/health/live", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "endless",
    [b"0\r\nX: " + b"y" * 400_000, b"1;" + b"x" * 400_000, b"0\r\n" + b"X: y\r\n" * 100_000],
    ids=["a header after the body", "an extension of a chunk", "headers after the body"],
)
def test_a_body_whose_frame_does_not_end_is_refused(server: Server, endless: bytes) -> None:
    answer = ask(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + endless)
    assert_refused(answer, 431, "head-too-large")


def test_a_head_that_is_not_complete_in_time_is_408(server: Server) -> None:
    with connected(server.url) as connection:
        for byte in b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: a":
            connection.send(bytes([byte]))
            time.sleep(0.02)
        assert_refused(read_all(connection), 408, "slow-head")


@pytest.mark.parametrize("before", [b"", b"\r\n", LIVE + b"\r\n"], ids=["fresh", "empty lines", "used before"])
def test_a_connection_that_asks_nothing_is_ended(server: Server, before: bytes) -> None:
    with connected(server.url) as connection:
        connection.sendall(before)
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200 ") == before.count(b"GET")


def test_requests_in_a_row_are_answered_in_their_order(server: Server) -> None:
    last = LIVE.replace(b"/health/live", b"/nowhere").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = ask(server, LIVE * 3 + last)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"200", b"200", b"404"]


def test_what_comes_after_a_whole_request_does_not_take_its_answer_away(server: Server) -> None:
    answer = ask(server, LIVE + b"nonsense\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200"]


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"], ids=["keeps the connection", "asks once"])
def test_who_sends_on_though_refused_still_reads_why(server: Server, last: bytes) -> None:
    body = bytes(5_000_000)
    head = POST.replace(b"/segment", b"/nowhere") + last + b"Content-Length: %d\r\n\r\n" % len(body)
    with connected(server.url) as connection:
        connection.sendall(head)
        time.sleep(0.2)
        connection.sendall(body)
        answer = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"404"]
    assert answer.endswith(b"}")


def test_thousands_of_requests_in_a_row_are_not_stored(server: Server) -> None:
    with connected(server.url) as connection:
        connection.sendall(LIVE * 4_000)
        try:
            answer = read_all(connection)
        except ConnectionResetError:
            answer = b""
    assert answer.count(b"HTTP/1.1 200 ") < 4_000


def test_idle_connections_give_way_to_new_ones(server: Server) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(server.url)) for _ in range(CONNECTIONS + 5)]
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        assert idle[0].recv(1) == b"", "the oldest has been ended"


def test_a_connection_too_many_is_503_where_all_are_busy(server: Server) -> None:
    busy = POST + b"Content-Length: 100\r\n\r\nabc"
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(connected(server.url))
            connection.sendall(busy)
        time.sleep(0.5)
        assert_refused(ask(server, b""), 503, "too-many-connections")
    assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_a_name_in_the_path_cannot_write_lines_into_the_log(server: Server) -> None:
    assert httpx.get(f"{server.url}/models/a%0d%0a2026-01-01%20ERROR%20forged").status_code == 404
    assert httpx.get(f"{server.url}/%00%ff%e2%80%ae").status_code == 404
    assert not re.search(r"^2026-01-01 ERROR", server.log.read_text(), re.MULTILINE)


def test_none_of_it_was_a_fault_of_the_server(server: Server) -> None:
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log.replace("ERROR forged", "")
    assert httpx.post(f"{server.url}/segment", files={"image": PICTURE}).status_code == 200


async def _large_answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """An application that answers at once, with much, whatever it is sent."""
    size = b"%d" % 2**25
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", size)]})
    await send({"type": "http.response.body", "body": bytes(2**25)})


@contextmanager
def serving() -> Iterator[str]:
    """The protocol alone, in a thread of this process; its address."""
    config = uvicorn.Config(
        _large_answer, port=0, http=protocol.protocol(Settings()), lifespan="off", log_config=None, access_log=False
    )
    listener = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "a connection kept the server from ending"


def test_who_does_not_read_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SEND_SECONDS", 1)
    with serving() as url, connected(url) as connection:
        connection.sendall(LIVE)
        time.sleep(2.5)
        assert len(read_all(connection)) < 2**25


def test_who_reads_slowly_gets_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SEND_SECONDS", 1)
    with serving() as url, connected(url) as connection:
        connection.sendall(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = 0
        while part := connection.recv(2**20):
            received += len(part)
            time.sleep(0.005)
        assert received > 2**25


def test_who_goes_on_sending_after_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LATE_SECONDS", 1)
    with serving() as url, connected(url) as connection:
        connection.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        received = 0
        while received < 2**25:
            received += len(connection.recv(2**20))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _send_on(connection)


def _send_on(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(bytes(100))
        time.sleep(0.05)


def test_a_server_ends_though_somebody_does_not_read_his_answer(models: Path, tmp_path: Path) -> None:
    picture = encoded(noise(1_000, 2_000))
    head = POST.replace(b"output=mask", b"output=overlay") + b"Content-Length: %d\r\n\r\n" % len(picture)
    with ExitStack() as stack:
        with running(models, tmp_path / "log", {"DRAIN_SECONDS": "2"}) as server:
            connection = stack.enter_context(connected(server.url))
            connection.sendall(head + picture)
            assert connection.recv(20).startswith(b"HTTP/1.1 200 ")
        # It has ended, with the connection still open and most of the answer unread.
        assert len(read_all(connection)) < len(picture)
