"""What a training shows while it runs: a line an epoch, a bar where somebody looks on, and TensorBoard's curves and images."""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from petseg_lib.data.loaders import Batch

GRIDS, GRID_IMAGES = 10, 4  # TensorBoard shows ten grids of a run


def someone_watches() -> bool:
    """True in a terminal or a live notebook; False under papermill, nbval and nbconvert, which take no input."""
    kernel = getattr(sys.modules.get("IPython") and sys.modules["IPython"].get_ipython(), "kernel", None)
    return bool(kernel._allow_stdin) if kernel is not None else sys.stdout.isatty()


def line_of(row: dict[str, float], epochs: int, better: bool) -> str:
    """An epoch's row of the history as a line of text; `epochs` is how many the training has."""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  train loss {row['train_loss']:.4f} Dice {row['train_dice']:.4f}"
        f"  valid loss {row['valid_loss']:.4f} Dice {row['valid_dice']:.4f}  {row['seconds']:.1f} s{'  best' if better else ''}"
    )


def log_epoch(
    writer: SummaryWriter, row: dict[str, float], epochs: int, seen: tuple[Batch, Tensor], description: dict[str, Any]
) -> None:
    """Give TensorBoard an epoch's numbers and, ten times in a training, some validation images above truth and probability.

    Args:
        row: the epoch's row of the history.
        epochs: how many the training has.
        seen: a batch of the validation split, and its logits.
        description: `checkpoints.describe_model`, for the mean and standard deviation.
    """
    epoch = row["epoch"]
    for name in row.keys() - {"epoch"}:
        writer.add_scalar(name.replace("_", "/", 1) if name.startswith(("train", "valid")) else name, row[name], epoch)
    if epoch * GRIDS // epochs == (epoch - 1) * GRIDS // epochs:
        return
    image, target, logits = (each[:GRID_IMAGES] for each in (seen[0].image, seen[0].target, seen[1]))
    mean, std = (torch.tensor(description[name], device=image.device).view(1, 3, 1, 1) for name in ("mean", "std"))
    photographs = (image * std + mean).clamp(0, 1)
    rows = (photographs, target.expand_as(photographs), logits.sigmoid().float().expand_as(photographs))
    grid = torch.cat([torch.cat(list(images), dim=2) for images in rows], dim=1)
    writer.add_image("validation: photograph, truth, probability", grid.cpu(), epoch)
