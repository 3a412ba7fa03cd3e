"""Stored results over HTTP: any view again, from any process, until they expire, are forgotten or evicted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from PIL import Image

from service.render import VIEWS
from service.store import new_id
from tests.bundles import bands, encoded, write_bundle
from tests.redis_server import redis_server
from tests.server import Server, running

PICTURE = bands((200, 10, 10), (10, 200, 10), (10, 10, 200))
FLAG = encoded(PICTURE)
UNKNOWN = f"{2**31:08x}{0:032x}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(models, tmp_path_factory.mktemp("results") / "log") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


def stored(client: httpx.Client, query: str = "") -> str:
    answer = client.post(f"/segment{query}", files={"image": FLAG})
    assert answer.status_code == 200
    return answer.headers["content-location"]


def posted(server: Server) -> httpx.Response:
    """The flag's summary; a worker that is still loading when another is ready answers 503, so it is asked again."""
    for _ in range(300):
        answer = httpx.post(f"{server.url}/segment", files={"image": FLAG}, timeout=60)
        if answer.status_code == 200:
            return answer
        assert answer.status_code == 503
        time.sleep(0.1)
    raise AssertionError(answer.text)


def test_json_is_stored_and_links_to_every_view(client: httpx.Client) -> None:
    answer = client.post("/segment", files={"image": FLAG})
    body = answer.json()
    assert body["stored"] is True
    assert answer.headers["content-location"] == f"/results/{body['id']}" == body["links"]["self"]
    assert set(body["links"]) == {"self", *VIEWS} - {"json"}
    assert client.get(body["links"]["self"]).json() == body
    for view in VIEWS:
        again = client.get(f"/results/{body['id']}/{view}")
        assert again.status_code == 200
        once = client.post(f"/segment?output={view}&store=false", files={"image": FLAG})
        assert again.headers["content-type"] == once.headers["content-type"]
        if view != "json":
            assert again.content == once.content


def test_pictures_are_stored_only_where_that_was_asked_for(client: httpx.Client) -> None:
    assert "content-location" not in client.post("/segment?output=mask", files={"image": FLAG}).headers
    location = stored(client, "?output=mask&store=true")
    assert client.get(f"{location}/mask").status_code == 200


def test_the_picture_comes_back_as_it_was_with_other_options(client: httpx.Client) -> None:
    location = stored(client)
    overlay = client.get(f"{location}/overlay", params={"alpha": 0, "format": "png"})
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(overlay.content))), PICTURE)
    assert "infer" not in overlay.headers["server-timing"]
    tinted = client.get(f"{location}/overlay", params={"alpha": 1, "format": "png", "classes": "green"})
    assert tinted.content != overlay.content
    counted = client.get(location, params={"count": "red"}).json()["classes"]
    assert {entry["name"]: entry.get("components") for entry in counted} == {"red": 1, "green": None, "blue": None}


def test_a_client_that_has_the_answer_is_told_so(client: httpx.Client) -> None:
    location = f"{stored(client)}/mask"
    first = client.get(location)
    assert re.fullmatch(r"private, max-age=3\d{3}", first.headers["cache-control"])
    tag = first.headers["etag"]
    again = client.get(location, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(location, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(f"{location[:-5]}/overlay?alpha=0.1").headers["etag"] != tag
    client.delete(location[:-5])
    assert client.get(location, headers={"If-None-Match": tag}).status_code == 404


def test_head_says_what_get_would_say(client: httpx.Client) -> None:
    for path in (location := stored(client), f"{location}/color"):
        head, get = client.head(path), client.get(path)
        for name in ("content-type", "content-length", "etag"):
            assert head.headers[name] == get.headers[name]
        assert head.content == b""


def test_a_forgotten_result_is_gone_and_says_so(client: httpx.Client) -> None:
    location = stored(client)
    assert (answer := client.delete(location)).status_code == 204
    assert answer.content == b""
    for gone in (client.get(location), client.delete(location)):
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown-result")
        assert "forgotten" in gone.json()["detail"]


@pytest.mark.parametrize("name", [UNKNOWN, "x", "..%2f..%2fetc", "a" * 3000, "%00"])
def test_a_result_that_never_was_is_a_404(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/results/{name}/mask")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_expired_result_says_how_long_results_are_kept(client: httpx.Client) -> None:
    answer = client.get(f"/results/{new_id(now=1e9)}")
    assert answer.status_code == 404
    assert "expired" in answer.json()["detail"]
    assert "3600" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["/mask?classes=red", "/mask?alpha=7", "/sketch", "/rle?classes=pink", "?modle=x"],
)
def test_options_of_a_stored_result_are_checked_as_ever(client: httpx.Client, path: str) -> None:
    answer = client.get(stored(client) + path)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_results_can_be_switched_off(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"RESULTS": "off"}) as server:
        body = httpx.post(f"{server.url}/segment", files={"image": FLAG}).json()
        assert (body["id"], body["stored"], body["links"]) == (None, "off", {})
        for answer in (httpx.get(f"{server.url}/results/{UNKNOWN}"), httpx.delete(f"{server.url}/results/{UNKNOWN}")):
            assert (answer.status_code, answer.json()["code"]) == (409, "results-off")


def test_a_result_of_one_worker_process_is_fetched_from_another(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"WORKERS": "2"}) as server:
        workers: dict[str, set[str]] = {"POST": set(), "GET": set()}
        for _ in range(100):  # a new connection each time: one of the workers takes it
            location = posted(server).headers["content-location"]
            assert httpx.get(f"{server.url}{location}/mask").status_code == 200
            for process, method in re.findall(r"\[(\d+)\].*: (POST|GET) /(?:segment|results)", server.log.read_text()):
                workers[method].add(process)
            if all(len(found) == 2 for found in workers.values()):
                break
        else:
            pytest.fail(f"only one worker was ever asked: {workers}")


def test_the_least_used_result_makes_room_and_says_so(models: Path, tmp_path: Path) -> None:
    with (
        running(models, tmp_path / "log", {"RESULTS_BYTES": "20kB"}) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        first = stored(client)
        size = len(client.get(f"{first}/zip").content)
        for _ in range(20_000 // 500):
            stored(client)
        answer = client.get(first)
        assert size > 0
        assert answer.status_code == 404
        assert "room" in answer.json()["detail"]


def test_a_result_larger_than_the_store_is_answered_and_not_kept(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"RESULTS_BYTES": "100"}) as server:
        body = httpx.post(f"{server.url}/segment", files={"image": FLAG}).json()
        assert (body["id"], body["stored"]) == (None, "store full")
        assert body["classes"]


def test_a_folder_that_cannot_be_used_does_not_keep_the_service_from_segmenting(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with running(models, tmp_path / "log", {"RESULTS": f"dir:{tmp_path}/file/results"}) as server:
        answer = httpx.post(f"{server.url}/segment", files={"image": FLAG})
        assert (answer.status_code, answer.json()["stored"]) == (200, "store unavailable")
        assert httpx.get(f"{server.url}/results/{UNKNOWN}").status_code == 503
        assert "results are not kept" in server.log.read_text()


def test_redis_shares_results_and_segmenting_outlives_it(models: Path, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis.log") as redis:
        settings = {"RESULTS": redis.url}
        with running(models, tmp_path / "one", settings) as one, running(models, tmp_path / "two", settings) as two:
            location = httpx.post(f"{one.url}/segment", files={"image": FLAG}).headers["content-location"]
            mask = httpx.get(f"{two.url}{location}/mask")
            assert mask.content == httpx.get(f"{one.url}{location}/mask").content
            redis.stop()
            for _ in range(2):
                answer = httpx.post(f"{one.url}/segment", files={"image": FLAG})
                assert (answer.status_code, answer.json()["stored"]) == (200, "store unavailable")
                assert answer.json()["classes"]
            gone = httpx.get(f"{one.url}{location}/mask")
            assert (gone.status_code, gone.json()["code"]) == (503, "store-unavailable")
            assert int(gone.headers["retry-after"]) > 0
            assert httpx.get(f"{one.url}/health/ready").status_code == 200


def test_a_damaged_result_is_a_404_that_says_so(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", {"RESULTS": f"dir:{tmp_path}/results"}) as server:
        location = httpx.post(f"{server.url}/segment", files={"image": FLAG}).headers["content-location"]
        (file,) = (tmp_path / "results").glob("*.result")
        whole = file.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], whole.replace(b"IDAT", b"JUNK")):
            file.write_bytes(damaged)
            answer = httpx.get(f"{server.url}{location}/mask")
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown-result")
            assert "damaged" in answer.json()["detail"]


def test_a_stored_mask_is_answered_as_it_lies_there_and_other_views_are_drawn_from_it(
    models: Path, tmp_path: Path
) -> None:
    with running(models, tmp_path / "log", {"RESULTS": f"dir:{tmp_path}/results"}) as server:
        location = httpx.post(f"{server.url}/segment", files={"image": FLAG}).headers["content-location"]
        (file,) = (tmp_path / "results").glob("*.result")
        with ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}

        def answer_with(mask: bytes, view: str) -> httpx.Response:
            with ZipFile(file, "w") as archive:
                for name, content in {**parts, "mask.png": mask}.items():
                    archive.writestr(name, content)
            return httpx.get(f"{server.url}{location}/{view}")

        black = encoded(np.zeros(PICTURE.shape[:2], np.uint8))
        answer = answer_with(black, "mask")
        assert (answer.content, answer.headers["content-type"]) == (black, "image/png")
        assert [found["id"] for found in answer_with(black, "json").json()["classes"]] == [0]
        answer = answer_with(b"no picture", "json")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown-result")
        assert "damaged" in answer.json()["detail"]


def test_the_folder_of_results_is_private_and_gone_with_the_server(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for workers in ("1", "2"):
        with running(models, tmp_path / "log", {"WORKERS": workers}) as server:
            posted(server)
            (folder,) = tmp_path.glob("segserve-*")
            assert folder.stat().st_mode & 0o777 == 0o700
            assert list((folder / "results").iterdir())
        assert not list(tmp_path.glob("segserve-*"))
