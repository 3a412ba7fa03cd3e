"""The nets are the papers': parameter counts, sizes in and out, what is passed across."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from training.nets import NETS, build_net
from training.nets.bayesian_segnet import BayesianSegNet, MonteCarlo
from training.nets.deconvnet import DeconvNet
from training.nets.fcn import FCN8s, FCN32s
from training.nets.segnet_basic import SegNetBasic

SIZES = [(96, 128), (97, 131), (65, 45)]
COARSE = {name: 4 for name in NETS if name.startswith("efficientnet-lite")}
"""Nets whose scores are fewer than the pixels, and how many pixels a side belong to one."""

VGG16 = 134.26
"""Millions of parameters of VGG16 without its last layer."""


def parameters(name: str, classes: int, width: int | None = None) -> float:
    """Millions of trainable parameters; the net is built without memory for them."""
    with torch.device("meta"):
        net = build_net(name, classes, width)
    return sum(parameter.numel() for parameter in net.parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("segnet", 32, 29.46),  # CamVid's full list of classes, as in the paper's first table
        ("segnet", 12, 29.45),
        ("enet", 12, 0.36),
        ("unet", 2, 31.04),  # 31.03 in the paper's layout, and 0.01 for batch norm
        ("segnet-basic", 11, 1.416),  # 1.425 in the paper's table, where all figures are multiples of 0.025
        ("bayesian-segnet", 12, 29.45),  # SegNet's: dropout has none
        ("deconvnet", 21, 251.81),  # 252 in the paper
        ("erfnet", 20, 2.06),
        ("linknet", 20, 11.54),  # 11.5 in the paper
        # 134 in the paper. Added to VGG16: scores, 0.01 for batch norm, and the transposed convolutions, the last of
        # which was fixed there.
        ("fcn-32s", 21, VGG16 + 0.086 + 0.008 + (64 * 21) ** 2 / 1e6),
        ("fcn-16s", 21, VGG16 + 0.097 + 0.008 + ((4 * 21) ** 2 + (32 * 21) ** 2) / 1e6),
        ("fcn-8s", 21, VGG16 + 0.102 + 0.008 + (2 * (4 * 21) ** 2 + (16 * 21) ** 2) / 1e6),
    ],
)
def test_a_net_has_its_papers_number_of_parameters(name: str, classes: int, millions: float) -> None:
    assert parameters(name, classes) == pytest.approx(millions, abs=0.005)


def test_light_has_less_than_one_and_a_half_million_parameters() -> None:
    assert parameters("light", 32) < 1.5


@pytest.mark.parametrize("name", sorted(NETS))
def test_half_the_width_has_about_a_quarter_of_the_parameters(name: str) -> None:
    full, half = parameters(name, 12, 32), parameters(name, 12, 16)
    assert 0.2 * full < half < 0.3 * full


def test_segnet_has_13_convolutions_on_each_side() -> None:
    net = build_net("segnet", 12)
    convolutions = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 26


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("size", SIZES)
def test_logits_have_the_pictures_size_or_the_nets_and_one_channel_a_class(name: str, size: tuple[int, int]) -> None:
    net = build_net(name, classes=5, width=8).eval()
    with torch.inference_mode():
        logits = net(torch.rand(2, 3, *size))
    assert logits.shape == (2, 5, *(math.ceil(side / COARSE.get(name, 1)) for side in size))


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_smallest_picture_works_and_a_smaller_one_is_refused_with_the_way_out(name: str) -> None:
    net, smallest = build_net(name, classes=3, width=8).eval(), NETS[name].stride
    with torch.inference_mode():
        assert set(net(torch.rand(1, 3, smallest, smallest)).shape[-2:]) == {smallest // COARSE.get(name, 1)}
        with pytest.raises(ValueError, match=f"both sides must be at least {smallest}"):
            net(torch.rand(1, 3, smallest - 1, 64))


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    net = build_net(name, classes=3, width=8).train()
    net(torch.rand(2, 3, 65, 97)).square().mean().backward()
    silent = [key for key, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


PASSED_ACROSS = {
    "segnet": "indices",
    "segnet-basic": "indices",
    "bayesian-segnet": "indices",
    "deconvnet": "indices",
    "enet": "indices",
    "unet": "concatenated",
    "linknet": "added",
    "fcn-16s": "added",
    "fcn-8s": "added",
    "light": "added",
    "efficientnet-lite0": "added",
    "efficientnet-lite1": "added",
    "efficientnet-lite2": "added",
    "fcn-32s": "nothing",
    "erfnet": "nothing",
}


@pytest.mark.parametrize("name", sorted(NETS))
def test_information_is_passed_across_as_the_table_says(name: str) -> None:
    """The operators of one call: does the decoder unpool, does it add maps, does it join them?"""
    net = build_net(name, classes=3, width=8).eval()
    with torch.inference_mode(), Operators() as used:
        net(torch.rand(1, 3, 64, 96))
    expected = PASSED_ACROSS[name]
    assert (torch.ops.aten.max_unpool2d in used.seen) == (expected == "indices")
    if expected in {"added", "concatenated"}:
        assert (torch.ops.aten.add in used.seen) == (expected == "added")
        assert (torch.ops.aten.cat in used.seen) == (expected == "concatenated")


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which operators are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[object] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def test_the_readme_lists_every_net_with_what_it_passes_across() -> None:
    lines = (Path(__file__).parent.parent / "training" / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| `")]
    listed = {row[1].strip("`"): row[3].replace(",", "").split()[-1] for row in cells if row[1].strip("`") in NETS}
    assert listed == PASSED_ACROSS
    assert set(PASSED_ACROSS) == set(NETS)


def test_an_unknown_net_is_refused_with_the_list_of_nets() -> None:
    with pytest.raises(ValueError, match=f"'hourglass': choose one of {', '.join(sorted(NETS))}"):
        build_net("hourglass", 3)


def test_segnet_basic_sees_windows_of_106_pixels() -> None:
    """The paper's figure for a position of the deepest layer: here the rows of the picture that it depends on."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    features: Tensor = image
    for stage in SegNetBasic(classes=3, width=8).eval().encoder:
        features = F.avg_pool2d(stage(features), 2)
    (gradient,) = torch.autograd.grad(features[0, :, 8, 8].sum(), image)
    assert gradient.abs().sum(dim=(0, 1, 3)).count_nonzero() == 106


def test_the_fcns_upsampling_begins_as_bilinear_interpolation() -> None:
    net = FCN8s(classes=3, width=8)
    scores = torch.rand(1, 3, 9, 13)
    for upsample, factor in ((net.upsample[0], 2), (net.last, 8)):
        wanted = F.interpolate(scores, scale_factor=float(factor), mode="bilinear")
        edge = 2 * factor  # the transposed convolution fades out where interpolation repeats the last score
        found = upsample(scores)
        assert found.shape == wanted.shape
        assert torch.allclose(found[..., edge:-edge, edge:-edge], wanted[..., edge:-edge, edge:-edge], atol=1e-6)


def test_an_fcns_score_is_upsampled_to_where_its_pixels_are() -> None:
    """Pools begin at the top left, crops end at the bottom right: the third block of 32 pixels stays the third."""
    scores = torch.zeros(1, 3, 4, 5)
    scores[0, 0, 1, 2] = 1
    upsampled = FCN32s(classes=3, width=8).last(scores)[0, 0]
    rows, columns = torch.nonzero(upsampled == upsampled.max()).unbind(dim=1)
    assert set(rows.tolist()) == {32 + 15, 32 + 16}
    assert set(columns.tolist()) == {64 + 15, 64 + 16}


def test_deconvnets_middle_position_at_224_is_the_papers_only_one() -> None:
    torch.manual_seed(0)
    fc6 = DeconvNet(classes=3, width=8).middle[0]
    assert isinstance(fc6, nn.Conv2d)
    pool5 = torch.rand(1, 64, 224 // 32, 224 // 32)
    papers = F.conv2d(pool5, fc6.weight, fc6.bias)
    assert papers.shape[-2:] == (1, 1)
    assert torch.allclose(fc6(pool5)[..., 3:4, 3:4], papers, atol=1e-5)


def with_statistics(net: nn.Module, image: Tensor) -> nn.Module:
    """Batch norm's statistics taken from the picture, so that answers differ from pixel to pixel."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(image)
    return net.eval()


@pytest.fixture(scope="module")
def bayesian() -> tuple[BayesianSegNet, Tensor]:
    """A small net with statistics, and a picture."""
    torch.manual_seed(3)
    net, image = BayesianSegNet(classes=4, width=8), torch.rand(2, 3, 64, 96)
    with_statistics(net, image)
    return net, image


def test_a_segnets_weights_fit_its_bayesian_and_both_answer_the_same() -> None:
    torch.manual_seed(0)
    segnet, bayesian = build_net("segnet", 3, 8).eval(), build_net("bayesian-segnet", 3, 8).eval()
    bayesian.load_state_dict(segnet.state_dict())
    with torch.inference_mode():
        image = torch.rand(1, 3, 65, 97)
        assert torch.equal(segnet(image), bayesian(image))


def test_the_mean_of_samples_approaches_the_plain_answer(bayesian: tuple[BayesianSegNet, Tensor]) -> None:
    net, image = bayesian
    torch.manual_seed(0)
    with torch.inference_mode():
        plain = net(image).softmax(dim=1)
        logits, uncertainty = MonteCarlo(net, 32)(image)
        net.dropout.train()
        single = torch.stack([net(image).softmax(dim=1) for _ in range(8)])
        net.eval()
    assert torch.allclose(logits.softmax(dim=1).sum(dim=1), torch.ones(2, 64, 96))
    assert (logits.softmax(dim=1) - plain).abs().mean() < 0.8 * (single - plain).abs().mean()
    assert uncertainty.shape == (2, 1, 64, 96)
    assert uncertainty.min() > 0 and uncertainty.max() <= 0.25


def test_with_next_to_no_dropout_the_mean_is_the_plain_answer() -> None:
    """A net with random weights is chaotic: one value in a thousand dropped would already be seen."""
    torch.manual_seed(0)
    net, image = BayesianSegNet(classes=4, width=8), torch.rand(1, 3, 64, 64)
    net.dropout.p = 1e-6
    with_statistics(net, image)
    with torch.inference_mode():
        plain = net(image).softmax(dim=1)
        logits, uncertainty = MonteCarlo(net, 8)(image)
    assert (logits.softmax(dim=1) - plain).abs().mean() < 0.01 * plain.std()
    assert uncertainty.mean() < 0.01 * plain.var()


def test_the_uncertainty_is_the_variance_of_the_samples(bayesian: tuple[BayesianSegNet, Tensor]) -> None:
    net, image = bayesian
    sampled = MonteCarlo(net, 5)
    with torch.inference_mode():
        torch.manual_seed(7)
        logits, uncertainty = sampled(image)
        torch.manual_seed(7)
        samples = torch.stack([net(image).softmax(dim=1) for _ in range(5)])
    assert torch.allclose(logits.softmax(dim=1), samples.mean(dim=0), atol=1e-6)
    assert torch.allclose(uncertainty, samples.var(dim=0, unbiased=False).mean(dim=1, keepdim=True), atol=1e-7)


@pytest.mark.parametrize("switch", [nn.Module.train, nn.Module.eval])
def test_whatever_mode_is_set_dropout_draws_and_batch_norm_does_not_learn(
    switch: Callable[[nn.Module], nn.Module], bayesian: tuple[BayesianSegNet, Tensor]
) -> None:
    net, image = bayesian
    before = {key: value.clone() for key, value in net.state_dict().items()}
    whole = switch(nn.Sequential(MonteCarlo(net, 2)))
    with torch.inference_mode():
        assert not torch.equal(whole(image)[0], whole(image)[0])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_samples_that_could_not_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="1 samples have no variance: ask for at least 2"):
        MonteCarlo(BayesianSegNet(classes=3, width=8), 1)
    with pytest.raises(ValueError, match="SegNet has no dropout: all its answers would be the same"):
        MonteCarlo(build_net("segnet", 3, 8), 4)
