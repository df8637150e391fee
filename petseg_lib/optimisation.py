"""Training steps, optimisers, courses of the learning rate, and averaged weights, as the parameters name them."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from petseg_lib.config import TrainingParameters
from petseg_lib.devices import best_precision
from petseg_lib.dice import Loss, count
from petseg_lib.graphs import Recorded

FASTER_IN_BF16 = 64  # rows, from which on a CPU multiplies matrices faster in bf16
# Odd polynomials of degree 5, a x + b x^3 + c x^5, that one after the other take 0.01 to 1 to within 0.27 of 1: each is the
# closest to 1 on what those before leave (Amsel et al. 2025, "The Polar Express").
POLYNOMIALS = ((8.0934, -23.6206, 17.4463), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))


class _AsWeightsLie:
    """An Adam whose fused step takes channels-last weights as they lie in memory.

    On a CPU PyTorch's own (2.14) copies each tensor that is not contiguous there and back, which takes most of its time. Its
    arithmetic is element by element, so that the order of the axes changes nothing.
    """

    def _init_group(self, group: dict[str, Any], weights: list[Tensor], *columns: list[Tensor] | bool) -> bool:
        has_complex = super()._init_group(group, weights, *columns)
        last = [each.is_cpu and each.ndim == 4 and each.is_contiguous(memory_format=torch.channels_last) for each in weights]
        for column in (weights, *columns):
            if isinstance(column, list):  # AdamW of PyTorch 2.6 has a bool among them; lists of options that are off are empty
                pairs = zip(column, last, strict=False)
                column[:] = [each.permute(0, 2, 3, 1) if moved and each.ndim == 4 else each for each, moved in pairs]
        return has_complex

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The moments are laid as the weights lie here: fused steps of GPUs refuse others, and Apple's GPUs have another order."""
        super().load_state_dict(state_dict)
        for weight, state in self.state.items():
            for name, moment in state.items():
                if isinstance(moment, Tensor) and moment.shape == weight.shape and moment.stride() != weight.stride():
                    state[name] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)


class _Adam(_AsWeightsLie, torch.optim.Adam):
    pass


class _AdamW(_AsWeightsLie, torch.optim.AdamW):
    pass


class Muon(_AdamW):
    """AdamW, but each hidden convolution's step is its momentum with all singular values made about 1 (Jordan et al. 2024).

    A step's root mean square is made 0.2, as AdamW's is about (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4):
    learning rates are AdamW's. PyTorch's own Muon takes matrices alone, no convolutions.
    """

    MOMENTUM, RMS = 0.95, 0.2

    def __init__(
        self, *arguments: Any, matrix_dtype: torch.dtype = torch.float32, recorded: bool = False, **settings: Any
    ) -> None:
        """As AdamW; `matrix_dtype` is what large matrix products are computed in, `recorded` whether as a CUDA graph."""
        super().__init__(*arguments, fused=True, **settings)
        self._step_supports_amp_scaling = False  # AdamW's part would undo float16's scale alone
        work = partial(_orthogonal_updates, rms=self.RMS, dtype=matrix_dtype)
        self.updates = Recorded(work) if recorded else work

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of all weights that have a gradient."""
        hidden = {weight: weight.grad for group in self.param_groups for weight in group["params"] if is_hidden(weight)}
        for group in self.param_groups:
            if weights := [each for each in group["params"] if hidden.get(each) is not None]:
                self._step(weights, group["lr"], group["weight_decay"])
        for weight in hidden:
            weight.grad = None  # so that AdamW passes over it
        super().step()
        for weight, gradient in hidden.items():
            weight.grad = gradient

    def _step(self, weights: list[Tensor], learning_rate: float, weight_decay: float) -> None:
        for weight in weights:
            if not self.state[weight]:  # AdamW loads no state without a step
                self.state[weight] |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
        torch._foreach_add_([self.state[each]["step"] for each in weights], 1)  # which a GPU has after a run went on
        gradients, momenta = [each.grad for each in weights], [self.state[each]["momentum"] for each in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
        updates = self.updates(*torch._foreach_lerp(gradients, momenta, self.MOMENTUM))
        torch._foreach_mul_(weights, 1 - learning_rate * weight_decay)
        torch._foreach_add_(weights, updates, alpha=-learning_rate)


def is_hidden(weight: Tensor) -> bool:
    """Whether it is of a convolution with neither the photograph's three channels as input nor one channel as output."""
    return weight.ndim == 4 and weight.shape[0] > 1 and weight.shape[1] != 3


def orthogonalised(matrix: Tensor, scale: float = 1.0) -> Tensor:
    """(..., M, N) -> the same matrices with the same singular vectors and singular values of 0.73 to 1.27, the smallest below.

    Newton-Schulz iterations X <- (a + b XX' + c (XX')^2) X, three of `POLYNOMIALS` for the usual five (Jordan et al. 2024,
    "Muon"), which leaves bf16's rounding less to grow. Iterated is the small XX' alone, and what X is multiplied by is gathered
    (Zhang et al. 2026, "Gram Newton-Schulz"): X's norm, from the trace of XX', and `scale`, which multiplies what is returned,
    go into it as well, so that X is read twice and not written.
    """
    upright = matrix.shape[-2] > matrix.shape[-1]
    wide = matrix.mT if upright else matrix
    gram = wide @ wide.mT
    norm = gram.diagonal(dim1=-2, dim2=-1).to(torch.promote_types(gram.dtype, torch.float32)).sum(-1).sqrt()
    # no singular value is above 1, where the first polynomial is steep, with bf16's rounding either
    shrink = 1 / (1.01 * norm + 1e-7)[..., None, None]
    gram = gram * (shrink * shrink).to(gram.dtype)
    factor = gathered = _newton_schulz_factor(gram, POLYNOMIALS[0])
    for polynomial in POLYNOMIALS[1:]:
        gram = factor @ gram @ factor
        factor = _newton_schulz_factor(gram, polynomial)
        gathered = factor @ gathered
    wide = (gathered * (scale * shrink).to(gathered.dtype)) @ wide
    return wide.mT if upright else wide


def _orthogonal_updates(*gradients: Tensor, rms: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Steps along convolutions' gradients, of the same shapes, with a root mean square of about `rms`.

    Those of one shape are multiplied together: a single one fills no GPU, and keeps a CPU as long in Python as in products.
    """
    channels_last = [each.permute(0, 2, 3, 1) for each in gradients]  # the order of a matrix' columns is free: as they lie
    alike: dict[torch.Size, list[int]] = {}
    for number, each in enumerate(channels_last):
        alike.setdefault(each.shape, []).append(number)
    updates = list(gradients)
    for shape, numbers in alike.items():
        group = [channels_last[number].flatten(1) for number in numbers]
        gains = group[0].is_cuda or min(group[0].shape) >= FASTER_IN_BF16
        group = [each.to(dtype if gains else torch.float32) for each in group]
        matrices = torch.stack(group) if len(group) > 1 else group[0]
        updated = orthogonalised(matrices, rms * max(matrices.shape[-2:]) ** 0.5)
        if not updated.is_cpu:  # a GPU adds tensors of one type to the weights in one kernel
            updated = updated.float()
        updated = updated.view(-1, *shape).permute(0, 1, 4, 2, 3)
        for number, update in zip(numbers, updated, strict=True):
            updates[number] = update
    return tuple(updates)


def _newton_schulz_factor(gram: Tensor, polynomial: tuple[float, float, float]) -> Tensor:
    first, third, fifth = polynomial
    # a single matrix goes to the product that is faster on a CPU
    add = torch.addmm if gram.ndim == 2 else torch.baddbmm
    factor = add(gram, gram, gram, beta=third, alpha=fifth)
    factor.diagonal(dim1=-2, dim2=-1).add_(first)
    return factor


def build_optimizer(model: nn.Module, parameters: TrainingParameters) -> torch.optim.Optimizer:
    """Adam (weight decay as L2, as in the report), or AdamW or Muon (decoupled, and none on biases and BatchNorm).

    The first two fused: one pass over the weights, in a third of the time.
    """
    if parameters.optimizer == "adam":
        return _Adam(model.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay, fused=True)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": parameters.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if parameters.optimizer == "adamw":
        return _AdamW(groups, lr=parameters.learning_rate, fused=True)
    device = next(model.parameters()).device
    precision = best_precision(device) if parameters.precision == "auto" else parameters.precision
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    return Muon(
        groups, lr=parameters.learning_rate, matrix_dtype=dtype, recorded=device.type == "cuda" and parameters.cuda_graphs
    )


def build_schedule(optimizer: torch.optim.Optimizer, parameters: TrainingParameters, steps: int) -> Any:
    """The learning rate over all `steps` of the optimiser in a training run; stepped with it."""
    if parameters.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=parameters.learning_rate, total_steps=steps + 1)
    if parameters.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def build_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Loss, fabric: Fabric, parameters: TrainingParameters
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A batch forward and back: `step(image, target, scored)` leaves gradients, and returns the loss and the counts of each image.

    Where the batches of one step are several, it is `step(image, target, scored, together)`: how many they are. On an NVIDIA
    GPU it is recorded (`graphs.Recorded`), unless float16 or several batches need Python's part each time.
    """
    recorded = fabric.device.type == "cuda" and parameters.cuda_graphs
    recorded = recorded and parameters.accumulate == 1 and fabric._precision.precision != "16-mixed"

    def step(image: Tensor, target: Tensor, scored: Tensor, together: int = 1) -> tuple[Tensor, Tensor]:
        model.train()
        if recorded:
            optimizer.zero_grad(set_to_none=False)  # a recording writes where the gradients lay
        logits = model(image)
        loss = loss_of(logits, target, scored)
        fabric.backward(loss / together)
        return loss.detach(), count(logits.detach() > 0, target.bool(), scored)

    return Recorded(step) if recorded else step


class MovingAverage(nn.Module):
    """An exponential moving average of a model's weights and buffers, with a warm-up so that the first steps do not linger in it.

    PyTorch's `AveragedModel` waits for a GPU several times a step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Args: model: on the device that it stays on. decay: a step, 0 to 1."""
        super().__init__()
        self.module = copy.deepcopy(model)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0))
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._fractions = _in_columns([pair for pair in pairs if pair[0].is_floating_point()])
        self._counters = _in_columns([pair for pair in pairs if not pair[0].is_floating_point()])  # BatchNorm's, of batches

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights after a step; those of the first step are taken as they are."""
        steps = int(self.n_averaged)  # which lies on the CPU
        weight = 1 - min(self.decay, (1 + steps) / (10 + steps)) if steps else 1.0
        torch._foreach_lerp_(*self._fractions, weight)
        if self._counters:
            torch._foreach_copy_(*self._counters)
        self.n_averaged += 1


def _in_columns(pairs: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
    return [list(column) for column in zip(*pairs, strict=True)]
