"""What the chart gives KServe, held against the models of KServe's own package, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_helm import IN_CLUSTER_TESTS, rendered

PACKAGE = "kserve==0.21.0"

CHECK = """
import json, sys
import kubernetes.client
from kserve import models

def unknown(value, kind, path=""):
    # Both packages' classes say the JSON name and the type of each attribute.
    if kind.startswith(("list[", "List[")):
        for index, one in enumerate(value):
            yield from unknown(one, kind[5:-1], f"{path}/{index}")
        return
    found = getattr(models, kind, None) or getattr(kubernetes.client, kind, None)
    if not hasattr(found, "attribute_map"):
        return
    names = {shown: name for name, shown in found.attribute_map.items()}
    for key, inner in value.items():
        if key not in names:
            yield f"{path}/{key}"
        else:
            yield from unknown(inner, found.openapi_types[names[key]], f"{path}/{key}")

for item in json.load(sys.stdin):
    version = item["apiVersion"].rpartition("/")[2].capitalize()
    kind = version + item["kind"]
    assert hasattr(models, kind), kind
    print(json.dumps({"kind": item["kind"], "unknown": list(unknown(item, kind))}))
"""
"""Reads objects, and says which of their fields KServe's models do not know."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kserve")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", PACKAGE], check=True)
    return folder / "bin" / "python"


def unknown(python: Path, objects: list[dict[str, object]]) -> dict[str, list[str]]:
    done = subprocess.run([python, "-c", CHECK], input=json.dumps(objects), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line["kind"]: line["unknown"] for line in map(json.loads, done.stdout.splitlines())}


def test_kserve_knows_every_field_that_the_chart_sets(python: Path) -> None:
    assert unknown(python, list(rendered("kserve").objects)) == {kind: [] for kind in IN_CLUSTER_TESTS}


def test_a_field_that_kserve_does_not_know_would_be_found(python: Path) -> None:
    runtime = rendered("kserve").one("ServingRuntime")
    runtime["spec"]["supportedFormats"] = []
    assert unknown(python, [runtime])["ServingRuntime"] == ["/spec/supportedFormats"]
