"""Results are kept for a while, under an id that nobody guesses, in a folder or in a Redis server."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from service.errors import StoreFull, StoreUnavailable, UnknownResult
from service.store import RESULT_ID, FolderStore, Store, check_address, new_id, open_store
from service.stores.redis import RedisStore
from tests.redis_server import RedisServer, redis_server

HOUR = 3600.0
PLENTY = 2**30
JUNK = ("", "x", "../" * 13 + "x", "/etc/passwd", "0" * 39, "0" * 41, "A" * 40, "0" * 40 + "\n", "é" * 40, "٣" * 40)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def kept(store: Store, data: bytes, now: float | None = None) -> str:
    id = new_id(now)
    store.put(id, data)
    return id


def why(store: Store, id: str) -> str:
    with pytest.raises(UnknownResult) as error:
        store.get(id)
    return str(error.value)


def test_an_id_tells_its_age_and_nothing_else() -> None:
    ids = {new_id(now=0x12345678 + 0.9) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(RESULT_ID.fullmatch(id) and id.startswith("12345678") for id in ids)
    assert abs(int(new_id()[:8], 16) - time.time()) < 2


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis") / "log") as server:
        yield server


@pytest.fixture(params=["folder", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis: RedisServer) -> Iterator[Store]:
    where = f"dir:{tmp_path}/results" if request.param == "folder" else redis.url
    with open_store(where, HOUR, PLENTY) as opened:
        assert opened
        yield opened


def test_what_is_put_is_got_until_it_is_forgotten(store: Store) -> None:
    data = bytes(range(256)) * 4000
    id, other = kept(store, data), kept(store, b"")
    assert (store.get(id), store.get(id), store.get(other)) == (data, data, b"")
    store.forget(id)
    assert "was forgotten" in why(store, id)
    with pytest.raises(UnknownResult, match="was forgotten"):
        store.forget(id)
    assert store.get(other) == b""


def test_what_never_was_is_said_to_be_unknown(store: Store) -> None:
    id = new_id()
    assert "never was" in why(store, id)
    with pytest.raises(UnknownResult, match="never was"):
        store.forget(id)
    assert "never was" in why(store, id), "an attempt to forget it leaves no trace"


def test_what_has_expired_is_never_given_and_says_so(store: Store) -> None:
    id = kept(store, b"old", time.time() - HOUR - 2)
    assert "has expired; results are kept for 3600 s" in why(store, id)
    with pytest.raises(UnknownResult, match="has expired"):
        store.forget(id)
    assert -4 < store.seconds_left(id) < -1
    assert HOUR - 2 < store.seconds_left(new_id()) <= HOUR


@pytest.mark.parametrize("id", JUNK)
def test_junk_is_no_id(store: Store, id: str) -> None:
    assert not RESULT_ID.fullmatch(id)
    for call in (store.get, store.forget, store.seconds_left, lambda id: store.put(id, b"")):
        with pytest.raises(UnknownResult, match="is no result's id"):
            call(id)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_private_and_so_is_every_file(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    mask = os.umask(0)
    try:
        with open_store(f"dir:{folder}", HOUR, PLENTY) as store:
            assert store
            forgotten = kept(store, b"gone")
            store.forget(forgotten)
            id = kept(store, b"data")
    finally:
        os.umask(mask)
    assert mode(folder) == 0o700
    assert files(folder) == sorted([f"{id}.result", f"{forgotten}.forgotten"])
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_without_an_address_a_private_folder_lives_as_long_as_the_context() -> None:
    with open_store(None, HOUR, PLENTY) as store:
        assert isinstance(store, FolderStore)
        assert store.get(kept(store, b"data")) == b"data"
        folder = store.folder
        assert mode(folder) == 0o700
    assert not folder.exists()


def test_off_keeps_nothing() -> None:
    with open_store("off", HOUR, PLENTY) as store:
        assert store is None


def test_another_process_gets_what_one_puts(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from service.store import *; id = new_id()\n"
        "FolderStore(Path(sys.argv[1]), 3600, 2**30).put(id, b'from afar'); print(id)"
    )
    put = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert FolderStore(tmp_path, HOUR, PLENTY).get(put.stdout.strip()) == b"from afar"


def test_the_least_recently_used_make_room_and_say_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, HOUR, 100)
    first, second, third, fourth = (kept(store, bytes(25)) for _ in range(4))
    store.get(first)
    fifth = kept(store, bytes(25))
    for id in (second, third):  # the third for the tenth of the room that is to be free afterwards
        assert "was evicted to make room" in why(store, id)
        with pytest.raises(UnknownResult, match="was evicted"):
            store.forget(id)
    sixth = kept(store, bytes(50))
    assert "evicted" in why(store, fourth) and "evicted" in why(store, first)
    assert store.get(fifth) and store.get(sixth)


def test_what_another_process_keeps_counts_after_a_second(tmp_path: Path) -> None:
    one, other = (FolderStore(tmp_path, HOUR, 100) for _ in range(2))
    first = kept(one, bytes(10))
    second = kept(other, bytes(80))
    time.sleep(1.1)
    third = kept(one, bytes(20))
    assert "evicted" in why(other, first) and "evicted" in why(other, second)
    assert other.get(third)


def test_what_is_larger_than_all_the_room_evicts_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, HOUR, 10)
    id = kept(store, b"0123456789")
    with pytest.raises(StoreFull, match="11 bytes is larger than the room for all of them, 10 bytes"):
        store.put(new_id(), b"0123456789x")
    assert store.get(id) == b"0123456789"


def test_a_lower_limit_holds_after_the_next_sweep(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, HOUR, PLENTY)
    old, new = kept(store, b"old"), kept(store, b"new")
    lower = FolderStore(tmp_path, HOUR, 5)
    lower.sweep()
    assert "evicted" in why(lower, old) and lower.get(new) == b"new"


@pytest.mark.parametrize("clean", ["sweep", "put"])
def test_what_has_had_its_time_is_removed_with_all_traces_and_nothing_else(tmp_path: Path, clean: str) -> None:
    past = new_id(time.time() - HOUR - 2)
    stale, fresh = new_id(), new_id()
    for name in (f"{past}.result", f"{past}.forgotten", f"{past}.evicted", f"{stale}.part", f"{fresh}.part", "notes"):
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / f"{stale}.part", (0, time.time() - 61))
    store = FolderStore(tmp_path, HOUR, PLENTY)
    if clean == "sweep":
        store.sweep()
        assert files(tmp_path) == sorted([f"{fresh}.part", "notes"])
    else:
        id = kept(store, b"x")
        assert files(tmp_path) == sorted([f"{fresh}.part", "notes", f"{id}.result"])


def unusable(folder: Path) -> Iterator[Store]:
    """Stores whose folder has become unusable: vanished, and a file."""
    yield FolderStore(folder / "vanished", HOUR, PLENTY)
    (folder / "file").write_bytes(b"")
    yield FolderStore(folder / "file", HOUR, PLENTY)
    yield FolderStore(folder / "file" / "below", HOUR, PLENTY)


def test_a_folder_that_has_become_unusable_is_named(tmp_path: Path) -> None:
    told = f"the folder for results, {tmp_path}/.*, cannot be used: "
    for store in unusable(tmp_path):
        with pytest.raises(StoreUnavailable, match=told):
            store.put(new_id(), b"x")
        with pytest.raises(StoreUnavailable, match=told):
            store.get(new_id())
        with pytest.raises(StoreUnavailable, match=told):
            store.forget(new_id())
        with pytest.raises(StoreUnavailable, match=told):
            store.sweep()


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/results", "/sys/results"])
def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StoreUnavailable, match=r"the folder for results, .*, cannot be used: .*; name a folder"),
        open_store(f"dir:{tmp_path / path}", HOUR, PLENTY),
    ):
        pass


@contextmanager
def nobody() -> Iterator[None]:
    """For root, for whom nothing is read-only: to be somebody else."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_a_read_only_folder_is_refused_at_the_start_and_still_read_later() -> None:
    with nobody(), TemporaryDirectory() as name:
        folder = Path(name)
        store = FolderStore(folder, HOUR, PLENTY)
        id = kept(store, b"data")
        folder.chmod(0o500)
        try:
            assert store.get(id) == b"data"
            with pytest.raises(StoreUnavailable, match=f"{folder}, cannot be used: Permission denied"):
                store.put(new_id(), b"x")
            with pytest.raises(StoreUnavailable, match="Permission denied"):
                store.forget(id)
            with pytest.raises(StoreUnavailable, match="it cannot be written"), open_store(f"dir:{name}", HOUR, PLENTY):
                pass
            assert files(folder) == [f"{id}.result"]
        finally:
            folder.chmod(0o700)


def test_a_full_disk_is_a_full_store_and_leaves_no_part(tmp_path: Path) -> None:
    program = (
        "import sys, resource; from pathlib import Path; from service.store import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "FolderStore(Path(sys.argv[1]), 3600, 2**30).put(new_id(), bytes(2000))"
    )
    put = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert "service.errors.StoreFull: no room for a result" in put.stderr
    assert files(tmp_path) == []


def hammer(folder: Path, rounds: int) -> set[str]:
    """Put, get and forget in one process; why some of what it put was not there any more."""
    store = FolderStore(folder, HOUR, 20_000)
    missed = set()
    for turn in range(rounds):
        id = kept(store, bytes([turn % 256]) * 1000)
        try:
            assert store.get(id) == bytes([turn % 256]) * 1000
            if turn % 3 == 0:
                store.forget(id)
        except UnknownResult as error:
            missed.add(str(error).replace(id, "ID"))
    return missed


def test_processes_that_evict_each_others_results_come_to_no_harm(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        missed = set[str]().union(*pool.map(hammer, [tmp_path] * 4, [150] * 4))
    assert all("was evicted" in reason for reason in missed)
    store = FolderStore(tmp_path, HOUR, 20_000)
    store.sweep()
    assert not list(tmp_path.glob("*.part"))
    assert 5_000 <= sum(path.stat().st_size for path in tmp_path.glob("*.result")) <= 20_000


def test_a_redis_server_drops_results_and_their_traces_itself(redis: RedisServer) -> None:
    with closing(RedisStore(redis.url, HOUR)) as store, Redis(port=redis.port) as client:
        id, forgotten = kept(store, b"data", time.time() - 1000), kept(store, b"data", time.time() - 1000)
        store.forget(forgotten)
        store.sweep()
        assert client.get(f"segserve:result:{id}") == b"data"
        for key in client.scan_iter("segserve:*"):
            assert 0 < client.pttl(key) <= HOUR * 1000
        for key in (f"segserve:result:{id}", f"segserve:forgotten:{forgotten}"):
            assert HOUR - 1010 < client.ttl(key) <= HOUR - 1000


def test_what_a_redis_server_evicted_is_not_said_to_have_been_forgotten(redis: RedisServer) -> None:
    with closing(RedisStore(redis.url, HOUR)) as store, Redis(port=redis.port) as client:
        id = kept(store, b"data")
        client.delete(f"segserve:result:{id}")
        assert "is not here: it never was, or was evicted to make room" in why(store, id)


def test_a_connection_that_the_redis_server_closed_is_replaced(redis: RedisServer) -> None:
    with closing(RedisStore(redis.url, HOUR)) as store, Redis(port=redis.port) as client:
        id = kept(store, b"data")
        client.client_kill_filter(_type="normal", skipme=True)
        assert store.get(id) == b"data"


def test_a_dead_redis_server_costs_one_request_and_comes_back(tmp_path: Path) -> None:
    with redis_server(tmp_path / "log") as server, closing(RedisStore(server.url, HOUR, rest=1)) as store:
        id = kept(store, b"data")
        server.stop()
        with pytest.raises(StoreUnavailable, match=f"at 127.0.0.1:{server.port} cannot be used: .*refused"):
            store.get(id)
        server.start()
        with pytest.raises(StoreUnavailable, match="did not answer just now"):
            store.put(id, b"data")
        time.sleep(1)
        store.put(id, b"data")
        assert store.get(id) == b"data"


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


def test_only_one_request_waits_for_a_redis_server_that_hangs() -> None:
    def seconds(store: RedisStore) -> float:
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.get(new_id())
        return time.monotonic() - start

    with silent_server() as url, closing(RedisStore(url, HOUR, rest=2)) as store, ThreadPoolExecutor(8) as pool:
        assert 0.9 < seconds(store) < 2
        assert all(later < 0.1 for later in pool.map(seconds, [store] * 8))
        time.sleep(2)
        assert sum(later > 0.1 for later in pool.map(seconds, [store] * 8)) == 1


def test_a_redis_server_without_room_is_a_full_store(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "log", max_memory="32mb") as server,
        closing(RedisStore(server.url, HOUR)) as store,
    ):
        id = kept(store, bytes(4_000_000))
        with pytest.raises(StoreFull, match=f"in the Redis server at 127.0.0.1:{server.port}"):
            kept(store, bytes(30_000_000))
        assert store.get(id) == bytes(4_000_000)
        store.forget(id)
        with pytest.raises(UnknownResult):
            store.get(id)


def test_opening_does_not_connect() -> None:
    with open_store("redis://user:secret@127.0.0.1:1/3", HOUR, PLENTY) as store:
        assert store
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 cannot be used") as error:
            store.get(new_id())
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        [],  # has no passwords
        ["--requirepass", "another"],
        ["--rename-command", "AUTH", ""],  # repeats what it does not know, password included
    ],
)
def test_no_message_holds_the_password(tmp_path: Path, options: list[str]) -> None:
    with redis_server(tmp_path / "log", options=options) as server:
        url = server.url.replace("//", "//:s%65cret@")
        with closing(RedisStore(url, HOUR)) as store, pytest.raises(StoreUnavailable) as error:
            store.put(new_id(), b"")
    assert f"127.0.0.1:{server.port}" in str(error.value)
    assert "secret" not in str(error.value) and "s%65cret" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "where",
    [
        "off", "dir:results", "dir:/var/lib/segserve", "redis://cache", "redis://:p%40ss@cache:6380/2",
        "redis://[::1]:6379", "rediss://cache?ssl_cert_reqs=none&ssl_check_hostname=false", "unix:///run/redis.sock?db=1",
    ],
)  # fmt: skip
def test_an_address_that_can_be_right_is_accepted(where: str) -> None:
    assert check_address(where) == where


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("", "'' is no place for results"),
        ("on", "'on' is no place for results"),
        ("dir:", "'dir:' is no place for results"),
        ("/var/results", "'/var/results' is no place"),
        ("http://me:secret@cache", "'http:...' is no place"),
        ("redis:/:secret@cache", "'redis:...' is no place"),
        ("redis://", "must be redis://"),
        ("redis://:se/cret@cache", "%40 for @"),
        ("redis://me:12/secret@cache", "%40 for @"),
        ("redis://me:12?secret@cache", "%40 for @"),
        ("redis://:12#secret@cache", "%40 for @"),
        ("redis://cache:port", "must be redis://"),
        ("redis://[cache", "must be redis://"),
        ("redis://cache/first", "must be redis://"),
        ("unix://run/redis.sock", "unix:///PATH"),
        ("redis://:secret@cache?decode_responses=1", "the address of cache:6379 has an unknown option"),
        ("redis://:secret@cache?db=first", "a value that is not possible"),
        ("redis://:secret@cache?ssl_keyfile=key", "without rediss://"),
        ("rediss://:secret@cache?ssl_cert_reqs=some", "a value that is not possible"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_without_its_password(where: str, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)) as error:
        check_address(where)
    assert "secret" not in str(error.value) and "cret@" not in str(error.value)
    assert error.value.__cause__ is None
