"""Work that is alone gets all cores; work that is not gets one; more threads than cores never run."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.cores import ONE_CORE, CorePool, cpus_for, usable_cores
from service.turn import Turn
from tests.cpus import CPUS, on_several_cpus

AFFINITY = len(CPUS) or os.cpu_count() or 1


@pytest.fixture
def pool() -> CorePool:
    return CorePool(3)


def test_work_that_is_alone_gets_all_cores(pool: CorePool) -> None:
    with pool.inside(), pool.spread() as cores:
        assert (cores.count, cores.shared) == (3, False)


def test_work_beside_other_work_gets_one_core(pool: CorePool) -> None:
    with pool.inside(), pool.inside(), pool.spread() as cores:
        assert (cores.count, cores.shared) == (1, True)


def test_a_newcomer_waits_while_all_cores_are_taken_and_then_both_have_one(pool: CorePool) -> None:
    entered, leave = threading.Event(), threading.Event()

    def newcomer() -> None:
        with pool.inside():
            entered.set()
            leave.wait(10)

    with pool.inside():
        with pool.spread() as cores:
            thread = threading.Thread(target=newcomer)
            thread.start()
            assert not entered.wait(0.1)
            assert not cores.shared
        assert entered.wait(10)
        with pool.spread() as cores:
            assert cores.shared
        leave.set()
        thread.join()
    with pool.inside(), pool.spread() as cores:
        assert not cores.shared


def test_work_gets_one_core_while_other_work_is_on_its_way(pool: CorePool) -> None:
    pool.expect()
    pool.expect()
    with pool.inside():
        with pool.spread() as cores:
            assert cores.shared
        pool.forget()
        with pool.spread() as cores:
            assert not cores.shared


def always(cores: int) -> bool:
    return cores > 1


def test_two_things_are_done_beside_each_other_where_there_are_cores_for_both(pool: CorePool) -> None:
    met = threading.Barrier(2, timeout=10)
    with pool.inside(), Turn(pool=pool).beside(met.wait, always) as (own, result):
        met.wait()
        with own.spread() as cores:
            assert (cores.count, cores.shared) == (1, True)
        assert result() in (0, 1)
    with pool.inside(), pool.inside(), Turn(pool=pool).beside(lambda: 7, always) as (own, result):
        assert result() == 7
    with pytest.raises(ZeroDivisionError), pool.inside(), Turn(pool=pool).beside(lambda: 7, always):
        _ = 1 / 0
    with pool.inside(), pool.spread() as cores:
        assert not cores.shared


def test_where_it_does_not_pay_all_cores_do_one_thing_after_the_other(pool: CorePool) -> None:
    with pool.inside(), Turn(pool=pool).beside(lambda: 7, lambda cores: cores > pool.count) as (own, result):
        with own.spread() as cores:
            assert (cores.count, cores.shared) == (pool.count, False)
        assert result() == 7


def test_all_cores_are_given_back_where_the_work_fails(pool: CorePool) -> None:
    with pytest.raises(ZeroDivisionError), pool.inside(), pool.spread():
        _ = 1 / 0
    with pool.inside(), pool.spread() as cores:
        assert not cores.shared


def test_never_more_threads_run_than_there_are_cores() -> None:
    pool, lock = CorePool(2), threading.Lock()
    running, most, spread = 0, 0, 0

    def step(*_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    def work(number: int) -> None:
        nonlocal spread
        with pool.inside():
            step()
            with pool.spread() as cores:
                spread += not cores.shared
                cores.split(2, step)
            if number % 5 == 0:
                time.sleep(0.005)

    with ThreadPoolExecutor(pool.count) as threads:
        list(threads.map(work, range(100)))
    work(0)  # at least this one is alone
    assert most == 2
    assert spread >= 1


@on_several_cpus
def test_threads_of_work_that_has_all_cpus_have_one_each() -> None:
    pool, met = CorePool(len(CPUS)), threading.Barrier(len(CPUS), timeout=10)

    def place(start: int, stop: int) -> set[int]:
        met.wait()  # each in a thread of its own
        return os.sched_getaffinity(0)

    for _ in range(2):
        with pool.inside(), pool.spread() as cores:
            own, *others = cores.split(len(CPUS), place)
        assert own == {CPUS[0]}
        assert sorted(others, key=min) == [{cpu} for cpu in CPUS[1:]]
        assert os.sched_getaffinity(0) == set(CPUS)
    with pytest.raises(ZeroDivisionError), pool.inside(), pool.spread():
        _ = 1 / 0
    assert os.sched_getaffinity(0) == set(CPUS)


@on_several_cpus
def test_work_beside_other_work_runs_on_any_cpu() -> None:
    pool = CorePool(len(CPUS))
    with pool.inside(), pool.inside(), pool.spread():
        assert os.sched_getaffinity(0) == set(CPUS)


@on_several_cpus
def test_where_others_may_use_cpus_too_the_system_chooses_them() -> None:
    pool = CorePool(len(CPUS) + 1)
    with pool.inside(), pool.spread() as share:
        assert all(place == set(CPUS) for place in share.split(pool.count, lambda *_: os.sched_getaffinity(0)))


@on_several_cpus
def test_a_thread_that_may_use_fewer_cpus_than_the_pool_once_could_is_left_there() -> None:
    pool = CorePool(len(CPUS))

    def placed() -> list[set[int]]:
        os.sched_setaffinity(0, CPUS[1:])  # as where a container has lost one
        with pool.inside(), pool.spread():
            return [os.sched_getaffinity(0)]

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(placed).result() == [set(CPUS[1:])]
        assert thread.submit(os.sched_getaffinity, 0).result() == set(CPUS[1:])


@on_several_cpus
def test_where_threads_must_not_choose_their_cpu_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    pool = CorePool(len(CPUS))
    with pool.inside(), pool.spread() as cores:
        assert sum(cores.split(100, lambda start, stop: stop - start)) == 100


@pytest.mark.skipif(not CPUS, reason="this system does not say which CPUs may be used")
@pytest.mark.parametrize(
    ("siblings", "order"),
    [
        ({}, (0, 1, 2, 3)),
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, (0, 2, 1, 3)),
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, (0, 1, 2, 3)),
    ],
)
def test_cores_get_a_thread_each_before_one_gets_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: dict[int, str], order: tuple[int, ...]
) -> None:
    for cpu, text in siblings.items():
        file = tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{text}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert cpus_for(4, tmp_path) == order
    for threads in (0, 1, 2, 3, 5):
        assert cpus_for(threads, tmp_path) == ()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cpus_for(1, tmp_path) == ()


def test_bands_cover_everything_once_and_come_in_order(pool: CorePool) -> None:
    with pool.inside(), pool.spread() as cores:
        for length in (1, 2, 3, 7, 1000):
            bands = cores.split(length, lambda start, stop: (start, stop))
            assert [bands[0][0], *(stop for _, stop in bands)] == [0, *(start for start, _ in bands[1:]), length]
        assert len(cores.split(1000, lambda start, stop: None, at_least=400)) == 2
    assert ONE_CORE.split(5, lambda start, stop: (start, stop)) == [(0, 5)]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, AFFINITY),
        ({"cpu.max": "max 100000\n"}, AFFINITY),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "99900000 100000\n"}, AFFINITY),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, AFFINITY),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.max": "nonsense"}, AFFINITY),
    ],
)
def test_the_containers_quota_and_the_affinity_both_count(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores
