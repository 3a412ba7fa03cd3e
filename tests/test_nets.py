"""The nets are the papers': parameter counts, sizes in and out, what is passed across."""

from __future__ import annotations

import pytest
import torch

from training.nets import NETS, build_net

SIZES = [(360, 480), (361, 481), (97, 131)]


def parameters(name: str, classes: int) -> float:
    """Millions of trainable parameters."""
    return sum(parameter.numel() for parameter in build_net(name, classes).parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("segnet", 32, 29.46),  # CamVid's full list of classes, as in the paper's first table
        ("segnet", 12, 29.45),
        ("enet", 12, 0.36),
        ("unet", 2, 31.04),  # 31.03 in the paper's layout, and 0.01 for batch norm
    ],
)
def test_a_net_has_its_papers_number_of_parameters(name: str, classes: int, millions: float) -> None:
    assert parameters(name, classes) == pytest.approx(millions, abs=0.005)


def test_segnet_has_13_convolutions_on_each_side() -> None:
    net = build_net("segnet", 12)
    convolutions = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 26


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("size", SIZES)
def test_logits_have_the_pictures_size_and_one_channel_a_class(name: str, size: tuple[int, int]) -> None:
    net = build_net(name, classes=5, width=8).eval()
    with torch.inference_mode():
        logits = net(torch.rand(2, 3, *size))
    assert logits.shape == (2, 5, *size)


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_smallest_picture_works_and_a_smaller_one_is_refused_with_the_way_out(name: str) -> None:
    net, smallest = build_net(name, classes=3, width=8).eval(), NETS[name].stride
    with torch.inference_mode():
        assert net(torch.rand(1, 3, smallest, smallest)).shape[-2:] == (smallest, smallest)
        with pytest.raises(ValueError, match=f"both sides must be at least {smallest}"):
            net(torch.rand(1, 3, smallest - 1, 64))


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    net = build_net(name, classes=3, width=8).train()
    net(torch.rand(2, 3, 65, 97)).square().mean().backward()
    silent = [key for key, parameter in net.named_parameters() if parameter.grad is None]
    assert silent == []


def test_an_unknown_net_is_refused_with_the_list_of_nets() -> None:
    with pytest.raises(ValueError, match="'hourglass': choose one of enet, segnet, unet"):
        build_net("hourglass", 3)
