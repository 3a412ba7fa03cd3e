"""These tests install other people's packages and take a while: they run only where they are asked for by name."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
TITLE = "| net | sizes | max-unpooling | pictures | the same class | other classes: near-ties, real | seconds |"
ROWS = pytest.StashKey[list[str]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore this folder unless it, or something in it, is named on the command line."""
    named = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[str]:
    """The lines of the table that is printed at the end."""
    return request.config.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.write_line(TITLE)
        terminalreporter.write_line("|" + "---|" * TITLE.count(" |"))
        for row in rows:
            terminalreporter.write_line(row)
