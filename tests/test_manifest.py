"""A model.json is understood completely, or refused with the place and the rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import BundleError, ParameterError
from service.manifest import MANIFEST, Manifest, read_classes, read_manifest
from tests.bundles import edited, write_bundle

MINIMAL = {
    "name": "mine",
    "version": 1,
    "license": "MIT",
    "classes": [{"id": 0, "name": "road", "color": "#102030"}],
    "variants": [{"id": "fp32", "file": "model.onnx"}],
}
"""What somebody writes by hand; everything else has a default."""


EVERYTHING = """
{"schema_version": 1, "name": "camvid-enet", "version": 1, "description": "...", "license": "LicenseRef-CamVid",
 "source": {"net": "enet", "recipe": "...", "weights_sha256": "..."},
 "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "height": 360, "width": 480, "multiple_of": 8,
           "max_pixels": 2073600, "fit": "stretch", "anchor": "center", "pad_value": [0, 0, 0], "overlap": 32,
           "resample": "bilinear", "antialias": true, "channels": "RGB", "scale": 255, "mean": [0, 0, 0],
           "std": [1, 1, 1]},
 "output": {"logits": "logits", "labels": null, "layout": "NCHW", "activation": "softmax", "threshold": 0.5,
            "align_corners": false, "temperature": 1.0},
 "classes": [{"id": 0, "name": "sky", "color": "#808080", "draw": true}], "ignore": [11],
 "variants": [{"id": "fp32", "file": "model.onnx", "precision": "fp32", "lowering": "native", "providers": ["cpu"],
               "golden_min": 0.999, "check": {"argmax_agreement": 1.0, "max_abs_diff": 0.0, "images": 0, "sizes": [],
                                              "versions": {}}}],
 "metrics": {"miou": 0.0, "protocol": "..."},
 "sha256": {"model.onnx": "0000000000000000000000000000000000000000000000000000000000000000"}}
"""


def read(folder: Path, manifest: object) -> Manifest:
    (folder / MANIFEST).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return read_manifest(folder)


def changed(place: str, value: object) -> dict[str, Any]:
    """The minimal manifest with another value at a place, given with dots: `input.fit`, `classes.0.name`."""
    manifest: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    *path, last = place.split(".")
    inner: Any = manifest
    for word in path:
        inner = inner[int(word)] if word.isdecimal() else inner.setdefault(word, {})
    inner[last] = value
    return manifest


def named(*names: str) -> list[dict[str, Any]]:
    return [{"id": index, "name": name, "color": "#000000"} for index, name in enumerate(names)]


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    manifest = read_manifest(write_bundle(tmp_path))
    assert read(tmp_path, manifest.to_json()) == manifest


def test_names_in_any_script_survive(tmp_path: Path) -> None:
    manifest = read(tmp_path, changed("classes.0.name", "straße 道路"))
    assert "straße 道路" in manifest.to_json()
    assert read(tmp_path, manifest.to_json()) == manifest


def test_the_least_that_can_be_written_by_hand_is_enough(tmp_path: Path) -> None:
    manifest = read(tmp_path, MINIMAL)
    assert (manifest.input.fit, manifest.input.name, manifest.output.logits) == ("native", "image", "logits")
    assert manifest.reference.providers == ("cpu",)
    assert manifest.palette == ((0x10, 0x20, 0x30),)


def test_a_manifest_with_everything_in_it_is_understood(tmp_path: Path) -> None:
    manifest = read(tmp_path, EVERYTHING)
    assert (manifest.input.height, manifest.ignore) == (360, (11,))
    assert manifest.reference.check is not None
    assert read(tmp_path, manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("input.heigth", 3, "input.heigth: Extra inputs are not permitted"),
        ("variants.0.provider", "cpu", "variants.0.provider: Extra inputs are not permitted"),
        ("schema_version", 2, "schema_version"),
        ("name", "", "name"),
        ("name", "../up", "name"),
        ("name", ".hidden", "name"),
        ("name", "a b", "name"),
        ("version", 0, "version"),
        ("version", 1.5, "version"),
        ("license", "", "license"),
        ("classes", [], "classes"),
        ("classes", named(*map(str, range(257))), "classes"),
        ("classes", named("road", "road"), "class names must differ"),
        ("classes", named("road", "sky")[::-1], "class ids must be 0, 1, 2"),
        ("classes.0.id", 1, "class ids must be 0, 1, 2"),
        ("classes.0.id", 256, "classes.0.id"),
        ("classes.0.name", "", "classes.0.name"),
        ("classes.0.color", "red", "classes.0.color"),
        ("classes.0.color", "#12345", "classes.0.color"),
        ("classes.0.color", "#12345g", "classes.0.color"),
        ("variants", [], "variants"),
        ("variants", MINIMAL["variants"] * 2, "variant ids must differ"),  # type: ignore[operator]
        ("variants.0.id", "fp 32", "variants.0.id"),
        ("variants.0.precision", "fp8", "variants.0.precision"),
        ("variants.0.golden_min", 1.1, "variants.0.golden_min"),
        ("input.fit", "crop", "input.fit"),
        ("input.dtype", "int8", "input.dtype"),
        ("input.channels", "RGBA", "input.channels"),
        ("input.scale", 0, "input.scale"),
        ("input.multiple_of", 0, "input.multiple_of"),
        ("input.max_pixels", 0, "input.max_pixels"),
        ("input", {"fit": "native", "height": 8}, "input: .*height and width must be null"),
        ("input", {"fit": "native", "width": 8}, "input: .*height and width must be null"),
        ("input", {"fit": "stretch", "width": 8}, "input: fit=stretch needs height and width"),
        ("input", {"fit": "letterbox", "height": 8}, "input: fit=letterbox needs height and width"),
        ("input", {"fit": "tile"}, "input: fit=tile needs height and width"),
        ("input", {"fit": "tile", "height": 64, "width": 32, "overlap": 32}, "input: overlap 32 must be smaller"),
        ("input", {"fit": "native", "mean": [0, 0]}, "input: mean has 2 values, but RGB has 3 channels"),
        ("input", {"fit": "native", "std": [1, 0, 1]}, "input.std.1"),
        ("input", {"fit": "native", "pad_value": [256]}, "input.pad_value.0"),
        ("output", {"logits": None}, "output: name at least one output"),
        ("output.threshold", 1.5, "output.threshold"),
        ("output.temperature", 0, "output.temperature"),
        ("output.activation", "relu", "output.activation"),
        ("sha256", {"model.onnx": "abc"}, "sha256.model.onnx"),
        ("sha256", {"../model.onnx": "0" * 64}, "must be a path inside the bundle's folder"),
    ],
)
def test_a_broken_rule_is_refused_and_its_place_named(tmp_path: Path, place: str, value: object, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read(tmp_path, changed(place, value))
    assert str(tmp_path / MANIFEST) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        "",
        "../model.onnx",
        "a/../../model.onnx",
        "/etc/passwd",
        "C:/model.onnx",
        "c:model.onnx",
        "a\\b.onnx",
        "a\0b.onnx",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(BundleError, match=r"variants\.0\.file: .*must be a path inside the bundle's folder"):
        read(tmp_path, changed("variants.0.file", file))


@pytest.mark.parametrize("file", ["model.onnx", "int8/model.onnx", "a..b.onnx"])
def test_a_path_inside_the_folder_is_accepted(tmp_path: Path, file: str) -> None:
    assert read(tmp_path, changed("variants.0.file", file)).reference.file == file


@pytest.mark.parametrize("key", MINIMAL)
def test_what_has_no_default_must_be_there(tmp_path: Path, key: str) -> None:
    with pytest.raises(BundleError, match=f"{key}: Field required"):
        read(tmp_path, {name: value for name, value in MINIMAL.items() if name != key})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": NaN}'])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BundleError, match=MANIFEST):
        read(tmp_path, text)


def test_infinity_is_no_number(tmp_path: Path) -> None:
    text = json.dumps(changed("input", {"fit": "native", "scale": float("inf")}))
    with pytest.raises(BundleError, match=r"input\.scale"):
        read(tmp_path, text)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{MANIFEST}: cannot be read: No such file"):
        read_manifest(tmp_path)


def test_several_mistakes_are_all_reported(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    with edited(folder) as manifest:
        manifest["version"] = 0
        manifest["classes"][1]["color"] = "green"
    with pytest.raises(BundleError, match=r"version: .*; classes\.1\.color: "):
        read_manifest(folder)


def test_as_many_classes_as_a_byte_tells_apart_are_accepted(tmp_path: Path) -> None:
    assert len(read(tmp_path, changed("classes", named(*map(str, range(256))))).classes) == 256


def test_classes_are_found_by_name_and_by_id(tmp_path: Path) -> None:
    manifest = read_manifest(write_bundle(tmp_path))
    assert manifest.class_ids(["blue", "0"]) == {0, 2}
    assert manifest.class_ids([]) == frozenset()


def test_a_class_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    manifest = read_manifest(write_bundle(tmp_path))
    with pytest.raises(ParameterError, match=r"pink, 3\b.*red, green, blue"):
        manifest.class_ids(["red", "pink", "3"])


def test_a_name_that_looks_like_an_id_is_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, changed("classes", named("1", "0"))).class_ids(["1"]) == {0}


def test_the_channels_of_a_class_list_end_with_the_last_class_that_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": named("road", "void", "sky", "unlabelled"), "ignore": [1, 3]}))
    assert [spec.name for spec in read_classes(path).channels] == ["road", "void", "sky"]


def test_a_broken_class_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": named("road", "road")}))
    with pytest.raises(ValueError, match=r"classes\.json: class names must differ"):
        read_classes(path)
