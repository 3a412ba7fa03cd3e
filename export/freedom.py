"""A net in, exported programs of it out, the freest first: of any size, of any multiple of one, of one size alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from time import monotonic

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from .patience import OutOfPatience, patience
from .probe import USUAL_SIZE, Probe, Size, odd_multiples, words
from .refusal import Refusal, first_line
from .tracing import Plan

ROOMY = 256
"""Sides from which on no feature map of a usual net, after seven halvings, has a single row."""

CLOSE, MOSTLY = 1e-3, 0.99
"""A program answers as its net does when this share of its scores differ by at most that share of the largest one; an
unpooling may put nearly tied values elsewhere."""


PATIENCE = 180
"""Seconds after which torch is not going to follow a net at sizes that are symbols, all tries together; nets that it
does takes a few."""

LEAST_SECONDS = 1
"""For a try where earlier ones have used up the time."""


@dataclass(frozen=True)
class Traced:
    """An exported program, what it promises, and why it promises no more (empty where nothing is missing)."""

    program: ExportedProgram
    plan: Plan
    reason: str


def programs(
    net: nn.Module, depth: int, size: Size | None = None, fixed: bool = False, seconds: float = PATIENCE
) -> Iterator[Traced]:
    """`net` (in eval mode, taking uint8 (N, H, W, depth)) as programs that answer as it does, the freest first.

    `size` (height, width) is one that they must take; `fixed` leaves out those that take several; all tries at those
    may take so many `seconds`. Raises Refusal where torch cannot follow the net at all, or where the net does not take
    the size, naming the nearest that it takes.
    """
    probe = Probe(net, depth)
    alone = probe.failure(probe.usual_size(size), batch=3)
    reasons = [] if alone is None else [f"a batch of 3: {alone}"]
    stuck = set() if alone is None else {"batch"}
    right, left = 0, seconds
    for plan in _plans(probe, size, fixed, reasons):
        # With a constant batch it will fail as before, unless the batch was what stood in the way.
        needless = not plan.batch and "batch" not in stuck and plan.multiple_of
        if plan.free & stuck or needless:
            continue
        start = monotonic()
        found = _attempt(net, plan, probe, left if plan.multiple_of else seconds)
        left = max(left - (monotonic() - start), LEAST_SECONDS)
        if isinstance(found, ExportedProgram):
            right += 1
            yield Traced(found, plan, "; ".join(dict.fromkeys(reasons[:2])))
        else:
            reasons.append(f"{plan}: {found}")
            stuck |= _constants(found) & plan.free
    if not right:
        raise Refusal(f"torch cannot follow the net: {reasons[-1]}")


def _plans(probe: Probe, size: Size | None, fixed: bool, reasons: list[str]) -> Iterator[Plan]:
    """From the freest to all constant; why the net itself forbids one is added to `reasons`."""
    if not fixed:
        steps, why = probe.steps()
        reasons += [why] * bool(why)
        for step in steps:
            if size is None or not any(side % step for side in size):
                yield from _of_multiples(step, size, probe)
    alone = Plan(0, size or probe.any_size(USUAL_SIZE))
    yield alone
    yield replace(alone, batch=False)


def _of_multiples(step: int, size: Size | None, probe: Probe) -> Iterator[Plan]:
    plan = Plan(step, size or (4 * step * -(-64 // step), 4 * step * -(-80 // step)), probe.shortest(step))
    for batch in (True, False):
        yield replace(plan, batch=batch)
        if step > 1:
            yield replace(plan, batch=batch, derived=True)
        # Feature maps that may have a single row are what torch stumbles at; from here on none has, in any usual net.
        yield replace(plan, batch=batch, least=ROOMY)


def _attempt(net: nn.Module, plan: Plan, probe: Probe, seconds: float) -> ExportedProgram | str:
    """`net` as a program that keeps the promises of `plan`, or why there is none."""
    try:
        with patience(seconds) if plan.free else nullcontext():
            program = plan.export(net, probe.depth)
        answer = program.module()
    except OutOfPatience:
        height, width = plan.example
        constants = (
            f"height can only be {height}, width can only be {width}" if plan.multiple_of else "batch can only be 1"
        )
        return f"torch did not come to an end within {seconds:.0f} s: {constants}"
    except Exception as error:  # whatever torch may find
        return _why(error)
    sizes = [plan.example]
    if plan.multiple_of:
        height, width = odd_multiples(plan.multiple_of, max(128, plan.least))
        sizes += [(height, width), (width, height)]
    for size in dict.fromkeys(sizes):
        difference = _difference(probe, answer, size, 3 if plan.batch else 1)
        if difference:
            return f"at {words(size)} {difference}"
    return program


@torch.inference_mode()
def _difference(probe: Probe, answer: Callable[[Tensor], Tensor], size: Size, batch: int) -> str:
    """How a program's answer differs from the net's; a trace may hold what is true of one size only."""
    try:
        wanted = probe.answer(size, batch)
        found = answer(probe.noise(size, batch))
    except Exception as error:  # whatever either may do
        return f"one of them fails: {first_line(error)}"
    if wanted.shape != found.shape:
        return f"the program answers {words(found.shape)}, the net {words(wanted.shape)}"
    return "" if alike(wanted, found) else "the program answers something else than the net"


def alike(wanted: Tensor, found: Tensor) -> bool:
    """Whether two answers of the same shape are the same but for rounding, and for what rounding decides."""
    wanted, found = wanted.nan_to_num(), found.nan_to_num()
    near = (wanted - found).abs() <= CLOSE * wanted.abs().max()
    return bool(near.float().mean() >= MOSTLY)


def _constants(reason: str) -> set[str]:
    """Which of batch, height and width torch or the net says can only be constant."""
    return set(re.findall(r"\b(batch|height|width) can only be \d", reason))


def _why(error: Exception) -> str:
    """What torch says of a net that it cannot follow: which sides can only be constant, else its first words."""
    fixed = re.findall(r"^\s*(batch|height|width) = (\d+)\s*$", str(error), re.MULTILINE)
    if fixed:
        return ", ".join(f"{name} can only be {value}" for name, value in fixed)
    found = re.findall(r"^\s*- (.+)$", str(error), re.MULTILINE)
    return str(found[0])[:300] if found else first_line(error)
