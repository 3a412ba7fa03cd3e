"""Pictures in, what a net takes out."""

from __future__ import annotations

import torch
from torch import Tensor

from training.recipe import Recipe


def normalise(pictures: Tensor, recipe: Recipe) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), channels last in memory: (value / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=pictures.device) for values in (recipe.mean, recipe.std))
    return ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2)
