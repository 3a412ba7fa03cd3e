"""A data folder and a recipe in, a run folder with the best and the last checkpoint and the metrics out."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from service.scores import class_iou, mean_iou
from training.augment import Augmentation
from training.checkpoint import Checkpoint
from training.dataset import IGNORED, DataFolder, EpochSampler, Pair, TrainingSet
from training.evaluate import evaluate, of_net
from training.loss import class_weights
from training.nets import build_net
from training.recipe import Recipe

BEST = "best.safetensors"
LAST = "last.safetensors"
METRICS = "metrics.jsonl"
RECIPE = "recipe.json"


@dataclass(frozen=True)
class Trainer:
    """A net, its data, and what an optimizer step needs."""

    recipe: Recipe
    folder: DataFolder
    dataset: TrainingSet
    val: list[Pair]
    net: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    weights: Tensor
    device: torch.device

    @classmethod
    def start(cls, data: Path, recipe: Recipe) -> Trainer:
        """A fresh net at the start of its schedule. Raises ValueError where the data folder is not as it should be."""
        torch.manual_seed(recipe.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = DataFolder.open(data)
        augmentation = Augmentation(
            recipe.crop_height, recipe.crop_width, recipe.scale_low, recipe.scale_high, recipe.flip, pad=IGNORED
        )
        dataset = TrainingSet(folder, "train", augmentation, recipe.seed)
        net = build_net(recipe.net, len(folder.classes.channels), recipe.net_width)
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = _optimizer(net, recipe)
        return cls(
            recipe=recipe,
            folder=folder,
            dataset=dataset,
            val=folder.pairs("val"),
            net=net,
            optimizer=optimizer,
            schedule=_schedule(optimizer, recipe, recipe.epochs * math.ceil(len(dataset) / recipe.batch)),
            weights=class_weights(folder, dataset.pairs, recipe.class_weights).to(device),
            device=device,
        )

    def step(self, pictures: Tensor, labels: Tensor) -> float:
        """One optimizer step on pictures uint8 (N, H, W, 3) and labels int64 (N, H, W); returns the loss.

        Raises FloatingPointError where the loss is no longer a number.
        """
        if not bool((labels != IGNORED).any()):
            return 0.0  # nothing is labelled here, so there is nothing to learn
        image = normalise(pictures.to(self.device), self.recipe)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            logits = self.net(image)
        loss = F.cross_entropy(logits.float(), labels.to(self.device), self.weights, ignore_index=IGNORED)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value}: lower the learning rate or train in fp32")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return value

    def epoch(self, epoch: int, workers: int, bar: tqdm[Any]) -> float:
        """All training pictures once; returns the mean loss."""
        sampler = EpochSampler(len(self.dataset), epoch, self.recipe.seed)
        loader = DataLoader(self.dataset, self.recipe.batch, sampler=sampler, num_workers=workers)
        self.net.train()
        losses = []
        for pictures, labels in loader:
            losses.append(self.step(pictures, labels))
            bar.set_postfix(epoch=epoch, loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
            bar.update()
        return float(np.mean(losses))

    def validate(self, epoch: int) -> Checkpoint:
        """The net as it is, with its scores over the val split (mIoU and IoU from 0 to 1)."""
        segment = of_net(self.net.eval(), self.recipe.input, self.folder.classes)
        matrix = evaluate(segment, self.folder, self.val)
        scores = class_iou(matrix)
        channels = self.folder.classes.channels
        # JSON has no NaN: a class that occurs nowhere in val has no score.
        iou = {spec.name: None if np.isnan(scores[spec.id]) else round(float(scores[spec.id]), 4) for spec in channels}
        protocol = f"{len(self.val)} val pictures, masks at their own size, one confusion matrix over all"
        miou = round(mean_iou(matrix, self.folder.classes.ignore), 4)
        metrics = {"epoch": epoch, "miou": miou, "iou": iou, "protocol": protocol}
        return Checkpoint(self.recipe, len(channels), self.net.state_dict(), metrics)


def train(
    data: Path, recipe: Recipe, run: Path, workers: int = 0, show: bool = True, overwrite: bool = False
) -> Checkpoint:
    """Train by `recipe` on `data`, writing into the folder `run`; returns the checkpoint with the best val mIoU.

    Raises ValueError where the data folder is not as it should be or the run folder holds a run that is not to be
    overwritten, FloatingPointError where the loss diverges.
    """
    if (run / BEST).exists() and not overwrite:
        raise ValueError(f"{run / BEST} exists: choose another run folder, or pass --overwrite to lose it")
    trainer = Trainer.start(data, recipe)
    run.mkdir(parents=True, exist_ok=True)
    (run / RECIPE).write_text(recipe.model_dump_json(indent=1) + "\n")
    best = -1.0
    steps = recipe.epochs * math.ceil(len(trainer.dataset) / recipe.batch)
    with (run / METRICS).open("w", buffering=1) as metrics, tqdm(total=steps, unit="step", disable=not show) as bar:
        for epoch in range(1, recipe.epochs + 1):
            start = time.monotonic()
            record = {"epoch": epoch, "loss": trainer.epoch(epoch, workers, bar)}
            if epoch % recipe.validate_every == 0 or epoch == recipe.epochs:
                checkpoint = trainer.validate(epoch)
                checkpoint.save(run / LAST)
                record |= checkpoint.metrics
                if checkpoint.metrics["miou"] > best:
                    best = checkpoint.metrics["miou"]
                    checkpoint.save(run / BEST)
                bar.set_description(f"val mIoU {checkpoint.metrics['miou']:.4f}, best {best:.4f}")
            record["seconds"] = round(time.monotonic() - start, 1)
            metrics.write(json.dumps(record) + "\n")
    return Checkpoint.load(run / BEST)


def normalise(pictures: Tensor, recipe: Recipe) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), channels last in memory: (value / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=pictures.device) for values in (recipe.mean, recipe.std))
    return ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def _optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW; norms, biases and PReLU slopes are not decayed."""
    kernels = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW(groups, lr=recipe.learning_rate)


def _schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The learning rate over all optimizer steps."""
    if recipe.schedule == "one-cycle":
        # A fifth of the steps to warm up; at least one, which OneCycleLR counts as two.
        total = steps + 1
        return OneCycleLR(optimizer, recipe.learning_rate, total_steps=total, pct_start=max(0.2, 2 / total))
    return PolynomialLR(optimizer, steps, power=0.9)
