"""What the papers say of the built-in nets: their scales, how they go down and up, and what is passed across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.manifest import InputSpec, OutputSpec
from service.structure.parts import Structure
from service.structure.reading import structure_of

HALVINGS = ("1", "1/2", "1/4", "1/8", "1/16", "1/32")


@dataclass(frozen=True)
class Paper:
    """`scales` of the stages; how each is come by, in one word a way (`U`: max-unpooling, `P`: max-pooling, `T`:
    transposed convolution, `S`: strided convolution, `I`: interpolation); `channels`, in units of the first stage's
    width, of all stages but the last; `passes`: how, and between stages of which scale."""

    scales: tuple[str, ...]
    ways: str
    channels: tuple[int, ...]
    passes: tuple[tuple[str, str], ...] = ()


def valley(depth: int, start: int = 0) -> tuple[str, ...]:
    """Down to HALVINGS[depth] and back up to the picture's size."""
    return (*HALVINGS[start:depth], *reversed(HALVINGS[: depth + 1]))


def across(how: str, *scales: int) -> tuple[tuple[str, str], ...]:
    """Passes of one kind at those halvings."""
    return tuple((how, HALVINGS[scale]) for scale in scales)


VGG = (1, 2, 4, 8, 8)
SEGNET = Paper(valley(5), ". P P P P P U U U U U", (*VGG, 8, *reversed(VGG[1:])), across("indices", 0, 1, 2, 3, 4))

LITE = Paper(  # channels but the first are rounded to multiples of 8; scores stay at a quarter of the size
    (*HALVINGS[1:], "1/16", "1/8", "1/4"), "S S S S S I I I", (1,), across("added", 2, 3, 4)
)

PAPERS: Mapping[str, Paper] = {
    "segnet": SEGNET,
    "bayesian-segnet": SEGNET,
    "segnet-basic": Paper(valley(4), ". P P P P U U U U", (1,) * 8, across("indices", 0, 1, 2, 3)),
    "deconvnet": Paper(SEGNET.scales, SEGNET.ways, (*VGG, 64, *reversed(VGG[1:])), SEGNET.passes),
    "enet": Paper(valley(3, 1), "PS PS PS UT UT T", (1, 4, 8, 4, 1), across("indices", 1, 2)),
    "erfnet": Paper(valley(3, 1), "PS PS PS T T T", (1, 4, 8, 4, 1)),
    "unet": Paper(valley(4), ". P P P P T T T T", (1, 2, 4, 8, 16, 8, 4, 2), across("concatenated", 0, 1, 2, 3)),
    "linknet": Paper(valley(5, 1), "S P S S S T T T T T", (1, 1, 2, 4, 8, 4, 2, 1), across("added", 2, 3, 4)),
    "fcn-32s": Paper((*HALVINGS, "1"), ". P P P P P T", (*VGG, 64)),
    "fcn-16s": Paper((*HALVINGS, "1/16", "1"), ". P P P P P T T", (*VGG, 64), across("added", 4)),
    "fcn-8s": Paper((*HALVINGS, "1/16", "1/8", "1"), ". P P P P P T T T", (*VGG, 64), across("added", 3, 4)),
    "efficientnet-lite0": LITE,
    "efficientnet-lite1": LITE,
    "efficientnet-lite2": LITE,
    "light": Paper(
        (*HALVINGS[1:], "1/16", "1/8", "1/4", "1"),
        "S S S S S I I I I",
        (1, 2, 4, 8, 12, 4, 4, 4),
        across("added", 2, 3, 4),
    ),
}

LETTERS = {
    "max-pooling": "P",
    "max-unpooling": "U",
    "transposed convolution": "T",
    "strided convolution": "S",
    "interpolation": "I",
}


def structure(path: Path) -> Structure:
    """That of a graph as we export it, for pictures of 480x360."""
    return structure_of(path, InputSpec(height=360, width=480), OutputSpec())


def assert_as_in_the_paper(name: str, path: Path, width: int) -> None:
    """The graph at `path` has the structure of the net `name`, whose first stage has `width` channels."""
    paper, found = PAPERS[name], structure(path)
    assert found.problem is None
    assert tuple(str(stage.scale) for stage in found.stages) == paper.scales
    ways = ["".join(LETTERS[way] for way in stage.by) or "." for stage in found.stages]
    assert ways == paper.ways.split()
    channels = [stage.channels for stage in found.stages]
    assert channels[: len(paper.channels)] == [units * width for units in paper.channels]
    ends = [(one.how, found.stages[one.source].scale, found.stages[one.target].scale) for one in found.passes]
    assert [(how, str(source)) for how, source, _ in ends] == list(paper.passes)
    assert all(source == target for _, source, target in ends)
    last = found.stages[-1]
    assert (last.height, last.width) == (int(360 * last.scale), int(480 * last.scale))
