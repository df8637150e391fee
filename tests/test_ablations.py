"""Questions over seeds: intervals that keep what they promise, sentences that say what was found."""

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from petseg_lib import ablations, comparison, figures, sweeps
from petseg_lib.comparison import Interval, mean_interval
from petseg_lib.config import NOTEBOOKS, ParameterError
from petseg_lib.figures.style import BLUE
from petseg_lib.profiles import REPOSITORY, load_profile
from petseg_lib.runs import RunError, lasting
from petseg_lib.sweeps import folder_of

SWEEP = """
notebook: 03_unet_training
parameters: {image_size: 32, epochs: 4}
variants: {base: {}, short: {epochs: 2}}
grid: {seed: [3, 4, 5]}
questions:
  epochs: {question: "Is half enough?", why: Cheaper., first: base, second: short, report: base}
"""


def differences(random, mean: float, seeds: int = 3, images: int = 60, spread: float = 0.02) -> np.ndarray:
    """(seeds, images): a mean, and effects of the seed, of the image and of both together."""
    of_seed, of_image = random.normal(0, spread, (seeds, 1)), random.normal(0, 0.05, (1, images))
    return mean + of_seed + of_image + random.normal(0, 0.05, (seeds, images))


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.02), (3, 0.0), (3, 0.004), (3, 0.02), (3, 0.1), (5, 0.02)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, spread):
    random = np.random.default_rng(0)
    intervals = [ablations.interval_over_seeds(differences(random, 0.01, seeds, 60, spread)) for _ in range(1000)]
    missed = sum(not each.low <= 0.01 <= each.high for each in intervals) / 1000
    assert 0.03 < missed < (0.09 if seeds > 2 else 0.14)


def test_images_alone_say_too_little():
    random = np.random.default_rng(0)
    alone = [mean_interval(differences(random, 0.01).mean(axis=0)) for _ in range(200)]
    assert sum(each.low <= 0.01 <= each.high for each in alone) / 200 < 0.75


def test_many_images_leave_students_interval_of_the_seeds_means():
    values = differences(np.random.default_rng(4), 0.0, images=100_000)
    interval, of_seeds = ablations.interval_over_seeds(values), values.mean(axis=1)
    low, high = stats.t.interval(0.95, 2, of_seeds.mean(), stats.sem(of_seeds))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=0.01)


def test_the_interval_shrinks_with_seeds_and_ignores_their_order():
    random = np.random.default_rng(1)
    many = differences(random, 0.0, seeds=24)
    narrow, wide = (ablations.interval_over_seeds(values) for values in (many, many[:3]))
    assert narrow.high - narrow.low < wide.high - wide.low
    assert narrow.low < narrow.mean < narrow.high
    assert narrow.mean == pytest.approx(many.mean())


def test_an_answer_of_one_seed_says_that_another_is_not_in_it():
    one, three = (ablations.Answer("?", "", "a", "b", np.full((2, seeds, 4), 0.5), Interval(0.1, 0.05, 0.15)) for seeds in (1, 3))
    one.dice[1], three.dice[1] = 0.6, 0.6
    assert "(95% interval +0.0500 to +0.1500, 1 seed, 4 images); another seed is not in this interval." in one.sentence()
    assert "another seed" not in three.sentence()


def test_one_seed_gives_the_interval_over_images():
    values = differences(np.random.default_rng(2), 0.0, seeds=1)
    assert ablations.interval_over_seeds(values) == mean_interval(values[0])


def test_seeds_that_agree_to_the_digit_leave_the_spread_of_images():
    values = np.repeat(differences(np.random.default_rng(3), 0.0, seeds=1), 5, axis=0)
    both, alone = ablations.interval_over_seeds(values), mean_interval(values[0])
    assert both.high - both.low == pytest.approx(alone.high - alone.low, rel=0.05)


def answer(low: float, high: float, report: str = "") -> ablations.Answer:
    mean = (low + high) / 2
    dice = np.stack([np.full((3, 4), 0.5), np.full((3, 4), 0.5 + mean)])
    return ablations.Answer("Is b good?", "", "a", "b", dice, Interval(mean, low, high), report)


@pytest.mark.parametrize(
    ("low", "high", "report", "outcome", "of_report", "sentence"),
    [
        (0.01, 0.03, "b", "better", "holds", "b is better than a by 0.0200 dice_image (95% interval +0.0100 to +0.0300, 3 seeds, 4 images). The report chose b: that holds here."),
        (0.01, 0.03, "a", "better", "does not hold", "The report chose a: that does not hold here."),
        (-0.03, -0.01, "b", "worse", "does not hold", "b is worse than a by 0.0200 dice_image (95% interval +0.0100 to +0.0300"),
        (-0.03, -0.01, "a", "worse", "holds", "The report chose a: that holds here."),
        (-0.01, 0.03, "b", "not told apart", "not told apart", "a and b are not told apart by this much data: b is 0.0100 dice_image ahead (95% interval -0.0100 to +0.0300, 3 seeds, 4 images). The report chose b: this neither bears it out nor refutes it."),
        (-0.03, 0.01, "", "not told apart", "", "a is 0.0100 dice_image ahead (95% interval -0.0100 to +0.0300"),
    ],
)  # fmt: skip
def test_an_answer_says_what_the_interval_allows(low, high, report, outcome, of_report, sentence):
    found = answer(low, high, report)
    assert (found.outcome, found.of_report) == (outcome, of_report)
    assert sentence in found.sentence()
    assert ("The report" in found.sentence()) == bool(report)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep whose runs are finished: base has a Dice of 2/3 in every image, short of 1/2, seeds apart by nothing."""
    monkeypatch.setenv("PETSEG_WORKSPACE", str(tmp_path))
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    sweep = load_profile(path)
    for name, (notebook, values) in sweep.runs.items():
        folder = folder_of(sweep, name)
        folder.mkdir(parents=True)
        parameters = lasting(NOTEBOOKS[notebook].checked(values))
        (folder / "params.json").write_text(json.dumps({"notebook": notebook, "parameters": parameters}))
        (folder / "metrics.json").write_text('{"training_seconds": 2.5}')
        false = 2 if name.startswith("short") else 1
        table = pd.DataFrame({"name": ["x", "y"], "native_pet_tp": 1, "native_pet_fp": false, "native_pet_fn": 0})
        table.to_csv(folder / "per_image.csv", index=False)
    return sweep


def test_a_sweep_becomes_answers_and_a_table(sweep, tmp_path):
    runs = ablations.runs_by_variant(sweep)
    assert {variant: list(seeds) for variant, seeds in runs.items()} == {"base": [3, 4, 5], "short": [3, 4, 5]}
    dice = ablations.dice_by_seed(runs)
    assert {variant: values.shape for variant, values in dice.items()} == {"base": (3, 2), "short": (3, 2)}
    found = ablations.answers(sweep, dice)
    row = ablations.answers_table(found).iloc[0]
    assert row[["dice_first", "dice_second", "difference"]].tolist() == pytest.approx([2 / 3, 1 / 2, -1 / 6])
    assert row[["question", "outcome", "report", "seeds", "images"]].tolist() == ["Is half enough?", "worse", "holds", 3, 2]
    assert found["epochs"].by_seed == pytest.approx([-1 / 6] * 3)
    table = ablations.variants_table(sweep, runs)
    assert table.loc["short", ["changes", "seeds", "seconds"]].tolist() == ["epochs 2", 3, 2.5]
    assert table.loc["base", "changes"] == ""
    text = SWEEP.replace("base: {}", "base: {loss: dice, dropout: 0.1}")
    (tmp_path / "other.yaml").write_text(text)
    other = load_profile(tmp_path / "other.yaml")
    assert ablations._changes(other, "short") == "epochs 2, loss bce_dice_image", (
        "what the first variant alone sets differs as well"
    )
    assert table["dice_image"].tolist() == pytest.approx([2 / 3, 1 / 2])


def test_runs_of_other_images_or_unfinished_ones_are_refused(sweep):
    path = folder_of(sweep, "short,seed=4") / "per_image.csv"
    table = pd.read_csv(path)
    table.iloc[:1].to_csv(path, index=False)
    with pytest.raises(RunError, match="base, seed 3 was measured on 2 images and short, seed 4 on 1"):
        ablations.dice_by_seed(ablations.runs_by_variant(sweep))
    path.unlink()
    with pytest.raises(RunError, match=r"has no per_image\.csv"):
        ablations.dice_by_seed(ablations.runs_by_variant(sweep))
    for run in ("base,seed=3", "short,seed=5"):
        (folder_of(sweep, run) / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"^not finished: base,seed=3, short,seed=5 \(2 of 6 runs\); `petseg sweep` trains"):
        ablations.variants_table(sweep, ablations.runs_by_variant(sweep))


def test_a_grid_of_more_than_seeds_is_no_set_of_questions(tmp_path, monkeypatch):
    monkeypatch.setenv("PETSEG_WORKSPACE", str(tmp_path))
    path = tmp_path / "grid.yaml"
    path.write_text(SWEEP.replace("[3, 4, 5]", "[3], width: [4, 8]"))
    with pytest.raises(ParameterError, match="its runs differ in seed, variant, width, but it must have"):
        sweeps.load_sweep(path, asked=True)
    assert len(sweeps.load_sweep(path).runs) == 4


@pytest.mark.parametrize("name", ["demo", "ablations"])
def test_committed_sweeps_ask_with_three_seeds_and_change_what_they_say(name):
    sweep = load_profile(f"sweeps/{name}")
    assert {len(seeds) for seeds in ablations.runs_by_variant(sweep).values()} == {3}
    assert sweep.questions
    whole = {run: NOTEBOOKS[notebook].checked(values).model_dump() for run, (notebook, values) in sweep.runs.items()}
    alike = [
        {name: value for name, value in values.items() if name not in ("run_dir", "figures_dir")} | {"model": sweep.runs[run][0]}
        for run, values in whole.items()
    ]
    assert all(alike.count(each) == 1 for each in alike), "two runs of a sweep are the same"


def test_the_ablations_ask_all_that_the_report_asked():
    sweep = load_profile("sweeps/ablations")
    asked = {(question["first"], question["second"]) for question in sweep.questions.values()}
    reports = {question["report"] for question in sweep.questions.values() if "report" in question}
    assert {
        ("base", "learning_rate_1e-4"),
        ("base", "double_sigmoid"),
        ("epochs_10", "base"),
        ("default_initialisation", "base"),
    } <= asked
    assert ("base", "resnet34_unet_report") in asked and len(reports) == 4
    assert (REPOSITORY / "notebooks" / "06_ablations.ipynb").is_file()


def test_the_readme_quotes_the_answers_that_are_committed():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = pd.read_csv(REPOSITORY / "figures" / "ablations" / "ablations.csv", keep_default_na=False)
    assert len(table) == len(load_profile("sweeps/ablations").questions) and set(table["seeds"]) == {3}
    for row in table.itertuples():
        difference = f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"
        assert f"| {row.question} | {row.second} less {row.first} | {difference} | {row.outcome} | {row.report} |" in readme


def test_the_readme_quotes_what_more_photographs_gain():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = pd.read_csv(REPOSITORY / "figures" / "photographs" / "ablations.csv")
    assert len(table) == len(load_profile("sweeps/photographs").questions) and set(table["seeds"]) == {3}
    assert f"| 16 | {table['dice_first'][0]:.4f} | |" in readme
    for row in table.itertuples():
        count, gain = row.second.removeprefix("photographs_"), f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"
        assert f"| {count} | {row.dice_second:.4f} | {gain} |" in readme


def test_a_panel_and_all_answers_can_be_drawn():
    history = pd.DataFrame({"epoch": [1, 2], "valid_dice": [0.3, 0.6]})
    found = answer(-0.01, 0.03)
    panel = figures.ablation_panel({"a": [history] * 3, "b": [history + 0.1] * 3}, {3: 0.1, 4: 0.2, 5: 0.0}, found.difference)
    curves, difference = panel.axes
    assert [text.get_text() for text in difference.get_yticklabels()] == ["seed 3", "seed 4", "seed 5", "all, 95%\ninterval"]
    assert [line.get_text() for line in panel.legends[0].get_texts()] == ["a", "b"] and curves.get_legend() is None
    table = ablations.answers_table({"x": found, "y": answer(0.01, 0.02, "b"), "z": answer(-0.01, 0.02, "b")})
    (axes,) = figures.answers(table).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Is b good?\nb less a"] * 3
    assert [text.get_text() for text in axes.texts] == ["report: holds", "report: not told apart"]
    legend = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert legend == ["first named better", "not told apart"], "what no question has needs no mark"
    assert axes.get_xlabel().endswith("interval over seeds and images")
    one_seed = table.assign(seeds=1, question="Is " + "very " * 30 + "long good?")
    (axes,) = figures.answers(one_seed).axes
    assert axes.get_xlabel().endswith("interval over images")
    assert all(len(line) <= 60 for text in axes.get_yticklabels() for line in text.get_text().split("\n"))


def test_a_panel_draws_means_ranges_and_the_interval_of_the_second_less_the_first():
    dice = [np.array([0.3, 0.6]) + step for step in (0.0, 0.02, 0.1)]
    tables = [pd.DataFrame({"epoch": [1, 2], "valid_dice": values}) for values in dice]
    panel = figures.ablation_panel(
        {"a": tables, "b": tables}, {3: 0.1, 4: 0.2, 5: -0.1}, Interval(0.05, 0.04, 0.3), confidence=0.9
    )
    curves, difference = panel.axes
    np.testing.assert_allclose(curves.lines[0].get_ydata(), [0.34, 0.64])
    x, y = curves.collections[0].get_paths()[0].vertices.T
    assert (y[x == 2].min(), y[x == 2].max()) == pytest.approx((0.6, 0.7))
    rows = dict(zip(difference.get_yticks(), (text.get_text() for text in difference.get_yticklabels()), strict=True))
    assert {rows[place]: value for value, place in difference.lines[1].get_xydata()} == {
        "seed 3": 0.1,
        "seed 4": 0.2,
        "seed 5": -0.1,
    }
    assert rows[0] == "all, 90%\ninterval"
    ((points, _, (interval,)),) = difference.containers
    assert points.get_xydata().tolist() == [[0.05, 0]]
    assert interval.get_segments()[0][:, 0].tolist() == pytest.approx([0.04, 0.3])
    assert difference.get_xlabel() == "dice_image, native:\nb\nless a"


def test_each_answer_stands_in_its_row_with_its_interval_and_what_the_report_chose():
    table = ablations.answers_table({"x": answer(-0.01, 0.03), "y": answer(0.01, 0.03, "b"), "z": answer(-0.03, -0.01)})
    table = table.assign(low=table["difference"] - 0.001, high=table["difference"] + 0.02)
    (axes,) = figures.answers(table, confidence=0.9).axes
    for place, ((points, _, (interval,)), row) in enumerate(zip(axes.containers, table.itertuples(), strict=True)):
        assert points.get_xydata().tolist() == [[row.difference, place]]
        assert interval.get_segments()[0][:, 0].tolist() == pytest.approx([row.low, row.high])
    assert [text.xy[1] for text in axes.texts] == [1]
    assert "with 90% interval" in axes.get_xlabel()


def test_each_variant_is_drawn_by_seed_with_its_mean_and_spread():
    dice = {"photographs_16": np.array([[0.5, 0.7], [0.6, 0.8]]), "one_seed": np.array([[0.9, 0.7]])}
    (axes,) = figures.variants(dice).axes
    seeds = [line for line in axes.lines if line.get_marker() == "o"]
    assert [tuple(line.get_xdata().round(6)) for line in seeds] == [(0.6, 0.7), (0.8,)]
    assert [line.get_ydata()[0] for line in seeds] == [0, 1]
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(means, [0.65, 0.8])
    assert [text.get_text() for text in axes.texts] == ["0.6500 ± 0.0707", "0.8000"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["photographs 16", "one seed"]
    assert axes.yaxis_inverted(), "the first variant is on top"


def test_a_panels_mean_over_seeds_ends_where_the_first_of_them_stopped():
    short, long = (pd.DataFrame({"epoch": range(1, 1 + len(dice)), "valid_dice": dice}) for dice in ([0.2, 0.4], [0.4, 0.6, 0.9]))
    panel = figures.ablation_panel({"base": [short, long], "other": [long, long]}, {0: 0.0, 1: 0.1}, Interval(0.05, -0.2, 0.3))
    curves = {line.get_label(): line.get_xydata().tolist() for line in panel.axes[0].lines}
    assert curves["base"] == pytest.approx(np.array([[1, 0.3], [2, 0.5]])) and len(curves["other"]) == 3


@pytest.mark.parametrize("names", [("base", "b"), ("b", "base")])
def test_base_looks_the_same_in_every_panel_and_no_curve_is_hidden(names):
    history = pd.DataFrame({"epoch": [1, 2], "valid_dice": [0.3, 0.6]})
    panel = figures.ablation_panel({name: [history] for name in names}, {0: 0.0}, answer(-0.01, 0.03).difference)
    lines = {line.get_label(): line for line in panel.axes[0].lines}
    assert (lines["base"].get_color(), lines["base"].get_linestyle()) == (BLUE, "-")
    assert lines["b"].get_linestyle() == "--" and lines["b"].zorder > lines["base"].zorder


def test_folders_of_a_sweep_lie_beside_each_other(sweep, tmp_path):
    assert folder_of(sweep, "base,seed=3") == Path(tmp_path) / "runs" / "sweeps" / "small" / "base,seed=3"


def test_runs_under_other_parameters_than_the_sweeps_are_refused(sweep):
    path = folder_of(sweep, "short,seed=4") / "params.json"
    record = json.loads(path.read_text())
    record["parameters"]["epochs"] = 9
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match="short,seed=4 holds a finished run of other parameters: epochs is 2 and was 9"):
        ablations.runs_by_variant(sweep)


def test_runs_that_differ_in_what_the_sweep_leaves_open_are_refused(sweep):
    """As when a variant no longer says what it was trained with."""
    for seed in (3, 4, 5):
        path = folder_of(sweep, f"short,seed={seed}") / "params.json"
        record = json.loads(path.read_text())
        record["parameters"] |= {"dropout": 0.0, "loader_workers": 3}  # the latter changes no result
        path.write_text(json.dumps(record))
    with pytest.raises(
        RunError, match=r"short,seed=3 and .*base,seed=3 differ in dropout \(0\.0 and 0\.1\), of which the sweep says"
    ):
        ablations.runs_by_variant(sweep)


def test_one_image_tells_nothing_of_others():
    for of_one in (ablations.interval_over_seeds(np.array([[0.1], [0.2]])), comparison.mean_interval([0.1])):
        assert (of_one.low, of_one.high) == (-np.inf, np.inf)
    assert "do not tell a and b apart: b is 0.1000" in comparison.verdict("a", "b", comparison.mean_interval([0.1]))


def test_no_end_lies_where_no_difference_can():
    values = np.array([-0.75, -0.25, -0.15])[:, None] + np.random.default_rng(5).normal(0, 0.05, (3, 40))
    interval = ablations.interval_over_seeds(values)
    assert interval.low == -1 and -1 < interval.mean < interval.high < 1


def test_differences_that_are_all_the_same_have_no_width():
    assert astuple(ablations.interval_over_seeds(np.full((3, 40), 0.1))) == pytest.approx((0.1, 0.1, 0.1), abs=1e-12)
