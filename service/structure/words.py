"""A net's structure in, what people read of it out: one or two plain sentences, and names for its parts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from service.structure.parts import FIRST, Pass, ScaleChange, Stage, Structure

TIMES = ("", "once", "twice", "three times", "four times", "five times", "six times", "seven times")
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def sentence(structure: Structure) -> str:
    """How a net follows the general structure of an encoder and a decoder."""
    if structure.problem is not None:
        return f"The stages of this net could not be told apart: {structure.problem}."
    stages, deepest = structure.stages, structure.deepest
    if stages[deepest].scale == 1 and len(stages) == 1:
        return (
            "The net works at the picture's own scale throughout: nothing goes down, and nothing has to come back up."
        )
    down, up = stages[: deepest + 1], stages[deepest + 1 :]
    return f"{_down(down)}{_up(up, structure.passes)} {_across(structure.passes)}"


def joined(words: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def part(structure: Structure, index: int) -> Literal["encoder", "deepest", "decoder"]:
    """Which part of the net a stage belongs to."""
    if index == structure.deepest:
        return "deepest"
    return "encoder" if index < structure.deepest else "decoder"


def title(structure: Structure, index: int) -> str:
    """A name for a stage."""
    names = {"encoder": f"Encoder stage {index + 1}", "deepest": "Deepest stage"}
    return names.get(part(structure, index), f"Decoder stage {index - structure.deepest}")


def _number(count: int) -> str:
    return COUNTS[count] if count < len(COUNTS) else str(count)


def _ways(stages: Sequence[Stage]) -> list[ScaleChange]:
    """How the stages are come by, in the order in which each names them."""
    every = [way for stage in stages for way in stage.by]
    return sorted(dict.fromkeys(every), key=lambda way: (way not in FIRST, -every.count(way)))


def _plural(way: str) -> str:
    return f"{way}s" if way.endswith("convolution") else way


def _down(stages: Sequence[Stage]) -> str:
    if stages[-1].scale == 1:
        return "The net works at the picture's own scale"
    times = (1 / stages[-1].scale).numerator
    halvings = times.bit_length() - 1
    ways = joined([_plural(way) for way in _ways(stages)])
    if times == 1 << halvings and halvings < len(TIMES):
        return f"An encoder halves the picture {TIMES[halvings]}, to {stages[-1].scale} of its sides, by {ways}"
    return f"An encoder brings the picture down to {stages[-1].scale} of its sides, by {ways}"


def _up(stages: Sequence[Stage], passes: Sequence[Pass]) -> str:
    if not stages:
        return "; the scores stay at that scale, and the service interpolates them to the picture's size."
    unpooled = any(one.how == "indices" for one in passes)
    ways = [
        "max-unpooling with the encoder's pool indices" if way == "max-unpooling" and unpooled else _plural(way)
        for way in _ways(stages)
    ]
    steps = f"{_number(len(stages))} step{'' if len(stages) == 1 else 's'}"
    goal = "the picture's size" if stages[-1].scale == 1 else f"{_share(stages[-1].scale)} its sides"
    rest = "" if stages[-1].scale >= 1 else ", from where the service interpolates the scores"
    return f"; the decoder comes back to {goal} in {steps}, by {joined(ways)}{rest}."


def _share(scale: Fraction) -> str:
    return f"{scale} of" if scale < 1 else f"{scale} times"


def _across(passes: Sequence[Pass]) -> str:
    maps = [one for one in passes if one.how != "indices"]
    if not maps:
        return "Nothing else is passed across." if passes else "Nothing is passed across."
    ways = list(dict.fromkeys(one.how for one in maps))
    sources = len({one.source for one in maps})
    stages = f"{_number(sources)} encoder stage{'' if sources == 1 else 's'}"
    return f"The feature maps of {stages} are passed across and {joined(ways)}."
