"""Clients that ask a server again and again while a test does something to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from threading import Event

import httpx
from PIL import Image

from tests.server import Server

CLIENTS = 4


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 24), "red").save(file, "PNG")
    return file.getvalue()


@dataclass
class Load:
    """What clients saw that went on asking: statuses, requests whose connection broke, versions that answered."""

    seen: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    stop: Event = field(default_factory=Event)

    def run(self, url: str, until: Callable[[httpx.Response], bool] = lambda _: False) -> None:
        """Ask again and again, over a connection that is kept."""
        with httpx.Client(timeout=60) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post(f"{url}/segment?output=json&store=false", files={"image": picture()})
                except httpx.ConnectError:
                    self.seen["nobody listens"] += 1
                    return
                except httpx.TransportError:
                    self.seen["broken"] += 1
                    continue
                self.seen[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    self.versions[answer.json()["model"]["version"]] += 1
                if until(answer):
                    return

    def wait_for_answers(self) -> None:
        """Until there are some more good ones."""
        enough = self.seen["200"] + 2 * CLIENTS
        wait_for(lambda: self.seen["200"] >= enough, "answers")


@contextmanager
def under_load(server: Server, until: Callable[[httpx.Response], bool] = lambda _: False) -> Iterator[Load]:
    """While the block runs, clients ask; at the end their last answers are waited for."""
    load = Load()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(load.run, server.url, until) for _ in range(CLIENTS)]
        try:
            yield load
        finally:
            load.stop.set()
        for client in asking:
            client.result()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"not within a minute: {what}"
        time.sleep(0.05)
