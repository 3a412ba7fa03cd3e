"""A data folder and a recipe in, a run folder with the best and the last checkpoint and the metrics out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.checkpoint import Checkpoint
from training.recipe import Recipe
from training.run import Progress, RunFolder
from training.temperature import calibrated
from training.trainer import Trainer


def train(
    data: Path,
    recipe: Recipe,
    run: Path,
    workers: int = 0,
    show: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    save_seconds: float = 60,
) -> Checkpoint:
    """Train by `recipe` on `data`, writing into the folder `run`; returns the checkpoint with the best val mIoU.

    With `resume`, a run that was cut off goes on from its last saved state, at most `save_seconds` (and a step) before
    its end, and comes to the same result; where there is none yet, it begins. Raises ValueError where the data folder
    is not as it should be, the run folder holds a run that is not to be overwritten, or the run to resume had another
    recipe or other data; FloatingPointError where the loss diverges.
    """
    folder = RunFolder(run)
    trainer = Trainer.start(data, recipe)
    saved = folder.saved() if resume else None
    if saved:
        progress, state = saved
        trainer.restore(state)
    else:
        progress = Progress()
        folder.begin(recipe, overwrite, resume)
        folder.save(progress, trainer.state())
    with tqdm(total=trainer.steps, initial=progress.step, unit="step", disable=not show) as bar:
        while progress.step < trainer.steps and not (recipe.patience and progress.stale >= recipe.patience):
            progress = _epoch(trainer, progress, folder, workers, save_seconds, bar)
    best = Checkpoint.load(folder.best)
    if "temperature" not in best.metrics:  # else the run had ended before
        best = calibrated(best, trainer.folder, trainer.val)
        best.save(folder.best)
    return best


def _epoch(
    trainer: Trainer, progress: Progress, folder: RunFolder, workers: int, save_seconds: float, bar: tqdm[Any]
) -> Progress:
    """The rest of the epoch that `progress` is in, its validation where one is due, and its record."""
    recipe, epoch = trainer.recipe, progress.step // trainer.steps_per_epoch + 1
    start = saved = time.monotonic()
    for reached in trainer.epoch(progress, workers):
        progress = reached
        bar.update()
        if time.monotonic() - saved >= save_seconds and progress.step % trainer.steps_per_epoch:
            folder.save(progress, trainer.state())
            saved = time.monotonic()
    loss = progress.loss_sum / trainer.steps_per_epoch
    record = {"epoch": epoch, "loss": loss, "learning_rate": max(trainer.schedule.get_last_lr())}
    if epoch % recipe.validate_every == 0 or epoch == recipe.epochs:
        checkpoint = trainer.validate(epoch)
        miou = checkpoint.metrics["miou"]
        better = miou > progress.best
        folder.keep(checkpoint, is_best=better)
        record |= checkpoint.metrics
        progress = replace(progress, best=miou, stale=0) if better else replace(progress, stale=progress.stale + 1)
        bar.set_description(f"val mIoU {miou:.4f}, best {progress.best:.4f}")
    bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}")
    folder.record(record | {"seconds": round(time.monotonic() - start, 1)})
    progress = replace(progress, loss_sum=0.0)
    folder.save(progress, trainer.state())
    return progress
