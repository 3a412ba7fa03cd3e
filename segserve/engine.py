"""A picture's bytes in, the files that were asked for and its summary out: what local models and servers share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from segserve.answers import File


@dataclass(frozen=True)
class Wanted:
    """What is made of every picture: the views, the overlay's `alpha` (None: the service's own), and the classes
    (names or ids) that are shown, None for all."""

    views: tuple[str, ...]
    alpha: float | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a picture: its files by view, its size, and how much of it each class takes (0 to 1, by name)."""

    files: Mapping[str, File]
    width: int
    height: int
    shares: Mapping[str, float]

    @classmethod
    def of(cls, document: Mapping[str, Any], files: Mapping[str, File], wanted: Wanted) -> Outcome:
        """From the `json` view of all classes, and the files of the other views."""
        every = dict(files)
        if "json" in wanted.views:
            every["json"] = File(_summary(document, wanted).encode(), "application/json")
        shares = {entry["name"]: entry["fraction"] for entry in document["classes"]}
        return cls(every, document["image"]["width"], document["image"]["height"], shares)


class Engine(Protocol):
    """Segments pictures with one version of one model; may be called by several threads at once."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def version(self) -> int:
        """Its version."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, by id; empty where they are not known."""

    def __call__(self, data: bytes, wanted: Wanted) -> Outcome:
        """Segment the bytes of an image file. Raises SegserveClientError."""


def _summary(document: Mapping[str, Any], wanted: Wanted) -> str:
    """The `json` view as a file: without what holds only while a server keeps the result, and of the classes shown."""
    shown = [
        entry
        for entry in document["classes"]
        if wanted.classes is None or entry["name"] in wanted.classes or str(entry["id"]) in wanted.classes
    ]
    kept = {"model": document["model"], "image": document["image"], "classes": shown}
    return json.dumps(kept, ensure_ascii=False, indent=1) + "\n"
