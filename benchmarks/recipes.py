"""What a minute of training buys: recipes tried on real photographs, over seeds, each a run without a notebook.

    python -m benchmarks.recipes train NAME... --data DIR --split dev --seeds 0 1 2 --jobs 2
    python -m benchmarks.recipe_table

`recipes.yaml` holds the recipes by name: a profile's parameters, and what each one changes (`tried`: something that only
`tried.py` has). `train` adds to `recipes.json` one entry a recipe, seed and split: the Dice of every image, the curve over
time, and what it cost. Of that the second command makes RECIPES.md and dice_over_time.svg.
Splits to train and measure on:

- `dev`: trains on two thirds of trainval; a quarter of the other third chooses the best epoch, the rest is measured. Recipes
  are chosen here first; test is not touched.
- `test`: trains on train, measures on test.
- a breed's name: trains on the other breeds of trainval, measures on that breed's test photographs.
"""

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from filelock import FileLock
from torch import Tensor, nn

from benchmarks import tried
from benchmarks.machine import vectors
from petseg_lib import checkpoints, evaluation, normalisation, training
from petseg_lib.config import NOTEBOOKS, ReadableError, workspace
from petseg_lib.data import cache, loaders, pets
from petseg_lib.data.statistics import channel_statistics
from petseg_lib.disk import write_atomically
from petseg_lib.gpus import usable_cores
from petseg_lib.models import build_model
from petseg_lib.profiles import load_profile
from petseg_lib.runs import Run, open_run

HERE = Path(__file__).parent
RECIPES, RESULTS = HERE / "recipes.yaml", HERE / "recipes.json"


class Flipped(nn.Module):
    """A model averaged over a photograph and its mirror image: test-time flips."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return (self.model(images) + self.model(images.flip(-1)).flip(-1)) / 2


def described(name: str) -> dict[str, Any]:
    """A recipe as it stands in recipes.yaml."""
    recipes = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    if name not in recipes:
        raise ReadableError(f"recipe {name!r} is unknown: it must be one of {', '.join(recipes)}")
    return recipes[name]


def recipe(name: str) -> tuple[str, dict[str, Any]]:
    """A recipe's notebook and its parameters: those of the recipe (`of`) or profile's run it builds on, changed as it says."""
    own = {key: value for key, value in described(name).items() if key not in ("why", "against", "tried")}
    if "profile" in own:
        notebook, settings = load_profile(own.pop("profile")).runs[own.pop("run")]
    else:
        notebook, settings = recipe(own.pop("of")) if "of" in own else (own.pop("notebook"), {})
    return notebook, settings | own


def members(dataset: pets.PetDataset, split: str) -> dict[str, tuple[pets.Pet, ...]]:
    """The pets to train on, to choose the best epoch by, and to measure on."""
    if split == "dev":
        trainval = dataset.split("trainval")
        third = trainval[::3]
        valid, measured = third[::4], tuple(pet for place, pet in enumerate(third) if place % 4)
        return {"train": tuple(pet for place, pet in enumerate(trainval) if place % 3), "valid": valid, "measured": measured}
    parts = {"train": dataset.split("train"), "valid": dataset.split("valid"), "measured": dataset.split("test")}
    if split == "test":
        return parts
    if split not in {pet.breed for pet in dataset.pets}:
        raise ReadableError(f"split is {split!r}, but it must be dev, test, or a breed of the dataset")
    left = {part: tuple(pet for pet in parts[part] if pet.breed != split) for part in ("train", "valid")}
    return left | {"measured": tuple(pet for pet in parts["measured"] if pet.breed == split)}


def train(name: str, seed: int, split: str, data: str) -> dict[str, Any]:
    """Train a recipe once and measure it; the entry for recipes.json."""
    notebook, settings = recipe(name)
    run_dir = f"runs/recipes/{split}/{name}_{seed}"
    shutil.rmtree(workspace() / run_dir, ignore_errors=True)  # what an interrupted training left would not count as time
    p = NOTEBOOKS[notebook].checked(
        settings | {"data": data, "run_dir": run_dir, "figures_dir": "figures/recipes", "seed": seed, "force": True}
    )
    dataset = pets.open_dataset(p.data)
    parts = members(dataset, split)
    run, fabric = open_run(p, notebook), training.start(p)
    statistics = channel_statistics([dataset.photograph_path(pet) for pet in parts["train"]])
    mean, std = statistics.pixel_mean, statistics.pixel_std
    if p.normalisation != "dataset":
        mean, std, _ = normalisation.mean_and_std(p, run, dataset)
    caches = {part: cache.open_cache(dataset, those, p.image_size) for part, those in parts.items()}
    train_loader = loaders.build_loader(caches["train"], p, mean, std, train=True)
    valid_loader = loaders.build_loader(caches["valid"], p, mean, std, train=False)
    model = build_model(p.model, **p.model_settings())
    description = checkpoints.describe_model(p, mean, std)
    model, train_loader, in_place = tried.apply(described(name).get("tried"), model, train_loader, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    with in_place, last_epoch() as weights:
        history = training.fit(model, train_loader, valid_loader, p, run, fabric, description)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    last = copy.deepcopy(model)
    last.load_state_dict(weights)

    def dice(network: nn.Module) -> list[float]:
        table = evaluation.evaluate(network, dataset, parts["measured"], caches["measured"], description, fabric)
        return evaluation.dice_per_image(table, "native", p.border_policy).round(4).tolist()

    run.finish({})
    return {
        "recipe": name,
        "seed": seed,
        "split": split,
        "epochs": len(history),
        "best_epoch": int(history["epoch"][history["valid_dice"].idxmax()]),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if fabric.device.type == "cuda" else fabric.device.type,
        "arithmetic": f"{vectors()}, {fabric._precision.precision}",
        "curve": [[round(s, 1), round(d, 4)] for s, d in zip(history["seconds"].cumsum(), history["valid_dice"], strict=True)],
        "dice": dice(model),
        "dice_flipped": dice(Flipped(model)),
        "dice_last": dice(last),
    }


@contextmanager
def last_epoch() -> Iterator[dict[str, Tensor]]:
    """Filled with the weights of a training's last epoch, where `fit` ends with those of its best; of their EMA, if there is one."""
    weights: dict[str, Tensor] = {}
    validated: list[nn.Module] = []

    def measure(model: nn.Module, *arguments: Any) -> Any:
        validated[:] = [model]
        return measured(model, *arguments)

    def load_kept(run: Run, model: nn.Module) -> None:
        weights.update(checkpoints.copied(validated[0].state_dict()))
        loaded(run, model)

    measured, loaded = training._measure, training._load_kept
    with patch.object(training, "_measure", measure), patch.object(training, "_load_kept", load_kept):
        yield weights


def load() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []


def keep(entry: dict[str, Any]) -> None:
    """Put an entry into recipes.json, in place of an earlier one of the same recipe, seed and split."""
    same = ("recipe", "seed", "split")
    with FileLock(RESULTS.with_suffix(".lock")):  # trainings side by side may end at the same moment
        entries = [each for each in load() if any(each[key] != entry[key] for key in same)] + [entry]
        entries.sort(key=lambda each: [each["split"], each["recipe"], each["seed"]])
        lines = ",\n".join(json.dumps(each) for each in entries)
        write_atomically(RESULTS, f"[\n{lines}\n]\n".encode())


def train_all(names: list[str], seeds: list[int], split: str, data: str, jobs: int) -> bool:
    """Each training in a process of its own, `jobs` at a time, which share the cores. True where all succeeded."""
    threads = max(1, usable_cores() // jobs)
    # An entry of before `dice_last` was measured is made anew.
    done = {(each["recipe"], each["seed"], each["split"]) for each in load() if "dice_last" in each}

    def one(job: tuple[str, int]) -> bool:
        name, seed = job
        command = [
            sys.executable,
            "-m",
            "benchmarks.recipes",
            "one",
            name,
            "--seeds",
            str(seed),
            "--split",
            split,
            "--data",
            data,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        log = workspace() / "runs" / "recipes" / f"{split}_{name}_{seed}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=out, env=environment, check=False)
        if result.returncode:
            print(f"{name}, seed {seed}, {split}: failed, see {log}", flush=True)
            return False
        entry = json.loads(result.stdout.splitlines()[-1])
        keep(entry)
        print(f"{name}, seed {seed}, {split}: {np.mean(entry['dice']):.4f} in {entry['cpu_seconds']} s of CPU", flush=True)
        return True

    todo = [(name, seed) for seed in seeds for name in names if (name, seed, split) not in done]
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(one, todo)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["train", "one"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if options.action == "one":
        print(json.dumps(train(options.names[0], options.seeds[0], options.split, options.data)))
        return 0
    return 0 if train_all(options.names, options.seeds, options.split, options.data, options.jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
