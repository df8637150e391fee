"""One training run without a notebook, small enough to be killed many times; and what it must have left at its end."""

import json
import os
from pathlib import Path

import pandas as pd
import torch

from petseg_lib import checkpoints, evaluation, runs, training
from petseg_lib.config import UNetParameters
from petseg_lib.data import cache, loaders, pets
from petseg_lib.models import build_model

SMALL = {"image_size": 32, "width": 4, "depth": 2, "batch_size": 4, "epochs": 8, "limit_images": 24, "device": "cpu"}
TIMINGS = {"training_seconds", "images_per_second"}


def train_in(workspace: Path, *given) -> None:
    """In a process of its own, whose server may be older than the test and then knows of no workspace."""
    os.environ["PETSEG_WORKSPACE"] = str(workspace)
    train(*given)


def train(run_dir: str, data: str, writing_share: float) -> None:
    """What notebook 03 does; `writing_share` is that of checkpoints, of which the first epoch has one."""
    checkpoints.WRITING_SHARE, checkpoints.EXPECTED_BYTES_A_SECOND = writing_share, 1e99
    torch.set_num_threads(1)
    p = UNetParameters.checked(SMALL | {"run_dir": run_dir, "data": data, "ema_decay": 0.9})
    run = runs.open_run(p, "03_unet_training")
    fabric = training.start(p)
    dataset = pets.open_dataset(p.data, p.limit_images)
    splits = {split: dataset.split(split) for split in ("train", "valid", "test")}
    caches = {split: cache.open_cache(dataset, members, p.image_size) for split, members in splits.items()}
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    train_loader = loaders.build_loader(caches["train"], p, mean, std, train=True)
    valid_loader = loaders.build_loader(caches["valid"], p, mean, std, train=False)
    model = build_model(p.model, **p.model_settings())
    description = checkpoints.describe_model(p, mean, std)
    history = training.fit(model, train_loader, valid_loader, p, run, fabric, description)
    per_image = evaluation.evaluate(model, dataset, splits["test"], caches["test"], description, fabric, p.batch_size)
    run.write_table("per_image.csv", per_image)
    run.finish(training.metrics(p, model, history, fabric))


def content(folder: Path) -> tuple:
    """What must be the same byte for byte, timings aside."""
    metrics = json.loads((folder / "metrics.json").read_text())
    history = pd.read_csv(folder / "history.csv", dtype=str).drop(columns="seconds").to_csv()
    files = [(folder / name).read_bytes() for name in ("model.safetensors", "per_image.csv")]
    return history, {name: value for name, value in metrics.items() if name not in TIMINGS}, *files
