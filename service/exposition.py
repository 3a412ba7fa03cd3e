"""Instruments in, Prometheus's text out: this process's own, or where several share a folder, those of all of them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder that worker processes share. prometheus_client reads it when it is imported:
it must be set before."""

ROOM: Mapping[str, int] = {"counter": 2**20, "histogram": 2**20, "gauge_livesum": 2**16, "gauge_livemax": 2**16}
"""Bytes of each of a process's files there: some thousands of series."""

COUNTED = ("counter", "histogram")
"""What outlives its process."""

ENTRY = 40
"""Bytes of a series in a file beside its name, at most."""

TRIES = 3
"""Readings during which a process may end, and its files with it."""


def share() -> None:
    """Take the room that this process's files need; where there is none, measure for this process alone.

    The files are mapped into memory: who writes to them when the disk is full is killed, unless the room is his.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    try:
        for kind, size in ROOM.items():
            _reserve(Path(folder) / f"{kind}_{os.getpid()}.db", size)
    except OSError as error:
        logger.warning("no room for the metrics in %s (%s): each worker process answers for itself", folder, error)
        _remove(Path(folder), os.getpid())
        del os.environ[FOLDER]
        values.ValueClass = values.MutexValue


def exposition(registry: CollectorRegistry) -> bytes:
    """What the instruments of `registry` say, together with their like in the other processes."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return generate_latest(_WithoutBirths(registry))
    everybody = CollectorRegistry()
    MultiProcessCollector(everybody, folder)  # type: ignore[no-untyped-call]
    for _ in range(TRIES - 1):
        try:
            return generate_latest(everybody)
        except FileNotFoundError:
            continue
    return generate_latest(everybody)


def retire(pid: int) -> None:
    """A process has ended: what it measured of itself goes with it, what it counted joins what others have left."""
    folder = Path(os.environ[FOLDER])
    try:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        for kind in COUNTED:
            own = folder / f"{kind}_{pid}.db"
            if own.exists():
                _join(folder / f"{kind}_left.db", own)
    except Exception:  # a file that cannot be read would keep all others from being read
        logger.exception("what the worker process %d counted is lost", pid)
    _remove(folder, pid)


def _join(left: Path, own: Path) -> None:
    """Add what a process has counted to what others have left."""
    counted: Counter[str] = Counter()
    for path in filter(Path.exists, (left, own)):
        for key, value, *_ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            counted[key] += value
    fresh = left.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    _reserve(fresh, sum(len(key.encode()) + ENTRY for key in counted) + ENTRY)
    file = MmapedDict(fresh)  # type: ignore[no-untyped-call]
    for key, value in counted.items():
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    fresh.replace(left)


def _reserve(path: Path, size: int) -> None:
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def _remove(folder: Path, pid: int) -> None:
    """The files of a process."""
    for kind in ROOM:
        with suppress(OSError):
            (folder / f"{kind}_{pid}.db").unlink(missing_ok=True)


class _WithoutBirths(Collector):
    """A registry without the moments at which its series began, which would be as many series again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Its families."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
