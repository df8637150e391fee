"""What the READMEs say of speed and of recipes is what benchmarks/*.json has, and the tables are made of these files."""

import json
import re
from importlib import import_module

import numpy as np
import pytest

from petseg_lib.ablations import interval_over_seeds
from petseg_lib.data.pets import load_pets
from petseg_lib.profiles import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
README, OF_BENCHMARKS = ((folder / "README.md").read_text(encoding="utf-8") for folder in (REPOSITORY, BENCHMARKS))
RECIPES = [each for each in json.loads((BENCHMARKS / "recipes.json").read_text(encoding="utf-8")) if each["split"] == "test"]
ROWS = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))["rows"]
ON_A_GPU = json.loads((BENCHMARKS / "gpu" / "results.json").read_text(encoding="utf-8"))["rows"]
REPORT, WITHOUT_GRIDS, INFERENCE = "the report's way", "the same without its grids of images", "the report's inference"
SMP = "segmentation_models.pytorch Unet resnet34"


def of_recipe(name: str) -> dict[int, dict]:
    return {each["seed"]: each for each in RECIPES if each["recipe"] == name}


def faster(name: str, rival: str, rows: dict = ROWS) -> float:
    return rows[name]["speed_over"][rival]["median"]


@pytest.mark.parametrize(("page", "fewest"), [(README, 5), (OF_BENCHMARKS, 13)], ids=["README", "benchmarks"])
def test_each_recipe_in_a_readme_has_the_dice_the_gain_and_the_cost_that_were_measured(page, fewest):
    rows = re.findall(
        r"^\| `((?:unet|resnet)_\w+)`[^|]*\| ([^|]+) \| (\d)[^|]*\|([^|]*)\| ([\d,]+) s([^|]*)\|$", page, re.MULTILINE
    )
    assert len(rows) >= fewest
    for name, dice, seeds, gain, cost, how in rows:
        mine, report = of_recipe(name), of_recipe(f"{name.split('_')[0]}_report")
        means = [np.mean(each["dice"]) for each in mine.values()]
        spread = f" ± {np.std(means, ddof=1):.4f}" if len(mine) > 1 else ""
        assert (dice, int(seeds)) == (f"{np.mean(means):.4f}{spread}", len(mine)), name
        if gain.strip():
            both = sorted(mine.keys() & report.keys())
            found = interval_over_seeds(np.stack([np.subtract(mine[seed]["dice"], report[seed]["dice"]) for seed in both]))
            assert gain.strip().startswith(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"), name
        seconds = "wall_seconds" if "H200" in how else "cpu_seconds"
        assert cost == f"{np.median([each[seconds] for each in mine.values()]):,.0f}", name


def test_the_readme_says_how_much_faster_and_without_what_the_report_alone_does():
    quoted = {
        "unet": ("UNet (width 64, 128 px)", " of images that the report's way writes at each step"),
        "resnet34_unet_report": ("ResNet34-UNet (the same)", ""),
    }
    for network, (title, of_images) in quoted.items():
        with_grids, without = (faster(f"step_{network}_128", rival) for rival in (REPORT, WITHOUT_GRIDS))
        grids = f"{'the' if of_images else 'those'} grids{of_images}"
        assert f"of the report's {title} | {with_grids:.1f} times as fast; {without:.1f} without {grids} |" in README
        assert f"{faster(f'epoch_{network}', REPORT):.1f} times as fast | 2.5 |" in README
        assert f"{faster(f'evaluation_{network}', INFERENCE):.1f} times as fast," in README
    making = ROWS["cache"]["rivals"]["making it"]["median"] / 270
    assert (
        f"in the cache already ({1000 * making:.1f} ms each to put there, once) | {faster('feeding_128', REPORT):.1f} times"
        in README
    )
    per_gflop = [ROWS[f"step_{network}_128"]["targets"][0]["value"] for network in quoted]
    by_onednn = per_gflop[0] / faster("choice_training_unet_report", "many channels convolved by oneDNN")
    assert (
        f"is {per_gflop[0]:.1f} times as fast for each GFLOP, counted as if" in README
        and f"one of its ResNet34-UNet {per_gflop[1]:.2f} times" in README
    )
    assert f"with oneDNN's convolutions alone it would be {by_onednn:.1f} times" in README
    unet, resnet = ([faster(f"step_{network}_128", rival, ON_A_GPU) for rival in (REPORT, WITHOUT_GRIDS)] for network in quoted)
    words = f"UNet is {unet[0]:.0f} times as fast with them and {unet[1]:.1f} times without, one of the ResNet34-UNet {resnet[0]:.0f} and {resnet[1]:.1f} times"
    assert words in OF_BENCHMARKS


def test_the_readme_says_how_far_the_short_recipes_are_below_the_reports_own_time_and_width_32_above_its_dice():
    took = [40 * ROWS[f"epoch_{name}"]["rivals"][REPORT]["median"] for name in ("unet", "resnet34_unet_report")]  # 20 on 2 cores
    assert (
        f"takes {took[0]:,.0f} seconds of a core for the UNet and {took[1]:.0f} for the ResNet34-UNet, both cores counted"
        in README
    )
    short = ("unet_short_muon_constant", "resnet_short_muon_stem")
    ours = [np.median([each["cpu_seconds"] for each in of_recipe(name).values()]) for name in short]
    assert [round(report / own) for report, own in zip(took, ours, strict=True)] == [25, 9]
    assert "in a twenty-fifth of that time and our ResNet34-UNet in a ninth" in README
    report = of_recipe("resnet_report")
    for recipe, words in (
        ("resnet_sample", "its ResNet34-UNet is {} ahead,"),
        ("resnet_sample_32", "at width 32, in more time, {},"),
    ):
        found = interval_over_seeds(
            np.stack([np.subtract(each["dice_last"], report[seed]["dice"]) for seed, each in of_recipe(recipe).items()])
        )
        assert f"{words.format(f'{found.mean:.3f}')} interval {found.low:.3f} to {found.high:.3f}, " in README


@pytest.mark.parametrize("folder", [".", "amx", "avx2", "gpu"])
def test_results_are_written_of_their_figures(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))
    figures, page = ((BENCHMARKS / folder / name).read_text(encoding="utf-8") for name in ("results.json", "RESULTS.md"))
    assert import_module("benchmarks.write_up").write_up(json.loads(figures)) == page


def test_recipes_are_written_of_their_figures(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(REPOSITORY))
    table = import_module("benchmarks.recipe_table")
    monkeypatch.setattr(table, "TABLE", tmp_path / "RECIPES.md")
    monkeypatch.setattr(table, "write_figure", lambda: None)
    table.write_table()
    page = table.TABLE.read_text(encoding="utf-8")
    assert page == (BENCHMARKS / "RECIPES.md").read_text(encoding="utf-8")
    assert "seconds of a core of shared machines" in page  # of which some have AMX or no bf16


def test_the_photographs_that_come_twice_move_no_dice_by_more_than_the_readme_says(real_data):
    dataset = load_pets(real_data)
    names = [pet.name for pet in dataset.split("test")]
    if len(names) != len(RECIPES[0]["dice"]):
        pytest.skip("other photographs than those of recipes.json")
    (line,) = (line for line in README.splitlines() if line.startswith("- **Photographs that come twice**"))
    split = {pet.name: pet.split for pet in dataset.pets}
    twice = [("Abyssinian_151", "train", "Abyssinian_99", "test"), ("Abyssinian_11", "train", "Abyssinian_177", "valid")]
    for first, of_first, second, of_second in twice:
        assert first in line and second in line and (split[first], split[second]) == (of_first, of_second)
    most = float(re.search(r"differ by more than ([\d.]+)\.", line)[1])
    place = names.index("Abyssinian_99")
    assert all(abs(np.mean(np.delete(each["dice"], place)) - np.mean(each["dice"])) <= most for each in RECIPES)
