"""Max-unpooling in its three forms is bit-equal to PyTorch's: ties, negative values, batches, odd sizes, any window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from export.convert import convert
from export.errors import ExportError
from export.lowering import Form, Provider, choose_forms
from export.tracing import ServedNet, trace
from training.nets.blocks import max_unpool

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.3, 0.3)
FORMS: tuple[Form, ...] = ("native", "scatter", "indexfree")


class Net(nn.Module):
    """A net that is nothing but a function of its input, which has values below and above 0."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def windows(
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
) -> Callable[[Tensor], Tensor]:
    """What is unpooled is another value than what was pooled, as in a decoder."""

    def function(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        return max_unpool(1 - 3 * pooled, indices, like=x)

    return function


def used_twice(x: Tensor) -> Tensor:
    """Two unpoolings share the indices of one pool."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return max_unpool(pooled, indices, like=x) - max_unpool(pooled * pooled, indices, like=x)


def nested(x: Tensor) -> Tensor:
    """Two pools, unpooled in reverse order, as in SegNet."""
    first, outer = F.max_pool2d(x, 2, return_indices=True)
    second, inner = F.max_pool2d(first, 2, return_indices=True)
    return max_unpool(max_unpool(2 - second, inner, like=first), outer, like=x)


def without_output_size(x: Tensor) -> Tensor:
    """The module that PyTorch's users write; it gives back even sides only."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, indices, (2, 2))


def indices_read(x: Tensor) -> Tensor:
    """Something besides the unpooling looks at the indices, so they must be PyTorch's."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return max_unpool(pooled + indices % 7, indices, like=x)


def other_size(x: Tensor) -> Tensor:
    """Unpools to a larger plane than was pooled from, so the same index means another place."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    height, width = x.shape[-2:]
    return torch.ops.aten.max_unpool2d(pooled, indices, [height + 2, width + 4])  # type: ignore[no-any-return]


def from_elsewhere(x: Tensor) -> Tensor:
    """The unpooling takes indices that went through another operator."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return max_unpool(pooled, indices.flip(1), like=x)


@dataclass(frozen=True)
class Case:
    """A net around an unpooling, and the forms that are right for it."""

    function: Callable[[Tensor], Tensor]
    right: tuple[Form, ...]
    even: bool = False


CASES = {
    "2x2": Case(windows(2), FORMS),
    "3x3": Case(windows(3), FORMS),
    "2x3": Case(windows((2, 3)), ("native", "scatter")),
    "gaps between windows": Case(windows(2, 3), ("native", "scatter")),
    "padded": Case(windows(3, padding=1), ("native", "scatter")),
    "padded on one side": Case(windows((3, 2), padding=(1, 0)), ("native", "scatter")),
    "ceil_mode": Case(windows(2, ceil_mode=True), ("native", "scatter")),
    "ceil_mode and padded": Case(windows(3, padding=1, ceil_mode=True), ("native", "scatter")),
    "dilated": Case(windows(2, 3, dilation=2), ("native", "scatter")),
    "used twice": Case(used_twice, FORMS),
    "nested": Case(nested, FORMS),
    "without output_size": Case(without_output_size, ("scatter",), even=True),
    "indices read": Case(indices_read, ("scatter", "indexfree")),
    "other size": Case(other_size, ("scatter",)),
    "indices from elsewhere": Case(from_elsewhere, ("scatter",)),
}


@cache
def served(name: str) -> ServedNet:
    return ServedNet(Net(CASES[name].function), 255, MEAN, STD).eval()


ALONE = ("without output_size", "other size")
"""Cases whose answers are not of the picture's size."""
EXPORTED: dict[str, tuple[Form, tuple[str, ...]]] = {
    form: (form, tuple(name for name, case in CASES.items() if form in case.right and name not in ALONE))
    for form in FORMS
} | {f"{form} {name}": (form, (name,)) for name in ALONE for form in CASES[name].right}
"""Each case in each form that is right for it, in as few nets as can be: exporting one takes a second."""


@cache
def exported(names: tuple[str, ...], form: Form) -> ort.InferenceSession:
    """The cases, one after the other in the channels, in that form, with free sides."""

    def function(x: Tensor) -> Tensor:
        return torch.cat([CASES[name].function(x) for name in names], dim=1)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "unpool.onnx"
        assert convert(trace(ServedNet(Net(function), 255, MEAN, STD).eval(), 4, (48, 64)), path, form).name == form
        return ort.InferenceSession(path.read_bytes())


def test_every_case_is_examined() -> None:
    examined = {(name, form) for form, names in EXPORTED.values() for name in names}
    assert examined == {(name, form) for name, case in CASES.items() for form in case.right}


@pytest.mark.parametrize(("form", "names"), EXPORTED.values(), ids=EXPORTED)
@settings(deadline=None)
@given(data=st.data())
def test_each_form_is_bit_equal_to_pytorch(form: Form, names: tuple[str, ...], data: st.DataObject) -> None:
    batch, levels = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 4, 16, 256]))
    height, width = data.draw(st.integers(8, 33)), data.draw(st.integers(8, 33))
    assume(not any(CASES[name].even for name in names) or (height % 2 == 0 and width % 2 == 0))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # With few levels most windows hold ties for the highest value.
    image = (random.integers(0, levels, (batch, height, width, 3)) * (256 // levels)).astype(np.uint8)
    found = exported(names, form).run(None, {"image": image})[0]
    for name, answer in zip(names, np.split(found, len(names), axis=1), strict=True):
        with torch.inference_mode():
            wanted = served(name)(torch.from_numpy(image)).numpy()
        np.testing.assert_array_equal(answer, wanted, err_msg=name)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.right != FORMS])
def test_a_form_that_would_be_wrong_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    program = trace(served(name), 4, (48, 64))
    for form in FORMS:
        if form not in CASES[name].right:
            with pytest.raises(ExportError, match=rf"cannot be written as {form}: .*(max_pool|max_unpool)"):
                convert(program, tmp_path / "unpool.onnx", form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("provider", "name", "form"),
    [
        ("cpu", "2x2", "native"),
        ("cpu", "padded", "native"),
        ("cpu", "other size", "scatter"),
        ("cpu", "indices read", "scatter"),
        ("cuda", "2x2", "indexfree"),
        ("cuda", "padded", "scatter"),
        ("tensorrt", "nested", "indexfree"),
        ("coreml", "2x2", "indexfree"),
        ("openvino", "2x2", "indexfree"),
        ("openvino", "dilated", "scatter"),
    ],
)
def test_auto_takes_what_the_provider_can_run_and_says_why(provider: Provider, name: str, form: Form) -> None:
    chosen = choose_forms(trace(served(name), 4, (48, 64)), "auto", provider)
    assert chosen.name == form
    assert f"{form} at " in chosen.reason
    assert (", since " in chosen.reason) == (form == "scatter")


def test_each_unpooling_of_a_net_gets_a_form_of_its_own(tmp_path: Path) -> None:
    def mixed(x: Tensor) -> Tensor:
        return windows(2)(x) + indices_read(x)

    net, path = ServedNet(Net(mixed), 255, MEAN, STD).eval(), tmp_path / "unpool.onnx"
    chosen = convert(trace(net, 4, (48, 64)), path)
    assert chosen.name == "native+scatter"
    assert "native at 1 of 2, scatter at 1 of 2" in chosen.reason
    image = np.random.default_rng(0).integers(0, 8, (2, 31, 40, 3)).astype(np.uint8)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(image)).numpy()
    np.testing.assert_array_equal(ort.InferenceSession(path).run(None, {"image": image})[0], wanted)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_native_form_has_no_index_arithmetic(tmp_path: Path) -> None:
    path = tmp_path / "unpool.onnx"
    # For another provider than the CPU, for which a pool's indices are found by comparison.
    convert(trace(served("nested"), 4, (48, 64)), path, "native", "cuda")
    graph = onnx.load(path).graph
    producers = {name: node for node in graph.node for name in node.output}
    unpools = [node for node in graph.node if node.op_type == "MaxUnpool"]
    assert len(unpools) == 2
    assert all(producers[unpool.input[1]].op_type == "MaxPool" for unpool in unpools)


def test_the_indexfree_form_moves_no_indices(tmp_path: Path) -> None:
    path = tmp_path / "unpool.onnx"
    convert(trace(served("nested"), 4, (48, 64)), path, "indexfree")
    assert not {"MaxUnpool", "ScatterElements", "ScatterND", "Where"} & set(operators(path))
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    feature_maps = [value for value in model.graph.value_info if len(value.type.tensor_type.shape.dim) > 1]
    assert feature_maps
    assert all(value.type.tensor_type.elem_type != onnx.TensorProto.INT64 for value in feature_maps)
    assert all(len(node.output) == 1 for node in model.graph.node if node.op_type == "MaxPool")


def test_the_indexfree_form_is_exact_in_half_precision_too(tmp_path: Path) -> None:
    def halved(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x.half(), 2, return_indices=True)
        return max_unpool(-pooled, indices, like=x)

    def full(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return max_unpool(-pooled, indices, like=x)

    # Whole numbers, which half precision holds as they are.
    half, reference = (ServedNet(Net(function), 1, (128, 128, 128), (1, 1, 1)).eval() for function in (halved, full))
    path = tmp_path / "unpool.onnx"
    convert(trace(half, 4, (48, 64)), path, "indexfree", "cuda")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    (places,) = (node.input[0] for node in model.graph.node if node.op_type == "SpaceToDepth")
    assert types[places] == onnx.TensorProto.FLOAT16
    for size in ((32, 48), (33, 47)):
        image = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
        found = ort.InferenceSession(path).run(None, {"image": image})[0]
        np.testing.assert_array_equal(found, reference(torch.from_numpy(image)).numpy())


def test_overlapping_windows_are_exported_with_a_warning(tmp_path: Path) -> None:
    net, path = ServedNet(Net(windows(3, 2, padding=1)), 255, MEAN, STD).eval(), tmp_path / "unpool.onnx"
    (warning,) = convert(trace(net, 4, (48, 64)), path).warnings
    assert "overlap (kernel [3, 3], stride [2, 2])" in warning
    # Without equal maxima nothing is left to chance: each value is put where the only maximum is.
    image = np.random.default_rng(0).permutation(256)[: 8 * 8].reshape(1, 8, 8, 1).repeat(3, axis=3).astype(np.uint8)
    found = ort.InferenceSession(path).run(None, {"image": image})[0]
    np.testing.assert_array_equal(found, net(torch.from_numpy(image)).numpy())


def test_windows_that_do_not_overlap_need_no_warning() -> None:
    for name in ("2x2", "padded", "dilated"):
        assert choose_forms(trace(served(name), 4, (48, 64)), "auto", "cpu").warnings == ()


def test_one_and_three_dimensional_unpooling_is_refused(tmp_path: Path) -> None:
    def line(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool1d(x.flatten(2), 2, return_indices=True)
        placed: Tensor = F.max_unpool1d(pooled, indices, (2,))
        return placed.reshape(x.shape)

    def volume(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool3d(x[:, None].expand(-1, 2, -1, -1, -1), (1, 2, 2), return_indices=True)
        return F.max_unpool3d(pooled, indices, (1, 2, 2))[:, 0]

    for function, dimensions in ((line, "one"), (volume, "three")):
        program = torch.export.export(
            ServedNet(Net(function), 255, MEAN, STD).eval(), (torch.zeros(1, 8, 8, 3, dtype=torch.uint8),)
        )
        with pytest.raises(ExportError, match=f"is a {dimensions}-dimensional unpooling: segserve exports"):
            convert(program, tmp_path / "unpool.onnx")
