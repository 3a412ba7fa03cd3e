"""A run folder: what a run writes, and what it needs to go on after it was cut off."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from training.checkpoint import Checkpoint
from training.curve import draw_curve
from training.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps done."""
    loss_sum: float = 0.0
    """Of the steps of the epoch under way."""
    best: float = -1.0
    """The highest val mIoU so far, 0 to 1."""
    stale: int = 0
    """Validations since then."""


@dataclass(frozen=True)
class RunFolder:
    """A folder with a recipe, metrics (a JSON line an epoch, and as a curve), two checkpoints and a state."""

    path: Path

    @property
    def best(self) -> Path:
        """The checkpoint with the highest val mIoU."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The checkpoint of the last validation."""
        return self.path / "last.safetensors"

    @property
    def metrics(self) -> Path:
        """A JSON object a line, one an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def recipe(self) -> Path:
        """The recipe, as JSON."""
        return self.path / "recipe.json"

    @property
    def _state(self) -> Path:
        return self.path / "state.pt"

    def begin(self, recipe: Recipe, overwrite: bool, resume: bool = False) -> None:
        """Make the folder ready for a new run. Raises ValueError where it holds one that is not to be overwritten; with
        `resume`, one that was cut off before there was anything to keep does not count."""
        if resume and self.best.exists():
            raise ValueError(f"{self._state} is missing, so the run cannot go on: --overwrite begins anew")
        if (self.recipe.exists() or self.best.exists()) and not overwrite and not resume:
            raise ValueError(
                f"{self.path} holds a run: --resume goes on with it, --overwrite loses it, or choose another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        for file in (self.best, self.last, self.metrics, self._state):
            file.unlink(missing_ok=True)
        self.recipe.write_text(recipe.model_dump_json(indent=1) + "\n")

    def save(self, progress: Progress, state: dict[str, Any]) -> None:
        """Keep what is needed to go on from here; the file appears whole or not at all."""
        draft = self._state.with_suffix(".partial")
        torch.save(state | {"progress": asdict(progress)}, draft)
        draft.replace(self._state)

    def saved(self) -> tuple[Progress, dict[str, Any]] | None:
        """What `save` kept last, None where it never did. Raises ValueError where the file cannot be read."""
        if not self._state.exists():
            return None
        try:
            state = torch.load(self._state, map_location="cpu", weights_only=True)
            return Progress(**state.pop("progress")), state
        except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._state} cannot be read, so the run cannot go on: --overwrite begins anew"
            ) from error

    def keep(self, checkpoint: Checkpoint, is_best: bool) -> None:
        """Write `checkpoint` as the last one, and as the best one if it is."""
        checkpoint.save(self.last)
        if is_best:
            checkpoint.save(self.best)

    def record(self, record: dict[str, Any]) -> None:
        """Add the line of an epoch and draw the curve again. Lines of that epoch or a later one, which a run wrote that
        was cut off before it kept its state, are replaced."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        earlier = [entry for entry in map(json.loads, lines) if entry["epoch"] < record["epoch"]]
        draft = self.metrics.with_suffix(".partial")
        draft.write_text("".join(json.dumps(entry) + "\n" for entry in [*earlier, record]))
        draft.replace(self.metrics)
        draw_curve([*earlier, record], self.path / "curve.png")
