"""How a run over many pictures went in, lines for people and JSON for programs out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from segserve.batch import Ran
from segserve.interrupt import INTERRUPTED
from segserve.progress import clock
from segserve.work import Failure


@dataclass(frozen=True)
class Target:
    """Where the results go."""

    out: Path
    summary: Path
    overwrite: bool

    @property
    def way_on(self) -> str:
        """How a command that goes on with this one differs from it."""
        return " without --overwrite" if self.overwrite else ""


@dataclass(frozen=True)
class Report:
    """How a run went; `left` counts the pictures that it did not come to."""

    ran: Ran
    failed: tuple[Failure, ...]
    skipped: int
    left: int
    seconds: float
    target: Target

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.left > 0 and self.ran.trouble is None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 1 where something failed, else 0."""
        if self.interrupted:
            return INTERRUPTED
        return 1 if self.failed or self.ran.trouble else 0

    def to_json(self) -> str:
        """For programs."""
        report = {
            "done": self.ran.done,
            "skipped": self.skipped,
            "failed": [{"path": failure.path, "reason": failure.reason} for failure in self.failed],
            "left": self.left,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "out": str(self.target.out),
            "summary": str(self.target.summary),
        }
        return json.dumps(report, ensure_ascii=False)

    def lines(self) -> list[str]:
        """For people."""
        told = [f"{failure.path}: {failure.reason}" for failure in self.failed]
        rate = f", {self.ran.done / self.seconds:.1f} pictures/s" if self.ran.done else ""
        counts = f"{self.ran.done} done, {self.skipped} done before, {len(self.failed)} failed"
        told.append(
            f"{counts} in {clock(self.seconds)}{rate}; files in {self.target.out}, shares in {self.target.summary}"
        )
        if self.left:
            why = "interrupted" if self.interrupted else self.ran.trouble
            told.append(f"{why}: {self.left} pictures are left; the same command{self.target.way_on} goes on with them")
        return told
