"""What a client gets over HTTP, from a real server with a model whose right answer is obvious."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.bundles import write_bundle
from tests.load import wait_for
from tests.server import Server, running

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http")
    write_bundle(folder / "models")
    with running(folder / "models", folder / "log", {"MAX_BYTES": "2MiB", "MAX_PIXELS": "4000000"}) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


def flag(height: int = 60, width: int = 90) -> NDArray[np.uint8]:
    """Red, green and blue thirds, left to right."""
    picture = np.zeros((height, width, 3), np.uint8)
    for index, color in enumerate((RED, GREEN, BLUE)):
        picture[:, index * width // 3 : (index + 1) * width // 3] = color
    return picture


def encoded(picture: NDArray[np.uint8], wanted: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, wanted)
    return file.getvalue()


def image_of(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(BytesIO(response.content))


FLAG = encoded(flag())
THIRDS = np.repeat(np.arange(3, dtype=np.uint8), 30)[None].repeat(60, axis=0)


def test_the_mask_is_a_grey_png_of_class_ids_of_the_pictures_size(client: httpx.Client) -> None:
    mask = image_of(client.post("/segment?output=mask", files={"image": FLAG}))
    assert (mask.format, mask.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(mask), THIRDS)


def test_the_color_view_is_a_palette_png_of_the_same_ids(client: httpx.Client) -> None:
    color = image_of(client.post("/segment?output=color", files={"image": FLAG}))
    assert (color.format, color.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.asarray(color), THIRDS)
    legend = client.get("/models/rgb").json()["classes"]
    palette = np.asarray(color.convert("RGB"))[0, [0, 40, 80]]
    assert ["#{:02x}{:02x}{:02x}".format(*entry) for entry in palette.tolist()] == [entry["color"] for entry in legend]


def test_the_raw_body_is_as_good_as_multipart(client: httpx.Client) -> None:
    for content_type in ("image/png", "image/x-anything", "application/octet-stream"):
        answer = client.post("/segment?output=mask", content=FLAG, headers={"Content-Type": content_type})
        np.testing.assert_array_equal(np.asarray(image_of(answer)), THIRDS)


def test_json_lists_the_classes_present_largest_first(client: httpx.Client) -> None:
    picture = flag()
    picture[:, 60:] = RED
    body = client.post("/segment", files={"image": encoded(picture)}).json()
    assert body["model"] == {"name": "rgb", "version": 1, "variant": "fp32"}
    assert body["image"] == {"width": 90, "height": 60}
    red, green = body["classes"]
    assert (red["id"], red["name"], red["pixels"], red["bbox"]) == (0, "red", 3600, [0, 0, 90, 60])
    assert (green["id"], green["name"], green["pixels"], green["bbox"]) == (1, "green", 1800, [30, 0, 60, 60])
    assert red["fraction"] == pytest.approx(2 / 3)
    assert 0.5 < red["confidence"] <= 1


def test_json_lists_only_the_classes_asked_for(client: httpx.Client) -> None:
    body = client.post("/segment?classes=blue,1", files={"image": FLAG}).json()
    assert {entry["name"] for entry in body["classes"]} == {"green", "blue"}


def test_not_asking_to_store_is_said(client: httpx.Client) -> None:
    assert client.post("/segment?store=false", files={"image": FLAG}).json()["stored"] == "not requested"


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_is_the_palettes_share_of_the_overlay(client: httpx.Client, alpha: float) -> None:
    greenish = np.full((20, 30, 3), (100, 140, 100), np.uint8)
    answer = client.post(f"/segment?output=overlay&alpha={alpha}", files={"image": encoded(greenish)})
    palette = np.array([0, 255, 0])
    wanted = greenish[0, 0] * (1 - alpha) + palette * alpha
    np.testing.assert_allclose(np.asarray(image_of(answer))[5, 5], wanted, atol=1)


def test_the_overlay_leaves_classes_that_were_not_asked_for_untouched(client: httpx.Client) -> None:
    answer = client.post("/segment?output=overlay&classes=red&alpha=1&format=png", files={"image": FLAG})
    overlay = np.asarray(image_of(answer))
    np.testing.assert_array_equal(overlay[:, 30:], flag()[:, 30:])


@pytest.mark.parametrize(
    ("sent", "query", "wanted"),
    [
        ("JPEG", "", "JPEG"),
        ("PNG", "", "PNG"),
        ("WEBP", "", "PNG"),
        ("JPEG", "&format=png", "PNG"),
        ("PNG", "&format=webp", "WEBP"),
        ("PNG", "&format=jpeg", "JPEG"),
    ],
)
def test_the_overlay_is_jpeg_for_jpeg_else_png_unless_format_says_otherwise(
    client: httpx.Client, sent: str, query: str, wanted: str
) -> None:
    answer = client.post(f"/segment?output=overlay{query}", files={"image": encoded(flag(), sent)})
    overlay = image_of(answer)
    assert (overlay.format, overlay.size) == (wanted, (90, 60))
    assert answer.headers["content-type"] == f"image/{wanted.lower()}"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,image/webp,*/*;q=0.8", "application/json"),
        ("application/json", "application/json"),
        ("image/png", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("image/webp;q=0.5, image/png;q=0.9", "image/png"),
        ("image/png;q=0.3, application/json;q=0.4", "application/json"),
        ("image/png;q=0, image/jpeg", "image/jpeg"),
        ("application/pdf, */*;q=0.1", "application/json"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("image/*, image/png;q=0", "image/jpeg"),
        ("*/*, application/json;q=0", "image/png"),
        ("image/webp;q=1.000", "image/webp"),
    ],
)
def test_accept_chooses_the_view(client: httpx.Client, accept: str | None, content_type: str) -> None:
    request = client.build_request("POST", "/segment", files={"image": FLAG})
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    answer = client.send(request)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == content_type
    assert "Accept" in answer.headers["vary"]


def test_output_beats_accept(client: httpx.Client) -> None:
    answer = client.post("/segment?output=mask", files={"image": FLAG}, headers={"Accept": "application/pdf"})
    assert answer.headers["content-type"] == "image/png"


def test_a_turned_photograph_is_answered_upright(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the rows of the file are columns of the scene
    file = BytesIO()
    Image.fromarray(flag()).save(file, "PNG", exif=exif)
    mask = np.asarray(image_of(client.post("/segment?output=mask", files={"image": file.getvalue()})))
    np.testing.assert_array_equal(mask, np.rot90(THIRDS, -1))


def test_every_answer_carries_a_request_id_and_timings(client: httpx.Client) -> None:
    good = client.post("/segment", files={"image": FLAG}, headers={"X-Request-ID": "my-id.1"})
    assert good.headers["x-request-id"] == "my-id.1"
    for step in ("queue", "decode", "infer", "upsample", "encode"):
        assert f"{step};dur=" in good.headers["server-timing"]
    for path in ("/health/live", "/nothing-here", "/models"):
        answer = client.get(path, headers={"X-Request-ID": "no spaces allowed"})
        assert len(answer.headers["x-request-id"]) == 32
        assert "total;dur=" in answer.headers["server-timing"]


def test_models_are_listed_with_licence_and_proof(client: httpx.Client) -> None:
    (entry,) = client.get("/models").json()["models"]
    assert entry == client.get("/models/rgb").json()
    assert (entry["name"], entry["version"], entry["versions"], entry["default"]) == ("rgb", 1, [1], True)
    assert entry["proved"] is True
    assert entry["check"]["argmax_agreement"] == 1.0
    assert [spec["name"] for spec in entry["classes"]] == ["red", "green", "blue"]


def test_the_service_is_live_started_and_ready(client: httpx.Client) -> None:
    for check, status in (("live", "live"), ("ready", "ready"), ("startup", "started")):
        answer = client.get(f"/health/{check}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)


def test_the_api_docs_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assets = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert len(assets) >= 2
    for asset in assets:
        assert client.get(page.url.join(asset)).status_code == 200
        assert httpx.URL(asset).host in {"", "127.0.0.1"}


def test_the_api_describes_itself(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/segment"]["post"]
    assert "multipart/form-data" in operation["requestBody"]["content"]
    assert {"400", "404", "413", "415", "422", "429", "503", "504"} <= set(operation["responses"])


def test_several_accept_lines_count_as_one(client: httpx.Client) -> None:
    headers = [("Accept", "text/plain"), ("Accept", "image/png")]
    assert client.post("/segment", files={"image": FLAG}, headers=headers).headers["content-type"] == "image/png"


def test_class_ids_are_bytes_in_the_color_view_too(client: httpx.Client) -> None:
    for view in ("mask", "color"):
        assert client.post(f"/segment?output={view}", files={"image": FLAG}).content[24] == 8  # the header's bit depth


def test_head_answers_like_get_without_a_body(client: httpx.Client) -> None:
    for path in ("/health/live", "/health/ready", "/health/startup", "/models", "/models/rgb"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_the_log_names_each_request_by_its_id(client: httpx.Client, server: Server) -> None:
    client.post("/segment", files={"image": FLAG}, headers={"X-Request-ID": "look-for-me"})
    wait_for(lambda: "request look-for-me" in server.log.read_text(), "its line")
    assert "POST /segment 200" in server.log.read_text()


def test_a_part_with_an_encoded_file_name_is_a_file(client: httpx.Client) -> None:
    head = b"--b\r\nContent-Disposition: form-data; name=\"image\"; filename*=UTF-8''caf%C3%A9.png\r\n\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/segment", content=head + FLAG + b"\r\n--b--\r\n", headers=form).status_code == 200
