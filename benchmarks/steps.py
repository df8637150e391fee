"""One training step: ours, the report's, and that of segmentation_models.pytorch, beside the rate of a matrix product."""

import copy
from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import product_rate
from benchmarks.report_way import ReportTraining
from benchmarks.rows import Row, build_row, in_rounds, speed_over, target
from benchmarks.setting import NETWORKS, TITLES, Setting
from benchmarks.timing import Measure, alternate, as_usual, quotient, spread, timed
from petseg_lib import training
from petseg_lib.config import TrainingParameters
from petseg_lib.data.loaders import Batch
from petseg_lib.devices import best_precision
from petseg_lib.dice import build_loss
from petseg_lib.models import build_model
from petseg_lib.optimisation import build_optimizer, build_schedule, build_step

REPORT, WITHOUT_GRIDS, SMP, PRODUCT = (
    "the report's way",
    "the same without its grids of images",
    "segmentation_models.pytorch Unet resnet34",
    "its GFLOP at the rate of a matrix product",
)
ENDLESS = 1_000_000


def steps(network: str) -> Callable[[Setting], list[Row]]:
    """The rows of one network, at each size."""
    return lambda setting: [_at(setting, network, size, batch_size) for size, batch_size in setting.sizes.steps]


def _at(setting: Setting, network: str, size: int, batch_size: int) -> Row:
    parameters = setting.parameters(network, image_size=size, batch_size=batch_size)
    batch = random_batch(batch_size, size, setting.device)
    model = build_model(parameters.model, **parameters.model_settings())
    rival = smp.Unet("resnet34", encoder_weights=None)
    work = {"ours": step_gflop(model, batch_size, size), SMP: step_gflop(rival, batch_size, size)}
    report = ReportTraining(copy.deepcopy(model), setting.device, setting.new_folder("tensorboard"))
    image = batch.image.contiguous(memory_format=torch.contiguous_format)
    report.model.train()
    repeats = setting.sizes.step_repeats
    measures = {
        "ours": timed(our_step(model, parameters, [batch] * repeats), setting.device, per=repeats),
        REPORT: as_usual(timed(lambda: report.step(image, batch.target), setting.device)),
        WITHOUT_GRIDS: as_usual(timed(lambda: report.step(image, batch.target, grids=False), setting.device)),
        SMP: timed(our_step(rival, parameters, [batch] * repeats), setting.device, per=repeats),
        PRODUCT: product_time(setting, work["ours"]),
    }
    taken = alternate(f"step of {TITLES[network]} at {size} px", measures, setting.sizes.step_rounds)
    return _row(setting, network, size, batch_size, taken, work)


def _row(setting: Setting, network: str, size: int, batch_size: int, taken: dict, work: dict[str, float]) -> Row:
    over_smp = [ratio * work["ours"] / work[SMP] for ratio in speed_over(taken, SMP)]
    share = spread(quotient(taken[PRODUCT], taken["ours"]))
    where = f"step of {TITLES[network]} at {size} px"
    return build_row(
        f"step_{network}_{size}",
        f"training {where}",
        "s",
        taken,
        rivals=[REPORT, WITHOUT_GRIDS, SMP],
        limits=[PRODUCT],
        conditions=f"{in_rounds(setting.sizes.step_rounds)} of {steps_in_words(setting)} of {batch_size}; width {setting.sizes.width}; "
        f"{work['ours']:.0f} GFLOP forward and back, {work[SMP]:.0f} that of {SMP}, with every convolution computed directly; "
        f"both in {precision_of(setting)}, channels last",
        targets=[target(f"{where}: speed for each GFLOP over segmentation_models.pytorch's", over_smp, at_least=1)],
        notes=[
            f"{work['ours'] / spread(taken['ours'])['median']:.0f} GFLOP/s, {share['median']:.0%} of the matrix product's; "
            f"{SMP} {work[SMP] / spread(taken[SMP])['median']:.0f} GFLOP/s"
        ],
    )


def our_step(model: nn.Module, parameters: TrainingParameters, batches: list[Batch]) -> Callable[[], object]:
    """Steps as `training.fit` makes them, one a batch, on batches that are already there."""
    fabric = training.start(parameters)
    model = model.to(fabric.device, memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(model, build_optimizer(model, parameters))
    schedule = build_schedule(optimizer, parameters, ENDLESS)
    step = build_step(wrapped, optimizer, build_loss(parameters.loss), fabric, parameters)
    return lambda: training._train_epoch(step, batches, optimizer, schedule, fabric, None, parameters)


def steps_in_words(setting: Setting) -> str:
    return f"{setting.sizes.step_repeats} steps" if setting.sizes.step_repeats > 1 else "a step"


def random_batch(batch_size: int, size: int, device: str) -> Batch:
    image = torch.randn(batch_size, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    target = (torch.rand(batch_size, 1, size, size, device=device) > 0.5).float()
    return Batch(image, target, torch.ones_like(target, dtype=torch.bool), torch.arange(batch_size))


def step_gflop(model: nn.Module, batch_size: int, size: int) -> float:
    """Billions of operations, two a multiply-add, of the convolutions of a step forward and back; nothing is computed."""
    nothing = copy.deepcopy(model).to("meta").train()
    with FlopCounterMode(display=False) as counter:
        nothing(torch.empty(batch_size, 3, size, size, device="meta")).sum().backward()
    return counter.get_total_flops() / 1e9


def product_time(setting: Setting, gflop: float) -> Measure:
    """Seconds that so many operations take as matrix products in the precision that training uses here."""
    product, each = product_rate(setting.device, precision_of(setting), setting.sizes.matrix_side)
    seconds = timed(product, setting.device)

    def measure() -> float:
        spent = [seconds()]
        while sum(spent) < setting.sizes.product_seconds:
            spent.append(seconds())
        return gflop / each * sum(spent) / len(spent)

    return measure


def precision_of(setting: Setting) -> str:
    return best_precision(torch.device(setting.device))


STEPS = {f"step_{network}": steps(network) for network in NETWORKS}
