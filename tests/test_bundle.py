"""A bundle is served only if it is right: files as written, graph as described, golden picture answered."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from time import sleep

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.bundle import open_bundle
from service.errors import BundleError
from service.golden import Golden
from service.graph import Answer, Graph, Tensor
from service.manifest import GOLDEN, InputSpec, OutputSpec, read_manifest
from service.segmenter import Segmenter
from service.sharing import Sharing
from service.turn import Stop
from tests.bundles import BLUE, GREEN, RED, REDNESS, ROLLED, Layout, Net, bands, seal, write_bundle
from tests.cpus import CPUS, on_several_cpus

CPU = ["cpu"]
PICTURE = bands(RED, GREEN, BLUE)
SEEN = PICTURE.argmax(axis=2).astype(np.uint8)


def assert_refused(folder: Path, message: str) -> None:
    """The bundle is refused with this message, which also names the bundle."""
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(folder, CPU, sharing=Sharing(1))
    assert str(folder) in str(caught.value)


WAIT = 0.5
"""Seconds; a thousand times what the net itself takes."""


def test_a_sealed_bundle_that_answers_right_is_proved(tmp_path: Path) -> None:
    model = open_bundle(write_bundle(tmp_path), CPU)
    assert (model.name, model.version, model.variant.id, model.proved) == ("rgb", 1, "fp32", True)
    (trial,) = model.trials
    assert trial.id == "fp32" and trial.ms is not None and trial.ms > 0
    assert (model.segmenter(PICTURE).mask == SEEN).all()


def test_a_bundle_written_by_hand_is_served_but_not_proved(tmp_path: Path) -> None:
    model = open_bundle(write_bundle(tmp_path, golden=False, check=False, sha256=False), CPU)
    assert not model.proved
    assert model.trials[0].ms is None
    assert (model.segmenter(PICTURE).mask == SEEN).all()


@pytest.mark.parametrize("missing", ["golden", "check", "sha256"])
def test_a_bundle_is_not_proved_if_any_of_the_proof_is_missing(tmp_path: Path, missing: str) -> None:
    folder = write_bundle(tmp_path, golden=missing != "golden", check=missing != "check", sha256=missing != "sha256")
    assert not open_bundle(folder, CPU).proved


@pytest.mark.parametrize(
    "net",
    [
        Net(dtype="float32", layout="NCHW", output_layout="NHWC"),
        Net(stride=4),
        Net(height=48, width=64),
        Net(batch=2, height=48, width=64),
        Net(labels="labels", decoys=("aux",)),
    ],
    ids=["float", "coarse", "fixed size", "fixed batch", "several outputs"],
)
def test_any_kind_of_net_can_be_proved(tmp_path: Path, net: Net) -> None:
    assert open_bundle(write_bundle(tmp_path, nets=net), CPU).proved


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_net_of_one_channel_can_be_proved(tmp_path: Path, sigmoid: bool) -> None:
    folder = write_bundle(tmp_path, nets=Net(weights=REDNESS, sigmoid=sigmoid), classes=("other", "red"))
    assert open_bundle(folder, CPU).proved


def test_a_net_that_takes_other_classes_for_the_golden_ones_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets=Net(weights=ROLLED), golden=Golden(PICTURE, {"fp32": SEEN}))
    assert_refused(folder, r"agrees with the golden mask at 0\.0000% of the pixels, 99\.9000% are needed")


@pytest.mark.parametrize(("wrong", "accepted"), [(76, True), (77, False)])
def test_the_golden_mask_may_differ_at_as_many_pixels_as_the_manifest_allows(
    tmp_path: Path, wrong: int, accepted: bool
) -> None:
    mask = SEEN.copy()
    mask.flat[:wrong] = 2  # of 76,800: 0.1 % is 76.8
    folder = write_bundle(tmp_path, golden=Golden(PICTURE, {"fp32": mask}))
    if accepted:
        assert open_bundle(folder, CPU).proved
    else:
        assert_refused(folder, "agrees with the golden mask")


def test_a_golden_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, golden=Golden(PICTURE, {"fp32": SEEN[::2, ::2]}))
    assert_refused(folder, r"answers the golden picture at \(240, 320\), the golden mask is \(120, 160\)")


def test_a_variant_without_a_golden_mask_is_refused_where_there_is_a_golden_picture(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, golden=Golden(PICTURE, {"other": SEEN}))
    assert_refused(folder, "holds no mask for the variant fp32")


def test_a_golden_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, golden=Golden(PICTURE[..., 0], {"fp32": SEEN}))
    assert_refused(folder, r"the picture is uint8 \(240, 320\), not uint8 \(H, W, 3\)")


def test_waiting_for_a_core_is_not_counted_as_the_nets_time_where_others_use_them(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "a")
    manifest = read_manifest(folder)
    graph = Graph(folder / "model.onnx", manifest, ("cpu",), 1)

    def late(tensor: Tensor, stop: Stop | None = None) -> Answer:
        sleep(WAIT)
        return graph(tensor, stop)

    golden, segmenter = Golden.load(folder / GOLDEN), Segmenter(manifest, late)
    taken = [golden.prove(folder, segmenter, manifest.reference, runs=1, crowded=crowded) for crowded in (True, False)]
    assert taken[0] < WAIT * 1e3 <= taken[1]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_net_of_free_sides_knows_those_that_the_manifest_fixes(layout: Layout, tmp_path: Path) -> None:
    free = Net(layout=layout)
    spec = free.input_spec().model_copy(update={"fit": "stretch", "height": 24, "width": 32})
    sides = {"NHWC": [24, 32, 3], "NCHW": [3, 24, 32]}[layout]
    folder = write_bundle(tmp_path, nets=free, spec=spec)
    graph = open_bundle(folder, CPU).graph
    assert graph.shape == ["batch", *sides]
    pictures = [np.full((1, *sides), value, np.uint8) for value in (0, 100, 255)]
    for picture, answer in zip(pictures, graph.batch(pictures), strict=True):
        np.testing.assert_array_equal(graph(picture).scores, answer.scores)
    free_sides = {"NHWC": ["height", "width", 3], "NCHW": [3, "height", "width"]}[layout]
    assert open_bundle(write_bundle(tmp_path, "native", nets=free), CPU).graph.shape == ["batch", *free_sides]
    any_size = Graph(folder / "model.onnx", read_manifest(folder), CPU, any_size=True)
    assert any_size.shape == ["batch", *free_sides]


@pytest.mark.parametrize("names", [("batch", "side", "side"), ("side", "side", "width"), ("side", None, "side")])
def test_sides_that_share_a_name_stay_free(names: tuple[str | None, ...], tmp_path: Path) -> None:
    spec = Net().input_spec().model_copy(update={"fit": "stretch", "height": 24, "width": 32})
    folder = write_bundle(tmp_path, spec=spec, sha256=False)
    graph = onnx.load(folder / "model.onnx")
    for dim, name in zip(graph.graph.input[0].type.tensor_type.shape.dim, names, strict=False):
        dim.Clear()
        if name is not None:
            dim.dim_param = name
    onnx.save(graph, folder / "model.onnx")
    opened = open_bundle(folder, CPU).graph
    assert [side for side in opened.shape if side == "side"] == ["side", "side"]
    assert opened(np.zeros((1, 24, 32, 3), np.uint8)).scores is not None


@on_several_cpus
@pytest.mark.parametrize(
    ("cores", "places"), [(len(CPUS), [{cpu} for cpu in CPUS[1:]]), (len(CPUS) + 1, [set(CPUS)] * len(CPUS))]
)
def test_a_net_that_is_opened_for_all_cpus_has_a_thread_on_each_but_the_callers(
    tmp_path: Path, cores: int, places: list[set[int]]
) -> None:
    def threads() -> set[int]:
        return {int(task.name) for task in Path("/proc/self/task").iterdir()}

    folder, before = write_bundle(tmp_path), threads()
    graph = Graph(folder / "model.onnx", read_manifest(folder), CPU, cores)
    for _ in range(100):
        found = sorted((os.sched_getaffinity(thread) for thread in threads() - before), key=min)
        if found == places:  # a thread moves itself once it runs
            break
        sleep(0.05)
    assert found == places
    del graph


def test_a_golden_file_survives_being_written_and_read(tmp_path: Path) -> None:
    Golden(PICTURE, {"fp32": SEEN, "int8": SEEN}).save(tmp_path / GOLDEN)
    found = Golden.load(tmp_path / GOLDEN)
    assert set(found.masks) == {"fp32", "int8"}
    np.testing.assert_array_equal(found.picture, PICTURE)
    np.testing.assert_array_equal(found.masks["int8"], SEEN)


def test_a_golden_file_with_any_byte_damaged_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / GOLDEN
    Golden(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8), {"fp32": SEEN[:9, :9]}).save(path)
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            Golden.load(path)
        except BundleError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"no archive"], ids=["empty", "cut off", "text"])
def test_a_golden_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_bundle(tmp_path)
    (folder / GOLDEN).write_bytes(content)
    seal(folder)
    assert_refused(folder, f"{GOLDEN}: cannot be read")


def test_a_golden_file_that_is_a_single_array_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, sha256=False)
    with (folder / GOLDEN).open("wb") as file:
        np.save(file, PICTURE)
    assert_refused(folder, f"{GOLDEN}: cannot be read")


@pytest.mark.parametrize("file", ["model.onnx", GOLDEN])
def test_a_file_that_is_not_the_one_that_was_sealed_is_refused(tmp_path: Path, file: str) -> None:
    folder = write_bundle(tmp_path)
    other = write_bundle(tmp_path, "other", nets=Net(weights=ROLLED))
    shutil.copy(other / file, folder / file)
    assert_refused(folder, f"{file}: its sha256 is .*, model.json says .*: the file is damaged or another one")


@pytest.mark.parametrize("file", ["model.onnx", GOLDEN])
def test_a_damaged_file_is_not_even_opened(tmp_path: Path, file: str) -> None:
    folder = write_bundle(tmp_path)
    (folder / file).write_bytes(b"no parser should see this")
    assert_refused(folder, f"{file}: its sha256 is")


@pytest.mark.parametrize("file", ["model.onnx", GOLDEN])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    folder = write_bundle(tmp_path / "models")
    shutil.move(folder / file, tmp_path / file)
    (folder / file).symlink_to(tmp_path / file)
    assert_refused(folder, "leads out of the bundle's folder")


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    shutil.move(folder / "model.onnx", folder / "data.onnx")
    (folder / "model.onnx").symlink_to("data.onnx")
    assert open_bundle(folder, CPU).proved


def test_a_version_folder_that_is_itself_a_link_is_followed(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "store")
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb" / "1").symlink_to(folder)
    assert open_bundle(tmp_path / "rgb" / "1", CPU).proved


@pytest.mark.parametrize("place", ["rgb/2", "bgr/1", "rgb/01"])
def test_a_bundle_in_a_folder_of_another_name_or_version_is_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "moved" / place
    shutil.copytree(write_bundle(tmp_path), folder)
    assert_refused(folder, "model.json says rgb version 1; the folder must be rgb/1")


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    (folder / "model.onnx").unlink()
    assert_refused(folder, "model.onnx: cannot be read: No such file")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"no graph", lambda data: data[: len(data) // 2]])
def test_a_graph_that_is_none_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = write_bundle(tmp_path)
    (folder / "model.onnx").write_bytes(damage((folder / "model.onnx").read_bytes()))
    seal(folder)
    assert_refused(folder, "model.onnx: cannot be opened")


def test_weights_outside_the_graphs_file_are_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    onnx.save(
        onnx.load(folder / "model.onnx"), folder / "model.onnx",
        save_as_external_data=True, location="weights.bin", size_threshold=0,
    )  # fmt: skip
    assert (folder / "weights.bin").exists()
    seal(folder)
    assert_refused(folder, "keeps weights in other files")


def test_an_operator_that_needs_a_library_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    model = onnx.load(folder / "model.onnx")
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    assert_refused(folder, "model.onnx: cannot be opened")


@pytest.mark.parametrize(
    ("net", "spec", "message"),
    [
        (Net(dtype="float32"), InputSpec(fit="native"), r"is tensor\(float\), the manifest says uint8"),
        (Net(), InputSpec(fit="native", dtype="float32"), r"is tensor\(uint8\), the manifest says float32"),
        (Net(), InputSpec(fit="native", name="x"), r"the graph's inputs are \['image'\], the manifest names 'x'"),
        (Net(), InputSpec(fit="native", layout="NCHW"), r"has the shape .*, the manifest says"),
        (Net(height=48, width=64), InputSpec(height=64, width=48), r"has the shape .*, the manifest says"),
        (Net(height=48, width=64), InputSpec(fit="native"), r"has the shape .*, the manifest says"),
        (
            Net(),
            InputSpec(fit="native", channels="GRAY", pad_value=(0,), mean=(0,), std=(1,)),
            r"has the shape .*, the manifest says",
        ),
    ],
    ids=["float", "uint8", "name", "layout", "sides swapped", "fixed size", "grey"],
)
def test_an_input_that_is_not_as_the_manifest_says_is_refused(
    tmp_path: Path, net: Net, spec: InputSpec, message: str
) -> None:
    assert_refused(write_bundle(tmp_path, nets=net, spec=spec, golden=False), message)


@pytest.mark.parametrize("output", [OutputSpec(logits="scores"), OutputSpec(labels="ids")])
def test_an_output_that_the_graph_does_not_have_is_refused(tmp_path: Path, output: OutputSpec) -> None:
    folder = write_bundle(tmp_path, output=output, golden=False)
    assert_refused(folder, "the graph has no output '(scores|ids)', only logits")


def test_a_net_that_answers_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, classes=("red", "green"), golden=Golden(PICTURE, {"fp32": SEEN}))
    assert_refused(folder, "scores of 2 classes are expected")


def test_a_net_that_fails_on_the_golden_picture_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets=Net(only=(48, 64)), golden=Golden(PICTURE, {"fp32": SEEN}))
    assert_refused(folder, "model.onnx")


def test_a_net_that_sees_whole_pictures_not_pixels_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, golden=Golden(PICTURE, {"fp32": SEEN}))
    model = onnx.load(folder / "model.onnx")
    (output,) = model.graph.output
    model.graph.node[-1].output[0] = "map"
    model.graph.node.append(helper.make_node("ReduceMean", ["map"], [output.name], axes=[2, 3], keepdims=0))
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None, 3]))
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    assert_refused(folder, "model.onnx")


def test_a_golden_file_that_is_listed_but_gone_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    (folder / GOLDEN).unlink()
    assert_refused(folder, "golden.npz: cannot be read")
