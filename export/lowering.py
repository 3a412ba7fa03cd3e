"""An exported PyTorch program in, the same with a form chosen for each of its max-unpoolings out, and why.

`native` is right only where nothing but unpoolings to the pool's input size looks at the pool's indices; `indexfree`
only where the windows tile the plane; `scatter` is right everywhere. What is right is read off the program's graph, and
what a provider can run is known: nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from export.errors import ExportError
from export.unpool import INDEXFREE_UNPOOL, NATIVE_POOL, NATIVE_UNPOOL, POOL, UNPOOL

Form = Literal["native", "scatter", "indexfree"]
Choice = Literal["auto", "native", "scatter", "indexfree"]
Provider = Literal["cpu", "openvino", "cuda", "tensorrt", "coreml"]

PREFERENCE: dict[str, tuple[tuple[Form, ...], str]] = {
    "cpu": (("native", "scatter"), "the CPU provider runs MaxUnpool, fastest of the three"),
    "openvino": (("indexfree", "scatter"), "OpenVINO cannot read MaxUnpool, and is slow at scattering"),
    "cuda": (("indexfree", "scatter"), "the CUDA provider has no MaxUnpool"),
    "tensorrt": (("indexfree", "scatter"), "TensorRT has no MaxUnpool"),
    "coreml": (("indexfree", "scatter"), "CoreML has no MaxUnpool"),
}
"""Per execution provider: the forms that it can run, the best one first, and why."""


@dataclass(frozen=True)
class Lowering:
    """How the unpoolings of a net are written (`none`, a form, or several joined by +), why, and what to know of it."""

    name: str
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Unpooling:
    """One max-unpooling: its node, the max-pool that its indices come from (if they come straight from one), and why
    the native and the index-free form would be wrong for it (None: they are right)."""

    node: Node
    pool: Node | None
    not_native: str | None
    not_indexfree: str | None

    def obstacle(self, form: Form) -> str | None:
        """Why `form` would be wrong here."""
        return {"native": self.not_native, "indexfree": self.not_indexfree, "scatter": None}[form]


def choose_forms(program: ExportedProgram, choice: Choice = "auto", provider: Provider = "cpu") -> Lowering:
    """Mark each max-unpooling of `program` with the form it is to take, in place.

    `auto` takes the first form of `provider`'s that is right at each of them. Raises ExportError where the form that
    was asked for is not right, or a pooling is not two-dimensional.
    """
    unpoolings = [_inspect(node) for node in program.graph.nodes if _is_unpooling(node)]
    if not unpoolings:
        return Lowering("none", "the net has no max-unpooling")
    forms, why = PREFERENCE[provider] if choice == "auto" else ((choice,), "asked for")
    chosen, notes = [], []
    for unpooling in unpoolings:
        form, note = _first_right(unpooling, forms)
        _write(unpooling, form)
        chosen.append(form)
        notes += [note] if note else []
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    counts = ", ".join(f"{form} at {chosen.count(form)} of {len(chosen)}" for form in dict.fromkeys(chosen))
    reason = f"{counts} unpoolings: {'; '.join([why, *notes])}"
    warnings = tuple(dict.fromkeys(text for unpooling in unpoolings if (text := _overlap(unpooling)) is not None))
    return Lowering("+".join(sorted(set(chosen))), reason, warnings)


def _first_right(unpooling: _Unpooling, forms: Sequence[Form]) -> tuple[Form, str | None]:
    """The first of `forms` that is right, and why a better one is not."""
    note = None
    for form in forms:
        obstacle = unpooling.obstacle(form)
        if obstacle is None:
            return form, note
        note = note or f"not {form}, since {obstacle}"
    raise ExportError(f"this net's max-unpooling cannot be written as {forms[0]}: {unpooling.obstacle(forms[0])}")


def _write(unpooling: _Unpooling, form: Form) -> None:
    """Make the node stand for `form`; the scatter form is what the original operators are translated to."""
    node, pool = unpooling.node, unpooling.pool
    values, _, size = node.args
    if form == "native":
        assert pool is not None
        node.target, pool.target = NATIVE_UNPOOL, NATIVE_POOL
    elif form == "indexfree":
        assert pool is not None
        node.target, node.args = INDEXFREE_UNPOOL, (values, pool.args[0], _pair(pool.args[1])[0], size)


def _is_unpooling(node: Node) -> bool:
    """Raises ExportError for one that is not two-dimensional."""
    name = str(node.target)
    if "max_unpool3d" in name:
        raise ExportError(f"{node.name} is a three-dimensional unpooling: segserve exports those of pictures, 2-D")
    if node.target is not UNPOOL:
        return False
    values = node.args[0]
    assert isinstance(values, Node)
    if str(values.target).startswith("aten.unsqueeze") and len(_shape(values.all_input_nodes[0])) == 3:
        # nn.MaxUnpool1d calls the 2-D operator on planes one pixel wide; a plain 3-D tensor before it gives it away.
        raise ExportError(f"{node.name} is a one-dimensional unpooling: segserve exports those of pictures, 2-D")
    return True


def _inspect(node: Node) -> _Unpooling:
    indices = node.args[1]
    assert isinstance(indices, Node)
    pool = _pool_of(indices)
    if pool is None:
        reason = f"the indices of {node.name} do not come straight from a max-pool"
        return _Unpooling(node, None, reason, reason)
    return _Unpooling(node, pool, _not_native(indices, pool), _not_indexfree(node, pool))


def _not_native(indices: Node, pool: Node) -> str | None:
    for user in indices.users:
        if user.target not in (UNPOOL, NATIVE_UNPOOL) or user.args[1] is not indices:
            return f"{user.name} reads the indices of {pool.name}"
        if not _same(_shape(user), _shape(_source(pool))):
            return f"{user.name} unpools to another size than {pool.name} pooled from"
    return None


def _not_indexfree(node: Node, pool: Node) -> str | None:
    kernel, stride, padding, dilation, ceil_mode = _window(pool)
    if kernel != stride or kernel[0] != kernel[1] or any(padding) or ceil_mode:
        return f"the windows of {pool.name} (kernel {kernel}, stride {stride}, padding {padding}) do not tile the plane"
    if dilation != [1, 1]:
        return f"the windows of {pool.name} are dilated"
    if not _same(_shape(node), _shape(_source(pool))):
        return f"{node.name} unpools to another size than {pool.name} pooled from"
    return None


def _overlap(unpooling: _Unpooling) -> str | None:
    """What to know where two windows may hold the same maximum: PyTorch itself is then not deterministic."""
    if unpooling.pool is None:
        return None
    kernel, stride, _, dilation, _ = _window(unpooling.pool)
    if all((size - 1) * spread + 1 <= step for size, spread, step in zip(kernel, dilation, stride, strict=True)):
        return None
    return (
        f"the windows of {unpooling.pool.name} overlap (kernel {kernel}, stride {stride}): where two of them have the "
        "same maximum, which value is put back there is left to chance, in PyTorch too"
    )


def _window(pool: Node) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """Kernel, stride, padding, dilation and ceil_mode of a max-pool."""
    arguments = dict(zip(("x", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), pool.args, strict=False))
    arguments |= pool.kwargs
    kernel = _pair(arguments["kernel_size"])
    stride = _pair(arguments.get("stride")) or kernel
    padding, dilation = (_pair(arguments.get(name, value)) for name, value in (("padding", 0), ("dilation", 1)))
    return kernel, stride, padding, dilation, bool(arguments.get("ceil_mode", False))


def _pool_of(indices: Node) -> Node | None:
    """The max-pool whose second result `indices` is, if it is."""
    if indices.op != "call_function" or getattr(indices.target, "__name__", "") != "getitem" or indices.args[1] != 1:
        return None
    pool = indices.args[0]
    return pool if isinstance(pool, Node) and pool.target in (POOL, NATIVE_POOL) else None


def _source(pool: Node) -> Node:
    source = pool.args[0]
    assert isinstance(source, Node)
    return source


def _shape(node: Node) -> Sequence[int | torch.SymInt]:
    shape: Sequence[int | torch.SymInt] = node.meta["val"].shape
    return shape


def _same(one: Sequence[int | torch.SymInt], other: Sequence[int | torch.SymInt]) -> bool:
    """Whether two shapes are equal as expressions; symbolic sides are not evaluated, which could specialise them."""
    return [str(side) for side in one] == [str(side) for side in other]


def _pair(value: object) -> list[int]:
    """One number or a sequence of one or two as a pair; of none, nothing."""
    values = [value] if isinstance(value, int) else list(value) if isinstance(value, Sequence) else []
    return values * 2 if len(values) == 1 else values
