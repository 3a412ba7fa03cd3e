"""What can be said of the image without building it. `make test-container` builds and runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import Settings
from tests.bundles import write_bundle
from tests.server import free_port, running

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.txt": PROJECT["project"]["dependencies"],
    "build-requirements.txt": [*PROJECT["build-system"]["requires"], "cyclonedx-python-lib>=11,<12"],
}


@dataclass(frozen=True)
class Locked:
    """One entry of a lock: `name==version; marker`, and its hashes."""

    requirement: Requirement
    hashes: int


def lock(name: str) -> list[Locked]:
    """The entries of the file `deploy/<name>`."""
    entries = re.findall(
        r"^(\S+==.+?) \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", (DEPLOY / name).read_text(), re.MULTILINE
    )
    return [Locked(Requirement(line), len(hashes.splitlines())) for line, hashes in entries]


def instruction(name: str) -> str:
    """What the Dockerfile's last instruction of that name says."""
    return next(line.removeprefix(f"{name} ") for line in reversed(INSTRUCTIONS) if line.startswith(f"{name} "))


def exec_form(text: str) -> list[str]:
    """The command in a JSON list that ends the text."""
    command: list[str] = json.loads(text[text.index("[") :])
    return command


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, whatever its exit code; what it printed is in `stdout`."""
    return subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def tool(name: str) -> Path:
    """A program that the dev dependencies install beside Python."""
    path = Path(sys.executable).parent / name
    assert path.exists(), f"{name} is not installed: run make tools"
    return path


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    done = run(tool("hadolint"), "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_shellcheck_has_nothing_to_say_of_the_scripts() -> None:
    done = run(tool("shellcheck"), *DEPLOY.glob("*.sh"), *(ROOT / "tests" / "container").glob("*.sh"))
    assert done.returncode == 0, done.stdout


def test_the_compose_file_is_valid() -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout


def test_what_the_compose_file_mounts_is_there_and_each_part_reaches_the_next() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), source
    assert {name: tuple(service.get("profiles", ())) for name, service in services.items()} == {
        "segserve": (),
        "redis": ("results",),
        "prometheus": ("monitoring",),
        "grafana": ("monitoring",),
    }
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": ["segserve:8000"]}]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "segserve.yml").read_text())["providers"]
    assert f"{provider['options']['path']}/segserve.json:ro" in services["grafana"]["volumes"][1]


@pytest.mark.parametrize("name", ["segserve", "redis", "prometheus", "grafana"])
def test_no_service_of_the_compose_file_has_more_rights_than_it_needs(name: str) -> None:
    service = yaml.safe_load(COMPOSE.read_text())["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_everything_that_the_project_asks_for(name: str) -> None:
    locked = lock(name)
    for requirement in map(Requirement, LOCKS[name]):
        entries = [entry for entry in locked if entry.requirement.name == canonicalize_name(requirement.name)]
        assert entries, f"{requirement.name} is not locked: run deploy/lock.sh"
        for entry in entries:
            version = next(iter(entry.requirement.specifier)).version
            assert requirement.specifier.contains(version), f"{entry.requirement}: run deploy/lock.sh"


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_of_a_lock_has_hashes_and_none_names_a_host(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert len(lock(name)) == len(re.findall(r"^\w", text, re.MULTILINE)) > 0
    assert "://" not in text


def test_what_trains_and_exports_is_not_locked() -> None:
    assert not {"torch", "onnx", "onnxscript"} & {entry.requirement.name for entry in lock("requirements.txt")}


def test_the_image_starts_the_service_without_a_shell_and_not_as_root() -> None:
    assert exec_form(instruction("ENTRYPOINT")) == ["segserve"]
    assert exec_form(instruction("CMD")) == ["serve"]
    assert instruction("USER") == "65532:65532"


def test_only_settings_that_exist_are_named() -> None:
    for path in (ROOT / "Dockerfile", COMPOSE, DEPLOY / "healthcheck.py", ROOT / "docs" / "deployment.md"):
        named = re.findall(r"SEGSERVE_([A-Z_]+)", path.read_text())
        assert named or path == COMPOSE, path
        assert {name.lower() for name in named} <= set(Settings.model_fields), path


def test_image_and_compose_file_ask_the_same_health_check() -> None:
    command = exec_form(instruction("HEALTHCHECK"))
    composed = re.search(r"test: \[\"CMD\", (.*)\]", COMPOSE.read_text())
    assert composed is not None
    assert json.loads(f"[{composed[1]}]") == command
    assert command == ["python3", "/opt/segserve/healthcheck.py"]
    assert "COPY --chmod=644 deploy/healthcheck.py /opt/segserve/" in INSTRUCTIONS


def health(port: int | str) -> subprocess.CompletedProcess[str]:
    """The health check, where the environment names a proxy that does not answer."""
    environment = os.environ | {"SEGSERVE_HOST": "0.0.0.0", "SEGSERVE_PORT": str(port)}
    return run(
        sys.executable, DEPLOY / "healthcheck.py", environment=environment | {"http_proxy": "http://127.0.0.1:9"}
    )


def test_the_health_check_passes_where_the_server_is_ready(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", tmp_path / "log") as server:
        done = health(server.url.rpartition(":")[2])
    assert (done.returncode, done.stdout) == (0, "")


def test_the_health_check_fails_with_the_reason_where_the_server_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "log", ready=False) as server:
        done = health(server.url.rpartition(":")[2])
    assert done.returncode == 1
    assert done.stdout.startswith("503 ")
    assert f"the folder {tmp_path} holds no models" in done.stdout


def test_the_health_check_fails_in_one_line_where_nothing_listens() -> None:
    done = health(free_port())
    assert done.returncode == 1
    assert re.fullmatch(r"no answer from 0\.0\.0\.0:\d+: .*\n", done.stdout)


def choose(source: Path, target: Path, names: str) -> subprocess.CompletedProcess[str]:
    """What the Dockerfile does with the build argument MODELS."""
    return run(sys.executable, DEPLOY / "choose_models.py", source, target, names)


@pytest.mark.parametrize("names", ["one,two", "one two", " two, one "])
def test_named_models_go_into_the_image_without_the_weights_for_training(tmp_path: Path, names: str) -> None:
    for name in ("one", "two", "three"):
        (write_bundle(tmp_path / "from", name) / "weights.safetensors").touch()
    done = choose(tmp_path / "from", tmp_path / "to", names)
    assert done.returncode == 0, done.stdout
    files = {str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert files == {
        f"{name}/1/{file}" for name in ("one", "two") for file in ("golden.npz", "model.json", "model.onnx")
    }
    assert "one 1, licence: Apache-2.0" in done.stdout


def test_without_names_the_image_holds_an_empty_model_folder(tmp_path: Path) -> None:
    assert choose(ROOT / "models", tmp_path / "to", "").returncode == 0
    assert list((tmp_path / "to").iterdir()) == []


def test_an_unknown_model_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    write_bundle(tmp_path / "from", "one")
    done = choose(tmp_path / "from", tmp_path / "to", "one,../one,three")
    assert done.returncode == 1
    assert done.stdout == "MODELS: there is no model ../one, three in models/; there are: one\n"


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ("one,two", {"default": "one", "pin": {"two": 1}}),
        ("one", {"default": "one", "pin": {}}),
        ("two", {"pin": {"two": 1}}),
        ("three", None),
    ],
)
def test_the_image_keeps_default_and_pins_of_the_models_that_it_holds(
    tmp_path: Path, names: str, kept: dict[str, object] | None
) -> None:
    for name in ("one", "two", "three"):
        write_bundle(tmp_path / "from", name)
    (tmp_path / "from" / "repository.json").write_text(json.dumps({"default": "one", "pin": {"two": 1}}))
    choose(tmp_path / "from", tmp_path / "to", names)
    policy = tmp_path / "to" / "repository.json"
    assert (json.loads(policy.read_text()) if policy.exists() else None) == kept


def test_the_bill_of_materials_names_packages_and_models_with_their_licences(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    stanzas = ("python3.13", "install ok installed"), ("gone", "deinstall ok config-files")
    (tmp_path / "var/lib/dpkg/status").write_text(
        "".join(f"Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: 1-2\n\n" for name, status in stanzas)
    )
    site = tmp_path / "opt/segserve/lib/python3.13/site-packages"
    for name, licence in (("segserve", "License-Expression: Apache-2.0"), ("old", "Classifier: License :: OSI :: Old")):
        (site / f"{name}-1.0.dist-info").mkdir(parents=True)
        (site / f"{name}-1.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{licence}\n"
        )
    write_bundle(tmp_path / "models")
    done = subprocess.run([sys.executable, DEPLOY / "sbom.py", tmp_path], capture_output=True, text=True, check=True)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    bill = json.loads(done.stdout)
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/segserve@1.0"
    found = {part["name"]: part for part in bill["components"]}
    assert set(found) == {"python3.13", "old", "rgb"}
    assert found["python3.13"]["purl"] == "pkg:deb/debian/python3.13@1-2?arch=amd64"
    assert found["old"]["licenses"] == [{"license": {"name": "Old"}}]
    assert found["rgb"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {file["name"] for file in found["rgb"]["components"]} == {"model.onnx", "golden.npz"}


def test_a_root_without_the_service_gets_no_bill(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
    )
    done = subprocess.run([sys.executable, DEPLOY / "sbom.py", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, "segserve is not installed" in done.stderr) == (1, True)
