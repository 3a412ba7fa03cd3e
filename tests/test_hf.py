"""Hugging Face's image-segmentation task, by an unmodified InferenceClient against a live server."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from tests.server import Server, running

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "export" / "golden.png"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(ROOT / "models", tmp_path_factory.mktemp("hf") / "log") as started:
        yield started


def mask_of(server: Server) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    content = httpx.post(f"{server.url}/segment?output=mask", files={"image": PHOTO.read_bytes()}, timeout=60).content
    return np.asarray(Image.open(BytesIO(content)))


def test_the_client_gets_the_masks_that_segment_gives(server: Server) -> None:
    client = InferenceClient(model=f"{server.url}/hf/camvid-lite")
    segments = client.image_segmentation(PHOTO)
    facts = httpx.post(f"{server.url}/segment", files={"image": PHOTO.read_bytes()}, timeout=60).json()["classes"]
    assert [(item.label, item.score) for item in segments] == [(entry["name"], entry["confidence"]) for entry in facts]
    wanted = mask_of(server)
    for item, entry in zip(segments, facts, strict=True):
        mask = np.asarray(item.mask)  # a picture of Pillow's, whatever its type says
        assert mask.shape == wanted.shape
        np.testing.assert_array_equal(mask == 255, wanted == entry["id"])


def test_the_clients_parameters_are_heard(server: Server) -> None:
    client = InferenceClient(model=f"{server.url}/hf/camvid-lite")
    every = client.image_segmentation(PHOTO)
    highest = max(item.score or 0.0 for item in every)
    sure = client.image_segmentation(PHOTO, threshold=highest, subtask="semantic")
    assert [item.score for item in sure] == [highest]
    assert len(every) > 1


def test_raw_bytes_and_json_are_the_same(server: Server) -> None:
    url, data = f"{server.url}/hf/camvid-lite", PHOTO.read_bytes()
    raw = httpx.post(url, content=data, timeout=60)
    assert raw.status_code == 200
    text = base64.b64encode(data).decode()
    assert httpx.post(url, json={"inputs": text, "parameters": {}}, timeout=60).json() == raw.json()
    assert httpx.post(url, json={"inputs": text}, timeout=60).json() == raw.json()


def test_an_unknown_model_reaches_the_client_as_its_error(server: Server) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        InferenceClient(model=f"{server.url}/hf/nothing").image_segmentation(PHOTO)
    assert error.value.response.status_code == 404
    assert "there is no model" in error.value.response.json()["error"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "image/png", 400),
        (b"", "application/json", 400),
        (b'{"inputs": "?"}', "application/json", 400),
        ('{"inputs": "\u00e9"}'.encode(), "application/json", 400),
        (b'{"inputs": ""}', "application/json", 400),
        (b'{"inputs": 7}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"inputs": "", "parameters": {"a": [' + b"[]," * 1_000_000 + b"[]]}}", "application/json", 400),
        (b'{"inputs": 7}', "Application/JSON; charset=utf-8", 400),
        (b'{"inputs": "aGVsbG8=", "parameters": {"strange": 1}}', "application/json", 422),
        (b'{"inputs": "aGVsbG8=", "parameters": {"subtask": "panoptic"}}', "application/json", 422),
        (b'{"inputs": "aGVsbG8=", "parameters": {"threshold": 7}}', "application/json", 422),
        (b'{"inputs": "aGVsbG8="}', "application/json", 415),
        (b"hello", "application/octet-stream", 415),
        (b"\x89PNG\r\n\x1a\n", "image/png", 422),
        (bytes(33 * 2**20), "image/png", 413),
    ],
)
def test_hostile_bodies_get_a_4xx_in_the_tasks_form(server: Server, body: bytes, kind: str, status: int) -> None:
    answer = httpx.post(f"{server.url}/hf/camvid-lite", content=body, headers={"Content-Type": kind}, timeout=60)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text[:300]
    assert "Traceback" not in server.log.read_text()


def test_the_example_of_the_documentation_runs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "protocols.md").read_text()
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "huggingface" in block)
    (tmp_path / "photo.jpg").write_bytes(PHOTO.read_bytes())
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(example.replace("http://localhost:8000", server.url), made)
    assert "road" in capsys.readouterr().out
