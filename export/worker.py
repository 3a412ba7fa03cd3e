"""A request in, somebody else's net loaded, traced and asked: the work of the child process.

The first message is a Request; the answer says what the net is. Then `{"next": file, "fixed": false}` asks for the next
freest program, to be written there (true: among those of one size), and a picture, uint8 (1, h, w, depth), for the
scores, float32 (classes, h', w').
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .checkpoint import put_into, read_weights
from .freedom import alike, programs
from .laststep import last_step, without_upsampling
from .loading import build, explain, open_program
from .probe import Probe, Size
from .refusal import Refusal
from .request import Request
from .tracing import ServedNet
from .wire import Message, receive, send


def work(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer messages until the other side goes."""
    path: tuple[str, ...] = ()
    desk: Desk | None = None
    while True:
        try:
            words, array = receive(requests)
        except EOFError:
            return
        try:
            if desk is None:
                request = Request.from_words(words)
                path = request.path
                desk = Desk(request)
                reply: Message = desk.facts, None
            else:
                reply = desk.answer(words, array)
        except BaseException as error:  # whatever somebody's code may do; the parent ends us
            send(answers, {"error": str(error) if isinstance(error, Refusal) else explain(error, path)})
        else:
            send(answers, *reply)


class Desk:
    """One loaded net, and what it can be asked."""

    def __init__(self, request: Request) -> None:
        """Raises Refusal, or whatever the net's own code raises."""
        net, size, notes = _load(request)
        served: nn.Module = _served(net, request)
        probe = Probe(served, request.depth)
        usual = probe.usual_size(size)
        answer = probe.answer(usual)
        if not alike(answer, probe.answer(usual)):
            raise Refusal("the net answers the same picture differently each time: does dropout stay on after eval()?")
        align_corners = None
        if request.native_stride:
            served, align_corners = without_upsampling(served, probe, usual)
        self.facts: dict[str, Any] = {
            "channels": answer.shape[1],
            "last": last_step(Probe(served, request.depth), usual),
            "align_corners": align_corners,
            "notes": notes,
        }
        self._net = served
        self._programs = {fixed: programs(served, request.depth, size, fixed) for fixed in (False, True)}

    def answer(self, words: dict[str, Any], array: NDArray[Any] | None) -> Message:
        """See the module."""
        if array is None:
            return self._next(Path(words["next"]), words["fixed"]), None
        with torch.inference_mode():
            scores = self._net(torch.from_numpy(array))[0].numpy()
        return {}, np.ascontiguousarray(scores)

    def _next(self, file: Path, fixed: bool) -> dict[str, Any]:
        traced = next(self._programs[fixed], None)
        if traced is None:
            return {}
        # What it was traced with is of no use later, and would be read as a pickle.
        traced.program.example_inputs = None
        torch.export.save(traced.program, file)
        return {"plan": asdict(traced.plan), "why": traced.reason}


def _load(request: Request) -> tuple[nn.Module, Size | None, list[str]]:
    """The net, the size that it has to take, if there is one, and what was done."""
    if request.is_program:
        net, size = open_program(Path(request.net))
        return net, request.size or size, []
    net, notes = build(request.net, request.path, request.arguments), []
    if request.checkpoint is not None:
        weights = read_weights(Path(request.checkpoint), request.weights_key)
        try:
            renamed = put_into(net, weights.state)
        except Refusal as error:
            raise Refusal(
                f"the checkpoint does not fit {request.net}: {error}; is it this net, of as many classes? --arg "
                "NAME=VALUE gives its factory an argument"
            ) from error
        notes = [str(weights), *([renamed] if renamed else [])]
    return net.to("cpu", torch.float32).eval().requires_grad_(False), request.size, notes


def _served(net: nn.Module, request: Request) -> ServedNet:
    served = ServedNet(
        net,
        request.scale,
        request.mean,
        request.std,
        depth=request.depth,
        fourth=request.fourth,
        output=request.output,
    )
    # An exported program is in the mode that it was exported in, and refuses to be told.
    return served if request.is_program else served.eval()
