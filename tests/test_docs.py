"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.cli import main as export_cli
from segserve.cli import main as segserve_cli
from service.errors import SegserveError
from service.problems import code_of, status_of
from service.settings import Settings
from training.cli import main as training_cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def leaves(error: type[SegserveError]) -> list[type[SegserveError]]:
    """The classes without subclasses below `error`."""
    below = [leaf for child in error.__subclasses__() for leaf in leaves(child)]
    return below or [error]


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    text = ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
    row = f"| `SEGSERVE_{name.upper()}` | {f'`{text}`' if text else ''} |".replace("|  |", "| |")
    assert row in (ROOT / "docs" / "configuration.md").read_text()


def test_every_documented_setting_exists() -> None:
    documented = re.findall(r"^\| `SEGSERVE_(\w+)`", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(name.upper() for name in Settings.model_fields)


def test_every_error_that_clients_see_is_documented_with_its_status() -> None:
    table = (ROOT / "docs" / "errors.md").read_text()
    for error in leaves(SegserveError):
        if error.__module__ == "service.errors" and status_of(error) != 500:
            assert f"| {status_of(error).value} | `{code_of(error)}` |" in table


def test_the_first_two_commands_of_the_readme_are_the_whole_set_up() -> None:
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert [line.split("#")[0].strip() for line in block[1].splitlines()] == ["make serve", "make test"]


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = [README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    named = {name for text in documents for name in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)}
    assert named <= targets


def test_every_link_to_a_file_of_the_project_leads_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "training" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def commands(text: str) -> list[str]:
    """Every segserve command in a document's shell blocks, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line.split("#")[0].removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?segserve", line)
    ]


@pytest.mark.parametrize("line", [*commands(README), *commands((ROOT / "training" / "README.md").read_text())])
def test_the_commands_of_the_readmes_take_those_options(line: str) -> None:
    program, command, *arguments = line.split()
    group = {"segserve-export": export_cli, "segserve-train": training_cli, "segserve": segserve_cli}[program]
    shown = CliRunner().invoke(group, [command, "--help"])
    assert shown.exit_code == 0
    for option in (word for word in arguments if word.startswith("-")):
        assert option in shown.output


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
