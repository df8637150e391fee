"""docs/files.md names every column and key of the files that it describes, and none that they do not have."""

import itertools
import json
import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from small_model import DESCRIPTION, SETTINGS

from petseg_lib import cutouts, evaluation, runs, sweeps, training
from petseg_lib.checkpoints import describe_model
from petseg_lib.config import UNetParameters
from petseg_lib.data import cache
from petseg_lib.data.problems import Check, Problem
from petseg_lib.data.statistics import ChannelStatistics
from petseg_lib.models import build_model
from petseg_lib.profiles import REPOSITORY

PAGE = (REPOSITORY / "docs" / "files.md").read_text(encoding="utf-8")
FOLDERS = ("demo", "sample", "ablations", "photographs")  # those committed; others are whoever works here's
COMMITTED = [path for folder in FOLDERS for path in sorted((REPOSITORY / "figures" / folder).glob("*.csv"))]
TRAINED = ["epoch", "learning_rate", "train_loss", "train_dice", "valid_loss", "valid_dice", "seconds"]


def expanded(name: str) -> list[str]:
    """`a_{b,c}` -> a_b, a_c."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(each) for each in itertools.product(*parts)]


def documented(file: str, heads: tuple[str, ...] = ("column", "key")) -> list[str]:
    """The names in backticks in the first column of a file's first table."""
    section = PAGE.split(f"\n## `{file}`\n")[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()
    assert table[0].split("|")[1].strip() in heads
    return [each for row in table[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1]) for each in expanded(name)]


def same(file: str, names) -> None:
    assert sorted(documented(file)) == sorted(names)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_column_of_a_committed_csv_file_is_named(path: Path):
    same(path.name, pd.read_csv(path, nrows=0).columns)


def test_each_column_and_key_of_a_training_is_named(pets, fabric):
    parameters = UNetParameters.checked({"image_size": 48, "width": 4, "depth": 2})
    model = build_model("unet", **SETTINGS)
    history = pd.DataFrame([dict.fromkeys(TRAINED, 1.0)])
    test = pets.split("test")
    per_image = evaluation.evaluate(model, pets, test, cache.open_cache(pets, test, 48), DESCRIPTION, fabric)
    same("per_image.csv", per_image.columns)
    headline = evaluation.headline(evaluation.dice_table(per_image, 2), "pet")
    same("metrics.json", [*training.metrics(parameters, model, history, fabric), "test_images", *headline])
    same("model.safetensors", describe_model(parameters, (0.5,) * 3, (0.25,) * 3))
    same("history.csv", TRAINED)
    assert ", ".join(TRAINED) in runs.Run.history.__doc__


def test_each_key_of_a_run_is_named():
    run = runs.open_run(UNetParameters(), "03_unet_training")
    same(
        "params.json",
        [*json.loads((run.folder / "params.json").read_text()), "left_out", "normalisation", "executed", "photographs"],
    )
    runs.unlock(run.folder)
    same("stats.json", [field.name for field in fields(ChannelStatistics)])
    same("cutouts.csv", cutouts.COLUMNS)


def test_each_column_of_a_sweep_is_named(monkeypatch):
    finished = {"dice_image_native": 1.0, "dice_dataset_native": 1.0, "dice_image_model": 1.0, "dice_dataset_model": 1.0}
    finished |= {"dice_batch_soft_model": 1.0, "epochs": 1, "training_seconds": 1.0}
    monkeypatch.setattr(sweeps, "_measured", lambda run: {"s": 1.0, "max_rss": 1.0})
    monkeypatch.setattr(runs.Run, "complete", True)
    monkeypatch.setattr(runs.Run, "metrics", finished)
    columns = list(sweeps.summary(sweeps.load_sweep("demo")).columns)
    same("summary.csv", [name for name in columns if name != "seed"])


def test_each_key_of_a_check_is_named():
    found = Check({"train": 1}, (Problem("a.jpg", "is empty", "converted"),)).as_dict()
    same("petseg data check --json FILE", [*found, *found["problems"][0]])


def test_the_other_notebooks_metrics_are_named():
    rows = re.findall(r"^\| (0\d) \| ([^|]+) \|", PAGE, re.MULTILINE)
    named = {
        number: {name for of, names in rows if of == number for name in re.findall(r"`([^`]+)`", names)} for number, _ in rows
    }
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        sources = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        literal = re.search(r"run\.finish\(\{(.*)\}", "\n".join(sources))
        if literal:
            keys = set(re.findall(r'"(\w+)": ', literal.group(1)))
            keys |= {"difference", "low", "high"} if "closest" in "\n".join(sources) else set()
            assert named.pop(path.name[:2]) == keys, path.name
    assert not named
