"""Pictures in, what came of each out, from the machines of a Ray cluster: they open the model and write the files.

Ray Data hands a few pictures at a time to each process that has opened the model, as many processes as the cluster has
CPUs for, and hands those of a machine that is lost to others. All machines must see the pictures, the models and OUT at
the same paths.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Any, TypeAlias

import click
import numpy as np

from segserve.batch import Came, CrewLost
from segserve.engine import Wanted
from segserve.inputs import Item
from segserve.work import Done, Failure, Work
from service.settings import Settings

try:
    import ray
    import ray.data
except ImportError as missing:
    raise click.ClickException(
        f"--ray needs Ray, which is not installed ({missing}): `pip install 'segserve[ray]'`"
    ) from missing

TRIES = 3
"""So often a batch is tried again whose process died, and a process that does not come up."""

WAIT_SECONDS = 300
"""How long the first process may take to come up: others may have taken all CPUs."""

TOGETHER = 16
"""Pictures that a process is handed at once, at most: what is known to be done of a run that is cut off is as fine."""

Rows: TypeAlias = dict[str, Any]
"""Columns of what Ray passes between machines."""


@dataclass(frozen=True)
class Order:
    """What every process does to every picture it is handed, with a model, by the caller's own settings."""

    settings: Settings
    model: str
    version: int
    wanted: Wanted
    out: Path
    rows: bool


class Worker:
    """A process on one of the machines, with the model open."""

    def __init__(self, order: Order) -> None:
        from segserve.local import open_local  # noqa: PLC0415 - only these processes need the model

        engine = open_local(order.settings, order.model, order.version, order.wanted, jobs=1)
        self._work = Work(engine, order.wanted, order.out, Event(), order.rows)

    def __call__(self, batch: Rows) -> Rows:
        """`items`: pickled lists of numbers and pictures in; `came`: of each list, what came of them."""
        handed: list[list[tuple[int, Item]]] = [pickle.loads(one) for one in batch["items"]]  # noqa: S301 - our own
        came = [[(number, _portable(self._work(item))) for number, item in items] for items in handed]
        return {"came": np.array([pickle.dumps(one) for one in came], object)}


class RayCrew:
    """The cluster's processes; needs Ray to be there for as long as it is."""

    def __init__(self, order: Order, most: int | None, stop: Event) -> None:
        """Connects to the cluster that RAY_ADDRESS names, else to one on this machine, which is started if need be.

        `most`: processes, by default one for each CPU. Raises click.ClickException where there is no cluster.
        """
        self._order = order
        self._stop = stop
        self._ends = ExitStack()
        if not ray.is_initialized():
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except Exception as error:  # whatever it may raise, there is no cluster
                raise click.ClickException(f"--ray: no Ray cluster can be reached or started: {error}") from error
            self._ends.callback(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # there is one already
        context.wait_for_min_actors_s = WAIT_SECONDS
        context.max_consecutive_actor_init_deaths = TRIES
        context.max_errored_blocks = -1  # pictures of which nothing came are told at the end
        cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        self.jobs = max(1, min(cpus, most or cpus))

    def run(self, items: Iterable[Item]) -> Iterator[tuple[Item, Came]]:
        """As in `Crew`; all pictures are taken up at the beginning."""
        listed = list(items)
        handed = [{"items": pickle.dumps(one)} for one in _together(listed)]
        if not handed:
            return
        there = ray.data.from_items(handed, override_num_blocks=len(handed)).map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(self._order,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self.jobs),
            num_cpus=1,
            max_task_retries=TRIES,
        )
        missing = set(range(len(listed)))
        for row in _rows(there):
            for number, came in pickle.loads(row["came"]):  # noqa: S301 - our own processes'
                missing.discard(number)
                yield listed[number], _labelled(came, listed[number])
            if self._stop.is_set():
                return
        for number in sorted(missing):
            reason = f"the processes that worked on it, or on the pictures beside it, died {TRIES + 1} times"
            yield listed[number], Failure(listed[number].label, reason)

    def close(self, wait: bool) -> None:
        """As in `Crew`; what is still in work is dropped."""
        self._ends.close()


def _rows(dataset: ray.data.Dataset) -> Iterator[Rows]:
    """Raises CrewLost where Ray cannot go on."""
    try:
        yield from dataset.iter_rows()
    except Exception as error:  # Ray's own, and whatever a process could not begin with
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CrewLost(f"Ray gave up: {told[-1] if told else repr(error)}") from error


def _together(items: Sequence[Item]) -> Iterator[list[tuple[int, Item]]]:
    """The pictures with their numbers, a few at a time; those of one row group of a table are not mixed with others."""

    def place(numbered: tuple[int, Item]) -> tuple[str, int] | None:
        path, member = numbered[1].path, numbered[1].member
        return None if member is None else (str(path), getattr(member, "group", 0))

    for _, group in groupby(enumerate(items), place):
        absolute = [(number, replace(item, path=item.path.resolve())) for number, item in group]
        for start in range(0, len(absolute), TOGETHER):
            yield absolute[start : start + TOGETHER]


def _portable(came: Came) -> Came:
    """Without what may not survive the way between processes."""
    if isinstance(came, Failure) and not isinstance(came.error, OSError):
        return replace(came, error=None)
    return came


def _labelled(came: Came, item: Item) -> Came:
    """With the path as the user wrote it."""
    match came:
        case Done(entry=entry):
            return replace(came, entry=replace(entry, path=item.label))
        case Failure():
            return replace(came, path=item.label)
        case None:
            return None
