"""A recipe in, the net that its training begins with out."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from training.checkpoint import Checkpoint
from training.nets import build_net
from training.pretrained import IMAGENET, load_imagenet
from training.recipe import Recipe


def starting_net(recipe: Recipe, classes: int) -> nn.Module:
    """The recipe's net with random weights, or with those that its `init` names.

    Raises ValueError where these are not there, or belong to another net.
    """
    if recipe.init is not None and recipe.init != IMAGENET:
        return _earlier(Path(recipe.init), recipe, classes)
    net = build_net(recipe.net, classes, recipe.net_width)
    if recipe.init == IMAGENET:
        load_imagenet(recipe.net, net)
    return net


def _earlier(path: Path, recipe: Recipe, classes: int) -> nn.Module:
    """The net of an earlier run, where it is the recipe's."""
    earlier = Checkpoint.load(path)
    for what, theirs, ours in (
        ("net", earlier.recipe.net, recipe.net),
        ("net_width", earlier.recipe.net_width, recipe.net_width),
        ("number of classes", earlier.classes, classes),
        ("mean", earlier.recipe.mean, recipe.mean),
        ("std", earlier.recipe.std, recipe.std),
    ):
        if theirs != ours:
            raise ValueError(f"{path} cannot be gone on from: its {what} is {theirs}, not {ours}")
    return earlier.build().train()
