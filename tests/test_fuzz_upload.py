"""Whatever is sent to the routes that take a body, the answer is a result or an error that says what is wrong."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bundles import RED, bands, encoded, write_bundle
from tests.malformed import good_pictures
from tests.server import Server, running

FUZZ = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))

PICTURES = [encoded(bands(RED, height=6, width=8)), *good_pictures().values()]

Headers = Sequence[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzz")
    write_bundle(folder / "models")
    with running(folder / "models", folder / "log", {"MAX_BYTES": "100kB", "UPLOAD_TIMEOUT": "5"}) as started:
        yield started


def asked(server: Server, target: str, headers: Headers, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """The status, headers and body that a POST is answered with; the headers are sent as they are."""
    host, port = server.url.removeprefix("http://").split(":")
    lines = [(b"Host", b"x"), (b"Connection", b"close"), (b"Content-Length", b"%d" % len(body)), *headers]
    head = b"".join(b"%s: %s\r\n" % line for line in lines)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\n%s\r\n%s" % (target.encode(), head, body))
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    first, content = answer.split(b"\r\n\r\n", 1)
    status, *rest = first.split(b"\r\n")
    return (
        int(status.split()[1]),
        {name.lower(): value for name, value in (line.split(b": ", 1) for line in rest)},
        content,
    )


def check(server: Server, target: str, headers: Headers, body: bytes) -> int:
    """Send it and look at the answer; its status."""
    status, received, content = asked(server, target, headers, body)
    assert 200 <= status < 300 or 400 <= status < 500, content
    assert re.fullmatch(rb"[A-Za-z0-9._-]{1,128}", received[b"x-request-id"])
    assert b"x-injected" not in received
    if status >= 400 and target.startswith(("/v2", "/hf")):
        assert received[b"content-type"] == b"application/json"
        assert list(json.loads(content)) == ["error"]
    elif status >= 400:
        assert received[b"content-type"] == b"application/problem+json"
        assert json.loads(content)["code"]
        assert len(content) < 10_000
    return status


pictures = st.sampled_from(PICTURES) | st.binary(max_size=300)

# Without what ends a header: that is the protocol's concern, not the upload's.
texts = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40).map(
    lambda text: re.sub(r"[\x00-\x08\x0a-\x1f\x7f]", "", text).encode("latin-1")
)

names = st.sampled_from([b"image", b"Image", b"image\xff", b"", b"a", b'im\\"age', b"image; filename=x"]) | texts

dispositions = (
    st.builds(
        lambda kind, name, more: kind + b'; name="' + name + b'"' + more,
        st.sampled_from([b"form-data", b"attachment", b"", b"form-data; form-data"]) | texts,
        names,
        st.sampled_from(
            [
                b"",
                b'; filename="a.png"',
                b"; filename*=UTF-8''%00",
                b'; filename="../../etc/passwd"',
                b'; filename="\r\nX-Injected: 1"',
            ]
        ),
    )
    | texts
)

part_headers = st.lists(
    st.tuples(st.just(b"Content-Disposition"), dispositions)
    | st.tuples(
        st.sampled_from([b"Content-Type", b"Content-Transfer-Encoding", b"content-disposition", b"", b"X-A"]),
        st.sampled_from([b"image/png", b"text/plain", b"base64", b"multipart/mixed; boundary=b", b"a" * 5_000]) | texts,
    ),
    max_size=10,
)

boundaries = st.sampled_from([b"b", b"-", b"--", b"b" * 70, b"b" * 300, b"a b", b"'()+_,-./:=?", b"\xff", b""]) | texts


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A boundary, and a multipart body that mostly keeps to it."""
    boundary = draw(boundaries)
    pieces = [draw(st.sampled_from([b"", b"\r\n", b"preamble\r\n"]))]
    for headers, content in draw(st.lists(st.tuples(part_headers, pictures), max_size=4)):
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        pieces += [b"--", boundary, b"\r\n", lines, b"\r\n", content, b"\r\n"]
    pieces.append(
        draw(
            st.sampled_from([b"", b"--", b"--" + boundary, b"--" + boundary + b"--", b"--" + boundary + b"--\r\nmore"])
        )
    )
    body = b"".join(pieces)
    return boundary, draw(st.sampled_from([body, body, body, body[: len(body) // 2], body.replace(b"\r\n", b"\n")]))


@FUZZ
@given(form=forms(), quoted=st.booleans(), more=st.sampled_from([b"", b"; charset=x", b"; boundary=other", b";" * 500]))
def test_any_form_is_answered(server: Server, form: tuple[bytes, bytes], quoted: bool, more: bytes) -> None:
    boundary, body = form
    mark = b'"' + boundary + b'"' if quoted else boundary
    check(server, "/segment?output=mask", [(b"Content-Type", b"multipart/form-data; boundary=" + mark + more)], body)


@FUZZ
@given(
    body=pictures,
    content_type=st.sampled_from([b"image/png", b"application/octet-stream", b"multipart/form-data", b"image/"])
    | texts,
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [b"Accept", b"X-Request-ID", b"Content-Encoding", b"If-None-Match", b"Range", b"Expect", b"Cookie"]
            ),
            st.sampled_from([b"*/*", b"image/*;q=nan", b"gzip", b"a,b;q=1;q=2,,", b"x" * 200, b"%0d%0aX-Injected: 1"])
            | texts,
        ),
        max_size=3,
    ),
)
def test_any_body_with_any_headers_is_answered(
    server: Server, body: bytes, content_type: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    check(server, "/segment", [(b"Content-Type", content_type), *headers], body)


values = st.sampled_from(
    ["", "0", "-1", "1e999", "nan", "9" * 5_000, "0x1", "true", "json", "png", "road", "\0", "\r\nX-Injected: 1"]
) | st.text(max_size=20)

parameters = st.sampled_from(
    [
        "alpha",
        "format",
        "classes",
        "min_area",
        "simplify",
        "count",
        "model",
        "version",
        "output",
        "store",
        "timeout",
        "x",
    ]
)


@FUZZ
@given(query=st.lists(st.tuples(parameters, values), max_size=5))
def test_any_query_is_answered(server: Server, query: list[tuple[str, str]]) -> None:
    # A deadline may be so short that it passes; that it is a 504 is said and tested elsewhere.
    query = [(name, value) for name, value in query if name != "timeout" or not re.match(r"0*\.?0*[1-9]|[1-9]", value)]
    text = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in query)
    check(server, f"/segment?{text}", [(b"Content-Type", b"image/png")], PICTURES[0])


@FUZZ
@given(
    name=st.text(max_size=30) | st.sampled_from(["../..", "..", "%2e%2e", "a" * 5_000, "rgb/1", "\0", "rgb\0", "CON"])
)
def test_any_name_of_a_model_is_answered(server: Server, name: str) -> None:
    path = quote(name, safe="", errors="surrogatepass")
    for target in (f"/hf/{path}", f"/v2/models/{path}/infer", f"/v2/models/{path}/versions/1/infer"):
        check(server, target, [(b"Content-Type", b"image/png")], PICTURES[0])


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(
        [10**400, 1e308, "image", base64.b64encode(PICTURES[0]).decode(), "http://127.0.0.1/", "file:///etc/passwd"]
    )
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["image", "picture", ""]) | documents,
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**70]), max_size=5) | documents,
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32", "INT64", "BOOL", "FP16"]) | documents,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "binary_data"]), documents) | documents,
        "data": st.lists(scalars, max_size=6) | documents,
    },
)
inferences = st.fixed_dictionaries(
    {},
    optional={
        "id": documents,
        "parameters": documents,
        "inputs": st.lists(tensors, max_size=3) | documents,
        "outputs": st.lists(st.fixed_dictionaries({"name": documents}), max_size=2) | documents,
    },
)
tasks = st.fixed_dictionaries(
    {},
    optional={
        "inputs": documents,
        "parameters": st.fixed_dictionaries({}, optional={"threshold": documents}) | documents,
    },
)

BROKEN = [
    b"",
    b"null",
    b"[" * 50_000,
    b'{"inputs":' * 20_000,
    b'{"inputs": "\\ud800"}',
    b'{"inputs": "\xff\xfe"}',
    b'{"inputs": 1e999}',
    b'{"inputs": NaN}',
    b'{"inputs": ' + b"9" * 90_000 + b"}",
    b'{"inputs": "", "inputs": ""}',
    b"\xef\xbb\xbf{}",
    b'{"inputs": [' + b"0," * 40_000 + b"0]}",
    b'{"inputs": [{"name": "image", "shape": [1], "datatype": "FP32", "data": ['
    + b"[" * 1_000
    + b"]" * 1_000
    + b"]}]}",
]

ROUTES = ("/v2/models/rgb/infer", "/hf/rgb", "/v2/repository/index", "/v2/repository/models/rgb/load")


@FUZZ
@given(
    document=inferences | tasks | documents,
    target=st.sampled_from(ROUTES),
    length=st.sampled_from([None, None, b"0", b"10", b"-1", b"9" * 30, b"x"]),
    tail=st.sampled_from([b"", b"", b"\0\0\0\1a", b"}"]),
)
def test_any_json_is_answered(server: Server, document: object, target: str, length: bytes | None, tail: bytes) -> None:
    headers = [(b"Content-Type", b"application/json")]
    headers += [(b"Inference-Header-Content-Length", length)] if length is not None else []
    check(server, target, headers, json.dumps(document).encode() + tail)


@pytest.mark.parametrize("target", ROUTES)
@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_broken_json_is_answered(server: Server, target: str, body: bytes) -> None:
    check(server, target, [(b"Content-Type", b"application/json")], body)


@pytest.mark.parametrize("target", ["/segment", "/hf/rgb", "/v2/models/rgb/infer", "/v2/repository/index"])
def test_a_compressed_body_is_415_and_says_so(server: Server, target: str) -> None:
    headers = [(b"Content-Type", b"image/png"), (b"Content-Encoding", b"gzip")]
    status, _, content = asked(server, target, headers, b"\x1f\x8b\x08\0")
    assert status == 415
    assert b"Content-Encoding gzip is not taken: send the body as it is" in content


def test_a_parameter_that_is_given_twice_is_422(server: Server) -> None:
    headers = [(b"Content-Type", b"image/png")]
    status, _, content = asked(server, "/segment?alpha=0.1&alpha=0.9", headers, PICTURES[0])
    assert status == 422
    assert b"alpha: given more than once" in content


def test_nothing_is_fetched_from_elsewhere(server: Server) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/picture.png"
        json_body = [(b"Content-Type", b"application/json")]
        assert asked(server, "/hf/rgb", json_body, json.dumps({"inputs": url}).encode())[0] == 400
        tensor = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": [url]}
        assert asked(server, "/v2/models/rgb/infer", json_body, json.dumps({"inputs": [tensor]}).encode())[0] == 400
        assert asked(server, "/segment", [(b"Content-Type", b"image/png")], url.encode())[0] == 415
        with pytest.raises(TimeoutError):
            listener.accept()


def test_none_of_it_was_a_fault_of_the_server(server: Server) -> None:
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
