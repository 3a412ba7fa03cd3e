"""The machine's cores in, each piece of work's share of them out: all while it is alone, one while others work too."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import TypeVar

T = TypeVar("T")

CGROUP = Path("/sys/fs/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Cores:
    """A share of the cores: `count` of them, the caller's own and those of the `helpers`; `shared` where others work on
    the rest."""

    count: int = 1
    helpers: Executor | None = None
    shared: bool = False

    def split(self, length: int, work: Callable[[int, int], T], at_least: int = 1) -> list[T]:
        """`work(start, stop)` over 0 to `length` in bands, one a core and of `at_least` so many; results in order."""
        bands = max(1, min(self.count, length // at_least))
        edges = [length * index // bands for index in range(bands + 1)]
        if self.helpers is None or bands == 1:
            return [work(0, length)]
        later = [self.helpers.submit(work, edges[band], edges[band + 1]) for band in range(1, bands)]
        first = work(edges[0], edges[1])
        return [first, *(future.result() for future in later)]


ONE_CORE = Cores()


class CorePool:
    """Shares `count` cores out among pieces of work, each in a thread of its own: never more threads run than cores.

    Work is `inside` with one core; where no other is, nor is expected, it may `spread` over all, and newcomers wait for
    its end. Work that waits for a thread is `expect`ed, until somebody says `forget`. Where the process may use no
    more than `count` CPUs, each thread of work that is spread has one of its own.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._cpus = cpus_for(count)
        others = iter(self._cpus[1:])
        self._helpers = ThreadPoolExecutor(
            max(count - 1, 1),
            thread_name_prefix="band",
            initializer=(lambda: _settle(self._cpus, next(others))) if self._cpus else None,
        )
        self._changed = Condition()
        self._inside = 0
        self._waiting = 0
        self._expected = 0
        self._taken = False

    @property
    def expected(self) -> int:
        """Pieces of work that are on their way or being done."""
        return self._expected

    def expect(self) -> None:
        """A piece of work is on its way."""
        with self._changed:
            self._expected += 1

    def forget(self) -> None:
        """A piece of work that was expected has ended, or will not come."""
        with self._changed:
            self._expected -= 1

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Work with one core; waits while another has all of them."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._taken)
            self._waiting -= 1
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1

    @contextmanager
    def spread(self) -> Iterator[Cores]:
        """All cores where nothing else is inside or on its way, else one. Not to be nested."""
        with self._changed:
            alone = max(self._inside + self._waiting, self._expected) <= 1
            self._taken = self._taken or alone
        if not alone:
            yield Cores(shared=True)
            return
        try:
            with _on_first(self._cpus):
                yield Cores(self.count, self._helpers)
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def close(self) -> None:
        """End the helping threads."""
        self._helpers.shutdown()


def cpus_for(threads: int, topology: Path = TOPOLOGY) -> tuple[int, ...]:
    """A CPU for each of so many threads that work at once, the caller's first, where these are all that the process
    may use; else none, as it is the system that knows which ones others leave free.

    A system may wake two of the threads on one CPU and leave another idle, above all in a virtual machine, where idle
    CPUs look taken: a net of 7 ms took 14 then.
    """
    cpus = _allowed()
    if not 1 < len(cpus) == threads:
        return ()
    cores = [_core(cpu, topology) for cpu in cpus]
    # Work may need fewer threads: the second CPU of a core comes after the first ones of all.
    ranks = [cores[:place].count(core) for place, core in enumerate(cores)]
    return tuple(cpu for _, cpu in sorted(zip(ranks, cpus, strict=True)))


def _allowed() -> list[int]:
    """The CPUs that this thread may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _core(cpu: int, topology: Path) -> str:
    """What the CPUs of a core have in common."""
    try:
        return (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return f"unknown, of {cpu}"


def _keep_to(cpus: Collection[int]) -> None:
    """Run this thread on these CPUs from now on, unless the process has lost them, or must not choose."""
    with suppress(OSError):
        os.sched_setaffinity(0, cpus)


def _settle(cpus: Collection[int], own: int) -> None:
    """Run this thread on CPU `own` from now on, else on any of these: whoever started it may have been kept to one."""
    _keep_to(cpus)
    _keep_to({own})


@contextmanager
def _on_first(cpus: Sequence[int]) -> Iterator[None]:
    """Run this thread on the first of these CPUs meanwhile, where they are still all that it may use."""
    if not cpus or os.sched_getaffinity(0) != set(cpus):
        yield
        return
    _keep_to(cpus[:1])
    try:
        yield
    finally:
        _keep_to(cpus)


def usable_cores(cgroup: Path = CGROUP) -> int:
    """How many cores this process may use: its affinity, and its container's CPU quota where that is lower."""
    affinity = len(_allowed()) or os.cpu_count() or 1
    quota = _quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, math.floor(quota)))


def _quota(cgroup: Path) -> float | None:
    """The CPU quota in cores, of cgroup v2 or v1; None where there is none."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        cores = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # v2 says max
    return cores if cores > 0 else None  # v1 says -1
