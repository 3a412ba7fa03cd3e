"""`segserve-export quantize`: int8 and float16 variants that are right, or one clear line and the bundle as it was."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import export.revision
from export.cli import main
from export.errors import ExportError
from export.labelled import Labelled
from export.sensitivity import Layers, choose
from service.bundle import open_bundle
from service.manifest import read_manifest
from tests.bundles import BLUE, GREEN, RED, Net, bands, class_specs, encoded, write_bundle
from tests.server import running
from training.nets import build_net
from training.scenes import SCENE_CLASSES, scene

WILD_LAYERS = {"wild", "tame"}


@dataclass(frozen=True)
class WildNet(Net):
    """The net of the colour planes, through seven convolutions, of which two have a channel between them whose values
    are ten thousand times as large as the others': 256 steps are too few for both."""

    def build(self) -> ModelProto:
        """The graph."""
        planes = np.eye(3, dtype=np.float32)
        weights = {"wild": np.vstack([planes, [[1e4, 0, 0]]]), "tame": np.hstack([planes, [[1e-9]] * 3])}
        weights |= {f"plain{number}": planes for number in range(5)} | {"last": planes}
        constants = [
            numpy_helper.from_array(kernel.astype(np.float32)[..., None, None], f"{name}.weight")
            for name, kernel in weights.items()
        ]
        constants.append(numpy_helper.from_array(np.array(255, np.float32), "scale"))
        nodes = [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Div", ["planes", "scale"], ["x"]),
        ]
        x = "x"
        for name in weights:
            out = "logits" if name == "last" else f"{name}.out"
            nodes.append(helper.make_node("Conv", [x, f"{name}.weight"], [out], name=name))
            x = out
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 3, None, None])
        graph = helper.make_graph(nodes, "wild", [image], [logits], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes, two of eight held out."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(8):
        (folder / f"{seed}.png").write_bytes(encoded(scene(seed, 120, 160)[0]))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with small nets of random weights, by the real command line: unet, segnet (native), indexfree."""
    root = tmp_path_factory.mktemp("exported")
    (root / "classes.json").write_text(SCENE_CLASSES.model_dump_json())
    nets = {
        "unet": ("unet", []),
        "segnet": ("segnet", ["--lowering", "native"]),
        "indexfree": ("segnet", ["--lowering", "indexfree"]),
    }
    for name, (net, options) in nets.items():
        torch.manual_seed(0)
        torch.save(_with_statistics(build_net(net, 6, 8)).state_dict(), root / f"{name}.pt")
        files = ["--checkpoint", str(root / f"{name}.pt"), "--classes", str(root / "classes.json")]
        files += ["-o", str(root / "models" / name)]
        sides = ["--height", "96", "--width", "128"]
        done = CliRunner().invoke(
            main, ["net", net, *files, *options, *sides, "--net-width", "8", "--min-agreement", "0.99"]
        )
        assert done.exit_code == 0, done.output
    return root / "models"


def _with_statistics(net: nn.Module) -> nn.Module:
    """The net with the batch-norm statistics of drawn scenes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    pictures = np.stack([scene(seed, 120, 160)[0] for seed in range(2)])
    with torch.no_grad():
        net.train()(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    return net.eval()


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    """The bundle of a WildNet."""
    return write_bundle(tmp_path / "models", nets=WildNet())


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """A labelled data folder: bands of the three colours, and what they are."""
    root = tmp_path / "colors"
    for part in ("images", "masks"):
        (root / "val" / part).mkdir(parents=True)
    classes = [spec.model_dump() for spec in class_specs(("red", "green", "blue"))]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    for number in range(4):
        picture = bands(*[(RED, GREEN, BLUE)[(number + shift) % 3] for shift in range(3)], height=60, width=80)
        (root / "val" / "images" / f"{number}.png").write_bytes(encoded(picture))
        Image.fromarray(picture.argmax(axis=2).astype(np.uint8)).save(root / "val" / "masks" / f"{number}.png")
    return root


def quantize(bundle: Path, precision: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["quantize", str(bundle), "--precision", precision, *options])


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def content(bundle: Path) -> dict[str, bytes]:
    """Every file of the bundle's model folder and what it holds."""
    root = bundle.parent.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def unet(exported: Path, images: Path) -> Path:
    """The U-Net's bundle with an int8 variant that is right on every CPU."""
    folder = exported / "unet" / "1"
    before = content(folder)
    done = quantize(folder, "int8", "--images", str(images), "--keep-float", "0", "--reduce-range")
    assert done.exit_code == 0, done.output
    assert "mIoU was not measured" in done.stderr
    after = content(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"unet/1/{name}" for name in ("model.int8.onnx", "model.json", "golden.npz", "README.md")}
    return folder


def test_the_variant_is_recorded_and_opens(unet: Path) -> None:
    manifest = read_manifest(unet)
    reference, int8 = manifest.variants
    assert (reference.id, int8.id, int8.precision, int8.providers) == ("fp32", "int8", "int8", ("cpu",))
    assert int8.check is not None
    assert int8.check.argmax_agreement > 0.9
    assert int8.check.images == 3
    assert {"onnx", "onnxruntime"} == set(int8.check.versions)
    assert len(int8.check.sizes) > 2
    notes = [
        {entry.key: entry.value for entry in onnx.load(unet / one.file).metadata_props} for one in (reference, int8)
    ]
    assert notes[0] == notes[1]
    model = open_bundle(unet, ("cpu",), "int8")
    assert (model.variant.id, model.proved) == ("int8", True)
    assert "| int8 | `model.int8.onnx` | cpu |" in (unet / "README.md").read_text()


def test_convolutions_are_unsigned_times_signed_with_a_scale_for_each_channel(unet: Path) -> None:
    model = onnx.load(unet / "model.int8.onnx")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions[:-1]:
        values, weights = (makers[name] for name in node.input[:2])
        assert values.op_type == weights.op_type == "DequantizeLinear"
        assert constants[values.input[2]].data_type == TensorProto.UINT8
        weight = constants[weights.input[0]]
        assert weight.data_type == TensorProto.INT8
        assert np.abs(numpy_helper.to_array(weight).astype(int)).max() == 64, "--reduce-range"
        assert list(constants[weights.input[1]].dims) == [weight.dims[0]]
        assert {attribute.name: attribute.i for attribute in weights.attribute}["axis"] == 0
    assert constants[convolutions[-1].input[1]].data_type == TensorProto.FLOAT


def test_onnxruntime_computes_its_convolutions_in_int8(unet: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(unet / "model.int8.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 18
    assert kinds.count("Conv") == 1


def test_it_is_served_with_masks_like_the_references(unet: Path, tmp_path: Path) -> None:
    picture = scene(20, 131, 177)[0]
    with running(unet.parent.parent, tmp_path / "log", {"VARIANT": "int8", "READY": "any"}) as server:
        query = {"model": "unet", "output": "mask"}
        answer = httpx.post(f"{server.url}/segment", params=query, files={"image": encoded(picture)}, timeout=60)
        told = httpx.get(f"{server.url}/models/unet").json()
    assert answer.status_code == 200, answer.text
    assert told["variant"] == "int8"
    mask = np.asarray(Image.open(BytesIO(answer.content)))
    assert (mask == open_bundle(unet, ("cpu",), "fp32").segmenter(picture).mask).mean() > 0.9


def test_the_same_variant_twice_is_refused_unless_it_is_to_be_replaced(unet: Path, images: Path) -> None:
    before = content(unet)
    assert_refused(quantize(unet, "int8", "--images", str(images)), "has a variant int8 already", "--overwrite", "--id")
    assert content(unet) == before
    assert_refused(quantize(unet, "int8", "--images", str(images), "--id", "fp32"), "is the reference", "--id")
    assert_refused(quantize(unet, "int8", "--images", str(images), "--id", "a b"), "id")
    options = ["--calibration", "minmax", "--keep-float", "0", "--reduce-range"]
    done = quantize(unet, "int8", "--images", str(images), "--overwrite", *options)
    assert done.exit_code == 0, done.output
    assert [variant.id for variant in read_manifest(unet).variants] == ["fp32", "int8"]
    assert (unet / "README.md").read_text().count("## Variants") == 1


def test_layers_that_hurt_stay_float(wild: Path, colors: Path) -> None:
    pictures = str(colors / "val" / "images")
    done = quantize(wild, "int8", "--images", pictures, "--labelled", str(colors), "--max-miou-drop", "0")
    assert done.exit_code == 0, done.output
    assert "5 convolutions" not in done.stderr
    manifest = read_manifest(wild)
    measured = manifest.metrics["variants"]["int8"]
    assert {name.split()[0] for name in measured["kept_float"]} == WILD_LAYERS
    assert (measured["miou"], measured["miou_drop"]) == (1, 0)
    check = manifest.variants[1].check
    assert check is not None and check.warnings == ()
    graph = onnx.load(wild / "model.int8.onnx").graph
    kept = {node.name for node in graph.node if node.op_type == "Conv" and node.input[1].endswith(".weight")}
    assert kept == {*WILD_LAYERS, "last"}
    weights = [
        numpy_helper.to_array(one) for one in graph.initializer if one.data_type == TensorProto.INT8 and one.dims
    ]
    assert all(np.abs(one.astype(int)).max() == 127 for one in weights if one.ndim == 4)
    for name in WILD_LAYERS:
        assert name in done.stdout


def test_nothing_changes_where_it_costs_too_much(wild: Path, colors: Path) -> None:
    before = content(wild)
    options = ["--images", str(colors / "val" / "images"), "--keep-float", "0"]
    done = quantize(wild, "int8", *options, "--labelled", str(colors), "--max-miou-drop", "0")
    assert_refused(done, "points of mIoU", "--max-miou-drop", "--keep-float")
    assert_refused(quantize(wild, "int8", *options), "agrees with the reference", "90.0000% are needed")
    assert content(wild) == before
    assert [path.name for path in wild.parent.parent.iterdir()] == ["rgb"]


def test_the_old_bundle_is_back_where_the_new_one_cannot_take_its_place(
    wild: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = content(wild), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == wild.resolve() and self.name == wild.name:
            raise OSError("no space left")
        return rename(self, target)

    def change() -> None:
        with export.revision.revision(wild) as copy:
            (copy / "model.json").write_text("{}")
            monkeypatch.setattr(Path, "rename", failing)

    with pytest.raises(OSError, match="no space"):
        change()
    monkeypatch.undo()
    assert content(wild) == before


def test_a_bundle_that_somebody_else_changes_meanwhile_keeps_what_they_did(wild: Path) -> None:
    def change() -> None:
        with export.revision.revision(wild) as mine:
            (mine / "model.json").write_text("{}")
            with export.revision.revision(wild) as theirs:
                (theirs / "model.json").write_text("[]")

    with pytest.raises(ExportError, match="was changed meanwhile"):
        change()
    assert (wild / "model.json").read_text() == "[]"
    assert [path.name for path in wild.parent.parent.iterdir()] == ["rgb"]


def test_ignored_classes_have_no_part_in_the_cost(tmp_path: Path) -> None:
    bundle, data = write_bundle(tmp_path / "models"), tmp_path / "data"
    for kind in ("images", "masks"):
        (data / "val" / kind).mkdir(parents=True)
    classes = [spec.model_dump() for spec in class_specs(("red", "green", "blue"))]
    (data / "classes.json").write_text(json.dumps({"classes": classes, "ignore": [1]}))
    (data / "val" / "images" / "a.png").write_bytes(encoded(bands(RED, GREEN, height=60, width=80)))
    Image.new("L", (80, 60), 0).save(data / "val" / "masks" / "a.png")  # so green is wrong, at every second pixel
    miou = Labelled.open(data, "val", read_manifest(bundle)).miou({"net": open_bundle(bundle, ("cpu",)).segmenter})
    assert miou["net"] == pytest.approx(0.5, abs=0.02)


def test_a_half_precision_keeps_its_ends_in_float32(exported: Path) -> None:
    folder = exported / "indexfree" / "1"
    done = quantize(folder, "fp16", "--min-agreement", "0")
    assert done.exit_code == 0, done.output
    assert "not what a GPU's kernels add" in done.stderr
    variant = read_manifest(folder).variants[-1]
    assert (variant.id, variant.precision, variant.providers) == ("fp16", "fp16", ("cuda",))
    assert open_bundle(folder, ("cpu",)).variant.id == "fp32"
    graph = onnx.load(folder / "model.fp16.onnx").graph
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert constants[node.input[1]].data_type == TensorProto.FLOAT16
    division = next(node for node in graph.node if node.op_type == "Div" and node.name == "node_div")
    makers = {output: node for node in graph.node for output in node.output}
    cast = makers[division.input[0]]
    assert (cast.op_type, cast.attribute[0].i) == ("Cast", TensorProto.FLOAT)
    assert makers[cast.input[0]].op_type == "Transpose"


def test_a_half_precision_has_no_max_unpooling(exported: Path) -> None:
    folder = exported / "segnet" / "1"
    before = content(folder)
    assert_refused(quantize(folder, "fp16"), "MaxUnpool", "--lowering indexfree")
    assert content(folder) == before


def test_index_free_unpooling_is_exact_on_its_own_quantized_input(exported: Path, images: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported / "indexfree" / "1", tmp_path / "models" / "indexfree" / "1"))
    done = quantize(folder, "int8", "--images", str(images), "--keep-float", "0", "--min-agreement", "0")
    assert done.exit_code == 0, done.output
    model = onnx.load(folder / "model.int8.onnx")
    found = list(_unpoolings(model))
    assert len(found) == 5
    names = sorted({name for names in found for name in names})
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(names, {"image": scene(3, 96, 128)[0][None]}), strict=True))
    for names_of in found:
        pooled, small, placed = (torch.tensor(values[name]) for name in names_of)
        maximum, indices = nn.functional.max_pool2d(pooled, 2, return_indices=True)
        assert len(torch.unique(pooled)) <= 256
        assert torch.equal(placed, nn.functional.max_unpool2d(small, indices, [2, 2], output_size=pooled.shape))
        assert maximum.shape == small.shape


def _unpoolings(model: ModelProto) -> Iterator[tuple[str, str, str]]:
    """Of each index-free unpooling the tensor whose maxima it looks for, its values, and where it puts them."""
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "DepthToSpace":
            product = makers[makers[node.input[0]].input[0]]
            assert product.op_type == "Mul"
            tiles = _upwards(makers, product.input[0])
            yield makers[tiles.input[0]].input[0], product.input[1], node.output[0]


def _upwards(makers: dict[str, NodeProto], name: str) -> NodeProto:
    waiting = deque([name])
    while waiting:
        node = makers.get(waiting.popleft())
        if node is not None and node.op_type == "SpaceToDepth":
            return node
        waiting.extend(node.input if node is not None else ())
    raise AssertionError(f"no SpaceToDepth before {name}")


def test_native_unpooling_in_int8_puts_values_where_its_own_maxima_were_at_every_size(
    exported: Path, images: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported / "segnet" / "1", tmp_path / "models" / "segnet" / "1"))
    done = quantize(folder, "int8", "--images", str(images), "--keep-float", "0", "--min-agreement", "0")
    assert done.exit_code == 0, done.output
    model = onnx.load(folder / "model.int8.onnx")
    pooled = [node.input[0] for node in model.graph.node if node.op_type == "MaxPool"]
    places = [node.input[1] for node in model.graph.node if node.op_type == "MaxUnpool"][::-1]
    assert len(pooled) == len(places) == 5
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    compared = [makers[name] for node in model.graph.node if node.op_type in ("Less", "Max") for name in node.input]
    assert set(compared) == {"Conv", "Max"}
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in pooled)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in places)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert len(read_manifest(folder).variants[1].check.sizes) == 3  # type: ignore[union-attr]
    for height, width in ((97, 131), (64, 224)):
        image = {"image": scene(5, height, width)[0][None]}
        scores, *found = session.run(["logits", *pooled, *places], image)
        assert np.shape(scores) == (1, 6, height, width)
        for values, indices in zip(found[:5], found[5:], strict=True):
            plane = values.shape[2] * values.shape[3]
            own = nn.functional.max_pool2d(torch.tensor(values), 2, return_indices=True)[1]
            assert torch.equal(torch.tensor(indices) % plane, own)


def test_wrong_inputs_are_one_line(wild: Path, colors: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    pictures = ["--images", str(colors / "val" / "images")]
    assert_refused(quantize(empty, "int8", *pictures), "model.json: cannot be read")
    assert_refused(quantize(wild, "int8", "--images", str(empty)), "holds no pictures")
    assert_refused(quantize(wild, "int8", *pictures, "--labelled", str(empty)), "classes.json")
    assert_refused(quantize(wild, "int8", *pictures, "--keep-float", "99"), "every convolution stays float")
    single = write_bundle(tmp_path / "single")
    assert_refused(quantize(single, "int8", *pictures), "no convolution")
    assert quantize(wild, "int8").exit_code == 2
    assert quantize(wild, "int4", *pictures).exit_code == 2
    (colors / "val" / "masks" / "0.png").unlink()
    assert_refused(quantize(wild, "int8", *pictures, "--labelled", str(colors)), "has no mask")


def _agreement(costs: dict[str, float], reduced: Layers) -> float:
    return 1 - sum(costs[name] for name in reduced)


def test_as_few_layers_stay_float_as_are_enough() -> None:
    costs = {f"layer{number}": 1e-5 for number in range(40)} | {"layer7": 0.2, "layer20": 0.1, "layer33": 0.05}
    asked: list[Layers] = []

    def measure(reduced: Layers) -> float:
        asked.append(reduced)
        return _agreement(costs, reduced)

    choice = choose(tuple(costs), measure, enough=0.995)
    assert choice.agreement >= 0.995
    assert len(choice.kept) == 3
    assert {"layer7", "layer20", "layer33"} <= {name for group in choice.kept for name in group.layers}
    assert set(choice.reduced) | {name for group in choice.kept for name in group.layers} == set(costs)
    assert len(asked) < 40


def test_where_nothing_is_enough_layers_stay_float_only_as_long_as_that_helps() -> None:
    costs = {f"layer{number}": 0.01 for number in range(20)} | {"layer3": 0.5}
    floor = 0.2
    choice = choose(tuple(costs), lambda reduced: 0.9 * _agreement(costs, reduced) if reduced else floor, enough=1)
    assert choice.kept[0].layers == ("layer3",)
    nothing_helps = choose(("a", "b", "c", "d"), lambda _: 0.5, enough=0.9)
    assert nothing_helps.kept == ()


def test_a_number_of_layers_can_be_asked_for() -> None:
    costs = {"a": 0.1, "b": 0.3, "c": 0.2}
    choice = choose(tuple(costs), lambda reduced: _agreement(costs, reduced), enough=0, keep=2)
    assert [group.layers for group in choice.kept] == [("b",), ("c",)]
    assert choice.reduced == ("a",)
