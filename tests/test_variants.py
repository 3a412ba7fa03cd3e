"""Of a bundle's variants the fastest that is right serves."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from service.bundle import open_bundle
from service.errors import BundleError
from service.settings import PROVIDERS
from tests.bundles import ROLLED, Net, edited, write_bundle

CPU = ["cpu"]


def test_of_two_right_variants_the_faster_one_serves(tmp_path: Path) -> None:
    slow = Net(turns=50_000)
    assert open_bundle(write_bundle(tmp_path, "a", nets={"slow": slow, "fast": Net()}), CPU).variant.id == "fast"
    assert open_bundle(write_bundle(tmp_path, "b", nets={"fast": Net(), "slow": slow}), CPU).variant.id == "fast"


def test_a_wrong_variant_is_passed_over(tmp_path: Path) -> None:
    nets = {"fp32": Net(turns=50_000), "int8": Net(weights=ROLLED)}
    model = open_bundle(write_bundle(tmp_path, nets=nets), CPU)
    assert (model.variant.id, model.proved) == ("fp32", True)


def test_where_every_variant_is_wrong_every_reason_is_told(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets={"fp32": Net(), "int8": Net(weights=ROLLED)})
    (folder / "model.onnx").unlink()
    with pytest.raises(
        BundleError, match=r"model\.onnx: cannot be read.*; .*model\.int8\.onnx: agrees with the golden mask"
    ):
        open_bundle(folder, CPU)


def test_the_variant_that_the_settings_name_serves_though_it_is_slower(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets={"slow": Net(turns=50_000), "fast": Net()})
    assert open_bundle(folder, CPU, variant="slow").variant.id == "slow"


def test_a_variant_that_the_settings_name_is_refused_where_it_is_wrong_or_not_there(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets={"fp32": Net(), "int8": Net(weights=ROLLED)})
    with pytest.raises(BundleError, match="agrees with the golden mask"):
        open_bundle(folder, CPU, variant="int8")
    with pytest.raises(BundleError, match=r"variant fp16; it has fp32 \(cpu\), int8 \(cpu\)"):
        open_bundle(folder, CPU, variant="fp16")


def test_without_a_golden_picture_the_first_variant_serves(tmp_path: Path) -> None:
    nets = {"fp32": Net(), "int8": Net(weights=ROLLED)}
    assert open_bundle(write_bundle(tmp_path, nets=nets, golden=False), CPU).variant.id == "fp32"


def test_a_variant_for_other_providers_is_not_opened(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, nets={"fp32": Net(), "fp16": Net(weights=ROLLED)}, golden=False)
    with edited(folder) as manifest:
        manifest["variants"][0]["providers"] = ["cuda"]
    assert open_bundle(folder, CPU).variant.id == "fp16"
    with edited(folder) as manifest:
        manifest["variants"][1]["providers"] = ["cuda", "tensorrt"]
    with pytest.raises(BundleError, match=r"no variant for cpu.*it has fp32 \(cuda\), fp16 \(cuda, tensorrt\)"):
        open_bundle(folder, CPU)


def test_a_provider_that_this_onnxruntime_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    missing = next(name for name, long in PROVIDERS.items() if long not in ort.get_available_providers())
    folder = write_bundle(tmp_path, providers=[missing])
    with pytest.raises(BundleError, match=rf"{PROVIDERS[missing]} is not in this build .*CPUExecutionProvider"):
        open_bundle(folder, [missing, "cpu"])
