"""What an export of somebody else's net is made of: checkpoints, answers, sizes, last steps, adaptive pools."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from export.adaptive import pool
from export.answers import choose
from export.checkpoint import put_into, read_weights
from export.feed import Feed
from export.freedom import programs
from export.laststep import last_step, without_upsampling
from export.loading import open_program
from export.probe import Probe
from export.refusal import Refusal
from export.tracing import ServedNet


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))


STATE = small().state_dict()
OTHER = {key: value + 1 for key, value in STATE.items()}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "bare": (STATE, ""),
    "lightning": ({"state_dict": prefixed("model."), "callbacks": {}, "epoch": 1}, "state_dict"),
    "data parallel": (prefixed("module."), ""),
    "averaged": ({"n_averaged": torch.tensor(1), **prefixed("module.")}, ""),
    "compiled and parallel": ({"model": prefixed("_orig_mod.module.")}, "model"),
    "beside an optimizer": ({"net": STATE, "optimizer": {"state": {0: {"m": torch.ones(1)}}}, "lr": 0.1}, "net"),
    "beside averages": ({"model": STATE, "model_ema": OTHER, "ema": {"module": OTHER}}, "model"),
    "with a loss": ({"state_dict": {**prefixed("model."), "loss.weight": torch.ones(4)}}, "state_dict"),
    "without counters": ({key: value for key, value in STATE.items() if "tracked" not in key}, ""),
    "averages alone": ({"ema_state_dict": STATE, "step": torch.tensor(3)}, "ema_state_dict"),
    "inside": ({"checkpoint": {"model": STATE}}, "checkpoint.model"),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_every_usual_form(form: str, tmp_path: Path) -> None:
    content, key = FORMS[form]
    torch.save(content, tmp_path / "weights.pth")
    weights = read_weights(tmp_path / "weights.pth")
    assert weights.key == key
    net = small()
    nn.init.zeros_(net.get_parameter("conv.weight"))
    put_into(net, weights.state)
    assert torch.equal(net.get_parameter("conv.weight"), STATE["conv.weight"])


def test_other_weights_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    torch.save(FORMS["beside averages"][0], tmp_path / "weights.pth")
    assert str(read_weights(tmp_path / "weights.pth")).endswith("also model_ema, ema.module: see --weights-key")
    assert torch.equal(read_weights(tmp_path / "weights.pth", "ema.module").state["conv.bias"], OTHER["conv.bias"])
    with pytest.raises(Refusal, match=r"no weights under 'best': there are model, model_ema, ema\.module"):
        read_weights(tmp_path / "weights.pth", "best")
    save_file(STATE, tmp_path / "weights.safetensors")
    assert read_weights(tmp_path / "weights.safetensors").state.keys() == STATE.keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"student": STATE, "teacher": OTHER},
            "several sets of weights: choose with --weights-key one of student, teach",
        ),
        ({"epoch": 3, "loss": 0.5}, "is no state dict and holds none"),
        (STATE["conv.weight"], "is no state dict and holds none"),
        ({"state_dict": STATE, "args": Namespace(lr=1)}, r"more than tensors \(argparse.Namespace\)"),
        ({"state_dict": STATE, "best": np.float64(0.5)}, r"more than tensors \(numpy.*weights_only=False"),
        (nn.Conv2d(1, 1, 1), r"more than tensors \(torch.nn.modules.conv.Conv2d\)"),
    ],
)
def test_what_is_no_state_dict_is_refused_with_the_way_out(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(Refusal, match=words):
        read_weights(tmp_path / "weights.pth")


def test_weights_of_another_net_are_counted() -> None:
    with pytest.raises(
        Refusal, match=r"^5 weights are missing \(conv.bias first\), 1 weights are unknown \(conv.scale"
    ):
        put_into(small(), {"conv.scale": torch.ones(1), "conv.weight": STATE["conv.weight"]})
    with pytest.raises(Refusal, match=r"of another shape \(conv.weight \(here 7x3x1x1, in the net 4x3x1x1\) first\)"):
        put_into(small(), {**STATE, "conv.weight": torch.ones(7, 3, 1, 1)})


@dataclass
class Record:
    logits: Tensor
    loss: Tensor | None = None


SCORES = torch.zeros(2, 4, 6, 8)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (SCORES, None),
        ({"out": SCORES, "aux": SCORES + 1}, None),
        ({"aux": SCORES + 1, "main": SCORES}, "main"),
        ((SCORES, torch.zeros(2, 8)), None),
        ([SCORES + 1, SCORES], "1"),
        ({"preds": [SCORES + 1, SCORES]}, "preds.1"),
        (Record(SCORES), None),
        (SimpleNamespace(logits=SCORES, hidden=(SCORES + 1,)), None),
        ((SCORES.half(), torch.zeros(2, 6, 8, dtype=torch.int64)), None),
    ],
    ids=["tensor", "torchvision", "dict", "tuple", "list", "nested", "dataclass", "object", "half"],
)
def test_scores_are_found_in_every_usual_answer(answer: object, wanted: str | None) -> None:
    scores = choose(answer, wanted)
    assert (scores.dtype, scores.shape, float(scores.max())) == (torch.float32, (2, 4, 6, 8), 0.0)


@pytest.mark.parametrize(
    ("answer", "wanted", "words"),
    [
        ([SCORES, SCORES], None, r"choose with --output one of 0 \(float32 2x4x6x8\), 1 "),
        ({"out": SCORES}, "logits", r"has no 'logits': --output can be one of out \(float32"),
        (SCORES.argmax(1), None, "its answer is int64 2x6x8, not scores"),
        ({"masks": torch.zeros(2, 5)}, None, r"no scores, .* but masks \(float32 2x5\)"),
    ],
)
def test_an_answer_without_plain_scores_is_refused(answer: object, wanted: str | None, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        choose(answer, wanted)


def served(function: Callable[[Tensor], Tensor]) -> ServedNet:
    """A net that is just this."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return ServedNet(Net(), 255, (0, 0, 0), (1, 1, 1)).eval()


def halved(x: Tensor) -> Tensor:
    return x + F.interpolate(F.avg_pool2d(x, 4), scale_factor=4)


def unpooled(x: Tensor) -> Tensor:
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, indices, [2, 2])


@pytest.mark.parametrize(
    ("function", "plan"),
    [
        (lambda x: x * 2, "sides free, batch free"),
        (halved, "sides multiples of 4, batch free"),
        (unpooled, "sides multiples of 2, batch free"),
        (lambda x: x[..., ::4, ::4] * 2, "sides multiples of 4, batch free"),
        (lambda x: x + torch.ones(int(x.shape[2]), x.shape[3]), "512x512 alone, batch free"),
        (lambda x: x.reshape(1, 3, x.shape[2], x.shape[3]) * 2, "sides free, batch 1"),
        (lambda x: x + torch.ones(1, 3, 224, 224), "224x224 alone, batch free"),
    ],
    ids=["free", "multiple", "unpooling", "stride", "constant", "one picture", "one size"],
)
def test_a_program_is_as_free_as_its_net(function: Callable[[Tensor], Tensor], plan: str) -> None:
    traced = next(programs(served(function), 3))
    assert str(traced.plan) == plan
    assert bool(traced.reason) == (plan != "sides free, batch free")


def test_a_net_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(Refusal, match="torch cannot follow the net"):
        next(programs(served(lambda x: x * 2 if x.mean() > 0 else x), 3))
    with pytest.raises(Refusal, match="takes no picture that was tried: 512x512"):
        next(programs(served(lambda x: x + torch.ones(5, 5)), 3))


def test_a_net_that_torch_does_not_come_to_an_end_with_is_exported_at_one_size() -> None:
    def endless(x: Tensor) -> Tensor:
        while not isinstance(x.shape[2], int):  # a symbol, as sides are while they are free
            pass
        return x * 2

    next(programs(served(halved), 3))  # the first time takes torch seconds
    traced = next(programs(served(endless), 3, (64, 96), seconds=1))
    assert str(traced.plan) == "64x96 alone, batch free"
    assert "did not come to an end within 1 s" in traced.reason


def test_tries_at_several_sizes_share_their_time() -> None:
    tries: list[Tensor] = []

    def slow(x: Tensor) -> Tensor:
        if not isinstance(x.shape[2], int):
            tries.append(x)
            sleep(3)
            raise ValueError("sides must be numbers")
        return x * 2

    next(programs(served(halved), 3))  # the first time takes torch seconds
    traced = next(programs(served(slow), 3, (64, 96), seconds=5))
    assert (str(traced.plan), len(tries)) == ("64x96 alone, batch free", 2)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("by", ["size", "scale"])
def test_a_last_upsampling_is_left_out(align_corners: bool, by: str) -> None:
    def net(x: Tensor) -> Tensor:
        coarse = F.interpolate(F.avg_pool2d(x, 4), scale_factor=1.0, mode="bilinear")
        how: dict[str, Any] = {"size": x.shape[2:]} if by == "size" else {"scale_factor": 4}
        return F.interpolate(coarse, mode="bilinear", align_corners=align_corners, **how)

    probe = Probe(served(net), 3)
    cut, aligned = without_upsampling(served(net), probe, (64, 96))
    assert aligned == align_corners
    (traced, *_) = programs(cut, 3)
    assert traced.program.module()(torch.zeros(3, 128, 160, 3, dtype=torch.uint8)).shape == (3, 3, 32, 40)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear").sigmoid(), "last step is sigmoid"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear").relu_(), "last step is relu"),
        (lambda x: F.interpolate(x, scale_factor=2), "last step is upsample_nearest2d"),
        (lambda x: F.interpolate(x, scale_factor=4, mode="bilinear"), "answers 64x96 with 128x192"),
        (lambda x: F.conv2d(x, torch.ones(4, 3, 1, 1)), "last step is conv2d"),
    ],
)
def test_another_last_step_is_not_left_out(last: Callable[[Tensor], Tensor], words: str) -> None:
    net = served(lambda x: last(F.avg_pool2d(x, 2)))
    with pytest.raises(Refusal, match=words):
        without_upsampling(net, Probe(net, 3), (64, 96))


def test_a_softmax_is_seen_only_over_the_classes() -> None:
    for axis, name in ((1, "softmax"), (3, "softmax over something else than the classes")):
        assert last_step(Probe(served(partial(torch.softmax, dim=axis)), 3), (8, 8)) == name


@pytest.mark.parametrize("cells", [1, 2, 3, 6, (2, 5), (None, 4), (7, 1)])
@pytest.mark.parametrize("size", [(12, 18), (13, 7), (3, 4), (1, 1)])
def test_adaptive_pools_are_those_of_torch(cells: Any, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(x, cells), F.adaptive_avg_pool2d(x, cells))


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), tmp_path / "training.pt2")
    with pytest.raises(Refusal, match=r"training mode \(batch_norm\): export it again after net.eval"):
        open_program(tmp_path / "training.pt2")
    numbers = torch.export.export(nn.Linear(3, 4), (torch.zeros(1, 3),))
    torch.export.save(numbers, tmp_path / "linear.pt2")
    with pytest.raises(Refusal, match="does not take one input alone, floats"):
        open_program(tmp_path / "linear.pt2")


def test_a_feed_that_contradicts_itself_is_refused() -> None:
    assert Feed(channels="GRAY", mean=(0.5, 0.5, 0.5)).spec(8).mean == (0.5,)
    for feed, words in (
        (Feed(height=96), "height and width"),
        (Feed(channels="GRAY", mean=(0.1, 0.2, 0.3)), "three equal values"),
    ):
        with pytest.raises(Exception, match=words):
            feed.spec(8)
    with pytest.raises(Exception, match="takes 96x96 alone"):
        Feed(fit="native").spec(8, (96, 96))
