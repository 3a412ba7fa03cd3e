"""`segserve-export adopt`: foreign ONNX files become models that answer as onnxruntime alone does, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

from export.cli import main
from export.convert import quiet
from service.bundle import open_bundle
from service.manifest import read_manifest
from tests.bundles import REDNESS, Net, class_specs, encoded
from tests.server import Server, running

ROOT = Path(__file__).parent.parent
Values = NDArray[Any]

THREE = ("red", "green", "blue")
TWO = ("other", "red")


def floats(picture: NDArray[np.uint8]) -> Values:
    """As a net trained on values from 0 to 1 is fed: float32, NCHW."""
    return (picture.astype(np.float32) / 255).transpose(2, 0, 1)[None]


def winners(answer: Values) -> Values:
    ids: Values = np.argmax(answer[0], axis=0)
    return ids


@dataclass(frozen=True)
class Foreign:
    """A foreign graph: how it is written, what is said of it, how a picture is fed to it and a mask read by hand."""

    save: Callable[[Path], None]
    options: Sequence[str] = ()
    classes: Sequence[str] = THREE
    output: str = "logits"
    feed: Callable[[NDArray[np.uint8]], Values] = floats
    mask: Callable[[Values], Values] = winners
    size: tuple[int, int] = (96, 128)
    says: Mapping[str, Any] = field(default_factory=dict)


def planes(**differences: Any) -> Callable[[Path], None]:
    """The usual foreign file: float32, NCHW, the input called `x`."""
    return Net(**{"dtype": "float32", "layout": "NCHW", "input": "x"} | differences).save


def edited(change: Callable[[ModelProto], None], **differences: Any) -> Callable[[Path], None]:
    """The same, changed afterwards."""

    def save(path: Path) -> None:
        model = Net(**{"dtype": "float32", "layout": "NCHW", "input": "x"} | differences).build()
        change(model)
        onnx.save(model, path)

    return save


def as_of_old(model: ModelProto) -> None:
    model.ir_version = 3
    model.opset_import[0].version = 11
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def without_shapes(model: ModelProto) -> None:
    for axis, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        dim.dim_param = f"d{axis}"


def in_steps_of_8(model: ModelProto) -> None:
    for axis, side in ((2, "8*height"), (3, "8*width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = side


def labels_alone(model: ModelProto) -> None:
    outputs = [output for output in model.graph.output if output.name == "classes"]
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def in_half(path: Path) -> None:
    kernel = numpy_helper.from_array(np.eye(3, dtype=np.float16)[..., None, None], "kernel")
    shape: list[str | int | None] = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["logits"])],
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT16, shape)],
        [kernel],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def in_two_files(path: Path) -> None:
    onnx.save(
        Net(dtype="float32", layout="NCHW", input="x").build(), path, save_as_external_data=True, size_threshold=0
    )


class Hourglass(nn.Module):
    """Halves its input twice and joins what comes back with what went in: sides must be multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(4), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 3, 4, stride=4)
        self.head = nn.Conv2d(6, 3, 1, bias=False)
        with torch.no_grad():  # the colour planes decide, so that each class is somewhere
            self.head.weight[:, :3] = 4 * torch.eye(3)[..., None, None]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.down(x)
        joined = torch.cat([x, self.up(coarse)], dim=1)
        return self.head(joined).softmax(dim=1), coarse


def by_the_legacy_exporter(path: Path) -> None:
    torch.manual_seed(0)
    free = {"x": {0: "n", 2: "h", 3: "w"}, "out": {0: "n", 2: "h", 3: "w"}}
    with quiet():
        torch.onnx.export(
            Hourglass().eval(), (torch.zeros(1, 3, 64, 64),), path, input_names=["x"], output_names=["out", "coarse"],
            dynamic_axes=free, opset_version=13, dynamo=False,
        )  # fmt: skip


FOREIGN = {
    "old": Foreign(edited(as_of_old), says={"fit": "native", "multiple_of": 1, "scale": 255}),
    "tensorflow": Foreign(
        planes(layout="NHWC", output_layout="NHWC"),
        feed=lambda picture: picture[None].astype(np.float32) / 255,
        mask=lambda answer: answer[0].argmax(axis=-1),
        says={"layout": "NHWC"},
    ),
    "fixed": Foreign(
        planes(batch=1, height=1024, width=1024),
        size=(1024, 1024),
        says={"fit": "stretch", "height": 1024, "width": 1024},
    ),
    "many-outputs": Foreign(planes(decoys=("aux", "aux2"), logits="out"), output="out"),
    "chosen-output": Foreign(planes(decoys=("aux",), logits="out"), ["--output", "aux"], output="aux"),
    "one-probability": Foreign(
        planes(weights=REDNESS, sigmoid=True), classes=TWO, mask=lambda answer: answer[0, 0] > 0.5
    ),
    "one-logit": Foreign(
        planes(weights=REDNESS),
        ["--scale", "1"],
        classes=TWO,
        feed=lambda picture: floats(picture) * 255,
        mask=lambda answer: answer[0, 0] > 0,
    ),
    "labels": Foreign(
        edited(labels_alone, dtype="uint8", layout="NHWC", labels="classes"),
        output="classes",
        feed=lambda picture: picture[None],
        mask=lambda answer: answer[0],
        says={"dtype": "uint8"},
    ),
    "half": Foreign(in_half, feed=lambda picture: floats(picture).astype(np.float16), says={"name": "x_float32"}),
    "batch-of-4": Foreign(planes(batch=4), feed=lambda picture: np.repeat(floats(picture), 4, axis=0)),
    "shapeless": Foreign(edited(without_shapes), ["--layout", "NCHW"], says={"layout": "NCHW", "channels": "RGB"}),
    "two-files": Foreign(in_two_files),
    "grey": Foreign(
        planes(weights=((1.0,), (-1.0,)), bias=(0.0, 0.9)),
        ["--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25"],
        classes=("bright", "dark"),
        feed=lambda picture: (
            (np.asarray(Image.fromarray(picture).convert("L"), np.float32)[None, None] / 255 - 0.5) * 4
        ),
        says={"channels": "GRAY", "mean": (0.5,)},
    ),
    "bgr": Foreign(
        planes(),
        ["--channels", "BGR", "--scale", "1", "--mean", "103.9", "116.8", "123.7"],
        feed=lambda picture: (
            picture[..., ::-1].astype(np.float32) - np.array([103.9, 116.8, 123.7], np.float32)
        ).transpose(2, 0, 1)[None],
    ),
    "steps": Foreign(edited(in_steps_of_8), says={"fit": "native", "multiple_of": 8}),
    "legacy": Foreign(by_the_legacy_exporter, output="out", says={"multiple_of": 4}),
}


def classes_file(folder: Path, names: Sequence[str] = THREE) -> Path:
    path = folder / "classes.json"
    path.write_text(json.dumps({"classes": [spec.model_dump() for spec in class_specs(names)]}))
    return path


def adopt(file: Path, target: Path, *options: str, names: Sequence[str] = THREE) -> Result:
    arguments = [str(file), "-o", str(target), "--classes", str(classes_file(file.parent, names)), *options]
    return CliRunner().invoke(main, ["adopt", *arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, foreign in FOREIGN.items():
        (folder / name).mkdir()
        foreign.save(folder / name / "net.onnx")
    return folder


@pytest.fixture(scope="module")
def models(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, foreign in FOREIGN.items():
        done = adopt(files / name / "net.onnx", folder / name, *foreign.options, names=foreign.classes)
        assert done.exit_code == 0, (name, done.output)
        assert "not proved" in done.stdout
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(models, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.mark.parametrize("name", FOREIGN)
def test_the_served_mask_is_what_onnxruntime_alone_gives(name: str, files: Path, server: Server) -> None:
    foreign = FOREIGN[name]
    picture = np.random.default_rng(0).integers(0, 256, (*foreign.size, 3), np.uint8)
    session = ort.InferenceSession(str(files / name / "net.onnx"), providers=["CPUExecutionProvider"])
    (answer,) = session.run([foreign.output], {session.get_inputs()[0].name: foreign.feed(picture)})
    url = f"{server.url}/segment?model={name}&output=mask"
    got = httpx.post(url, content=encoded(picture), headers={"Content-Type": "image/png"}, timeout=60)
    assert got.status_code == 200, got.text
    mask = np.asarray(Image.open(BytesIO(got.content)))
    assert np.array_equal(mask, foreign.mask(np.asarray(answer)))
    assert len(np.unique(mask)) >= 2


@pytest.mark.parametrize("name", FOREIGN)
def test_what_the_graph_shows_is_in_the_manifest(name: str, models: Path) -> None:
    spec = read_manifest(models / name / "1").input
    for key, value in FOREIGN[name].says.items():
        assert getattr(spec, key) == value


def test_a_bundle_is_whole_and_served_as_not_proved(models: Path, files: Path, server: Server) -> None:
    folder = models / "old" / "1"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "model.json",
        "golden.npz",
        "LICENSE",
        "README.md",
    }
    assert (folder / "model.onnx").read_bytes() == (files / "old" / "net.onnx").read_bytes()
    model = open_bundle(folder, ("cpu",))
    assert set(model.manifest.sha256) == {"model.onnx", "golden.npz"}
    assert "no PyTorch net to compare it with" in (folder / "README.md").read_text()
    described = httpx.get(f"{server.url}/models/old").json()
    assert (described["proved"], described["check"]) == (False, None)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("old", "softmax"), ("legacy", "probabilities"), ("one-probability", "probabilities"), ("one-logit", "sigmoid")],
)
def test_probabilities_are_told_from_logits(name: str, activation: str, models: Path) -> None:
    assert read_manifest(models / name / "1").output.activation == activation


def test_a_float16_net_is_a_variant_of_that_precision_behind_a_cast(models: Path) -> None:
    manifest = read_manifest(models / "half" / "1")
    assert (manifest.reference.id, manifest.reference.precision) == ("fp16", "fp16")
    assert manifest.source["changes"] == ["a Cast from float32 to float16 before the input x"]


def test_a_normalisation_that_nobody_said_is_a_warning(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    silent = adopt(tmp_path / "net.onnx", tmp_path / "models" / "net")
    said = adopt(tmp_path / "net.onnx", tmp_path / "models" / "net", "--scale", "255")
    assert ("--mean" in silent.stderr, "--mean" in said.stderr) == (True, False)
    assert sorted(path.name for path in (tmp_path / "models" / "net").iterdir()) == ["1", "2"]


def test_free_sides_may_be_brought_to_a_size(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    size = ["--height", "64", "--width", "96", "--fit", "letterbox"]
    assert adopt(tmp_path / "net.onnx", tmp_path / "models" / "net", *size).exit_code == 0
    spec = read_manifest(tmp_path / "models" / "net" / "1").input
    assert (spec.fit, spec.height, spec.width) == ("letterbox", 64, 96)


def test_a_net_with_a_channel_for_the_scored_classes_alone_is_adopted(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    listed = {"classes": [spec.model_dump() for spec in class_specs((*THREE, "void"))], "ignore": [3]}
    (tmp_path / "all.json").write_text(json.dumps(listed))
    done = adopt(tmp_path / "net.onnx", tmp_path / "models" / "net", "--classes", str(tmp_path / "all.json"))
    assert done.exit_code == 0, done.output
    assert len(read_manifest(tmp_path / "models" / "net" / "1").classes) == 3


def custom(model: ModelProto) -> None:
    model.graph.node[-1].domain = "example.com"
    model.graph.node[-1].op_type = "Sharpen"
    model.opset_import.append(helper.make_opsetid("example.com", 1))


def ancient(model: ModelProto) -> None:
    model.opset_import[0].version = 5


def second_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, [1]))


def half_fixed(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64


def whole_numbers(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def a_picture(path: Path) -> None:
    path.write_bytes(encoded(np.zeros((8, 8, 3), np.uint8)))


CANNOT: Mapping[str, tuple[Callable[[Path], None], Sequence[str], Sequence[str]]] = {
    "a picture": (a_picture, [], ["no ONNX file"]),
    "nothing": (Path.touch, [], ["no ONNX file"]),
    "another number of classes": (
        planes(weights=((1.0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0))),
        [],
        ["1x4x384x512", "no axis of 3 classes"],
    ),
    "ids beyond the classes": (
        edited(labels_alone, labels="classes", weights=((1.0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))),
        [],
        ["'classes' must be class ids from 0 to 2"],
    ),
    "several outputs": (planes(decoys=("left",), logits="right"), [], ["left (", "right (", "--output"]),
    "an unknown output": (planes(), ["--output", "mask"], ["no output 'mask'", "logits"]),
    "no shapes": (edited(without_shapes), [], ["--layout NCHW"]),
    "a custom operator": (edited(custom), [], ["example.com.Sharpen", "standard operators"]),
    "an old opset": (edited(ancient), [], ["opset 5", "Conv", "version_converter"]),
    "two inputs": (edited(second_input), [], ["x, threshold"]),
    "one free side": (edited(half_fixed), [], ["say --width"]),
    "another size than said": (planes(height=64, width=64), ["--height", "32"], ["height of 64", "--height says 32"]),
    "a size between the steps": (
        edited(in_steps_of_8),
        ["--height", "100", "--width", "96"],
        ["height of 8*height", "--height 100"],
    ),
    "a native fit of fixed sides": (planes(height=64, width=64), ["--fit", "native"], ["64x64", "--fit native"]),
    "four channels": (planes(weights=((1.0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0))), [], ["takes 4 channels"]),
    "grey pictures said": (planes(), ["--channels", "GRAY"], ["takes 3 channels", "--channels GRAY"]),
    "an input of int32": (edited(whole_numbers), [], ["tensor(int32)", "tensor(uint8) and tensor(float)"]),
    "a normalisation of uint8": (planes(dtype="uint8"), ["--scale", "255"], ["uint8", "leave --scale out"]),
    "a licence that is none": (planes(), ["--license", "free of charge!"], ["license"]),
}


@pytest.mark.parametrize("what", CANNOT)
def test_what_cannot_be_adopted_is_one_clear_line_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    save, options, words = CANNOT[what]
    save(tmp_path / "net.onnx")
    assert_refused(adopt(tmp_path / "net.onnx", tmp_path / "models" / "net", *options), tmp_path / "models", *words)


def assert_refused(result: Result, models: Path, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line
    assert not models.exists() or list(models.iterdir()) == []


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    whole = (tmp_path / "net.onnx").read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.onnx").write_bytes(whole[:length])
        result = adopt(tmp_path / "net.onnx", tmp_path / "models" / "net")
        assert_refused(result, tmp_path / "models", "no ONNX file, or cut off")


def test_a_file_that_is_called_like_another_form_of_onnx_is_read_as_what_it_is(tmp_path: Path) -> None:
    for name in ("classes.json", "net.onnxtxt", "net.pbtxt", "net.txt"):
        (tmp_path / name).write_text('{"classes": []}')
        assert_refused(adopt(tmp_path / name, tmp_path / "models" / "net"), tmp_path / "models", "no ONNX file")


def test_weights_in_a_file_that_is_missing_or_elsewhere_are_refused(tmp_path: Path) -> None:
    in_two_files(tmp_path / "net.onnx")
    (data,) = (path for path in tmp_path.iterdir() if path.suffix != ".onnx")
    data.unlink()
    refusal = adopt(tmp_path / "net.onnx", tmp_path / "models" / "net")
    assert_refused(refusal, tmp_path / "models", "weights in other files")
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "/etc/hostname"
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    refusal = adopt(tmp_path / "net.onnx", tmp_path / "models" / "net")
    assert_refused(refusal, tmp_path / "models", "weights in other files")


def test_where_to_write_is_said_as_for_net(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    assert_refused(adopt(tmp_path / "net.onnx", tmp_path / "models" / "no name"), tmp_path / "models", "no model name")
    assert CliRunner().invoke(main, ["adopt", str(tmp_path / "net.onnx")]).exit_code == 2


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnxscript", "safetensors", "training"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
sys.argv[0] = "segserve-export"

from export.__main__ import main

main()
"""


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_torch_is_not_needed(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    target = tmp_path / "models" / "net"
    done = without_torch(
        "adopt", str(tmp_path / "net.onnx"), "-o", str(target), "--classes", str(classes_file(tmp_path))
    )
    assert done.returncode == 0, done.stderr
    assert without_torch("verify", str(target / "1")).returncode == 0
    for arguments in (["--help"], ["adopt", "--help"], ["verify", "--help"]):
        assert without_torch(*arguments).returncode == 0


def test_a_command_that_needs_torch_says_so_in_one_line() -> None:
    done = without_torch("net", "--help")
    assert done.returncode == 1
    assert "Error: net needs the package" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_list_of_commands_says_of_each_what_it_says_itself() -> None:
    listed = CliRunner().invoke(main, ["--help"]).stdout
    for name in ("adopt", "verify"):
        command = main.get_command(main.make_context("segserve-export", [name, "--help"]), name)
        assert command is not None
        assert f"{name}" in listed and command.get_short_help_str(80) in listed
