"""A checkpoint file in, the weights in it out, and these put into a net: as training tools write them.

Only tensors are read, never code. Nothing but torch and safetensors is imported here, so that it also works where the
rest of segserve cannot be.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .refusal import Refusal, first_line

RAW = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
"""What trained weights are called beside an optimizer's and averaged ones."""

BESIDE = re.compile("optim|sched|scaler|^rng", re.IGNORECASE)
"""What lies beside weights and holds tensors, too."""

DEEPEST = 3
COUNTER = "num_batches_tracked"
"""A buffer that old checkpoints lack and that means nothing in eval mode."""


@dataclass(frozen=True)
class Weights:
    """Names to tensors, and under which key of the file they were (empty: the file holds nothing else); `others` are
    further keys that hold weights."""

    state: dict[str, Tensor]
    key: str = ""
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.key:
            return "weights: the whole checkpoint"
        others = f"; there are also {', '.join(self.others)}: see --weights-key" if self.others else ""
        return f"weights: {self.key!r} of the checkpoint{others}"


def read_weights(path: Path, key: str | None = None) -> Weights:
    """The weights under `key` (dots lead inwards), or those that the file plainly means.

    Raises Refusal where the file cannot be read without running code, or is damaged, or holds several sets of weights
    or none.
    """
    found = dict(_states(_read(path)))
    names = ", ".join(name or "the file itself" for name in found)
    if key is not None:
        if key not in found:
            raise Refusal(f"{path} holds no weights under {key!r}: there are {names or 'none'}")
        return Weights(found[key], key, tuple(name for name in found if name != key))
    if not found:
        raise Refusal(f"{path} is no state dict and holds none: save net.state_dict(), names to tensors, by torch.save")
    choice = [name for name in found if _is_plain(name)] or list(found)
    if len(choice) > 1:
        raise Refusal(f"{path} holds several sets of weights: choose with --weights-key one of {names}")
    return Weights(found[choice[0]], choice[0], tuple(name for name in found if name != choice[0]))


def _is_plain(name: str) -> bool:
    """Whether trained weights, and not averaged ones, go by this name."""
    *around, last = name.split(".")
    return last in ("", *RAW) and not any("ema" in part or "avg" in part for part in around)


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols: what cannot be read is an error of its own
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refusal(_more_than_tensors(path, str(error))) from error
    except Exception as error:  # a file that is none fails anywhere in pickle, zipfile or torch
        if "TorchScript" in str(error):
            raise Refusal(f"{path} is a TorchScript program, no state dict: save net.state_dict()") from error
        raise Refusal(
            f"{path} is no checkpoint that can be read (a state dict, by torch.save): {first_line(error)}"
        ) from error


def _more_than_tensors(path: Path, message: str) -> str:
    """What to say of a pickle that is not read; torch names what is not a tensor in it."""
    found = dict.fromkeys(re.findall(r"GLOBAL ([\w.]+)", message))
    what = f"more than tensors ({', '.join(found)})" if found else "more than tensors"
    return (
        f"{path} is no state dict: it holds {what}, which is not read, since reading it would run its code; where you "
        "trust it, load it with torch.load(..., weights_only=False) and save the state dict alone with torch.save"
    )


def _states(content: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state dict in a checkpoint, with its key."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if state and len(state) == sum(not key.endswith("_extra_state") for key in content):
        yield name, state
    elif depth < DEEPEST:
        for key, value in content.items():
            if not BESIDE.search(key):
                yield from _states(value, f"{name}.{key}" if name else key, depth + 1)


def put_into(net: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Load `state` into `net`; returns what had to be done to its names (empty: nothing).

    A prefix that wrappers leave behind (`module.`, `model.`) is taken off where that makes the names fit. Raises
    Refusal, saying how the weights differ from the net's.
    """
    own = net.state_dict()
    needed = {key for key in own if not key.endswith((COUNTER, "_extra_state"))}
    note = ""
    if not needed <= state.keys():
        prefix = next((prefix for prefix in _prefixes(state) if all(prefix + key in state for key in needed)), None)
        if prefix is not None:
            left = [key for key in state if not key.startswith(prefix)]
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            note = f"the names begin with {prefix!r}, which is left out"
            note += f", and so are {len(left)} others ({left[0]} first)" if left else ""
    misfit = _misfit(own, state)
    if misfit:
        raise Refusal(misfit)
    with torch.no_grad():
        net.load_state_dict(dict(state), strict=False)
    return note


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """What names begin with, up to any of their dots, the shortest first."""
    found = {key[: dot.end()] for key in state for dot in re.finditer(r"\.", key)}
    return sorted(found, key=len)


def _misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """How the weights differ from the net's, in a few words."""
    missing = [key for key in own if key not in state and not key.endswith((COUNTER, "_extra_state"))]
    unknown = [key for key in state if key not in own]
    other = [
        f"{key} (here {_shape(state[key])}, in the net {_shape(own[key])})"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    return ", ".join(f"{len(keys)} weights are {what} ({keys[0]} first)" for what, keys in parts if keys)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one value"
