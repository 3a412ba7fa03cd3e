"""What a net answers in, the scores in it out: alone, or in dicts, tuples, lists and dataclasses, also nested.

A tensor's name is the way to it, joined by dots: `out`, `1`, `preds.0`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from .refusal import Refusal

USUAL = ("out", "logits")
"""What the scores are called where an answer has names, as torchvision and transformers do."""

DEEPEST = 4


def choose(answer: object, wanted: str | None = None) -> Tensor:
    """The scores in `answer`, float32 (N, classes, h, w): those called `wanted`, else those of a usual name, else the
    only ones. Raises Refusal, listing what there is."""
    if isinstance(answer, Tensor) and wanted is None:
        return _scores("its answer", answer)
    found = dict(_tensors(answer))
    if wanted is not None:
        if wanted not in found:
            raise Refusal(f"the net's answer has no {wanted!r}: --output can be one of {_list(found) or 'nothing'}")
        return _scores(repr(wanted), found[wanted])
    scores = {name: tensor for name, tensor in found.items() if _is_scores(tensor)}
    for name in USUAL:
        if name in scores:
            return _scores(name, scores[name])
    if not scores:
        given = _list(found) or type(answer).__name__
        raise Refusal(f"the net answers no scores, floats (N, classes, height, width), but {given}")
    if len(scores) > 1:
        raise Refusal(f"the net answers several scores: choose with --output one of {_list(scores)}")
    return _scores(*next(iter(scores.items())))


def _tensors(answer: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(answer, Tensor):
        yield name or "0", answer
    elif depth < DEEPEST:
        for key, value in _parts(answer):
            yield from _tensors(value, f"{name}.{key}" if name else str(key), depth + 1)


def _parts(answer: object) -> list[tuple[object, object]]:
    if isinstance(answer, Mapping):
        return list(answer.items())
    if hasattr(answer, "_asdict"):
        return list(answer._asdict().items())
    if isinstance(answer, (list, tuple)):
        return list(enumerate(answer))
    if is_dataclass(answer):
        return [(field.name, getattr(answer, field.name)) for field in fields(answer)]
    return list(vars(answer).items()) if hasattr(answer, "__dict__") else []


def _is_scores(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_floating_point()


def _scores(name: str, tensor: Tensor) -> Tensor:
    if not _is_scores(tensor):
        raise Refusal(
            f"{name} is {_shape(tensor)}, not scores: floats (N, classes, height, width), before any argmax, are needed"
        )
    return tensor if tensor.dtype == torch.float32 else tensor.to(torch.float32)


def _list(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} ({_shape(tensor)})" for name, tensor in tensors.items())


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape))}"
