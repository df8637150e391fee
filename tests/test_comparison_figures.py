"""The figures of many runs draw what they are given: one run alone, and more than there are colours."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from test_figures import make_prediction, texts

from petseg_lib import comparison, figures
from petseg_lib.calibration import THRESHOLDS
from petseg_lib.data.masks import BORDER_POLICIES
from petseg_lib.figures.canvas import fitted
from petseg_lib.figures.style import run_label, run_looks
from petseg_lib.widgets import prediction_viewer

MANY = ["unet", "resnet34_unet", *(f"a_foreign_run_{i}" for i in range(8))]
KINDS = [("dice_image", "native"), ("dice_dataset", "native"), ("dice_image", "model"), ("dice_dataset", "model")]
KINDS += [("dice_batch_soft", "model")]


def make_conventions(runs):
    index = [(*kind, policy) for policy in BORDER_POLICIES for kind in KINDS]
    values = np.random.default_rng(0).uniform(0.2, 0.9, (len(index), len(runs)))
    return pd.DataFrame(values, pd.MultiIndex.from_tuples(index, names=["convention", "resolution", "border_policy"]), runs)


def overlaps(figure, axes):
    """Pairs of neighbouring tick labels of the y axis that touch."""
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    return [pair for pair in pairwise(sorted(boxes, key=lambda box: box.y0)) if pair[0].y1 > pair[1].y0]


@pytest.mark.parametrize("runs", [["unet"], MANY])
def test_convention_ranges_draw_every_figure_and_say_how_far_apart_they_are(runs):
    conventions = make_conventions(runs)
    figure = figures.convention_ranges(conventions)
    every, one = figure.axes
    assert sorted(line.get_xdata()[0] for line in every.lines) == sorted(conventions.to_numpy().ravel())
    pet = conventions.xs("pet", level="border_policy")
    assert sorted(line.get_xdata()[0] for line in one.lines) == sorted(pet.to_numpy().ravel())
    for name in runs:
        apart = conventions[name].max() - conventions[name].min()
        assert {run_label(name), f"{apart:.3f} apart", f"{pet[name].max() - pet[name].min():.3f} apart"} <= texts(figure)
    assert overlaps(figure, every) == overlaps(figure, one) == []


@pytest.mark.parametrize("others", [MANY[1:2], MANY[1:]])
def test_differences_from_the_best_draw_means_intervals_and_what_is_open(others):
    pairs = pd.DataFrame({"run": others, "against": "unet", "images": 50, "ahead": 7})
    pairs["difference"] = -0.01 * np.arange(1, len(others) + 1)
    pairs["low"], pairs["high"] = (
        pairs["difference"] - 0.02,
        pairs["difference"] + 0.015,
    )  # the first includes zero, the second not
    worse = pairs.assign(against="resnet34_unet")  # pairs without the best one stay out
    figure = figures.differences_from_best(pd.concat([pairs, worse]), ["unet", *others])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [run_label(name) for name in others]
    assert len(axes.containers) == len(others)
    for container, row in zip(axes.containers, pairs.itertuples(), strict=True):
        points, _, (interval,) = container
        assert points.get_xdata() == [row.difference]
        assert interval.get_segments()[0][:, 0].tolist() == pytest.approx([row.low, row.high])
        assert (points.get_markerfacecolor() == "white") == (row.high >= 0)
        assert points.get_color() == run_looks(["unet", *others])[row.run].colour
    assert "−0.0100 (−0.0300 to +0.0050), ahead on 7 of 50" in texts(figure)


@pytest.mark.parametrize("runs", [["unet"], MANY])
def test_dice_by_stratum_draws_every_mean_with_its_interval_and_its_range(runs):
    strata = [("species", "cat", np.nan, np.nan), ("size", "small", 0.05, 0.2), ("size", "large", 0.21, 0.9)]
    rows = [(*each, 9, run, 0.5 + 0.01 * i, 0.4, 0.7) for each in strata for i, run in enumerate(runs)]
    table = pd.DataFrame(rows, columns=["factor", "stratum", "from", "to", "images", "run", "mean", "low", "high"])
    figure = figures.dice_by_stratum(table)
    assert [axes.get_title() for axes in figure.axes] == ["species", "size of the pet (share of the photograph)"]
    assert [len(axes.get_xticks()) for axes in figure.axes] == [1, 2]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == [
        "small\n5% to 20%\n9 images",
        "large\n21% to 90%\n9 images",
    ]
    for i, (points, _, (interval,)) in enumerate(figure.axes[1].containers):
        assert points.get_ydata().tolist() == [0.5 + 0.01 * i] * 2
        assert interval.get_segments()[1][:, 1].tolist() == pytest.approx([0.4, 0.7])
        assert np.abs(points.get_xdata() - [0, 1]).max() < 0.5


def test_the_reliability_diagram_leaves_out_bins_of_next_to_no_pixels():
    table = pd.DataFrame({"low": [0, 0.1, 0.2], "high": [0.1, 0.2, 0.3], "predicted": [0.05, 0.14, 0.25]})
    table = table.assign(observed=[0.0, 0.3, 1.0], pixels=[600_000, 400_000, 3])
    figure = figures.reliability_diagram({"unet": table}, {"unet": 0.0871})
    diagram, amount = figure.axes
    drawn = diagram.lines[-1].get_xydata().tolist()
    assert drawn == [[0.05, 0.0], [0.14, 0.3]]
    assert amount.lines[0].get_ydata()[:2] == pytest.approx([0.6, 0.4], abs=1e-5)
    assert amount.get_ylim()[0] == 1e-4
    assert "UNet: error 0.087" in texts(figure)


def test_threshold_curves_mark_the_choice_and_one_half_on_both_splits():
    curve = 0.9 - (THRESHOLDS - 0.4) ** 2
    curves = {"valid": {"unet": curve}, "test": {"unet": curve - 0.05}}
    figure = figures.threshold_curves(THRESHOLDS, curves, {"unet": 0.4})
    assert [axes.get_title() for axes in figure.axes] == ["valid split", "test split"]
    for axes, lower in zip(figure.axes, (0, 0.05), strict=True):
        _, line, half, chosen = axes.lines
        assert np.allclose(line.get_ydata(), curve - lower)
        assert (half.get_xdata()[0], half.get_ydata()[0]) == pytest.approx((0.5, 0.89 - lower))
        assert (chosen.get_xdata()[0], chosen.get_ydata()[0]) == pytest.approx((0.4, 0.9 - lower))
    assert "UNet: 0.40 chosen" in texts(figure)


def test_a_curve_that_falls_to_nothing_does_not_flatten_the_others():
    fallen = np.where(THRESHOLDS < 0.6, 0.8, 0.0)
    figure = figures.threshold_curves(THRESHOLDS, {"valid": {"a": fallen, "b": fallen + 0.1}}, {"a": 0.5, "b": 0.5})
    low, high = figure.axes[0].get_ylim()
    assert 0.6 < low < 0.8 and 0.9 < high < 0.95


def test_thresholds_far_out_and_low_dice_are_within_the_picture():
    steep = np.where(THRESHOLDS < 0.3, 0.8, 0.05)
    figure = figures.threshold_curves(THRESHOLDS, {"valid": {"unet": steep}, "test": {"unet": steep}}, {"unet": 0.06})
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
        assert len(marks) == 2 and all(left <= x <= right and low < y < high for x, y in marks)


def test_two_runs_that_would_have_one_label_keep_their_names():
    names = ["resnet", "resnet34_unet"]
    assert [look.label for look in run_looks([*names, "unet"]).values()] == [*names, "UNet"]
    (axes,) = figures.difference_histogram([0.02], comparison.mean_interval([0.02]), *names).axes
    assert axes.get_xlabel() == "dice_image, native: resnet34_unet less resnet"
    (axes,) = figures.variants({name: np.array([[0.5]]) for name in names}).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    prediction = make_prediction(names=names)
    panel = figures.prediction_panel(*prediction)
    figures.move_threshold(panel, prediction, 0.25)
    for figure in (figures.model_panel([prediction], ["Bengal_1"]), panel):
        titles = [axes.get_title() for axes in figure.axes if axes.get_label() == "verdict"]
        assert [title.split(": ")[0] for title in titles] == names
    assert [part.split()[0] for part in prediction_viewer([prediction], ["Bengal_1"]).dice.value.split(" · ")] == names


def test_a_name_with_dollars_is_no_formula():
    pair = make_prediction(0, ["unet"])
    for name in ("x$$y", "$_$", r"a$\b$"):
        figure = figures.model_panel([pair], [name])
        figure.canvas.draw()
        assert name.replace("_", " ") in texts(figure)


@pytest.mark.parametrize(("models", "panels"), [(1, 3), (2, 4), (4, 6), (10, 12)])
def test_the_model_panel_shows_every_model_with_its_whole_dice(models, panels):
    names = MANY[:models]
    pairs = [make_prediction(seed, names) for seed in (0, 1)]
    figure = figures.model_panel(pairs, ["Bengal", "pug"])
    assert len(figure.axes) == 2 * panels
    for row, example in enumerate(pairs):
        for axes, name in zip(figure.axes[panels * row + 2 :], names, strict=False):
            dice = figures.image_dice(example.truth, example.probability[name])
            label, between, shown = axes.get_title().rpartition("\n" if models > 2 else ": ")
            assert (label, between != "", shown) == (run_label(name), True, f"Dice {dice:.3f}")
    rights = [axes.get_position().x1 for axes in figure.axes]
    assert max(rights) < 1 and min(axes.get_position().y0 for axes in figure.axes) > 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_failure_gallery_shows_every_failure_with_the_truths_outline(count):
    failed = [make_prediction(seed, ["unet"]) for seed in range(count)]
    figure = figures.failure_gallery(failed, [f"Bengal_{i}" for i in range(count)])
    assert len(figure.axes) == 2 * count
    for i, example in enumerate(failed):
        photograph, verdict = figure.axes[2 * i : 2 * i + 2]
        assert photograph.get_title() == f"Bengal {i}"
        assert np.array_equal(photograph.images[0].get_array(), example.photograph)
        assert len(photograph.lines) > 0
        assert verdict.get_title() == f"UNet: Dice {figures.image_dice(example.truth, example.probability['unet']):.3f}"


def test_two_lines_of_a_title_are_each_cut_at_the_same_width():
    text, size = fitted("ResNet34-UNet with a very long name\nDice 0.123", 1.0)
    first, second = text.split("\n")
    assert second == "Dice 0.123" and first.endswith("…") and len(first) == int(72 / (0.58 * size))
    assert fitted("", 1.0) == ("", 10)


def test_twenty_runs_look_different_and_the_first_keep_their_looks():
    names = [f"run_{i}" for i in range(20)]
    looks = run_looks(names)
    assert len({(look.colour, look.marker) for look in looks.values()}) == 20
    assert run_looks(names[:6]) == {name: looks[name] for name in names[:6]}


@pytest.mark.parametrize("networks", [[], ["unet", "resnet34_unet"], ["unet", "resnet34_unet", "unet_report"]])
def test_a_run_has_one_look_in_all_figures_and_never_that_of_a_floor_which_is_beside_it_in_one(networks):
    names, floors = [*networks, *(f"run_{i}" for i in range(12))], ["everything is pet", "average training mask"]
    alone, beside = run_looks(names), run_looks([*names, *floors])
    assert alone == {name: beside[name] for name in names}
    assert len({(look.colour, look.marker) for look in beside.values()}) == len(beside)


def test_the_interval_of_one_image_has_no_ends_to_draw(tmp_path):
    interval = comparison.mean_interval([0.02])
    history = pd.DataFrame({"epoch": [1, 2], "valid_dice": [0.3, 0.6]})
    ends = {"low": interval.low, "high": interval.high}
    pairs = pd.DataFrame([{"run": "b", "against": "a", "images": 1, "ahead": 0, "difference": -0.02} | ends])
    by_breed = pd.DataFrame([{"run": "a", "species": "cat", "breed": "Bengal", "images": 1, "mean": 0.9} | ends])
    drawn = (
        figures.ablation_panel({"a": [history], "b": [history]}, {0: 0.02}, interval),
        figures.difference_histogram([0.02], interval, "a", "b"),
        figures.differences_from_best(pairs, ["a", "b"]),
        figures.dice_by_breed(by_breed),
    )
    for number, figure in enumerate(drawn):
        figures.save_figure(figure, tmp_path, f"figure_{number}", "C.", ("png",))
        assert all(np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all() for axes in figure.axes)


def test_conventions_stand_in_the_rows_of_their_names_and_those_of_model_size_are_hollow():
    values = make_conventions(["unet"])["unet"]
    every, one = figures.convention_ranges(values.to_frame(), "edge").axes
    every_row, one_row = (
        dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True)) for axes in (every, one)
    )
    found = {(every_row[line.get_ydata()[0]], line.get_xdata()[0]) for line in every.lines}
    assert found == {(policy, value) for (_, _, policy), value in values.items()}
    found = {(one_row[line.get_ydata()[0]], line.get_markerfacecolor() == "none", line.get_xdata()[0]) for line in one.lines}
    edge = values.xs("edge", level="border_policy")
    assert found == {(convention, resolution == "model", value) for (convention, resolution), value in edge.items()}
    assert one.get_title() == "border policy edge alone"


def test_the_run_that_others_are_taken_from_is_named_where_it_is_not_the_first():
    pairs = pd.DataFrame(
        [{"run": "unet", "against": "resnet34_unet", "images": 9, "ahead": 2, "difference": -0.1, "low": -0.2, "high": 0}]
    )
    (axes,) = figures.differences_from_best(pairs, ["unet", "resnet34_unet"]).axes
    assert axes.get_xlabel() == "dice_image, native, less that of ResNet34-UNet"


def test_the_reliability_diagram_says_which_side_is_which_and_counts_in_percent():
    table = pd.DataFrame(
        {"low": [0.0, 0.5], "high": [0.5, 1.0], "predicted": [0.2, 0.8], "observed": [0.1, 0.9], "pixels": [3, 1]}
    )
    diagram, amount = figures.reliability_diagram({"unet": table}, {"unet": 0.1}).axes
    sides = {text.get_text(): np.subtract(*text.get_position()) for text in diagram.texts}
    assert sides["more than predicted"] < 0 < sides["less than predicted"], "above the diagonal more pixels are pet"
    assert amount.lines[0].get_xydata().tolist() == [[0.25, 0.75], [0.75, 0.25]]
    assert amount.yaxis.get_major_formatter()(0.25) == "25%"
