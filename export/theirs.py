"""Somebody else's net in, as `module:factory` or a `.pt2` file; the same as the export takes it out."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from export.convert import quiet
from export.errors import ExportError
from export.feed import Activation, Feed
from export.process import Process
from export.refusal import first_line
from export.request import Request
from export.source import Candidate, TrainedNet
from export.tracing import Plan
from service.manifest import ClassList, ClassSpec, OutputSpec

PROBABILITIES = ("sigmoid", "softmax")
"""Last steps after which scores are probabilities."""


@dataclass(frozen=True)
class Foreign:
    """A net of somebody else's, how it is fed, and how its scores are to be read (None: as its last step tells)."""

    request: Request
    feed: Feed
    activation: Activation | None = None
    threshold: float = 0.5

    @contextmanager
    def load(self, classes: ClassList, seconds: float) -> Iterator[TrainedNet]:
        """The net, in a child process that ends with the context and may take so many seconds over each answer.

        Raises ExportError where it cannot be loaded, or does not fit the classes.
        """
        with Process(seconds) as process, tempfile.TemporaryDirectory() as folder:
            facts, _ = process.ask(self.request.words())
            chosen = _classes(classes, facts["channels"])
            output = self._output(facts)
            yield TrainedNet(
                candidates=self._candidates(process, Path(folder) / "program.pt2", output),
                reference=process,
                classes=chosen,
                ignore=classes.ignore,
                source=self._source(),
                remarks=tuple(facts["notes"]),
            )

    def _candidates(self, process: Process, file: Path, output: OutputSpec) -> Iterator[Candidate]:
        """The freest program; where that one is refused, those of one size alone."""
        fixed = False
        while True:
            found, _ = process.ask({"next": str(file), "fixed": fixed})
            if not found:
                return
            height, width = found["plan"].pop("example")
            plan = Plan(example=(height, width), **found["plan"])
            free = plan.multiple_of > 0
            spec = self.feed.spec(plan.smallest, None if free else plan.example)
            yield Candidate(_read(file, plan, spec.depth), spec, output, found["why"])
            fixed = fixed or free

    def _output(self, facts: dict[str, Any]) -> OutputSpec:
        last, single = facts["last"], facts["channels"] == 1
        given = self.activation
        if given in PROBABILITIES and last in PROBABILITIES:
            raise ExportError(
                f"the net's last step is a {last}: its scores are probabilities already, so --activation probabilities"
            )
        if single and given == "softmax":
            raise ExportError("one channel has no softmax: --activation sigmoid or probabilities")
        usual: Activation = "probabilities" if last in PROBABILITIES else "sigmoid" if single else "softmax"
        return OutputSpec(
            activation=given or usual, threshold=self.threshold, align_corners=bool(facts["align_corners"])
        )

    def _source(self) -> dict[str, Any]:
        """What the manifest says of where the net comes from; no folders, which are nobody's business."""
        request = self.request
        weights = Path(request.net) if request.is_program else request.checkpoint and Path(request.checkpoint)
        source: dict[str, Any] = {"net": Path(request.net).name if request.is_program else request.net}
        if weights:
            with weights.open("rb") as file:
                source["weights_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        said = {
            "arguments": dict(request.arguments),
            "weights_key": request.weights_key,
            "output": request.output,
            "fourth_channel": request.fourth,
            "native_stride": request.native_stride,
        }
        return source | {name: value for name, value in said.items() if value not in (None, {}, False)}


def _read(file: Path, plan: Plan, depth: int) -> ExportedProgram:
    """The program in `file`."""
    try:
        with quiet():
            program = torch.export.load(file)
            return plan.export(program.module(), depth) if plan.derived else program
    except Exception as error:
        raise ExportError(f"the net uses what only its own packages know: {first_line(error)}") from error


def _classes(classes: ClassList, channels: int) -> tuple[ClassSpec, ...]:
    """Those that the net has channels for: all, or those that are scored; one channel tells two apart."""
    for listed in (classes.channels, classes.classes):
        if len(listed) == channels or (channels == 1 and len(listed) == 2):
            return listed
    counts = " or ".join(str(count) for count in dict.fromkeys((len(classes.channels), len(classes.classes))))
    hint = "; a net of one channel tells two classes apart: 0 below its threshold, 1 above" if channels == 1 else ""
    raise ExportError(f"the net answers {channels} channels, classes.json lists {counts} classes{hint}")
