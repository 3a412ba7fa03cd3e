"""Deadlines and overload, from a real server whose nets take their time."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import BytesIO
from threading import Event

import httpx
import pytest
from PIL import Image

from service.cost import Cost
from service.errors import DeadlineExceeded, Overloaded
from service.gate import Deadline, Gate
from service.turn import Turn
from tests.bundles import ENDLESS, Net, write_bundle
from tests.server import Server, running

SLOW = Net(turns=300_000)
"""Takes a good part of a second."""


NOTHING = Cost(0, "nothing, as far as is known")


def photo() -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 24), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gate")
    write_bundle(folder / "models", name="slow", nets=SLOW, golden=False)
    write_bundle(folder / "models", name="endless", nets=replace(SLOW, turns=ENDLESS), golden=False)
    with running(folder / "models", folder / "log", {"THREADS": "1", "MEMORY_BYTES": "1MiB"}) as started:
        yield started


def ask(server: Server, model: str, timeout: float, client: httpx.Client | None = None) -> httpx.Response:
    parameters: dict[str, str | float] = {"model": model, "timeout": timeout}
    post = client.post if client else httpx.post
    return post(f"{server.url}/segment", params=parameters, files={"image": photo()}, timeout=60)


def answer_to_a_head(server: Server, target: str) -> bytes:
    """What comes back while the body has not been sent."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        return connection.recv(4096)


def test_a_net_that_misses_the_deadline_is_stopped_and_frees_its_thread(server: Server) -> None:
    answer = ask(server, "endless", timeout=0.5)
    assert answer.status_code == 504
    assert answer.json()["code"] == "deadline-exceeded"
    assert ask(server, "slow", timeout=30).status_code == 200


def test_waiting_work_ends_at_its_deadline(server: Server) -> None:
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(ask, server, "endless", 8)
        time.sleep(0.5)  # the only thread is taken
        second = clients.submit(ask, server, "endless", 0.5).result()
        assert second.status_code in {429, 504}
        assert not first.done()
        assert first.result().status_code == 504


def test_overload_is_429_with_retry_after_and_health_still_answers(server: Server) -> None:
    assert ask(server, "slow", timeout=30).status_code == 200  # now the server knows how long it takes
    # One client for all: to make one takes so long that a fast server would be done with some before others ask.
    with httpx.Client() as client, ThreadPoolExecutor(48) as clients:
        answers = [clients.submit(ask, server, "slow", 2, client) for _ in range(48)]
        refused = next(done.result() for done in as_completed(answers) if done.result().status_code == 429)
        assert b" 429 " in answer_to_a_head(server, "/segment?model=slow&timeout=0.2")
        assert httpx.get(f"{server.url}/health/ready", timeout=5).status_code == 200
        codes = [answer.result().status_code for answer in answers]
    assert set(codes) <= {200, 429, 504}
    assert 200 in codes
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert ask(server, "slow", timeout=30).status_code == 200


def test_a_timeout_above_the_limit_is_lowered(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("limit")
    write_bundle(folder / "models", name="endless", nets=replace(SLOW, turns=ENDLESS), golden=False)
    with running(folder / "models", folder / "log", {"MAX_TIMEOUT": "1"}) as started:
        answer = ask(started, "endless", timeout=60)
        assert answer.status_code == 504
        assert "within 1 s" in answer.json()["detail"]


def test_a_client_that_goes_away_frees_its_thread(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/segment?model=endless&timeout=100",
            files={"image": photo()},
            timeout=httpx.Timeout(10, read=0.5),
        )
    assert ask(server, "slow", timeout=30).status_code == 200


HEAD = b"POST /segment?model=slow HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 30000000\r\n\r\n"


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def wait_until_read(server: Server) -> None:
    """Until the server has read what was sent before."""
    for _ in range(20):
        assert httpx.get(f"{server.url}/health/live", timeout=30).status_code == 200


def test_bodies_that_are_announced_and_do_not_come_keep_nobody_out(server: Server) -> None:
    with ExitStack() as slow_ones:
        for _ in range(20):
            slow_ones.enter_context(connection := connect(server))
            connection.sendall(HEAD + bytes(100))
        wait_until_read(server)
        assert ask(server, "slow", timeout=30).status_code == 200


def test_bodies_beyond_the_memory_for_them_are_429(server: Server) -> None:
    with connect(server) as first, connect(server) as second:
        first.sendall(HEAD + bytes(900_000))
        wait_until_read(server)
        second.sendall(HEAD + bytes(900_000))
        assert second.recv(1000).startswith(b"HTTP/1.1 429 ")


async def settled(gate: Gate) -> None:
    """Until the gate's only thread has nothing to do."""
    await gate.run(lambda _: None, Deadline.after(60), NOTHING)
    await asyncio.sleep(0.05)


async def occupied(gate: Gate, release: Event, cost: Cost = NOTHING) -> asyncio.Task[bool]:
    """A task that holds one of the gate's threads until it is released."""
    task = asyncio.create_task(gate.run(lambda _: release.wait(30), Deadline.after(60), cost))
    await asyncio.sleep(0.1)
    return task


def test_work_that_nobody_waits_for_lets_go_of_its_picture_at_once() -> None:
    async def scenario() -> None:
        gate, release = Gate(cores=1), Event()
        task = await occupied(gate, release)

        class Work:
            def __call__(self, turn: Turn) -> None:
                raise AssertionError("nobody waits for this")

        work = Work()
        alive = weakref.ref(work)
        with suppress(DeadlineExceeded):
            await gate.run(work, Deadline.after(0.05), Cost(1, "work"))
        del work
        gc.collect()
        assert alive() is None
        release.set()
        assert await task
        gate.close()

    asyncio.run(scenario())


def test_what_work_really_takes_is_learned_by_kind() -> None:
    def stubborn(turn: Turn) -> None:
        while not turn.stop.is_set:
            time.sleep(0.01)
        turn.stop.check()

    async def scenario() -> None:
        gate = Gate(cores=1)
        little = Cost(1, "stubborn")  # it will be far more
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                await gate.run(stubborn, Deadline.after(0.3), little)
            await settled(gate)
        release = Event()
        task = await occupied(gate, release)
        with pytest.raises(Overloaded) as refused:
            await gate.run(stubborn, Deadline.after(0.1), little)
        assert refused.value.retry_after >= 1
        release.set()
        await task
        gate.close()

    asyncio.run(scenario())


def test_work_that_could_not_be_done_in_time_is_refused_and_tells_when_it_could() -> None:
    async def scenario() -> None:
        gate, release = Gate(cores=1), Event()
        task = await occupied(gate, release, Cost(60_000, "a minute"))
        gate.check(Deadline.after(80), Cost(500, "half a second"))
        with pytest.raises(Overloaded) as refused:
            gate.check(Deadline.after(50), Cost(500, "half a second"))
        # A minute is in the house, and four fifths of 50 s are what may be hoped for.
        assert refused.value.retry_after in {20, 21}
        release.set()
        await task
        gate.check(Deadline.after(0.1), Cost(1e6, "a quarter of an hour"))  # an idle core tries whatever comes
        gate.close()

    asyncio.run(scenario())


def test_bodies_share_the_memory_that_is_set_aside_for_them() -> None:
    gate = Gate(cores=1, max_bytes=100)
    with gate.room(1000), pytest.raises(Overloaded), gate.room(1):
        pass  # one that is alone is always taken
    with gate.room(90) as room:
        with pytest.raises(Overloaded), gate.room(20):
            pass
        room.hold(10)
        with gate.room(90):
            pass
    with gate.room(100):
        pass
    gate.close()
