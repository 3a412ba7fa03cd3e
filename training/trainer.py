"""A data folder and a recipe in, a net that learns from it step by step out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from service.scores import class_iou, mean_iou
from training.augment import Augmentation
from training.average import moving_average
from training.checkpoint import Checkpoint
from training.dataset import IGNORED, DataFolder, EpochSampler, Pair, TrainingSet
from training.evaluate import evaluate, of_net
from training.loss import Loss, class_weights, imitation
from training.normalise import normalise
from training.recipe import Recipe
from training.run import Progress
from training.start import starting_net
from training.teacher import Teacher


@dataclass(frozen=True)
class Trainer:
    """A net, its data, and what an optimizer step needs."""

    recipe: Recipe
    folder: DataFolder
    dataset: TrainingSet
    val: list[Pair]
    net: nn.Module
    average: AveragedModel | None
    optimizer: Optimizer
    schedule: LRScheduler
    loss: Loss
    teacher: Teacher | None
    device: torch.device
    fingerprint: str
    """Of the data: classes, pictures, and how many pixels of each class in train and val."""

    @classmethod
    def start(cls, data: Path, recipe: Recipe) -> Trainer:
        """A net at the start of its schedule.

        Reads every mask, and raises ValueError where the data folder, the weights to begin with or the teacher are not
        as they should be.
        """
        torch.manual_seed(recipe.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = DataFolder.open(data)
        pairs, val = folder.pairs("train"), folder.pairs("val")
        counts, val_counts = folder.count(pairs), folder.count(val)
        weights = class_weights(counts, recipe.class_weights).to(device)
        classes = len(folder.classes.channels)
        net = starting_net(recipe, classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = _optimizer(net, recipe)
        steps = recipe.epochs * math.ceil(len(pairs) / recipe.batch)
        return cls(
            recipe=recipe,
            folder=folder,
            dataset=TrainingSet(folder, pairs, _augmentation(recipe), recipe.seed),
            val=val,
            net=net,
            average=moving_average(net, recipe.ema) if recipe.ema else None,
            optimizer=optimizer,
            schedule=_schedule(optimizer, recipe, steps),
            loss=Loss(weights, recipe.label_smoothing, recipe.ohem, recipe.jaccard),
            teacher=_teacher(recipe, classes, device),
            device=device,
            fingerprint=_fingerprint(folder, [*pairs, *val], [*counts.tolist(), *val_counts.tolist()]),
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every training picture is seen once."""
        return math.ceil(len(self.dataset) / self.recipe.batch)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    def step(self, pictures: Tensor, labels: Tensor) -> float:
        """One optimizer step on pictures uint8 (N, H, W, 3) and labels int64 (N, H, W); returns the loss.

        Raises FloatingPointError where the loss is no longer a number.
        """
        if self.teacher is None and not bool((labels != IGNORED).any()):
            return 0.0  # nothing is labelled here, so there is nothing to learn
        loss = self._loss(pictures.to(self.device), labels.to(self.device))
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value}: lower the learning rate or train in fp32")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.net)
        return value

    def _loss(self, pictures: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            logits = self.net(normalise(pictures, self.recipe))
        if self.teacher is None:
            return self.loss(logits.float(), labels)
        share = self.recipe.teacher_share
        imitated = share * imitation(logits.float(), self.teacher(pictures))
        labelled = bool((labels != IGNORED).any())
        return imitated + (1 - share) * self.loss(logits.float(), labels) if labelled else imitated

    def epoch(self, progress: Progress, workers: int) -> Iterator[Progress]:
        """Optimizer steps to the end of the epoch that `progress` is in; yields the progress after each."""
        epoch, done = divmod(progress.step, self.steps_per_epoch)
        sampler = EpochSampler(len(self.dataset), epoch + 1, self.recipe.seed, skip=done * self.recipe.batch)
        # A generator of its own: the loader draws a number from it, and the net's dropout must not notice.
        loader = DataLoader(
            self.dataset, self.recipe.batch, sampler=sampler, num_workers=workers, generator=torch.Generator()
        )
        self.net.train()
        for pictures, labels in loader:
            loss = self.step(pictures, labels)
            progress = replace(progress, step=progress.step + 1, loss_sum=progress.loss_sum + loss)
            yield progress

    def validate(self, epoch: int) -> Checkpoint:
        """The net as it is, or its average, with its scores over the val split (mIoU and IoU from 0 to 1)."""
        net = self.average.module if self.average else self.net
        matrix = evaluate(of_net(net.eval(), self.recipe.input, self.folder.classes.channels), self.folder, self.val)
        scores = class_iou(matrix)
        channels = self.folder.classes.channels
        # JSON has no NaN: a class that occurs nowhere in val has no score.
        iou = {spec.name: None if np.isnan(scores[spec.id]) else round(float(scores[spec.id]), 4) for spec in channels}
        protocol = f"{len(self.val)} val pictures, masks at their own size, one confusion matrix over all"
        miou = round(mean_iou(matrix, self.folder.classes.ignore), 4)
        metrics = {"epoch": epoch, "miou": miou, "iou": iou, "protocol": protocol}
        return Checkpoint(self.recipe, len(channels), net.state_dict(), metrics)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, beside the data."""
        return {
            "recipe": self.recipe.model_dump_json(),
            "data": self.fingerprint,
            "net": self.net.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` describes. Raises ValueError where it belongs to another recipe or other data."""
        recipe = Recipe.model_validate_json(state["recipe"])
        for name in Recipe.model_fields:
            was, wanted = getattr(recipe, name), getattr(self.recipe, name)
            if was != wanted:
                raise ValueError(f"the run to resume has {name} = {was}, not {wanted}: a run keeps its recipe")
        if state["data"] != self.fingerprint:
            raise ValueError(f"{self.folder.root} is not what the run began with: classes, pictures or masks differ")
        self.net.load_state_dict(state["net"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])


def _augmentation(recipe: Recipe) -> Augmentation:
    return Augmentation(
        height=recipe.crop_height,
        width=recipe.crop_width,
        scale_low=recipe.scale_low,
        scale_high=recipe.scale_high,
        flip=recipe.flip,
        pad=IGNORED,
        jitter=recipe.jitter,
        turn=recipe.turn,
    )


def _teacher(recipe: Recipe, classes: int, device: torch.device) -> Teacher | None:
    if recipe.teacher is None:
        return None
    return Teacher.open(Path(recipe.teacher), classes, device, recipe.teacher_flip)


def _fingerprint(folder: DataFolder, pairs: list[Pair], counts: list[int]) -> str:
    names = [str(pair.image.relative_to(folder.root)) for pair in pairs]
    text = json.dumps([folder.classes.model_dump(mode="json"), names, counts])
    return hashlib.sha256(text.encode()).hexdigest()


def _optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW; norms, biases and PReLU slopes are not decayed, and an encoder that has learnt before may learn slower.

    Raises ValueError where it shall, and the net has none apart.
    """
    if recipe.encoder_rate != 1 and not any(name.startswith("encoder.") for name, _ in net.named_parameters()):
        raise ValueError(f"encoder_rate is for nets with an encoder apart, which {recipe.net} has not: leave it at 1")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        rate = recipe.encoder_rate if name.startswith("encoder.") else 1.0
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": recipe.learning_rate * rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]
    )


def _schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The learning rate over all optimizer steps."""
    if recipe.schedule == "one-cycle":
        # A fifth of the steps to warm up; at least one, which OneCycleLR counts as two.
        total = steps + 1
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, total_steps=total, pct_start=max(0.2, 2 / total))
    return PolynomialLR(optimizer, steps, power=0.9)
