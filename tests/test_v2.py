"""The Open Inference Protocol, by an unmodified tritonclient against a live server, and by hostile bodies."""

from __future__ import annotations

import base64
import json
import re
import threading
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from tests.bundles import BLUE, ENDLESS, GREEN, RED, Net, bands, encoded, write_bundle
from tests.server import Server, running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of gevent's and the client's own old words
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

ROOT = Path(__file__).parent.parent
MODEL = "camvid-enet"
GOLDEN = (ROOT / "export" / "golden.png").read_bytes()

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(ROOT / "models", tmp_path_factory.mktemp("v2") / "log", {"MAX_PIXELS": "2000000"}) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    opened = triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=60)
    yield opened
    opened.close()


def pictures(count: int = 1) -> Any:
    picture = np.asarray(Image.open(BytesIO(GOLDEN)).convert("RGB").resize((480, 360)))
    return np.stack([np.roll(picture, 50 * index, axis=1) for index in range(count)])


def tensor(array: Any, name: str = "image", datatype: str = "UINT8", binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def asked(name: str, binary: bool = True) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary)


def test_the_server_and_the_model_are_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "2")
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready(MODEL, "9")


def test_metadata_says_what_the_model_takes_and_gives(client: triton.InferenceServerClient) -> None:
    about = client.get_server_metadata()
    assert about["name"] == "segserve"
    assert "binary_tensor_data" in about["extensions"]
    for version in ("", "2"):
        found = client.get_model_metadata(MODEL, version)
        assert (found["name"], found["versions"]) == (MODEL, ["2"])
        assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 360, 480, 3]}]
        (output,) = found["outputs"]
        assert (output["name"], output["datatype"], output["shape"][1]) == ("logits", "FP32", 11)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_tensor_gets_the_logits_that_onnxruntime_gives(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    batch = pictures(2 if binary_in and binary_out else 1)
    inputs = [tensor(batch, binary=binary_in)]
    answer = client.infer(MODEL, inputs, outputs=[asked("logits", binary_out)], request_id="mine")
    assert (answer.get_response()["model_name"], answer.get_response()["model_version"]) == (MODEL, "2")
    assert answer.get_response()["id"] == "mine"
    session = ort.InferenceSession(ROOT / "models" / MODEL / "2" / "model.onnx", providers=["CPUExecutionProvider"])
    (wanted,) = session.run(["logits"], {"image": batch})
    logits = answer.as_numpy("logits")
    assert logits.shape == wanted.shape
    assert (logits.argmax(1) == wanted.argmax(1)).mean() > 0.9999
    np.testing.assert_allclose(np.median(np.abs(logits - wanted)), 0, atol=1e-4)


@pytest.mark.parametrize("packed", [None, "gzip"])
def test_without_named_outputs_all_come(client: triton.InferenceServerClient, packed: str | None) -> None:
    answer = client.infer(MODEL, [tensor(pictures())], response_compression_algorithm=packed)
    assert answer.as_numpy("logits").shape == (1, 11, 360, 480)


@pytest.mark.parametrize(
    ("default", "own", "binary"), [(True, None, True), (True, False, False), (False, True, True), (None, None, False)]
)
def test_what_an_output_says_of_itself_beats_the_requests_default(
    server: Server, default: bool | None, own: bool | None, binary: bool
) -> None:
    output = {"name": "mask"} | ({} if own is None else {"parameters": {"binary_data": own}})
    entry = {"name": "picture", "shape": [1, 1], "datatype": "BYTES", "data": [[base64.b64encode(GOLDEN).decode()]]}
    asking = {"inputs": [entry], "outputs": [output], "parameters": {"binary_data_output": default, "other": [1]}}
    answer = httpx.post(f"{server.url}/v2/models/{MODEL}/infer", json=asking, timeout=60)
    assert answer.status_code == 200
    length = answer.headers.get("Inference-Header-Content-Length")
    described = json.loads(answer.content[: int(length)] if length else answer.content)["outputs"][0]
    assert (length is not None, "data" not in described) == (binary, binary)


def test_every_kind_of_graph_gives_its_outputs_as_they_are(tmp_path: Path) -> None:
    nets = {
        "labels": Net(labels="labels"),
        "floats": Net(dtype="float32", layout="NCHW", height=24, width=32),
        "pairs": Net(batch=2, output_layout="NHWC", height=24, width=32),
    }
    for name, net in nets.items():
        write_bundle(tmp_path / "models", name, nets=net)
    flags = np.stack([bands(RED, GREEN, BLUE, height=24, width=32), bands(BLUE, RED, height=24, width=32)])
    planes = flags.transpose(0, 3, 1, 2).astype(np.float32)
    with running(tmp_path / "models", tmp_path / "log") as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        both = client.infer("labels", [tensor(flags)])
        np.testing.assert_array_equal(both.as_numpy("logits"), planes)
        np.testing.assert_array_equal(both.as_numpy("labels"), planes.argmax(1))
        kinds = [(entry["name"], entry["datatype"]) for entry in client.get_model_metadata("labels")["outputs"]]
        assert kinds == [("logits", "FP32"), ("labels", "INT64")]
        for binary in (True, False):
            given = tensor(planes, datatype="FP32", binary=binary)
            np.testing.assert_array_equal(client.infer("floats", [given]).as_numpy("logits"), planes)
        np.testing.assert_array_equal(client.infer("pairs", [tensor(flags)]).as_numpy("logits"), flags)
        with pytest.raises(InferenceServerException, match=r"takes 'image', UINT8 \[2, 24, 32, 3\]"):
            client.infer("pairs", [tensor(flags[:1])])
        with pytest.raises(InferenceServerException, match="about 2073600 pixels at most"):
            client.infer("labels", [tensor(np.zeros((1, 2000, 2000, 3), np.uint8))])
        client.close()


def test_a_net_that_does_not_end_is_ended_at_the_deadline(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", nets=Net(turns=ENDLESS), golden=False, check=False)
    with running(tmp_path / "models", tmp_path / "log", {"TIMEOUT": "1"}) as server:
        url = f"{server.url}/v2/models/rgb/infer"
        for datatype, data in (("UINT8", [0, 0, 0]), ("BYTES", [base64.b64encode(GOLDEN).decode()])):
            shape = [1, 1, 1, 3] if datatype == "UINT8" else [1]
            answer = httpx.post(url, content=head(shape, datatype, data), timeout=60)
            assert (answer.status_code, list(answer.json())) == (504, ["error"])
        assert "Traceback" not in server.log.read_text()


def test_the_example_of_the_documentation_runs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "protocols.md").read_text()
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "triton" in block)
    (tmp_path / "photo.jpg").write_bytes(GOLDEN)
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # an example need not close its file
        exec(example.replace("http://localhost:8000", server.url).replace("localhost:8000", server.url[7:]), made)
    assert made["mask"].shape == (1, *np.asarray(Image.open(BytesIO(GOLDEN))).shape[:2])
    made["client"].close()


@pytest.mark.parametrize("binary", [True, False])
def test_pictures_as_bytes_get_the_mask_that_segment_gives(
    client: triton.InferenceServerClient, server: Server, binary: bool
) -> None:
    mask = httpx.post(f"{server.url}/segment?output=mask&model={MODEL}", files={"image": GOLDEN}, timeout=60).content
    wanted = np.asarray(Image.open(BytesIO(mask)))
    text = base64.b64encode(GOLDEN)
    batch = np.array([GOLDEN if binary else text] * 2, dtype=np.object_)
    answer = client.infer(MODEL, [tensor(batch, "picture", "BYTES", binary)], outputs=[asked("mask", binary)])
    found = answer.as_numpy("mask")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.stack([wanted, wanted]))


def test_errors_reach_the_client_in_its_own_form(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="there is no model 'nothing'") as error:
        client.infer("nothing", [tensor(pictures())])
    assert error.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"takes 'image', UINT8 \[-1, 360, 480, 3\]"):
        client.infer(MODEL, [tensor(pictures()[:, :100])])
    with pytest.raises(InferenceServerException, match="gives logits, not sketch"):
        client.infer(MODEL, [tensor(pictures())], outputs=[asked("sketch")])
    with pytest.raises(InferenceServerException, match="2073600 pixels in all, the limit is 2000000"):
        client.infer(MODEL, [tensor(pictures(12))])
    junk = np.array([b"no picture"], dtype=np.object_)
    with pytest.raises(InferenceServerException, match="no picture of an accepted format"):
        client.infer(MODEL, [tensor(junk, "picture", "BYTES")])


def test_the_repository_lists_what_can_be_asked_and_what_cannot(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    (tmp_path / "models" / "broken" / "1").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "1" / "model.json").write_text("{}")
    with running(tmp_path / "models", tmp_path / "log", ready=False) as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        ready, broken = client.get_model_repository_index()
        assert (ready["name"], ready["version"], ready["state"]) == ("rgb", "1", "READY")
        assert (broken["name"], broken["state"]) == ("broken", "UNAVAILABLE")
        assert "model.json" in broken["reason"]
        assert not client.is_server_ready()
        only = httpx.post(f"{server.url}/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in only] == ["rgb"]
        for change in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="administrator") as error:
                change("rgb")
            assert error.value.status() == "403"
        flag = np.array([encoded(bands((255, 0, 0), (0, 0, 255)))], dtype=np.object_)
        mask = client.infer("rgb", [tensor(flag, "picture", "BYTES")]).as_numpy("mask")
        assert mask[0, 0, [0, -1]].tolist() == [0, 2]
        client.close()


def deep(levels: int) -> bytes:
    return b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": ' + b"[" * levels + b"]" * levels


def head(shape: list[int], datatype: str = "UINT8", data: object = None, **parameters: int) -> bytes:
    entry: dict[str, object] = {"name": "image", "shape": shape, "datatype": datatype, "parameters": parameters}
    if data is not None:
        entry["data"] = data
    return json.dumps({"inputs": [entry]}).encode()


HOSTILE: dict[str, tuple[bytes, int | None]] = {
    "nothing": (b"", None),
    "no JSON": (b"hello", None),
    "no inputs": (b'{"inputs": []}', None),
    "deep JSON": (deep(100_000) + b"}]}", None),
    "nested unevenly": (head([2], data=[[[[[[1]]]], 2]]), None),
    "lists of two lengths": (head([3], data=[[1], [1, 2]]), None),
    "a long text among numbers": (head([100_001], data=["a" * 2**20, *[""] * 100_000]), None),
    "sides of thousands of digits": (
        b'{"inputs": [{"name": "image", "shape": [%b, %b], "datatype": "UINT8", "data": [1]}]}'
        % (b"9" * 4000, b"9" * 4000),
        None,
    ),
    "numbers of thousands of digits": (
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [%b]}]}' % (b"9" * 4000),
        None,
    ),
    "numbers beyond their type": (head([1], "FP32", data=[1e300]), None),
    "millions of lists": (b'{"parameters": {"a": [' + b"[]," * 2_000_000 + b"[]]}}", None),
    "millions of members": (b'{"parameters": {' + b'"a":0,' * 2_000_000 + b'"a": 0}}', None),
    "more elements than there are pictures": (head([20_000], "BYTES", data=[""] * 20_000), None),
    "a binary size that is a boolean": ((truth := head([1], binary_data_size=True)) + b"a", len(truth)),
    "one element more than the shape says": ((extra := head([1], "BYTES", binary_data_size=8)) + bytes(8), len(extra)),
    "text for numbers": (head([1], data=["a"]), None),
    "numbers out of range": (head([2], data=[1, 256]), None),
    "fractions for whole numbers": (head([1], data=[0.5]), None),
    "fewer elements than the shape says": (head([1, 360, 480, 3], data=[1]), None),
    "a negative side": (head([-1, 3], data=[1]), None),
    "an enormous shape": (head([2**62, 2**62], data=[1]), None),
    "an empty tensor": (head([0, 360, 480, 3], data=[]), None),
    "an empty binary tensor": (header := head([0, 360, 480, 3], binary_data_size=0), len(header)),
    "an unknown type": (head([1], "FP7", data=[1]), None),
    "neither data nor binary": (head([1]), None),
    "a header longer than the body": (head([1], data=[1]), 10**6),
    "less binary data than promised": (short := head([4], binary_data_size=4), len(short)),
    "more binary data than promised": ((long := head([1], binary_data_size=1)) + b"abc", len(long)),
    "a negative size": (minus := head([1], binary_data_size=-1), len(minus)),
    "an element that ends too soon": ((cut := head([1], "BYTES", binary_data_size=6)) + b"\xff\0\0\0ab", len(cut)),
    "base64 that is none": (head([1], "BYTES", data=["?"]), None),
    "two inputs": (json.dumps({"inputs": [json.loads(head([1], data=[1]))["inputs"][0]] * 2}).encode(), None),
    "pictures of two sizes": (
        head([2], "BYTES", data=[base64.b64encode(encoded(bands(*[(9, 9, 9)], width=w))).decode() for w in (30, 40)]),
        None,
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_bodies_get_a_4xx_in_the_protocols_form(server: Server, name: str) -> None:
    body, length = HOSTILE[name]
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    answer = httpx.post(f"{server.url}/v2/models/{MODEL}/infer", content=body, headers=headers, timeout=60)
    assert 400 <= answer.status_code < 500, answer.text
    assert list(answer.json()) == ["error"]
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", f"/v2/models/{MODEL}/infer", 405),
        ("GET", f"/v2/models/{MODEL}/versions/x", 422),
        ("POST", "/v2/repository/index", 422),
    ],
)
def test_the_frameworks_own_errors_have_that_form_too(server: Server, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{server.url}{path}", json=[1] if method == "POST" else None)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_bodies_beyond_the_limit_and_packed_ones_are_refused(server: Server) -> None:
    url = f"{server.url}/v2/models/{MODEL}/infer"
    huge = httpx.post(url, content=bytes(40 * 2**20), timeout=60)
    assert (huge.status_code, list(huge.json())) == (413, ["error"])
    packed = httpx.post(url, content=b"x", headers={"Content-Encoding": "gzip"})
    assert (packed.status_code, "gzip" in packed.json()["error"]) == (415, True)
    for lie in ("-1", "x", "9" * 5000):
        lying = httpx.post(url, content=b"x", headers={"Inference-Header-Content-Length": lie})
        assert (lying.status_code, list(lying.json())) == (400, ["error"])
    assert "Traceback" not in server.log.read_text()


def test_the_server_answers_others_while_it_gets_a_hostile_body(server: Server) -> None:
    body = b'{"parameters": {"a": [' + b"[]," * (10 * 2**20) + b"[]]}}"
    sending = threading.Thread(
        target=httpx.post, args=(f"{server.url}/v2/models/{MODEL}/infer",), kwargs={"content": body, "timeout": 60}
    )
    sending.start()
    with httpx.Client() as other:
        while sending.is_alive():
            assert other.get(f"{server.url}/v2/health/live", timeout=60).status_code == 200
    sending.join()
    assert "Traceback" not in server.log.read_text()
