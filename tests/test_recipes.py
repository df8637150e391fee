"""The recipes: each is one that can be trained, and the table says of them what was measured."""

import json
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader

from petseg_lib.config import NOTEBOOKS, ReadableError
from petseg_lib.data.loaders import Batch
from petseg_lib.data.pets import load_pets
from petseg_lib.models import build_model
from petseg_lib.models.resnet34_unet import ResidualBlock
from petseg_lib.profiles import REPOSITORY


@pytest.fixture
def recipes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(REPOSITORY))
    module = import_module("benchmarks.recipes")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "recipes.json")
    return module


@pytest.fixture
def table(recipes, monkeypatch, tmp_path):
    module = import_module("benchmarks.recipe_table")
    monkeypatch.setattr(module, "TABLE", tmp_path / "RECIPES.md")
    monkeypatch.setattr(module, "FIGURE", tmp_path / "dice_over_time.svg")
    monkeypatch.setattr(module, "DRAWN", ("unet", "unet_half"))
    return module


def test_every_recipe_has_parameters_that_can_be_trained(recipes):
    for name in yaml.safe_load(recipes.RECIPES.read_text(encoding="utf-8")):
        notebook, settings = recipes.recipe(name)
        NOTEBOOKS[notebook].checked(settings)
        assert recipes.described(name).get("tried") in (None, *recipes.tried.TRIED)
    with pytest.raises(ReadableError, match="recipe 'nope' is unknown"):
        recipes.recipe("nope")


def test_committed_figures_are_of_known_recipes():
    results = json.loads((REPOSITORY / "benchmarks" / "recipes.json").read_text(encoding="utf-8"))
    known = yaml.safe_load((REPOSITORY / "benchmarks" / "recipes.yaml").read_text(encoding="utf-8"))
    assert {entry["recipe"] for entry in results} <= known.keys()


def test_no_image_is_trained_and_measured_on(recipes, tiny_dataset):
    dataset = load_pets(tiny_dataset())
    for split in ("dev", "test", "Bengal"):
        parts = {part: {pet.name for pet in those} for part, those in recipes.members(dataset, split).items()}
        assert all(parts.values()) and len(set().union(*parts.values())) == sum(map(len, parts.values()))
    tested = {pet.name for pet in dataset.split("test")}
    assert not tested & {pet.name for those in recipes.members(dataset, "dev").values() for pet in those}
    bengal = recipes.members(dataset, "Bengal")
    assert {pet.breed for pet in bengal["measured"]} == {"Bengal"} and "Bengal" not in {pet.breed for pet in bengal["train"]}
    with pytest.raises(ReadableError, match="split is 'nope'"):
        recipes.members(dataset, "nope")


@pytest.mark.parametrize(("capabilities", "words"), [({"amx_bf16": True}, "AVX512 with AMX"), ({}, "AVX512")])
def test_an_entry_says_what_its_processor_computes_with(recipes, tiny_dataset, monkeypatch, capabilities, words):
    machine = import_module("benchmarks.machine")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(machine, "_capabilities", lambda: capabilities)
    monkeypatch.setattr(recipes, "recipe", lambda name: small_training(epochs=1, precision="32-true"))
    monkeypatch.setattr(recipes, "described", lambda name: {})
    assert recipes.train("small", 0, "test", str(tiny_dataset()))["arithmetic"] == f"{words}, 32-true"


def small_training(**changed):
    settings = {"image_size": 64, "width": 4, "depth": 2, "epochs": 2, "device": "cpu", "half_size_share": 0.5}
    return "03_unet_training", settings | changed


def test_a_recipe_is_trained_and_measured(recipes, tiny_dataset, monkeypatch):
    monkeypatch.setattr(recipes, "recipe", lambda name: small_training(epochs=1))
    monkeypatch.setattr(recipes, "described", lambda name: {})
    left = recipes.workspace() / "runs" / "recipes" / "test" / "small_3" / "resume" / "state.pt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a training that was interrupted")
    entry = recipes.train("small", 3, "test", str(tiny_dataset()))
    assert (entry["recipe"], entry["seed"], entry["split"], entry["epochs"]) == ("small", 3, "test", 1)
    assert len(entry["dice"]) == len(entry["dice_flipped"]) == 9 and all(0 <= dice <= 1 for dice in entry["dice"])
    assert entry["dice_last"] == entry["dice"]  # of one epoch
    assert entry["cpu_seconds"] > 0 and len(entry["curve"]) == 1
    assert not (recipes.workspace() / "runs" / "recipes" / "test" / "small_3" / "resume").exists()
    recipes.keep(entry)
    recipes.keep(entry | {"dice": [1.0] * 9})
    (kept,) = recipes.load()
    assert kept["dice"] == [1.0] * 9


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_last_epochs_weights_are_those_before_the_best_are_loaded(recipes, tiny_dataset, monkeypatch, ema_decay):
    monkeypatch.setattr(recipes, "recipe", lambda name: small_training(ema_decay=ema_decay))
    monkeypatch.setattr(recipes, "described", lambda name: {})
    measure, load_kept, validated = recipes.training._measure, recipes.training._load_kept, []

    def the_first_is_the_best(model, *rest):
        validated.append({name: each.clone() for name, each in model.state_dict().items()})
        (loss, _), seen = measure(model, *rest)
        return (loss, 1 / len(validated)), seen

    monkeypatch.setattr(recipes.training, "_measure", the_first_is_the_best)
    kept, load_state_dict = {}, recipes.nn.Module.load_state_dict
    monkeypatch.setattr(
        recipes.nn.Module,
        "load_state_dict",
        lambda self, state, **options: kept.update(last=state) or load_state_dict(self, state, **options),
    )
    recipes.train("small", 0, "test", str(tiny_dataset()))
    first, last = validated
    assert all(torch.equal(each, last[name]) for name, each in kept["last"].items()) and kept["last"].keys() == last.keys()
    assert any(not torch.equal(each, first[name]) for name, each in kept["last"].items())
    assert recipes.training._load_kept is load_kept and recipes.training._measure is the_first_is_the_best


@pytest.mark.parametrize("tried", ["deep_supervision", "mixup"])
def test_what_is_tried_changes_the_training_alone(recipes, tiny_dataset, monkeypatch, tried):
    monkeypatch.setattr(recipes, "recipe", lambda name: small_training())
    data, losses = str(tiny_dataset()), {}
    for name in (tried, None):
        monkeypatch.setattr(recipes, "described", lambda _, name=name: {"tried": name})
        entry = recipes.train(str(name), 0, "test", data)
        losses[name] = pd.read_csv(recipes.workspace() / "runs/recipes/test" / f"{name}_0" / "history.csv")["train_loss"]
        assert len(entry["dice"]) == len(entry["dice_flipped"]) == 9
    assert (losses[tried] != losses[None]).all()
    if tried == "deep_supervision":  # the loss of a second output at 0.4, of an untrained network
        assert losses[tried][0] == pytest.approx(1.4 * losses[None][0], rel=0.15)
    assert recipes.training.build_loss.__name__ == "build_loss"


class Images(list):
    """A dataset."""


class Once(list):
    """A sampler of one batch."""

    epochs = range(1, 2)


def test_mixup_blends_images_and_masks_alike(recipes):
    image = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    batch = Batch(image, image[:, :1], torch.ones(4, 1, 2, 2, dtype=torch.bool), torch.arange(4))
    loader = recipes.tried.Mixup(DataLoader(Images([batch]), sampler=Once([0]), batch_size=None), seed=0)
    (mixed,) = loader
    assert torch.equal(mixed.image[:, :1], mixed.target) and not torch.equal(mixed.image, image)
    assert mixed.image.min() >= 0 and mixed.image.max() <= 3 and len(loader) == 1


def test_entries_that_come_at_the_same_moment_are_all_kept(recipes):
    entries = [{"recipe": "unet", "seed": seed, "split": "dev"} for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(recipes.keep, entries))
    assert recipes.load() == entries


def test_the_table_says_what_a_recipe_gains_and_over_how_many_seeds(recipes, table):
    draws = np.random.default_rng(0)
    for seed in (0, 1):
        base = draws.uniform(0.7, 0.8, 20).round(4)
        for name, dice in (("unet", base), ("unet_half", base + 0.1)):
            entry = {"recipe": name, "seed": seed, "split": "dev", "epochs": 2, "cpu_seconds": 60.0, "wall_seconds": 120.0}
            entry["curve"] = [[60.0, 0.5], [120.0, 0.7]]
            recipes.keep(entry | {"dice": dice.tolist(), "dice_flipped": dice.tolist()})
            recipes.keep(
                entry
                | {"split": "test", "dice_last": (dice - 0.02).tolist(), "dice": dice.tolist(), "dice_flipped": dice.tolist()}
            )
            for other, more in (("unet_report", 0.05), ("unet_report_16", 0.0), ("unet_160", 0.1)):
                of_other = (base + more).tolist()
                last = {"dice_last": (base + 0.12).tolist()} if other == "unet_160" else {}
                recipes.keep(entry | {"recipe": other, "split": "Bengal", "dice": of_other, "dice_flipped": of_other} | last)
    unet, half = table.rows("dev")
    assert unet["gains"] == [] and half["seeds"] == 2 and half["dice"] == pytest.approx(unet["dice"] + 0.1)
    assert half["gains"] == ["+0.1000 [+0.1000, +0.1000] over unet, 2 seeds"]
    (sample,) = (row for row in table.rows("Bengal") if row["recipe"] == "unet_160")
    assert [gain[:7] for gain in sample["gains"]] == ["+0.0500", "+0.1000"]  # against each that it names
    assert [gain[:7] for gain in sample["last"]] == ["+0.0200", "+0.0700"]  # over its best epoch, and over the report's recipe
    table.write_table()
    written = table.TABLE.read_text(encoding="utf-8")
    assert "+0.1000 [+0.1000, +0.1000] over unet, 2 seeds" in written and "| -0.0200 [-0.0200, -0.0200], 2 seeds |" in written
    assert table.FIGURE.is_file()
    drawn = table.curves()
    assert list(drawn) == ["unet", "unet_half"]
    assert drawn["unet"]["seconds"].tolist() == [30, 30]  # the clock ran twice as long as the CPU worked


class Passes:
    """A loader of two batches: of 1 and of the epoch that it was set to."""

    def __init__(self):
        self.sampler = SimpleNamespace(epochs=range(1))

    def __iter__(self):
        for value in (1.0, self.sampler.epochs[0]):
            yield SimpleNamespace(image=torch.full((2, 3, 4, 4), float(value)))


def test_pooled_statistics_are_the_mean_over_batches_of_passes_that_differ(recipes):
    pooled = import_module("benchmarks.pooled_statistics").pooled
    model = nn.Sequential(nn.BatchNorm2d(3))
    again = pooled(model, Passes(), passes=3)
    assert again[0].running_mean.tolist() == [(1 + 1 + 1 + 2 + 1 + 3) / 6] * 3 and not again.training
    assert model[0].running_mean.tolist() == [0.0] * 3


def test_a_training_costs_seconds_of_a_core_and_on_a_gpu_those_of_the_clock(recipes, table):
    on_cpu = [{"cpu_seconds": seconds, "wall_seconds": 99.0} for seconds in (60.0, 80.0)]
    assert table.cost([on_cpu[0], on_cpu[1] | {"device": "cpu"}]) == "70"
    assert table.cost([on_cpu[0], on_cpu[1] | {"device": "cpu", "arithmetic": "AVX2, 32-true"}]) == "70; AVX2, 32-true"
    assert table.cost([on_cpu[0] | {"device": "NVIDIA H200"}]) == "99 of the clock, NVIDIA H200"


def test_blocks_that_start_as_their_shortcuts_are_these_alone(recipes):
    model = build_model("resnet34_unet", width=4, depth=3)
    recipes.tried.apply("zero_residuals", model, [], 0)
    blocks = [each for each in model.modules() if isinstance(each, ResidualBlock)]
    assert len(blocks) == 7
    for block in blocks:
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        shortcut = x if block.downsample is None else block.downsample(x)
        torch.testing.assert_close(block(x), shortcut.relu())
