"""The documents say what the code does."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from click.testing import CliRunner
from PIL import Image

from export.cli import main as export_cli
from segserve.cli import main as segserve_cli
from service.app import create_app
from service.errors import SegserveError
from service.problems import code_of, status_of
from service.render import View
from service.settings import Settings
from tests.server import running
from training.cli import main as training_cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


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


def test_every_documented_error_exists() -> None:
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    ours = {(str(status_of(error).value), code_of(error)) for error in leaves(SegserveError)}
    frameworks = {("404", "not-found"), ("405", "method-not-allowed")}
    assert set(rows) <= ours | frameworks


def routes() -> dict[str, dict[str, Any]]:
    """Path and methods of the interface, as the application itself describes it."""
    described: dict[str, dict[str, Any]] = create_app(Settings()).openapi()["paths"]
    return described


def test_the_api_page_lists_every_call_and_no_other() -> None:
    documented = set(re.findall(r"`(GET|POST|DELETE) (/[^`?]*)`", API[: API.index("## POST /segment")]))
    existing = {(method.upper(), path) for path, methods in routes().items() for method in methods if method != "head"}
    assert documented == existing


def test_the_api_page_lists_every_parameter_of_segment_and_its_views() -> None:
    section = API[API.index("| parameter |") : API.index("| view |")]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == {parameter["name"] for parameter in routes()["/segment"]["post"]["parameters"]}
    assert set(re.findall(r"^\| `(\w+)` \|", API[API.index("| view |") :], re.MULTILINE)) == set(get_args(View))


def shape(value: object) -> object:
    """The names in a JSON value, without its figures; of a list, those of its first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(item) for item in value[:1]] if isinstance(value, list) else None


def example(document: str) -> object:
    """The first JSON block of a document."""
    block = re.search(r"```json\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def test_the_answers_that_the_documents_show_have_the_shape_of_real_ones(tmp_path: Path) -> None:
    picture = (ROOT / "export" / "golden.png").read_bytes()
    with running(ROOT / "models", tmp_path / "log", {"MAX_PIXELS": "200000"}) as server:
        headers = {"Content-Type": "image/png"}
        answer = httpx.post(f"{server.url}/segment", content=picture, headers=headers)
        assert shape(example("api.md")) == shape(answer.json())
        assert set(re.findall(r"`(queue|decode|infer|upsample|encode|total)`", API)) == set(
            re.findall(r"(\w+);dur=", answer.headers["server-timing"])
        )
        huge = BytesIO()
        Image.new("1", (30_000, 30_000)).save(huge, "PNG")
        refusal = httpx.post(f"{server.url}/segment", content=huge.getvalue(), headers=headers)
        shown = example("errors.md")
        assert isinstance(shown, dict)
        assert refusal.json() == shown | {"limit": 200_000, "detail": shown["detail"].replace("50000000", "200000")}


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


def test_the_checked_in_openapi_file_is_what_the_server_says_of_itself() -> None:
    described = create_app(Settings()).openapi()
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == described, "make openapi writes it again"


def test_every_error_is_described_as_the_problem_that_it_is() -> None:
    for path, methods in routes().items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if status >= "400" and path.startswith(("/segment", "/results", "/models")):
                    assert set(answer["content"]) == {"application/problem+json"}, f"{method} {path} {status}"


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
