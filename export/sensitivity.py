"""Layers and a way to measure any choice of them in, those that stay float out: the ones that hurt most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Layers = tuple[str, ...]
Measure = Callable[[Layers], float]
"""Layers to reduce, to the share of the pixels that then keep their class."""

GROUPS = 32
"""At most so many groups of neighbouring layers are measured alone: a net of a thousand layers takes no longer."""

WORTH = 0.1
"""Where nothing is enough: keeping more layers float has to undo at least this share of the disagreement left."""


@dataclass(frozen=True)
class Group:
    """Neighbouring layers, and the share of the pixels that change class where they alone are reduced."""

    layers: Layers
    cost: float


@dataclass(frozen=True)
class Choice:
    """The layers that are reduced, the groups that stay float, the one that hurts most first, and the agreement."""

    reduced: Layers
    kept: tuple[Group, ...]
    agreement: float


def choose(layers: Layers, measure: Measure, enough: float, keep: int | None = None) -> Choice:
    """Keep as few layers float as give `enough` agreement; where even half of them do not, as many as are worth it.

    With `keep`, that many groups, however much they help.
    """
    whole = Choice(layers, (), measure(layers))
    if keep == 0 or (keep is None and whole.agreement >= enough):
        return whole
    groups = sorted((Group(part, 1 - measure(part)) for part in _parts(layers)), key=lambda one: -one.cost)

    def without(count: int) -> Choice:
        kept = tuple(groups[:count])
        dropped = {name for group in kept for name in group.layers}
        reduced = tuple(name for name in layers if name not in dropped)
        return Choice(reduced, kept, measure(reduced) if reduced else 1.0)

    if keep is not None:
        return without(min(keep, len(groups)))
    return _fewest(whole, without, len(groups) // 2, enough)


def _fewest(whole: Choice, without: Callable[[int], Choice], most: int, enough: float) -> Choice:
    """Twice as many are tried until it is enough, then the number in between is halved."""
    tried, count = [whole], 1
    while count <= most:
        tried.append(without(count))
        if tried[-1].agreement >= enough:
            return _between(len(tried[-2].kept), tried[-1], without, enough)
        count *= 2
    best = whole
    for choice in tried[1:]:
        if 1 - choice.agreement <= (1 - WORTH) * (1 - best.agreement):
            best = choice
    return best


def _between(too_few: int, found: Choice, without: Callable[[int], Choice], enough: float) -> Choice:
    while len(found.kept) - too_few > 1:
        middle = without((too_few + len(found.kept)) // 2)
        if middle.agreement >= enough:
            found = middle
        else:
            too_few = len(middle.kept)
    return found


def _parts(layers: Layers) -> Sequence[Layers]:
    count = min(len(layers), GROUPS)
    cuts = [index * len(layers) // count for index in range(count + 1)]
    return [layers[start:end] for start, end in pairwise(cuts)]
