"""What each choice for speed is worth: the same work with it and without it, at the sizes of the profile `sample`, or at the report's width."""

import copy
import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.rows import Row, build_row, in_rounds
from benchmarks.setting import REPORT_NETWORKS, TITLES, Setting
from benchmarks.steps import ENDLESS, precision_of, random_batch
from benchmarks.timing import Measure, alternate, timed
from petseg_lib import inference, training
from petseg_lib.config import TrainingParameters
from petseg_lib.dice import build_loss
from petseg_lib.graphs import Recorded
from petseg_lib.models import build_model, convolutions
from petseg_lib.optimisation import build_optimizer, build_schedule, build_step, is_hidden

SINGLE = "32-true"
FLOAT32, PLANES, COMPILED = "in float32", "channels first", "compiled by inductor"
EAGER = "started by Python, not recorded"
ADAMW, UNFUSED = "with AdamW for Muon", "with AdamW that is not fused"
UNFOLDED = "BatchNorm not folded"
PLAIN_ADAM, CONVOLVED = "with PyTorch's fused Adam as it is", "few pixels convolved by oneDNN"
WEIGHTS_CONVOLVED = "weights' gradients of few pixels by oneDNN"
NOT_WINOGRAD, TRANSPOSED = "many channels convolved by oneDNN", "transposed convolutions by oneDNN"
DOUBLING = convolutions.UpConv2x2, "forward", nn.ConvTranspose2d.forward
WHOLE, WHOLE_BF16 = "the whole matrix iterated, five times", "the same in bf16"


def choices(setting: Setting) -> list[Row]:
    rows = [row(setting, network) for network in ("unet", "resnet34_unet") for row in (_training, _inference, _orthogonalising)]
    if setting.device == "cpu":
        rows += [_wide_training(setting, network) for network in REPORT_NETWORKS]
    return rows


def _parameters(setting: Setting, network: str, **changes: Any) -> TrainingParameters:
    return setting.parameters(network, "sample", width=setting.sizes.sample_width, **changes)


def _training(setting: Setting, network: str) -> Row:
    p, adamw = _parameters(setting, network), _parameters(setting, network, optimizer="adamw")
    measures = {
        "ours": timed(_step(setting, p), setting.device),
        PLANES: timed(_step(setting, p, memory_format=torch.contiguous_format), setting.device),
        ADAMW: timed(_step(setting, adamw), setting.device),
        UNFUSED: timed(_step(setting, adamw, fused=False), setting.device),
    }
    if precision_of(setting) != SINGLE:
        measures[FLOAT32] = timed(_step(setting, _parameters(setting, network, precision=SINGLE)), setting.device)
    if setting.device == "cuda":
        measures[EAGER] = timed(_step(setting, _parameters(setting, network, cuda_graphs=False)), setting.device)
    else:
        measures[TRANSPOSED] = _without(measures["ours"], *DOUBLING)
        if not setting.quick:  # compiling takes a minute
            measures[COMPILED] = timed(_step(setting, p, prepare=torch.compile), setting.device)
    return _row(setting, network, "training step", p, measures)


def _wide_training(setting: Setting, network: str) -> Row:
    """What a CPU has to do for many weights: in the source report's own networks."""
    p = setting.parameters(network)
    step = timed(_step(setting, p))
    measures = {
        "ours": step,
        PLAIN_ADAM: timed(_step(setting, p, optimizer_of=_plain_adam)),
        NOT_WINOGRAD: _without(step, convolutions, "WINOGRAD_FROM", {}),
        TRANSPOSED: _without(step, *DOUBLING),
    }
    if convolutions._multiplies_matrices(torch.bfloat16):
        measures[WEIGHTS_CONVOLVED] = _without(step, convolutions, "GRADIENT_PIXELS", 0)
    if network == "resnet34_unet_report":
        measures[CONVOLVED] = _without(step, convolutions, "MANY_WEIGHTS", math.inf)
    return _row(setting, network, "training step", p, measures, f"{network.removesuffix('_report')}_report")


def _without(step: Measure, owner: Any, name: str, other: Any) -> Measure:
    """A measure of the same step with another constant or method in place of ours."""

    def measured() -> float:
        with patch.object(owner, name, other):
            return step()

    return measured


def _plain_adam(model: nn.Module, p: TrainingParameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay, fused=True)


def _inference(setting: Setting, network: str) -> Row:
    p = _parameters(setting, network)
    measures = {
        "ours": timed(_forward(setting, p), setting.device),
        UNFOLDED: timed(_forward(setting, p, fold=lambda model, dtype: copy.deepcopy(model).eval()), setting.device),
        PLANES: timed(_forward(setting, p, memory_format=torch.contiguous_format), setting.device),
    }
    if precision_of(setting) != SINGLE:
        measures[FLOAT32] = timed(_forward(setting, _parameters(setting, network, precision=SINGLE)), setting.device)
    return _row(setting, network, "forward passes of a batch", p, measures)


def _orthogonalising(setting: Setting, network: str) -> Row:
    """What Muon adds to a step, for all convolutions that it steps."""
    p = _parameters(setting, network)
    model = build_model(p.model, **p.model_settings()).to(setting.device)
    optimizer = build_optimizer(model, p)
    gradients = [torch.randn_like(each) for each in model.parameters() if is_hidden(each)]
    matrices = [each.flatten(1) for each in gradients]

    def measure(of: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> Measure:
        return timed(lambda: [of(each.to(dtype)) for each in matrices], setting.device)

    ours = timed(torch.no_grad()(lambda: optimizer.updates(*gradients)), setting.device)
    measures = {"ours": ours, WHOLE: measure(_iterated), WHOLE_BF16: measure(_iterated, torch.bfloat16)}
    return _row(setting, network, "orthogonalising for Muon's step", p, measures)


def _iterated(matrix: Tensor) -> Tensor:
    """`optimisation.orthogonalised` as Muon's authors write it: each iteration multiplies the whole matrix."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def _row(setting: Setting, network: str, what: str, p: TrainingParameters, measures: dict, name: str = "") -> Row:
    title = f"{what} of {TITLES[network]}, width {p.width}"
    taken = alternate(title, measures, 3 * setting.sizes.rounds)
    return build_row(
        f"choice_{what.split()[0]}_{name or network}",
        title,
        "s",
        taken,
        rivals=[name for name in measures if name != "ours"],
        conditions=f"{in_rounds(3 * setting.sizes.rounds)}; {p.image_size} px, {p.batch_size} a batch; "
        "each of the others is ours but for what it names",
    )


def _step(
    setting: Setting,
    p: TrainingParameters,
    memory_format: torch.memory_format = torch.channels_last,
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
    fused: bool | None = None,
    optimizer_of: Callable[[nn.Module, TrainingParameters], torch.optim.Optimizer] = build_optimizer,
) -> Callable[[], None]:
    """A training step without anything around it."""
    fabric = training.start(p)
    model = build_model(p.model, **p.model_settings()).to(fabric.device, memory_format=memory_format).train()
    wrapped, optimizer = fabric.setup(prepare(model), optimizer_of(model, p))
    for group in optimizer.param_groups:
        group["fused"] = group["fused"] if fused is None else fused
    schedule = build_schedule(optimizer, p, ENDLESS)
    forward_and_back = build_step(wrapped, optimizer, build_loss(p.loss), fabric, p)
    batch = random_batch(p.batch_size, p.image_size, setting.device)
    image = batch.image.contiguous(memory_format=memory_format)

    def step() -> None:
        forward_and_back(image, batch.target, batch.scored)
        optimizer.step()
        if not isinstance(forward_and_back, Recorded):
            optimizer.zero_grad(set_to_none=True)
        schedule.step()

    return step


def _forward(
    setting: Setting,
    p: TrainingParameters,
    memory_format: torch.memory_format = torch.channels_last,
    fold: Callable[[nn.Module, torch.dtype | None], nn.Module] = inference.fold_batchnorm,
) -> Callable[[], None]:
    """A pass of a model that is made ready as all inference does."""
    fabric = training.start(p)
    with patch.object(inference, "fold_batchnorm", fold):
        prepared = inference.for_inference(build_model(p.model, **p.model_settings()), fabric).to(memory_format=memory_format)
    image = random_batch(p.batch_size, p.image_size, setting.device).image.contiguous(memory_format=memory_format)

    def forward() -> None:
        with torch.inference_mode():
            prepared(image)

    return forward
