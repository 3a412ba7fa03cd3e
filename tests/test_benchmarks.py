"""The benchmarks of reliability run to their end and print their tables; what they measure here says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import overload, rest, soak, swap
from tests.bundles import write_bundle
from tests.server import running

pytestmark = pytest.mark.long


def ran(done: Result) -> str:
    """What a benchmark printed. How fast it was depends on what else runs here: too slow (1) is no failure."""
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert done.exit_code in {0, 1}, done.output
    return done.output


def test_a_short_soak_is_answered_as_documented() -> None:
    done = CliRunner().invoke(soak.main, ["--requests", "40", "--megapixels", "0.3"])
    assert done.exit_code == 0, done.output
    assert "| 200 |" in done.output


def test_under_a_short_overload_every_request_is_answered() -> None:
    printed = ran(CliRunner().invoke(overload.main, ["--rounds", "1", "--seconds", "1", "--times", "2"]))
    assert overload.HEAD in printed
    assert "or not at all" not in printed


def test_two_servers_are_asked_in_turn_with_and_without_a_rest(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", name="flag")
    with running(tmp_path / "models", tmp_path / "log") as server:
        options = ["--model", "flag", "--rounds", "2", "--pictures", "0.2 MP", "--rests", "0,0.01"]
        done = CliRunner().invoke(rest.main, [server.url, server.url, *options])
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("| 0.2 MP | ")]
    assert [row.split(" | ")[1:3] for row in rows] == [
        [view, pause] for view in ("mask", "overlay") for pause in ("0", "0.01")
    ]


def test_in_a_short_swap_no_request_fails(tmp_path: Path) -> None:
    arguments = ["--nets", "enet", "--rounds", "1", "--seconds", "3", "--folder", str(tmp_path)]
    printed = ran(CliRunner().invoke(swap.main, arguments))
    assert swap.HEAD in printed
    assert "requests failed" not in printed
