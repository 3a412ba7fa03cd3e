"""Who may do what: keys in the settings and in requests, and the headers around every answer."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import socket
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from pydantic import ValidationError

from segserve import AsyncClient, Client, Refused
from segserve.cli import main
from service.app import create_app
from service.errors import Forbidden, KeyMissing
from service.keys import Keys, digest, read_digests
from service.settings import Settings
from tests.bundles import GREEN, RED, bands, encoded, write_bundle
from tests.server import Server, free_port, running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of gevent's and the client's own old words
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

FIRST, SECOND, ADMIN, WRONG = "first-key-8d1f", "second-key-77ab", "admin-key-20c4", "wrong-key-5e5e"
PASSWORD = "redis-password-3b9d"
ORIGIN = "https://app.example"
PICTURE = encoded(bands(RED, GREEN))
PNG = {"Content-Type": "image/png"}


def hashed(key: str) -> str:
    return digest(key.encode())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("keys")
    write_bundle(root)
    return root


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With keys of both scopes, one of them in a file; the store of results has a password, and does not answer."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(
        f"# two people\n\n{hashed(SECOND).upper().replace('SHA', 'sha')}  # the second one\r\n"
    )
    settings = {
        "API_KEYS": f"{hashed(FIRST)}, @{folder / 'keys'}",
        "ADMIN_KEYS": hashed(ADMIN),
        "CORS_ORIGINS": ORIGIN,
        "RESULTS": f"redis://user:{PASSWORD}@127.0.0.1:{free_port()}/0",
    }
    with running(models, folder / "log", settings) as started:
        yield started


@pytest.fixture(scope="module")
def half(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With an administrator's key alone, and no CORS."""
    with running(models, tmp_path_factory.mktemp("half") / "log", {"ADMIN_KEYS": hashed(ADMIN)}) as started:
        yield started


def raw(server: Server, target: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Status and body of a request whose target is sent exactly as it is written."""
    connection = http.client.HTTPConnection(str(urlsplit(server.url).netloc), timeout=30)
    try:
        connection.request(method, target, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


# Keys themselves


def test_digests_come_from_words_and_files(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"﻿# comment\n{hashed('b')} # whose\n\n{hashed('a')}\n", "utf-8")
    assert read_digests([hashed("a"), f"@{file}"]) == (hashed("a"), hashed("b"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nobody\n\n", "lists no key"),
        (b"plain-secret\n", "line 1 is not sha256:"),
        (b"\xff\xfe\x00", "no text file"),
        (None, "cannot be read: No such file"),
    ],
    ids=["empty", "plain", "binary", "absent"],
)
def test_a_file_that_holds_something_else_is_refused_by_name(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_digests([f"@{file}"])
    assert str(file) in str(error.value)
    assert "plain-secret" not in str(error.value)


def test_each_scope_may_do_what_it_says() -> None:
    keys = Keys((hashed("one"), hashed("two")), (hashed("boss"), hashed("deputy")))
    for key in (b"one", b"two", b"boss", b"deputy"):
        keys.check_segment(key)
    for key in (b"boss", b"deputy"):
        keys.check_admin(key, "net")
    for key in (b"nobody", hashed("one").encode(), b"one ", b"ONE"):
        with pytest.raises(Forbidden):
            keys.check_segment(key)
        with pytest.raises(Forbidden):
            keys.check_admin(key, "net")
    with pytest.raises(Forbidden, match="the one that came is none"):
        keys.check_admin(b"one", "net")
    with pytest.raises(KeyMissing):
        keys.check_segment(None)
    with pytest.raises(KeyMissing):
        keys.check_admin(None, "net")


def test_without_keys_all_may_segment_and_nobody_may_administer() -> None:
    Keys().check_segment(None)
    Keys().check_segment(b"whatever")
    for key in (None, b"whatever", b""):
        with pytest.raises(Forbidden, match="no key of an administrator is set up"):
            Keys().check_admin(key, "net")


def test_an_administrators_key_alone_leaves_segmenting_open() -> None:
    Keys(admin=(hashed("boss"),)).check_segment(None)


# The settings


@pytest.mark.parametrize("name", ["api_keys", "admin_keys"])
@pytest.mark.parametrize(
    "value",
    ["plain-secret", f"{hashed('a')},plain-secret", "sha256:plain-secret", "", " , "],
    ids=["plain", "second", "prefixed", "empty", "blank"],
)
def test_plain_keys_and_empty_lists_are_refused_at_start_without_showing_them(name: str, value: str) -> None:
    option = f"--{name.replace('_', '-')}"
    result = CliRunner().invoke(main, ["serve", option, value], env={f"SEGSERVE_{name.upper()}": None})
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"Error: {name}: ")
    assert "segserve key" in result.output
    assert "plain-secret" not in result.output
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({name: value})
    assert "plain-secret" not in str(error.value) + repr(error.value)


def test_settings_do_not_show_keys_nor_the_stores_password() -> None:
    settings = Settings(api_keys=(hashed("a"),), admin_keys=(hashed("b"),), results=f"redis://u:{PASSWORD}@host")
    for secret in (hashed("a"), hashed("b"), PASSWORD):
        assert secret not in f"{settings!r} {settings}"
    assert hashed("a") not in repr(Keys(settings.api_keys, settings.admin_keys))


@pytest.mark.parametrize(
    "value", ["app.example", "https://app.example/", "https://App.example", "https://u@app.example"]
)
def test_what_is_no_origin_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings.model_validate({"cors_origins": value})


def test_the_key_command_makes_keys_and_hashes_given_ones() -> None:
    made, its_digest = CliRunner().invoke(main, ["key"]).output.splitlines()
    assert its_digest == hashed(made)
    assert len(made) == 43
    assert made not in CliRunner().invoke(main, ["key"]).output
    for ending in ("", "\n", "\r\n"):
        assert CliRunner().invoke(main, ["key", "--stdin"], input=made + ending).output == f"{its_digest}\n"


@pytest.mark.parametrize(
    "given", ["", "\n", "lorem ipsum", "lorem\nipsum\n", "schlüssel"], ids=["none", "line", "space", "two", "ü"]
)
def test_the_key_command_refuses_what_is_no_key_without_showing_it(given: str) -> None:
    result = CliRunner().invoke(main, ["key", "--stdin"], input=given)
    assert result.exit_code == 2
    assert not given.strip() or given.split(maxsplit=1)[0] not in result.output


# Requests


@pytest.mark.parametrize("key", [FIRST, SECOND, ADMIN])
def test_every_right_key_opens_in_either_header(key: str, server: Server) -> None:
    for headers in (
        bearer(key),
        {"X-API-Key": key},
        {"Authorization": f"bearer  {key}"},
        {"Authorization": "Basic dTpw", "X-API-Key": key},
        {"Authorization": "Bearer", "X-API-Key": key},
    ):
        assert httpx.get(f"{server.url}/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"X-API-Key": ""},
        {"Authorization": f"Basic {FIRST}"},
    ],
    ids=["none", "bearer", "empty", "basic"],
)
def test_a_missing_key_is_a_401_that_says_how_to_send_one(headers: dict[str, str], server: Server) -> None:
    answer = httpx.get(f"{server.url}/models", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    assert answer.json()["code"] == "key-missing"
    assert "X-API-Key" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        bearer(WRONG),
        {"X-API-Key": WRONG},
        {**bearer(WRONG), "X-API-Key": FIRST},
        bearer(FIRST + "x"),
        bearer(FIRST[:-1]),
        bearer(FIRST.upper()),
        bearer(hashed(FIRST)),
    ],
    ids=["bearer", "header", "both", "longer", "shorter", "upper", "digest"],
)
def test_a_wrong_key_is_a_403(headers: dict[str, str], server: Server) -> None:
    answer = httpx.get(f"{server.url}/models", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert "www-authenticate" not in answer.headers


def test_keys_in_the_address_or_in_cookies_open_nothing(server: Server) -> None:
    url = f"{server.url}/models?api_key={FIRST}&key={FIRST}&access_token={FIRST}"
    assert httpx.get(url, headers={"Cookie": f"X-API-Key={FIRST}"}).status_code == 401


def test_every_documented_route_needs_a_key_but_health(server: Server) -> None:
    described: Mapping[str, Any] = httpx.get(f"{server.url}/openapi.json", headers=bearer(FIRST)).json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            status, body = raw(server, path.replace("{", "").replace("}", ""), method.upper())
            if path.startswith(("/health/", "/v2/health/")):
                assert status == 200, path
                assert operation["security"] == []
            else:
                assert (status, "key" in body) == (401, True), path
                assert {"401", "403"} <= set(operation["responses"]), path
    assert described["security"] == [{"bearer": []}, {"header": []}]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/segment", "/models", "/nothing"])
def test_no_method_goes_without_a_key(method: str, path: str, server: Server) -> None:
    assert raw(server, path, method)[0] == 401


@pytest.mark.parametrize(
    "target",
    [
        "/docs", "/openapi.json", "/metrics", "/static-offline-docs/swagger-ui.css", "/v2", "/hf/rgb", "/results/0",
        "/nothing", "/ui", "/health", "/v2/health", "//health/live", "/%2Fhealth/live", "/HEALTH/live", "/Health/live",
        "/./health/live", "/models/../health/live", "/models/..%2fhealth/live", "/models/%2e%2e/health/live",
        "/models/", "/models;/health/", "/models?/health/live", "/models%3F/health/live", "/health\\live", "http://x/models",
    ],
)  # fmt: skip
def test_paths_that_only_look_open_need_a_key(target: str, server: Server) -> None:
    assert raw(server, target)[0] == 401


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 200),
        ("/health/live", 200),
        ("/v2/health/live", 200),
        ("/%68ealth/live", 200),
        ("/health%2Flive", 200),
        ("http://x/health/live", 200),
        ("/health/nothing", 404),
        ("/health/../models", 404),
        ("/health/%2e%2e/models", 404),
        ("/health/..%2fmodels", 404),
        ("/health//models", 404),
        ("/v2/health/../models/rgb", 404),
        ("/ui/../models", 404),
        ("/ui/..%2f..%2fmodels", 404),
    ],
)
def test_open_paths_lead_to_nothing_that_is_closed(target: str, status: int, server: Server) -> None:
    found, body = raw(server, target)
    assert found == status
    assert "rgb" not in body or "rgb" in target


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("/segment", 30_000_000, 401),
        ("/v2/repository/models/rgb/load", 100, 401),
        ("/v2/repository/models/rgb/unload", 100, 401),
        ("/v2/repository/models/rgb/load%0A", 100, 401),
        ("/v2/repository/index", 30_000_000, 413),
    ],
)
def test_a_refusal_waits_for_no_body(path: str, length: int, status: int, server: Server, half: Server) -> None:
    """Nothing of the announced body is sent, and no `100 Continue` asks for it."""
    address = urlsplit(server.url if path == "/segment" else half.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
        connection.sendall("\r\n".join([*lines, "Expect: 100-continue", "", ""]).encode())
        assert connection.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())


def test_loading_and_unloading_need_an_administrators_key(server: Server, half: Server) -> None:
    for change in ("load", "unload"):
        path = f"/v2/repository/models/nothing/{change}"
        for place in (server, half):
            missing = httpx.post(place.url + path)
            assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
            assert httpx.post(place.url + path, headers=bearer(WRONG)).status_code == 403
            assert httpx.post(place.url + path, headers=bearer(ADMIN)).status_code not in (401, 403)
            # The router's patterns let a line end follow.
            assert raw(place, path + "%0A", "POST")[0] in (401, 404)
        lesser = httpx.post(server.url + path, headers=bearer(FIRST))
        assert (lesser.status_code, "administrator" in lesser.json()["error"]) == (403, True)


def test_with_an_administrators_key_alone_everything_else_is_open(half: Server) -> None:
    for headers in ({}, bearer(WRONG), bearer(ADMIN)):
        answer = httpx.post(f"{half.url}/segment", content=PICTURE, headers=PNG | headers, timeout=60)
        assert answer.status_code == 200
    assert httpx.get(f"{half.url}/docs").status_code == 200
    described = httpx.get(f"{half.url}/openapi.json").json()
    assert {} in described["security"]
    assert {} not in described["paths"]["/v2/repository/models/{name}/load"]["post"]["security"]


# Clients


def test_our_clients_send_the_key(server: Server) -> None:
    with Client(server.url, key=FIRST) as client:
        assert client.segment(PICTURE).mask().shape == (240, 320)
        assert [record.name for record in client.models()] == ["rgb"]
    with Client(server.url) as client, pytest.raises(Refused) as missing:
        client.models()
    with Client(server.url, key=WRONG) as client, pytest.raises(Refused) as wrong:
        client.segment(PICTURE)
    assert [(error.value.status, error.value.code) for error in (missing, wrong)] == [
        (401, "key-missing"),
        (403, "forbidden"),
    ]

    async def alike() -> None:
        async with AsyncClient(server.url, key=SECOND) as client:
            assert (await (await client.segment(PICTURE)).mask()).shape == (240, 320)

    asyncio.run(alike())


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_line_sends_the_key_and_keeps_it_to_itself(by: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(PICTURE)
    out = tmp_path / "out"
    command = ["segment", str(tmp_path / "one.png"), "-o", str(out), "--views", "mask", "--url", server.url]
    option, environment = (["--key", FIRST], {}) if by == "option" else ([], {"SEGSERVE_KEY": FIRST})
    result = CliRunner().invoke(main, [*command, *option, "--json"], env=environment)
    assert result.exit_code == 0, result.output
    assert (out / "one.mask.png").is_file()
    written = "".join(path.read_text() for path in out.rglob("*") if path.is_file() and path.suffix != ".png")
    assert FIRST not in result.output + written
    refused = CliRunner().invoke(main, [*command, "--key", WRONG])
    assert refused.exit_code == 1
    assert WRONG not in refused.output
    assert "rgb" in CliRunner().invoke(main, ["models", "--url", server.url, *option], env=environment).output


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tritons_client_sends_the_key(server: Server) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=60)
    try:
        photo = triton.InferInput("picture", [1], "BYTES")
        photo.set_data_from_numpy(np.array([PICTURE], dtype=np.object_))
        for headers in (bearer(FIRST), {"X-API-Key": FIRST}):
            assert client.infer("rgb", [photo], headers=headers).as_numpy("mask").shape == (1, 240, 320)
            assert client.is_model_ready("rgb", headers=headers)
        with pytest.raises(InferenceServerException, match="needs an API key"):
            client.infer("rgb", [photo])
        assert client.is_server_ready()
    finally:
        client.close()


def test_hugging_faces_client_sends_the_key(server: Server) -> None:
    url = f"{server.url}/hf/rgb"
    labels = [item.label for item in InferenceClient(model=url, token=FIRST).image_segmentation(PICTURE)]
    assert sorted(labels) == ["green", "red"]
    with pytest.raises(HfHubHTTPError) as error:
        InferenceClient(model=url, token=WRONG).image_segmentation(PICTURE)
    assert error.value.response.status_code == 403


# Headers


def test_every_answer_has_the_security_headers(server: Server) -> None:
    asked = [
        httpx.get(f"{server.url}/models"),
        httpx.get(f"{server.url}/models", headers=bearer(FIRST)),
        httpx.get(f"{server.url}/nothing", headers=bearer(FIRST)),
        httpx.get(f"{server.url}/health/live"),
        httpx.get(f"{server.url}/docs", headers=bearer(FIRST)),
        httpx.post(f"{server.url}/segment?output=mask", content=PICTURE, headers=PNG | bearer(FIRST), timeout=60),
        httpx.options(f"{server.url}/segment", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}),
    ]
    assert [answer.status_code for answer in asked] == [401, 200, 404, 200, 200, 200, 200]
    for answer in asked:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-request-id"]
        careful = answer.request.method == "POST" or answer.status_code >= 400
        assert answer.headers.get("cache-control") == ("no-store" if careful else None)


def test_an_answer_to_a_crash_has_them_too(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings())

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("broken")

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.get("/crash")

    with caplog.at_level(logging.CRITICAL):
        answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_pages_of_listed_origins_may_ask_and_read(server: Server) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-request-id"}
    preflight = httpx.options(f"{server.url}/segment", headers={"Origin": ORIGIN, **wanted})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-request-id"
    for headers, status in ((bearer(FIRST), 200), (bearer(WRONG), 403), ({}, 401)):
        answer = httpx.get(f"{server.url}/models", headers={"Origin": ORIGIN, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"X-Request-ID", "Server-Timing", "Content-Location", "Retry-After", "ETag"} <= exposed
        assert "access-control-allow-credentials" not in answer.headers
    for origin in ("https://other.example", "null", f"{ORIGIN}.other", "http://app.example"):
        assert httpx.options(f"{server.url}/segment", headers={"Origin": origin, **wanted}).status_code == 400
        answer = httpx.get(f"{server.url}/models", headers={"Origin": origin, **bearer(FIRST)})
        assert "access-control-allow-origin" not in answer.headers


def test_without_the_setting_no_other_origin_may_read(half: Server) -> None:
    wanted = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    for answer in (httpx.options(f"{half.url}/segment", headers=wanted), httpx.get(half.url, headers=wanted)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


# Secrets


def test_no_key_and_no_password_is_written_to_the_log_or_to_an_answer(server: Server) -> None:
    told = io.StringIO()
    for key in (FIRST, SECOND, ADMIN, WRONG):
        for headers in (bearer(key), {"X-API-Key": key}, {"Authorization": key}, {"Authorization": f"Basic {key}"}):
            with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
                for answer in (
                    client.post("/segment", content=PICTURE, headers=PNG),  # the store does not answer
                    client.post("/segment", content=b"broken", headers=PNG),
                    client.get("/results/0"),
                    client.get("/nothing"),
                    client.get("/models"),
                    client.get("/health/ready"),
                    client.post("/v2/repository/models/nothing/load"),
                    client.post("/v2/models/rgb/infer", content=b"broken"),
                ):
                    told.write(f"{answer.status_code} {json.dumps(dict(answer.headers))} {answer.text}\n")
    log = server.log.read_text()
    assert "store" in told.getvalue()
    assert "/segment" in log
    for secret in (FIRST, SECOND, ADMIN, WRONG, PASSWORD, *map(hashed, (FIRST, SECOND, ADMIN, WRONG))):
        assert secret not in told.getvalue()
        assert secret not in log
