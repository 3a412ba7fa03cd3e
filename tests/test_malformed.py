"""Some 2,000 broken, odd and oversized pictures go through HTTP: each is a picture or an error about it, in time, and
the server is as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.bundles import write_bundle
from tests.malformed import bombs, corpus, good_pictures
from tests.server import Server, running

DEADLINE = 30
"""The server's own, in seconds: no answer may take longer, from its first byte sent to its last one read."""

CONNECTIONS = 4

MEMORY_SLACK = 64 * 2**20
"""How much the server may have grown over all of it: less than some of these pictures would take by themselves."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("malformed")
    write_bundle(folder / "models")
    with running(folder / "models", folder / "log") as started:
        yield started


def sent(server: Server, pictures: Sequence[tuple[str, bytes]]) -> dict[str, httpx.Response]:
    """The answer to each picture."""
    with httpx.Client(base_url=server.url, timeout=DEADLINE) as client, ThreadPoolExecutor(CONNECTIONS) as senders:
        answers = senders.map(lambda item: client.post("/segment?store=false", files={"image": item[1]}), pictures)
        return dict(zip((name for name, _ in pictures), answers, strict=True))


def test_every_good_picture_is_segmented(server: Server) -> None:
    assert {
        name: answer.status_code for name, answer in sent(server, list(good_pictures().items())).items()
    } == dict.fromkeys(good_pictures(), 200)


def test_bombs_are_refused_before_they_go_off(server: Server) -> None:
    answers = sent(server, list(bombs().items()))
    harmless = {"png-exif"}  # its orientation alone is not looked at
    refused = {name: answer.status_code for name, answer in answers.items() if name not in harmless}
    assert set(refused.values()) <= {413, 422}, refused
    assert all(answers[name].status_code == 200 for name in harmless)


def test_broken_pictures_cost_nothing_but_their_answer(server: Server) -> None:
    pictures, workers = list(corpus()), server.workers
    assert len(pictures) > 1_000
    answers = sent(server, pictures[::4])
    memory = server.memory_bytes()
    answers |= sent(server, [item for index, item in enumerate(pictures) if index % 4])
    grown = server.memory_bytes() - memory
    assert len(answers) == len(pictures)
    for name, answer in answers.items():
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (name, answer.text)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json", name
            assert answer.json()["code"], name
    statuses = Counter(answer.status_code for answer in answers.values())
    assert {200, 413, 415, 422} <= set(statuses), statuses
    assert grown < MEMORY_SLACK
    assert server.workers == workers, "a worker process was replaced"


def test_none_of_it_was_a_fault_of_the_server(server: Server) -> None:
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert " WARNING " not in log, "decoders keep what they think to themselves"
