"""`segserve-export net` as users meet it: a proved bundle, or one clear line, exit code 1 and nothing left behind."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from export.bundle import Bar, export_bundle
from export.cli import main
from export.draft import Terms, draft
from export.errors import ExportError
from export.prove import TorchNet
from export.source import Candidate, TrainedNet
from export.tracing import ServedNet, trace
from service.bundle import open_bundle
from service.manifest import InputSpec
from tests.bundles import write_bundle
from training.evaluate import of_net
from training.nets import build_net
from training.scenes import SCENE_CLASSES, scene

NARROW = ("--net-width", "8")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare state dict of a narrow SegNet-Basic for the scenes' six classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "segnet-basic.pt"
    torch.save(build_net("segnet-basic", 6, 8).state_dict(), path)
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return write_classes(tmp_path)


def write_classes(folder: Path) -> Path:
    path = folder / "classes.json"
    path.write_text(json.dumps(SCENE_CLASSES.model_dump(mode="json")))
    return path


def export(net: str, checkpoint: Path, classes: Path, models: Path, *more: str) -> Result:
    arguments = ["--checkpoint", str(checkpoint), "--classes", str(classes), "-o", str(models / "streets"), *more]
    return CliRunner().invoke(main, ["net", net, *arguments])


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What the command said, and its model folder."""
    folder = tmp_path_factory.mktemp("exported")
    more = ["--license", "MIT", "--description", "Streets.", *NARROW]
    result = export("segnet-basic", checkpoint, write_classes(folder), folder / "models", *more)
    return result, folder / "models"


def assert_refused(result: Result, models: Path, *words: str) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line
    assert not models.exists() or list(models.iterdir()) == []


def test_a_bare_state_dict_becomes_a_proved_bundle_of_any_size(exported: tuple[Result, Path]) -> None:
    result, models = exported
    assert result.exit_code == 0, result.stderr
    assert "agrees with PyTorch at" in result.stdout
    folder = models / "streets" / "1"
    assert sorted(path.name for path in models.iterdir()) == ["streets"]
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "model.json",
        "golden.npz",
        "weights.safetensors",
        "LICENSE",
        "README.md",
    }
    model = open_bundle(folder, ("cpu",))
    assert model.proved
    assert (model.manifest.license, model.manifest.input.fit) == ("MIT", "native")
    net = build_net("segnet-basic", 6, 8)
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    picture = scene(3, 131, 177)[0]
    in_torch = of_net(net.eval(), InputSpec(fit="native", multiple_of=16), SCENE_CLASSES.channels)(picture).mask
    assert (model.segmenter(picture).mask == in_torch).mean() >= 0.9999


def test_exporting_again_takes_the_next_version(
    exported: tuple[Result, Path], checkpoint: Path, classes: Path, tmp_path: Path
) -> None:
    models = Path(shutil.copytree(exported[1], tmp_path / "models"))
    assert export("segnet-basic", checkpoint, classes, models, *NARROW).exit_code == 0
    assert sorted(path.name for path in (models / "streets").iterdir()) == ["1", "2"]


def test_half_weights_take_half_the_room_and_are_those_of_the_graph(
    exported: tuple[Result, Path], checkpoint: Path, classes: Path, tmp_path: Path
) -> None:
    result = export("segnet-basic", checkpoint, classes, tmp_path / "models", *NARROW, "--half-weights")
    assert result.exit_code == 0, result.stderr
    half, full = (models / "streets" / "1" for models in (tmp_path / "models", exported[1]))
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (half, full)]
    assert sizes[0] < 0.6 * sizes[1]
    verified = CliRunner().invoke(main, ["verify", str(half)])
    assert verified.exit_code == 0, verified.output
    picture = scene(1, 240, 320)[0][None]
    found = open_bundle(half, providers=("cpu",)).graph(picture).scores

    def distance(weights: Path) -> float:
        net = build_net("segnet-basic", 6, 8).eval()
        net.load_state_dict(load_file(weights / "weights.safetensors"))
        wanted = TorchNet(ServedNet(net, 255, (0, 0, 0), (1, 1, 1)).eval())(picture).scores
        assert wanted is not None and found is not None
        return float(np.median(np.abs(wanted - found)))

    assert distance(half) < 0.1 * distance(full)


def test_a_graph_for_another_provider_has_unpooling_in_a_form_that_it_can_run(
    checkpoint: Path, classes: Path, tmp_path: Path
) -> None:
    result = export("segnet-basic", checkpoint, classes, tmp_path / "models", "--provider", "cuda", *NARROW)
    assert result.exit_code == 0, result.stderr
    assert (
        "max-unpooling: indexfree: indexfree at 4 of 4 unpoolings: the CUDA provider has no MaxUnpool" in result.stdout
    )
    folder = tmp_path / "models" / "streets" / "1"
    variant = open_bundle(folder, ("cpu",)).variant
    assert (variant.lowering, variant.providers) == ("indexfree", ("cuda", "cpu"))
    assert "MaxUnpool" not in {node.op_type for node in onnx.load(folder / "model.onnx").graph.node}


def test_the_graph_itself_says_what_it_is(exported: tuple[Result, Path]) -> None:
    model = onnx.load(exported[1] / "streets" / "1" / "model.onnx")
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert notes["name"] == "streets"
    assert json.loads(notes["classes"]) == [spec.name for spec in SCENE_CLASSES.classes]
    assert json.loads(notes["palette"]) == [spec.color for spec in SCENE_CLASSES.classes]


def test_an_answer_of_too_few_classes_is_a_recorded_warning(classes: Path, tmp_path: Path) -> None:
    net = build_net("segnet-basic", 6, 8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    torch.save(net.state_dict(), tmp_path / "zero.pt")
    result = export("segnet-basic", tmp_path / "zero.pt", classes, tmp_path / "models", *NARROW)
    assert result.exit_code == 0, result.stderr
    assert "holds 1 classes, fewer than 3" in result.stderr
    manifest = json.loads((tmp_path / "models" / "streets" / "1" / "model.json").read_text())
    assert len(manifest["variants"][0]["check"]["warnings"]) == 1


class Fickle(nn.Module):
    """A net that answers the opposite from its second call on: what is traced is not what runs later."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_net("segnet-basic", 6, 8)
        self.calls: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.calls.append(1)
        logits: Tensor = self.net(image) * (1 if len(self.calls) == 1 else -1)
        return logits


def test_below_the_bar_nothing_is_written(tmp_path: Path) -> None:
    net = ServedNet(Fickle(), 255, (0, 0, 0), (1, 1, 1)).eval()
    candidate = Candidate(trace(net, 16, (96, 128)), InputSpec(fit="native", multiple_of=16))
    trained = TrainedNet([candidate], TorchNet(net), SCENE_CLASSES.classes, (), {"net": "fickle"})
    with pytest.raises(ExportError, match=r"agrees with PyTorch at .* 99\.9900% are needed; --min-agreement"):
        export_bundle(trained, tmp_path / "models" / "fickle", Terms("", "MIT", "MIT"), Bar(scene(1)[0]))
    assert list((tmp_path / "models").iterdir()) == []


class Small(nn.Module):
    """Answers the opposite where the picture is small."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image) * (-1 if image.shape[-2] < 100 else 1)
        return logits


def test_a_size_at_which_the_graph_is_wrong_is_not_outweighed_by_others(tmp_path: Path) -> None:
    net = build_net("segnet-basic", 6, 8)
    graph, reference = (ServedNet(one, 255, (0, 0, 0), (1, 1, 1)).eval() for one in (net, Small(net)))
    candidate = Candidate(trace(graph, 16, (96, 128)), InputSpec(fit="native", multiple_of=16))
    trained = TrainedNet([candidate], TorchNet(reference), SCENE_CLASSES.classes, (), {"net": "small"})
    with pytest.raises(ExportError, match=r"of the pixels of picture 1 at \d+x\d+: it is wrong there"):
        export_bundle(trained, tmp_path / "models" / "small", Terms("", "MIT", "MIT"), Bar(scene(1)[0], (), 0.9))
    assert list((tmp_path / "models").iterdir()) == []


def test_weights_of_a_run_that_diverged_are_refused(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[name][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "diverged.pt")
    result = export("segnet-basic", tmp_path / "diverged.pt", classes, tmp_path / "models", *NARROW)
    assert_refused(result, tmp_path / "models", "itself answers NaN")


def test_a_lower_bar_holds_for_the_golden_picture_too(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert export("segnet-basic", checkpoint, classes, models, *NARROW, "--min-agreement", "0.95").exit_code == 0
    manifest = json.loads((models / "streets" / "1" / "model.json").read_text())
    assert manifest["variants"][0]["golden_min"] == 0.95


def test_a_version_that_is_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "models" / "rgb"
    write_bundle(tmp_path / "other")

    def both() -> None:
        with draft(target) as folder:
            shutil.copytree(tmp_path / "other" / "rgb" / "1", folder, dirs_exist_ok=True)
            shutil.copytree(tmp_path / "other" / "rgb" / "1", target / "1")

    with pytest.raises(ExportError, match="version 1 was taken meanwhile: run it again"):
        both()
    assert [path.name for path in target.parent.iterdir()] == ["rgb"]
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="is a file"), draft(tmp_path / "file"):
        pass


def test_wrong_weights_are_refused(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"

    def assert_weights_refused(weights: Path, words: str) -> None:
        assert_refused(export("segnet-basic", weights, classes, models, *NARROW), models, words)

    assert_refused(export("segnet", checkpoint, classes, models), models, "does not fit segnet")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert_weights_refused(tmp_path / "empty.pt", "no checkpoint that can be read")
    torch.save({1: torch.zeros(1)}, tmp_path / "numbers.pt")
    assert_weights_refused(tmp_path / "numbers.pt", "no state dict")

    state = torch.load(checkpoint, weights_only=True)
    state.pop(next(iter(state)))
    torch.save(state, tmp_path / "missing.pt")
    assert_weights_refused(tmp_path / "missing.pt", "1 weights are missing")

    (tmp_path / "corrupt.pt").write_bytes(checkpoint.read_bytes()[:1000])
    assert_weights_refused(tmp_path / "corrupt.pt", "corrupt.pt is no")
    (tmp_path / "corrupt.safetensors").write_bytes(b"not safe, no tensors")
    assert_weights_refused(tmp_path / "corrupt.safetensors", "no checkpoint")


def test_a_pickle_of_a_whole_module_is_refused_without_running_it(classes: Path, tmp_path: Path) -> None:
    torch.save(build_net("unet", 6, 4), tmp_path / "module.pt")
    assert_refused(
        export("unet", tmp_path / "module.pt", classes, tmp_path / "models"), tmp_path / "models", "state dict"
    )

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"weight": Trap()}))
    assert_refused(export("unet", tmp_path / "trap.pt", classes, tmp_path / "models"), tmp_path / "models")
    assert not (tmp_path / "sprung").exists()


def test_another_number_of_classes_is_refused(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    listed = json.loads(classes.read_text())
    listed["classes"] = listed["classes"][:4]
    classes.write_text(json.dumps(listed))
    result = export("segnet-basic", checkpoint, classes, tmp_path / "models", *NARROW)
    assert_refused(result, tmp_path / "models", "with 4 classes")
    classes.write_text("{}")
    result = export("segnet-basic", checkpoint, classes, tmp_path / "models", *NARROW)
    assert_refused(result, tmp_path / "models", "classes.json")


def test_a_net_may_have_a_channel_for_the_ignored_class_too(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    classes.write_text(json.dumps(json.loads(classes.read_text()) | {"ignore": [5]}))
    assert export("segnet-basic", checkpoint, classes, tmp_path / "models", *NARROW).exit_code == 0
    manifest = json.loads((tmp_path / "models" / "streets" / "1" / "model.json").read_text())
    assert (len(manifest["classes"]), manifest["ignore"]) == (6, [5])


def test_wrong_usage_exits_with_2(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["net", "enet"]).exit_code == 2
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
    unknown = export("hourglass", checkpoint, classes, tmp_path / "models")
    assert (unknown.exit_code, "enet, " in unknown.stderr, "module:factory" in unknown.stderr) == (2, True, True)
    assert CliRunner().invoke(main, ["net", "enet", "--classes", str(classes), "-o", "models/x"]).exit_code == 2
    for option in ("--output=out", "--path=.", "--arg=a=1", "--native-stride", "--activation=sigmoid"):
        assert export("enet", checkpoint, classes, tmp_path / "models", option).exit_code == 2
    arguments = ["--checkpoint", "/no/such/file", "--classes", str(classes), "-o", "models/x"]
    assert CliRunner().invoke(main, ["net", "enet", *arguments]).exit_code == 2


def test_a_small_golden_picture_is_refused(checkpoint: Path, classes: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "small.png")
    small = ["--golden", str(tmp_path / "small.png"), *NARROW]
    result = export("segnet-basic", checkpoint, classes, tmp_path / "models", *small)
    assert_refused(result, tmp_path / "models", "100x100", "320x240")


def test_size_normalisation_and_width_of_a_bare_state_dict_can_be_said(classes: Path, tmp_path: Path) -> None:
    net = build_net("unet", 6, 8)
    torch.save(net.state_dict(), tmp_path / "narrow.pt")
    models = tmp_path / "models"
    size = ["--net-width", "8", "--height", "96", "--width", "128"]
    means = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]
    result = export("unet", tmp_path / "narrow.pt", classes, models, *size, *means)
    assert result.exit_code == 0, result.stderr
    model = open_bundle(models / "streets" / "1", ("cpu",))
    spec = model.manifest.input
    assert (spec.fit, spec.height, spec.width, spec.mean) == ("stretch", 96, 128, (0.485, 0.456, 0.406))
    picture = scene(3, 96, 128)[0]
    in_torch = of_net(net.eval(), spec, SCENE_CLASSES.channels)(picture).mask
    assert (model.segmenter(picture).mask == in_torch).mean() >= 0.9999
    result = export("unet", tmp_path / "narrow.pt", classes, tmp_path / "others", "--height", "96", "--net-width", "8")
    assert_refused(result, tmp_path / "others", "height and width")


def test_exporting_into_a_bundle_is_refused(classes: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "streets").mkdir(parents=True)
    (tmp_path / "models" / "streets" / "model.json").write_text("{}")
    result = export("segnet-basic", checkpoint, classes, tmp_path / "models", *NARROW)
    assert (result.exit_code, "the version is added" in result.stderr) == (1, True)
