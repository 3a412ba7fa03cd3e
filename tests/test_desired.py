"""Processes that agree on which models are served, through a folder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.desired import Desired, open_state, open_state_or_none
from service.errors import DeadlineExceeded, ModelUnloaded, StateUnavailable
from service.repository import Repository
from service.settings import Settings
from service.watching import Keeper
from tests.bundles import write_bundle

OTHER = """
import sys
from pathlib import Path
from service.desired import open_state

with open_state(Path(sys.argv[1])) as state:
    print("there", flush=True)
    for line in sys.stdin:
        state.report(int(line))
        print("said", flush=True)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that reports a generation for each line that it is given."""
    command = [sys.executable, "-c", OTHER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def report(process: subprocess.Popen[str], generation: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{generation}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "said\n"


def test_what_one_process_asks_for_all_read(tmp_path: Path) -> None:
    with open_state(tmp_path) as state:
        assert state.read() == Desired()
        state.change("a", load=False)
        desired = state.change("b", load=False)
        assert (desired.generation, sorted(desired.unloaded)) == (2, ["a", "b"])
        assert state.change("a", load=True).unloaded == {"b"}
    with open_state(tmp_path) as again:
        assert again.read().unloaded == {"b"}


def test_who_has_not_done_it_yet_is_named_and_the_dead_are_not_waited_for(tmp_path: Path) -> None:
    with open_state(tmp_path) as state:
        with another_process(tmp_path) as other:
            desired = state.change("a", load=False)
            state.report(desired.generation)
            assert state.behind(desired.generation) == [other.pid]
            report(other, desired.generation)
            assert state.behind(desired.generation) == []
            assert state.behind(desired.generation + 1) != []
        state.report(desired.generation + 1)
        assert state.behind(desired.generation + 1) == []


def test_an_answer_waits_for_all_processes_and_says_which_did_not_agree(tmp_path: Path) -> None:
    async def scenario() -> None:
        with open_state(tmp_path / "state") as state, another_process(tmp_path / "state") as other:
            keeper = Keeper(Repository(Settings(models=tmp_path)), state, seconds=0)
            running = asyncio.create_task(keeper.run(Desired()))
            with pytest.raises(DeadlineExceeded, match=str(other.pid)):
                await keeper.change("a", load=False, seconds=0.5)
            report(other, 2)
            await keeper.change("a", load=True, seconds=10)
            running.cancel()

    asyncio.run(scenario())


def test_what_could_not_be_done_is_not_said_to_be_done_and_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        models = tmp_path / "models"
        write_bundle(models, "a")
        repository = Repository(Settings(models=models))
        repository.load()
        models.rename(tmp_path / "elsewhere")
        with open_state(tmp_path / "state") as state:
            keeper = Keeper(repository, state, seconds=0)
            running = asyncio.create_task(keeper.run(Desired()))
            with pytest.raises(DeadlineExceeded, match="did unload a"):
                await keeper.change("a", load=False, seconds=0.5)
            assert repository.get("a").name == "a"
            (tmp_path / "elsewhere").rename(models)
            await keeper.change("a", load=False, seconds=10)
            with pytest.raises(ModelUnloaded):
                repository.get("a")
            running.cancel()

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StateUnavailable, match="SEGSERVE_STATE"), open_state(tmp_path / "file"):
        pass
    with open_state_or_none(tmp_path / "file") as state:
        assert state is None

    async def scenario() -> None:
        keeper = Keeper(Repository(Settings(models=tmp_path)), None, seconds=0)
        with pytest.raises(StateUnavailable, match="log"):
            await keeper.change("a", load=True)

    asyncio.run(scenario())


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with open_state(tmp_path) as state:
        (tmp_path / "desired.json").write_text("{")
        with pytest.raises(StateUnavailable, match=r"desired\.json"):
            state.read()
