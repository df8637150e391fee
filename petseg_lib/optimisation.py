"""Optimisers, courses of the learning rate, and averaged weights, as the parameters name them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from petseg_lib.config import TrainingParameters
from petseg_lib.devices import best_precision


class Muon(torch.optim.AdamW):
    """AdamW, but each hidden convolution's step is its momentum with all singular values made about 1 (Jordan et al. 2024).

    A step's root mean square is made 0.2, as AdamW's is about (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4):
    learning rates are AdamW's. PyTorch's own Muon takes matrices alone, no convolutions.
    """

    MOMENTUM, RMS = 0.95, 0.2

    def __init__(self, *arguments: Any, matrix_dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        """As AdamW; `matrix_dtype` is what the matrix products are computed in."""
        super().__init__(*arguments, **settings)
        self.matrix_dtype = matrix_dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step; a hidden weight's gradient is gone after it, so that AdamW passes over that weight."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and is_hidden(weight):
                    self._step(weight, group["lr"], group["weight_decay"])
                    weight.grad = None
        super().step()

    def _step(self, weight: Tensor, learning_rate: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}  # AdamW loads no state without a step
        state["step"] += 1
        momentum = state["momentum"]
        momentum.lerp_(weight.grad, 1 - self.MOMENTUM)
        nesterov = weight.grad.lerp(momentum, self.MOMENTUM).flatten(1)
        update = orthogonalised(nesterov.to(self.matrix_dtype)).view_as(weight)
        weight.mul_(1 - learning_rate * weight_decay)
        weight.add_(update, alpha=-learning_rate * self.RMS * max(nesterov.shape) ** 0.5)


def is_hidden(weight: Tensor) -> bool:
    """Whether it is of a convolution with neither the photograph's three channels as input nor one channel as output."""
    return weight.ndim == 4 and weight.shape[0] > 1 and weight.shape[1] != 3


def orthogonalised(matrix: Tensor) -> Tensor:
    """(M, N) -> (M, N) with the same singular vectors and singular values of about 0.7 to 1.2, the smallest ones below.

    Five Newton-Schulz iterations of order 5, X <- (a + b XX' + c (XX')^2) X, with the coefficients of Jordan et al. 2024, "Muon".
    Iterated is the small XX' alone, and what X is multiplied by is gathered (Zhang et al. 2026, "Gram Newton-Schulz"): less than
    half of the arithmetic where N is 9 M or more, as in convolutions of 3 x 3. What rounding makes of eigenvalues near 0 grows
    with each iteration: in bf16 all starts anew from X after two of them, as those authors do.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for iterations in (2, 3) if matrix.dtype == torch.bfloat16 else (5,):
        gram = wide @ wide.T
        factor = gathered = _newton_schulz_factor(gram)
        for _ in range(iterations - 1):
            gram = factor @ gram @ factor
            factor = _newton_schulz_factor(gram)
            gathered = factor @ gathered
        wide = gathered @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def _newton_schulz_factor(gram: Tensor) -> Tensor:
    factor = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
    factor.diagonal().add_(3.4445)
    return factor


def build_optimizer(model: nn.Module, parameters: TrainingParameters) -> torch.optim.Optimizer:
    """Adam (weight decay as L2, as in the report), or AdamW or Muon (decoupled, and none on biases and BatchNorm).

    The first two fused: one pass over the weights, in a third of the time.
    """
    if parameters.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay, fused=True)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": parameters.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if parameters.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=parameters.learning_rate, fused=True)
    device = next(model.parameters()).device
    precision = best_precision(device) if parameters.precision == "auto" else parameters.precision
    # On a CPU the many small products take as long in bf16.
    dtype = torch.bfloat16 if precision == "bf16-mixed" and device.type == "cuda" else torch.float32
    return Muon(groups, lr=parameters.learning_rate, matrix_dtype=dtype)


def build_schedule(optimizer: torch.optim.Optimizer, parameters: TrainingParameters, steps: int) -> Any:
    """The learning rate over all `steps` of a training run; stepped once a batch."""
    if parameters.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=parameters.learning_rate, total_steps=steps + 1)
    if parameters.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


class MovingAverage(AveragedModel):
    """An exponential moving average of a model's weights, with a warm-up so that the first steps do not linger in it.

    PyTorch's own `update_parameters` waits for a GPU several times a step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take a step's weights in; the first ones are taken as they are."""
        steps = int(self.n_averaged)  # which lies on the CPU
        weight = 1 - min(self.decay, (1 + steps) / (10 + steps)) if steps else 1.0
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        fractions = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # BatchNorm's, of batches
        torch._foreach_lerp_(*map(list, zip(*fractions, strict=True)), weight)
        if counters:
            torch._foreach_copy_(*map(list, zip(*counters, strict=True)))
        self.n_averaged += 1
