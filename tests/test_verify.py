"""`segserve-export verify`: a bundle that still answers right holds; one that does not is told from it, and shown."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file

from export.cli import main
from export.compare import NEAR_TIE, REAL, SAME, Comparison, compare
from export.errors import ExportError
from export.prove import prove
from export.rebuild import rebuild
from export.report import MARK, draw
from export.tracing import ServedNet
from service.graph import Answer, Graph, Tensor
from service.manifest import OutputSpec, read_manifest
from service.turn import Stop
from tests.bundles import REDNESS, ROLLED, Net, bands, edited, encoded, seal, write_bundle
from tests.test_adopt import adopt, planes
from training.nets import build_net
from training.scenes import SCENE_CLASSES, scene

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "models" / "camvid-enet" / "2"


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be spoilt."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "models" / SHIPPED.parent.name / SHIPPED.name))


def verify(bundle: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["verify", str(bundle), *options])


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def change(path: Path, edit: Callable[[ModelProto], None]) -> None:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)


def negate_first_weights(model: ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda one: np.prod(one.dims))
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))


def folder_of(tmp_path: Path, **pictures: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(encoded(picture))
    return folder


def test_a_built_in_nets_bundle_is_compared_with_pytorch_at_several_sizes_and_in_a_batch(
    shipped: Path, tmp_path: Path
) -> None:
    images = folder_of(tmp_path, street=scene(7, 200, 300)[0])
    done = verify(shipped, "--images", str(images), "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    assert "holds: fp32 on cpu, compared with PyTorch" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["holds"], report["reference"]) == (True, "PyTorch")
    assert report["agreement"] >= report["agreement_needed"] == 0.9999
    assert report["share_beyond_tolerance"] < 0.001
    rows = {row["name"]: row for row in report["comparisons"]}
    assert {"golden picture", "street.png", "golden picture at 361x481", "golden mask"} <= set(rows)
    assert [row["batch"] for row in rows.values()].count(3) == 3
    for row in rows.values():
        with Image.open(tmp_path / "report" / row["picture"]) as picture:
            assert picture.width > 900


def test_a_graph_that_no_longer_answers_as_pytorch_does_not_hold(shipped: Path, tmp_path: Path) -> None:
    change(shipped / "model.onnx", negate_first_weights)
    seal(shipped)
    assert_refused(
        verify(shipped, "--report", str(tmp_path / "report")),
        "does not hold",
        "99.9900% are needed",
        "real differences",
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["holds"] is False
    assert report["real_differences"] > report["near_ties"]


def test_damaged_files_are_named(shipped: Path) -> None:
    weights = shipped / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_refused(verify(shipped), "weights.safetensors is damaged or another one")
    (shipped / "golden.npz").unlink()
    assert_refused(verify(shipped), "golden.npz cannot be read")
    (shipped / "model.json").unlink()
    assert_refused(verify(shipped), "model.json: cannot be read")


def test_weights_of_another_net_are_refused(shipped: Path) -> None:
    weights = shipped / "weights.safetensors"
    state = load_file(weights)
    state.pop(next(name for name in state if name.endswith(".weight")))
    save_file(state, weights)
    seal(shipped)
    with edited(shipped) as manifest:
        manifest["source"]["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert_refused(verify(shipped), "holds no enet of")


def test_a_provider_that_is_not_there_is_one_line_that_names_those_that_are(shipped: Path) -> None:
    assert_refused(verify(shipped, "--provider", "tensorrt"), "tensorrt is not in the installed onnxruntime", "has cpu")
    assert verify(shipped, "--provider", "abacus").exit_code == 2


def test_an_unknown_variant_is_refused(shipped: Path) -> None:
    assert_refused(verify(shipped, "--variant", "int2"), "no variant 'int2'", "fp32")


def test_a_width_that_is_recorded_nowhere_is_seen_from_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(build_net("segnet-basic", 6, 8).state_dict(), tmp_path / "narrow.pt")
    (tmp_path / "classes.json").write_text(SCENE_CLASSES.model_dump_json())
    files = ["--checkpoint", str(tmp_path / "narrow.pt"), "--classes", str(tmp_path / "classes.json")]
    size = ["--net-width", "8", "--height", "96", "--width", "128", "--std", "0.2", "0.3", "0.4"]
    arguments = ["net", "segnet-basic", *files, "-o", str(tmp_path / "models" / "narrow"), *size]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    folder = tmp_path / "models" / "narrow" / "1"
    done = verify(folder)
    assert (done.exit_code, "compared with PyTorch" in done.stdout) == (0, True), done.output
    with edited(folder) as manifest:
        manifest["source"] = {"net": "segnet-basic"}
    assert verify(folder).exit_code == 0


@pytest.mark.parametrize("name", ["enet", "light", "unet"])
def test_a_net_of_any_width_is_rebuilt_from_its_weights_alone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_net(name, 3, 8)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    manifest = read_manifest(write_bundle(tmp_path)).model_copy(update={"source": {"net": name}})
    rebuilt = rebuild(tmp_path / "weights.safetensors", manifest)
    assert rebuilt is not None
    picture = scene(0, 96, 128)[0][None]
    spec = manifest.input
    with torch.inference_mode():
        wanted = ServedNet(net, spec.scale, spec.mean, spec.std).eval()(torch.from_numpy(picture))[0]
    np.testing.assert_array_equal(rebuilt(picture).scores, wanted)


def test_an_adopted_bundle_is_compared_with_its_golden_mask(tmp_path: Path) -> None:
    planes()(tmp_path / "net.onnx")
    assert adopt(tmp_path / "net.onnx", tmp_path / "models" / "net", "--scale", "255").exit_code == 0
    folder = tmp_path / "models" / "net" / "1"
    done = verify(folder, "--report", str(tmp_path / "report"))
    assert (done.exit_code, "compared with the golden mask" in done.stdout) == (0, True), done.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["agreement"], report["golden_agreement"]) == (None, 1)
    images = folder_of(tmp_path, red=bands((255, 0, 0)))
    assert_refused(verify(folder, "--images", str(images)), "golden masks alone", "leave --images out")
    change(folder / "model.onnx", negate_first_weights)
    seal(folder)
    assert_refused(verify(folder), "does not hold", "golden mask", "99.9000% are needed")


def test_a_net_that_is_not_built_in_is_compared_with_its_golden_mask(shipped: Path) -> None:
    with edited(shipped) as manifest:
        manifest["source"]["net"] = "streets.nets:build"
    done = verify(shipped)
    assert (done.exit_code, "compared with the golden mask" in done.stdout) == (0, True), done.output


def test_a_bundle_without_anything_to_compare_with_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, golden=False, check=False)
    assert_refused(verify(folder), "neither", "weights.safetensors", "golden mask of fp32")


def test_a_reduced_precision_is_compared_with_the_reference_variant(tmp_path: Path) -> None:
    nearly = ((1.001, 0.0, 0.0), (0.0, 0.999, 0.0), (0.0, 0.0, 1.0))
    folder = write_bundle(tmp_path, nets={"fp32": Net(), "half": Net(weights=nearly), "wrong": Net(weights=ROLLED)})
    with edited(folder) as manifest:
        for variant in manifest["variants"][1:]:
            variant["precision"] = "fp16"
    images = folder_of(tmp_path, colours=bands((255, 0, 0), (0, 255, 0), (9, 9, 200)))
    done = verify(folder, "--variant", "half", "--images", str(images))
    assert done.exit_code == 0, done.output
    assert "half on cpu, compared with fp32 on cpu" in done.stdout
    assert_refused(verify(folder, "--variant", "wrong"), "does not hold", "99.9000% are needed")


def test_a_graph_of_fixed_sides_is_compared_at_these(tmp_path: Path) -> None:
    fixed = Net(batch=1, height=64, width=96)
    folder = write_bundle(tmp_path, nets={"fp32": fixed, "other": fixed})
    done = verify(folder, "--variant", "other", "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["size"] for row in report["comparisons"][:-1]] == [[64, 96]]


def scores(*planes: list[list[float]]) -> Answer:
    return Answer(np.array(planes, np.float32))


def compared(wanted: Answer, found: Answer, output: OutputSpec | None = None) -> Comparison:
    height, width = (wanted.scores if wanted.scores is not None else np.zeros((1, 1, 1))).shape[1:]
    return compare("one", np.zeros((height, width, 3), np.uint8), wanted, found, output or OutputSpec())


def test_a_disagreement_is_a_near_tie_only_within_rounding() -> None:
    rounding = 1e-4 * np.sign(np.random.default_rng(0).normal(size=(2, 20, 20))).astype(np.float32)
    wanted = np.zeros((2, 20, 20), np.float32)
    wanted[0], wanted[1] = 10, 1
    wanted[:, 3, 3] = 5, 5 - 5e-5  # rounding may decide here
    found = wanted + rounding
    found[:, 3, 3] = 5 - 1e-4, 5 + 1e-4
    found[:, 7, 9] = 1, 10  # but not here
    one = compared(Answer(wanted), Answer(found))
    assert (one.kinds[3, 3], one.kinds[7, 9], one.kinds[0, 0]) == (NEAR_TIE, REAL, SAME)
    assert (one.near_ties, one.real, one.beyond) == (1, 1, 2)
    assert one.agreement == pytest.approx(398 / 400)
    assert (one.largest, one.max_abs_diff) == (10, 9)


def test_a_graph_that_is_wrong_everywhere_excuses_nothing_as_rounding() -> None:
    wanted = np.random.default_rng(0).normal(size=(3, 20, 20)).astype(np.float32)
    one = compared(Answer(wanted), Answer(wanted[::-1].copy()))
    assert (one.near_ties, one.real > 200) == (0, True)


def test_of_one_channel_the_sides_of_the_threshold_are_compared() -> None:
    wanted, found = scores([[-1.0, 0.2]]), scores([[-1.0, -0.2]])
    assert compared(wanted, found, OutputSpec(activation="sigmoid")).real == 1
    assert compared(wanted, found, OutputSpec(activation="probabilities")).real == 0


def test_answers_of_other_sizes_are_no_comparison() -> None:
    with pytest.raises(ExportError, match="answers at"):
        compared(scores([[1.0, 2.0]]), scores([[1.0]]))


def test_a_single_pixel_that_differs_can_be_seen() -> None:
    wanted = np.zeros((2, 400, 600), np.float32)
    wanted[0] = 1
    found = wanted.copy()
    found[:, 200, 300] = 0, 1
    sheet = np.asarray(draw(compared(Answer(wanted), Answer(found)), [(0, 0, 0), (0, 0, 255)], "PyTorch"))
    assert (sheet == (255, 0, 0)).all(axis=2).sum() >= (2 * MARK) ** 2


class OnlyEven:
    """A net that halves its input: it fails at odd sides."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        assert tensor.shape[1] % 2 == tensor.shape[2] % 2 == 0
        return self._graph(tensor)


def graph_of(folder: Path) -> Graph:
    return Graph(folder / "model.onnx", read_manifest(folder), ("cpu",))


def test_where_a_net_takes_no_odd_sides_it_is_proved_at_those_that_the_service_feeds(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets=Net(stride=2))
    spec = read_manifest(folder).input
    proof = prove(OnlyEven(graph_of(folder)), graph_of(folder), spec, [scene(0, 120, 160)[0]])
    assert proof.agreement == 1
    assert proof.sizes == ((120, 160), (122, 162), (32, 42))
    assert (proof.pictures, proof.batch) == (1, 3)
    check = proof.check(0.9999, ["a warning"])
    assert (check.images, check.sizes, check.warnings) == (1, proof.sizes, ("a warning",))


def test_a_graph_that_declares_steps_is_proved_at_no_other_sizes(tmp_path: Path) -> None:
    def in_steps_of_8(model: ModelProto) -> None:
        for axis, side in ((1, "8*height"), (2, "8*width")):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = side

    folder = write_bundle(tmp_path)
    change(folder / "model.onnx", in_steps_of_8)
    spec = read_manifest(folder).input.model_copy(update={"multiple_of": 8})
    proof = prove(graph_of(folder), graph_of(folder), spec, [scene(0, 120, 160)[0]])
    assert proof.sizes == ((120, 160), (128, 168), (32, 48))


def of_the_first_picture(model: ModelProto) -> None:
    """The graph answers for each picture of a batch what it would for the first one."""
    last = model.graph.node[-1]
    bounds = {"start": [0], "end": [1], "axis": [0], "ones": [1, 1, 1]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in bounds.items())
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["image"], ["sides"]),
            helper.make_node("Slice", ["sides", "start", "end"], ["count"]),
            helper.make_node("Concat", ["count", "ones"], ["shape"], axis=0),
            helper.make_node("Slice", ["all", "start", "end", "axis"], ["first"]),
            helper.make_node("Expand", ["first", "shape"], ["logits"]),
        ]
    )
    last.output[0] = "all"


def test_a_graph_that_is_wrong_only_within_a_batch_is_found_out(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    right = graph_of(folder)
    change(folder / "model.onnx", of_the_first_picture)
    proof = prove(right, graph_of(folder), read_manifest(folder).input, [scene(0, 120, 160)[0]])
    assert proof.agreement < 0.999
    assert proof.real > 0


def test_a_graph_that_fails_at_a_batch_says_so(tmp_path: Path) -> None:
    def only_one(model: ModelProto) -> None:
        shape = numpy_helper.from_array(np.array([1, 0, 0, -1], np.int64), "shape")
        model.graph.initializer.append(shape)
        model.graph.node[-1].output[0] = "all"
        model.graph.node.append(helper.make_node("Reshape", ["all", "shape"], ["logits"]))

    folder = write_bundle(tmp_path)
    right = graph_of(folder)
    change(folder / "model.onnx", only_one)
    wrong = graph_of(folder)
    with pytest.raises(ExportError, match="batch"):
        prove(right, wrong, read_manifest(folder).input, [scene(0, 120, 160)[0]])


def test_a_single_sigmoid_channel_is_proved_by_its_threshold(tmp_path: Path) -> None:
    options: dict[str, Any] = {"classes": ("other", "red"), "nets": Net(weights=REDNESS)}
    one = graph_of(write_bundle(tmp_path, "one", **options))
    folder = write_bundle(tmp_path, "two", classes=("other", "red"), nets=Net(weights=REDNESS, bias=(5.0,)))
    manifest = read_manifest(folder)
    proof = prove(one, graph_of(folder), manifest.input, [scene(0, 120, 160)[0]], manifest.output)
    assert proof.agreement < 1
