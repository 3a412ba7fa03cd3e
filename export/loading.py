"""`module:factory` or a `.pt2` file in, a net out."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from .probe import Size
from .refusal import Refusal, first_line


def build(name: str, path: Sequence[str], arguments: Mapping[str, Any]) -> nn.Module:
    """The net that `module:factory`, imported with `path` first, gives for `arguments`; the factory may also be a
    class, or the net itself.

    Raises Refusal where there is none, or whatever goes wrong in it in one line, with its place.
    """
    module, _, attribute = name.partition(":")
    sys.path[:0] = path
    sys.argv = [module]  # a module that reads the command line as it is imported finds nothing in it
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        net = found if isinstance(found, nn.Module) else found(**arguments)
    except BaseException as error:  # also sys.exit()
        raise Refusal(f"{name} cannot be loaded: {explain(error, path)}") from error
    if not isinstance(net, nn.Module):
        raise Refusal(f"{name} gives no torch.nn.Module, but {type(net).__name__}")
    if net is found and arguments:
        raise Refusal(f"{name} is a net already, and takes no arguments: leave --arg out")
    return net


def explain(error: BaseException, path: Sequence[str]) -> str:
    """An error in one line, with the line of code below `path` where it happened, if there is one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_below(error.filename, path) or error.filename} line {error.lineno}: SyntaxError: {error.msg}"
    what = f"{type(error).__name__}: {first_line(error)}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = _below(frame.filename, path)
        if file is not None:
            return f"{file} line {frame.lineno}: {what}"
    return what


def _below(file: str, path: Sequence[str]) -> str | None:
    """The file as seen from the folder in `path` that holds it; None where none does."""
    for folder in path:
        if Path(file).is_relative_to(folder):
            return str(Path(file).relative_to(folder))
    return None


def open_program(file: Path) -> tuple[nn.Module, Size | None]:
    """The net in a `.pt2` file, and the one size that it takes, or None where it takes several.

    Raises Refusal where it cannot be read, or takes something else than pictures, float32 (N, channels, H, W).
    """
    try:
        program = torch.export.load(file)
    except Exception as error:  # a file that is none fails anywhere
        raise Refusal(
            f"{file} is no exported program that can be read (by torch.export.save): {first_line(error)}"
        ) from error
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    values = [node.meta["val"] for node in inputs]
    if (
        len(values) != 1
        or not isinstance(values[0], Tensor)
        or values[0].ndim != 4
        or not values[0].is_floating_point()
    ):
        raise Refusal(f"{file} does not take one input alone, floats (N, channels, H, W), but {len(values)}: {values}")
    _check_mode(file, program)
    sides = values[0].shape[2:]
    fixed = all(isinstance(side, int) for side in sides)
    return program.module(), (sides[0], sides[1]) if fixed else None


def _check_mode(file: Path, program: ExportedProgram) -> None:
    """Raises Refusal for a program that was exported in training mode, which can no longer be changed."""
    for node in program.graph.nodes:
        operator = str(node.target)
        dropping = operator == "aten.dropout.default" and node.args[2]
        # Without statistics of its own (argument 3), a batch norm is the same in both modes.
        counting = operator == "aten.batch_norm.default" and node.args[5] and node.args[3] is not None
        if dropping or counting:
            raise Refusal(f"{file} was exported in training mode ({node.name}): export it again after net.eval()")
