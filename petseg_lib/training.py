"""The training loop, in plain sight. Lightning Fabric carries the device and the precision."""

import copy
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric, seed_everything
from safetensors.torch import load
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm.std import tqdm

from petseg_lib.checkpoints import Checkpointer, interruptible, load_state, state_path
from petseg_lib.config import ReadableError, TrainingParameters, shown
from petseg_lib.data.loaders import Batch, full_size_from, half_size, one_pass, set_epoch, to_device
from petseg_lib.devices import is_out_of_memory, memory_format, open_fabric
from petseg_lib.dice import build_loss, count, dice_from_counts
from petseg_lib.graphs import Recorded, released
from petseg_lib.inference import PIXELS_A_PASS, images_per_second
from petseg_lib.models import gflop, parameter_count
from petseg_lib.optimisation import MovingAverage, build_optimizer, build_schedule, build_step
from petseg_lib.runs import Run
from petseg_lib.trained_on import check_photographs
from petseg_lib.training_log import line_of, log_epoch, someone_watches

GPUS = ("cuda", "mps")
LOW_DICE = 0.7  # the report kept no model below it; here it is kept, with a warning


def start(parameters: TrainingParameters) -> Fabric:
    """Seed every generator and choose device and precision (see `devices.open_fabric`)."""
    seed_everything(parameters.seed, workers=False, verbose=False)
    return open_fabric(parameters.device, parameters.precision)


class TrainingError(ReadableError):
    """A training run that cannot go on. What it had reached stands in its folder."""


@dataclass
class Progress:
    """Where a training run stands; together with the weights, all that it needs to go on."""

    epoch: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    precision: str = ""


def fit(
    model: nn.Module,
    train_loader: DataLoader,
    valid_loader: DataLoader,
    parameters: TrainingParameters,
    run: Run,
    fabric: Fabric,
    description: dict[str, Any],
) -> pd.DataFrame:
    """Train, and leave the weights of the best epoch by validation Dice, or of the last (`kept_weights`), in model.safetensors.

    Each epoch's order, augmentation and dropout are a function of the seed and the epoch alone, so that a run that was
    interrupted goes on from its last finished epoch as if it had not been. A finished run is not trained again.

    Args:
        model: on any device; it is trained in place and ends with the weights that are kept.
        train_loader, valid_loader: as `data.loaders.build_loader` makes them.
        description: `checkpoints.describe_model`, saved with the weights.

    Returns:
        The history: one row an epoch with epoch, learning_rate, train_loss, train_dice, valid_loss, valid_dice and
        seconds. valid_dice is dice_image at the model's size, train_dice that of augmented images at the size they were
        trained at (half of it in some epochs: `half_size_share`).

    Raises:
        TrainingError: a loss is not finite, or the device's memory does not hold a step.
        DiskError: the disk is full.
        RunError: the run was begun with other photographs or masks.
    """
    check_photographs(run, train=train_loader.dataset.cache, validate=valid_loader.dataset.cache)
    model = model.to(fabric.device, memory_format=memory_format(fabric.device))
    if run.complete:
        print(f"{shown(run.folder)} is finished: its weights are loaded, nothing is trained (force = True trains again).")
        _load_kept(run, model)
        return run.history
    model.zero_grad(set_to_none=True)  # of a step that an interrupt left half done
    optimizer = build_optimizer(model, parameters)
    wrapped, optimizer = fabric.setup(model, optimizer)
    steps = -(-len(train_loader) // parameters.accumulate)
    schedule = build_schedule(optimizer, parameters, parameters.epochs * steps)
    averaged = MovingAverage(model, parameters.ema_decay) if parameters.ema_decay else None
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule} | ({"averaged": averaged} if averaged else {})
    if fabric._precision.state_dict():  # float16's scale
        parts["precision"] = fabric._precision
    progress = _resume(run, parts, parameters)
    precision = str(fabric._precision.precision)
    if progress.precision not in ("", precision):
        print(f"It was begun in {progress.precision} and goes on in {precision}: it will not end as if it had not stopped.")
    progress.precision = precision
    evaluated = fabric.setup_module(averaged.module, move_to_device=False) if averaged else wrapped
    loss_of = build_loss(parameters.loss)
    step = build_step(wrapped, optimizer, loss_of, fabric, parameters)
    watched = someone_watches()
    set_epoch(train_loader, progress.epoch + 1, parameters.epochs)
    with (
        one_pass(train_loader) as endless,  # of all epochs: workers start once, and make the next one's batches meanwhile
        interruptible(run, model, fabric._precision),
        SummaryWriter(run.folder / "tensorboard", purge_step=progress.epoch + 1) as writer,
        Checkpointer(run, description) as checkpointer,
        released(step, getattr(optimizer, "updates", None)),
    ):
        if fabric.device.type in GPUS and progress.epoch + 1 < full_size_from(parameters) <= parameters.epochs:
            with _in_memory(fabric, full_size_from(parameters), progress, parameters, recorded=False):
                images = min(parameters.batch_size, len(train_loader.dataset))
                _one_step_at_full_size(model, loss_of, fabric, images, parameters.image_size)
        while not _done(progress, parameters):
            epoch, began = progress.epoch + 1, time.perf_counter()
            torch.manual_seed(parameters.seed * 1_000_003 + epoch)
            batches = islice(endless, len(train_loader))
            batches = tqdm(
                batches, f"epoch {epoch}/{parameters.epochs}", len(train_loader), False, sys.stdout, disable=not watched
            )
            with _in_memory(fabric, epoch, progress, parameters, isinstance(step, Recorded)):
                smaller = half_size(parameters, epoch)
                if isinstance(step, Recorded) and epoch == full_size_from(parameters):
                    step.forget()  # the steps at half size, which would keep their memory
                losses, counts, rates = _train_epoch(step, batches, optimizer, schedule, fabric, averaged, parameters, smaller)
                _check_finite(losses, rates, train_loader, epoch)
                validated, seen = _measure(evaluated, valid_loader, loss_of, fabric)
                if not math.isfinite(validated[0]):
                    raise TrainingError(
                        f"the validation loss is not finite in epoch {epoch}, at learning rate {rates[-1]:.3g}; the weights "
                        "from before it are kept: try a lower learning_rate, or precision 32-true"
                    )
            trained = _means(losses, counts)
            row = {"epoch": epoch, "learning_rate": optimizer.param_groups[0]["lr"]}
            row |= {"train_loss": trained[0], "train_dice": trained[1], "valid_loss": validated[0]}
            row |= {"valid_dice": validated[1], "seconds": time.perf_counter() - began}
            better = row["valid_dice"] > progress.best_dice
            if better:
                progress.best_epoch, progress.best_dice = epoch, row["valid_dice"]
            progress.epoch = epoch
            progress.history.append(row)
            to_go_on = {} if _done(progress, parameters) else parts
            state = {name: part.state_dict() for name, part in to_go_on.items()} | {"progress": vars(progress)}
            kept = better or parameters.kept_weights == "last"
            checkpointer.keep(state, (averaged.module if averaged else model).state_dict() if kept else None)
            log_epoch(writer, row, parameters.epochs, seen, description)
            print(line_of(row, parameters.epochs, better), flush=True)
    _load_kept(run, model)
    if progress.best_dice < LOW_DICE:
        print(f"Warning: the best validation Dice is {progress.best_dice:.4f}, below {LOW_DICE}.", flush=True)
    return pd.DataFrame(progress.history)


@contextmanager
def _in_memory(fabric: Fabric, epoch: int, progress: Progress, parameters: TrainingParameters, recorded: bool) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"the memory of {fabric.device} does not hold a step of epoch {epoch}: lower batch_size "
            f"({parameters.batch_size} now) and raise accumulate ({parameters.accumulate} now) by as much, or lower "
            f"image_size ({parameters.image_size} now)"
            + (", either of which begins anew (force = True; --force, FORCE=1)" if progress.epoch else "")
            + (", or set cuda_graphs = False" if recorded else "")
        ) from None


def _one_step_at_full_size(model: nn.Module, loss_of: Any, fabric: Fabric, images: int, image_size: int) -> None:
    """Forward and back with a copy, before the epochs at half size: memory that does not hold it would end them when most is done.

    The copy's weights stand for what the optimiser will hold.
    """
    trial = fabric.setup_module(copy.deepcopy(model).train())
    image = torch.zeros((images, 3, image_size, image_size), device=fabric.device)
    image = image.contiguous(memory_format=memory_format(fabric.device))
    fabric.backward(loss_of(trial(image), image[:, :1], image[:, :1] == 0))


def metrics(parameters: TrainingParameters, model: nn.Module, history: pd.DataFrame, fabric: Fabric) -> dict[str, Any]:
    """What metrics.json says of a training run. Its `images_per_second` is of inference, measured here."""
    best = history.loc[history["valid_dice"].idxmax()]
    return {
        "model": parameters.model,
        "parameters": parameter_count(model),
        "gflop": gflop(model, parameters.image_size),
        "images_per_second": images_per_second(model, parameters.image_size, fabric),
        "epochs": len(history),
        "best_epoch": int(best["epoch"]),
        "best_valid_dice": float(best["valid_dice"]),
        "training_seconds": float(history["seconds"].sum()),
        "device": str(fabric.device),
        "precision": str(fabric._precision.precision),
    }


def _train_epoch(step, batches, optimizer, schedule, fabric, averaged, parameters, smaller=None) -> tuple[list, list, list]:
    """One pass over the training split: of each batch its loss (times its images), counts (of augmented images) and learning rate."""
    losses, counts, rates = [], [], []
    for number, batch in enumerate(batches):
        batch = to_device(batch, fabric)
        image, target, scored, _ = smaller(batch, number) if smaller else batch
        place = number % parameters.accumulate
        together = min(parameters.accumulate, len(batches) - number + place)  # an epoch's last step may have fewer batches
        loss, counted = step(image, target, scored, *((together,) if parameters.accumulate > 1 else ()))
        losses.append(loss * len(image))
        counts.append(counted.clone())
        rates.append(optimizer.param_groups[0]["lr"])
        if place + 1 == together:
            optimizer.step()
            if not isinstance(step, Recorded):
                optimizer.zero_grad(set_to_none=True)
            schedule.step()
            if averaged is not None:
                averaged.update()
    return losses, counts, rates


def _check_finite(losses: list[Tensor], rates: list[float], loader: DataLoader, epoch: int) -> None:
    """Asked once an epoch, before anything of it is saved: to ask at each step would wait for the device each time."""
    broken = (~torch.stack(losses).isfinite()).nonzero().flatten().tolist()
    if broken:
        rows = list(loader.sampler.of_epoch(epoch))[broken[0]]
        raise TrainingError(
            f"the loss is not finite in epoch {epoch} from step {broken[0] + 1} of {len(losses)} on, at learning rate "
            f"{rates[broken[0]]:.3g}, with the images {', '.join(loader.dataset.cache.names[row] for row in rows)}; the "
            "weights from before it are kept: try a lower learning_rate, or precision 32-true"
        )


@torch.no_grad()
def _measure(
    model: nn.Module, loader: DataLoader, loss_of: Any, fabric: Fabric
) -> tuple[tuple[float, float], tuple[Batch, Tensor]]:
    """Mean loss and mean dice_image of a split that is not trained on; and its first batch, with what the network says of it."""
    model.eval()
    losses, counts, seen = [], [], None
    for batch, logits in _passes(model, loader, fabric):
        seen = seen or (batch, logits)
        losses.append(loss_of(logits, batch.target, batch.scored) * len(batch.image))
        counts.append(count(logits > 0, batch.target.bool(), batch.scored))
    return _means(losses, counts), seen


def _passes(model: nn.Module, loader: DataLoader, fabric: Fabric) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with its logits; small ones go through a CPU together, though a loss may be pooled over each.

    All cores share such a pass, which is twice as large as one that a core of `map_passes` has to itself.
    """
    batches = iter(loader)
    for first in batches:
        on_cpu, pixels = fabric.device.type == "cpu", first.target.numel()
        together = [first, *islice(batches, max(0, 2 * PIXELS_A_PASS // pixels - 1) if on_cpu else 0)]
        together = [to_device(batch, fabric) for batch in together]
        images = [batch.image for batch in together]
        logits = model(torch.cat(images) if len(images) > 1 else images[0])
        yield from zip(together, logits.split([len(image) for image in images]), strict=True)


def _means(losses: list[Tensor], counts: list[Tensor]) -> tuple[float, float]:
    """Kept on the device until here: one synchronisation an epoch, not one a step."""
    table = torch.cat(counts).cpu().double()  # Apple's GPUs have no float64
    return (torch.stack(losses).sum() / len(table)).item(), dice_from_counts(*table.T).mean().item()


def _done(progress: Progress, parameters: TrainingParameters) -> bool:
    # Epochs at half size are no reason to stop: those at full size, with which Dice jumps, are still to come.
    waited = progress.epoch - max(progress.best_epoch, full_size_from(parameters) - 1)
    return progress.epoch >= parameters.epochs or 0 < parameters.patience <= waited


def _resume(run: Run, parts: dict[str, Any], parameters: TrainingParameters) -> Progress:
    path = state_path(run)
    if not path.is_file():
        return Progress()
    state = load_state(path)
    progress = Progress(**state["progress"])
    for name, part in ({} if _done(progress, parameters) else parts).items():
        if name in state or name != "precision":  # float16's scale starts anew where the run began in other arithmetic
            part.load_state_dict(state[name])
    run.write_table("history.csv", pd.DataFrame(progress.history))  # which comes after the state, and may be an epoch behind
    print(f"Going on after epoch {progress.epoch}, from {shown(path)}.", flush=True)
    return progress


def _load_kept(run: Run, model: nn.Module) -> None:
    model.load_state_dict(load((run.folder / "model.safetensors").read_bytes()))
    model.eval()
