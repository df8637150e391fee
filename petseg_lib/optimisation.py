"""Optimisers, courses of the learning rate, and averaged weights, as the parameters name them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from petseg_lib.config import TrainingParameters


def build_optimizer(model: nn.Module, parameters: TrainingParameters) -> torch.optim.Optimizer:
    """Adam (weight decay as L2, as in the report) or AdamW (decoupled, and none on biases and BatchNorm).

    Fused: one pass over the weights, in a third of the time.
    """
    if parameters.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay, fused=True)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": parameters.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=parameters.learning_rate, fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, parameters: TrainingParameters, steps: int) -> Any:
    """The learning rate over all `steps` of a training run; stepped once a batch."""
    if parameters.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=parameters.learning_rate, total_steps=steps + 1)
    if parameters.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights, with a warm-up so that the first steps do not linger in it."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], steps: Tensor) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, weight)
        else:  # BatchNorm's counters of batches
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
