"""How long the profile `report` takes: its epochs at its own sizes, on as many photographs as the whole dataset has."""

import time
from collections.abc import Callable

from benchmarks.repeated import repeat
from benchmarks.rows import Row, build_row
from benchmarks.setting import REPORT_NETWORKS, TITLES, Setting
from petseg_lib import training
from petseg_lib.checkpoints import describe_model, load_model
from petseg_lib.data.cache import open_cache
from petseg_lib.data.download import PAIRS
from petseg_lib.data.loaders import build_loader
from petseg_lib.data.pets import PetDataset, load_pets
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD
from petseg_lib.evaluation import evaluate
from petseg_lib.models import build_model
from petseg_lib.profiles import load_profile
from petseg_lib.runs import Run

CACHE, TEST = "making the cache of all splits", "measuring the test split"
REPORT = load_profile("report").runs["unet"][1]


def profile_time(network: str) -> Callable[[Setting], list[Row]]:
    """The row of one of the report's own networks; none on a CPU, which is too slow for it."""
    return lambda setting: [_row(setting, network)] if setting.device == "cuda" or setting.quick else []


def _row(setting: Setting, network: str) -> Row:
    sizes = setting.sizes
    own = {} if setting.quick else {name: REPORT[name] for name in ("image_size", "width", "batch_size")}
    parameters = setting.parameters(network, epochs=sizes.profile_epochs, **own)
    dataset = _whole(setting)
    began = time.perf_counter()
    caches = {
        split: open_cache(dataset, dataset.split(split), parameters.image_size, setting.caches)
        for split in ("train", "valid", "test")
    }
    taken = {CACHE: [time.perf_counter() - began]}
    loaders = [build_loader(caches[split], parameters, REPORT_MEAN, REPORT_STD, split == "train") for split in ("train", "valid")]
    model = build_model(parameters.model, **parameters.model_settings())
    description = describe_model(parameters, REPORT_MEAN, REPORT_STD)
    run, fabric = Run(setting.new_folder(f"profile_{network}")), training.start(parameters)
    history = training.fit(model, *loaders, parameters, run, fabric, description)
    taken["ours"] = history["seconds"].tolist()
    model, description = load_model(run.folder / "model.safetensors")
    began = time.perf_counter()
    evaluate(model, dataset, dataset.split("test"), caches["test"], description, fabric, parameters.batch_size)
    taken[TEST] = [time.perf_counter() - began]
    last = taken["ours"][-1]
    counts = ", ".join(f"{len(cache)} {split}" for split, cache in caches.items())
    return build_row(
        f"profile_report_{network}",
        f"an epoch of {TITLES[network]} in the profile report",
        "s",
        taken,
        conditions=f"{len(taken['ours'])} epochs; {counts} photographs, those of the folder repeated; {parameters.image_size} px, "
        f"{parameters.batch_size} a batch, width {parameters.width}; validation and checkpoints included",
        notes=[f"{REPORT['epochs']} epochs of the last one's {last:.1f} s are {REPORT['epochs'] * last / 60:.1f} min"],
    )


def _whole(setting: Setting) -> PetDataset:
    """The folder's pets, as many times as make the whole dataset."""
    root = setting.folder / "whole"
    if not root.is_dir():
        making = setting.new_folder("whole.making")
        repeat(setting.dataset().root, making, len(setting.dataset().pets) if setting.quick else PAIRS)
        making.rename(root)
    return load_pets(root)


PROFILES = {f"profile_report_{network}": profile_time(network) for network in REPORT_NETWORKS}
