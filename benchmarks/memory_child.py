"""Train for many epochs in a process of its own; prints the memory that is this process's alone, MB, after each epoch.

python -m benchmarks.memory_child DATA EPOCHS DEVICE FOLDER
"""

import json
import sys
from pathlib import Path

import psutil

from petseg_lib import training
from petseg_lib.checkpoints import describe_model
from petseg_lib.config import UNetParameters
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import build_loader
from petseg_lib.data.pets import open_dataset
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD
from petseg_lib.models import build_model
from petseg_lib.runs import Run

SMALL = {"image_size": 64, "width": 8, "depth": 3, "batch_size": 4, "limit_images": 32, "ema_decay": 0.9}


def main(data: str, epochs: str, device: str, folder: str) -> None:
    run = Run(Path(folder))
    parameters = UNetParameters.checked(SMALL | {"data": data, "run_dir": folder, "epochs": int(epochs), "device": device})
    dataset = open_dataset(data, parameters.limit_images)
    caches = [open_cache(dataset, dataset.split(split), parameters.image_size, run.folder) for split in ("train", "valid")]
    loaders = [build_loader(cache, parameters, REPORT_MEAN, REPORT_STD, train=cache is caches[0]) for cache in caches]
    model = build_model(parameters.model, **parameters.model_settings())
    memory: list[float] = []
    log = training.log_epoch  # the last thing of an epoch

    def log_and_weigh(*arguments) -> None:
        log(*arguments)
        memory.append(psutil.Process().memory_full_info().uss / 1e6)

    training.log_epoch = log_and_weigh
    try:
        fabric = training.start(parameters)
        training.fit(model, *loaders, parameters, run, fabric, describe_model(parameters, REPORT_MEAN, REPORT_STD))
    finally:
        training.log_epoch = log
    print(json.dumps({"memory": memory}))


if __name__ == "__main__":
    main(*sys.argv[1:])
