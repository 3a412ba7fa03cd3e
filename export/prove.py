"""A PyTorch net and its ONNX graph in, how far they agree on pictures out: the graph runs in the service's own code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.compare import PLAIN, Proof
from export.pair import Pair
from service.graph import Answer, Graph, Net, Tensor
from service.manifest import InputSpec, OutputSpec
from service.turn import Stop


class TorchNet:
    """A PyTorch net as the service sees a net: it takes what the graph takes, one picture with a batch axis."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    @torch.inference_mode()
    def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
        """Scores float32 (classes, h, w)."""
        return Answer(self._net(torch.tensor(tensor))[0].numpy())


def prove(
    net: Net,
    graph: Graph,
    spec: InputSpec,
    pictures: Sequence[NDArray[np.uint8]],
    output: OutputSpec = PLAIN,
    elsewhere: Graph | None = None,
) -> Proof:
    """Run both nets over `pictures` (uint8 (H, W, 3)), prepared as the service prepares them; over the first one also
    at odd sizes (`elsewhere`, where that is another session of the graph), and over the first few in one batch, where
    the graph leaves these free.

    Raises ExportError where either fails at what the service would give it.
    """
    named = {f"picture {number}": picture for number, picture in enumerate(pictures, 1)}
    pair = Pair(net, graph, spec, output, elsewhere=elsewhere)
    return Proof.of(pair.over(named), len(pictures))
