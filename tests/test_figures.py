"""Figures draw the data they get, also where there is little of it, and are saved byte for byte alike."""

import io
from itertools import combinations, pairwise
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from petseg_lib import figures
from petseg_lib.data.masks import BORDER_POLICIES, target_and_scored
from petseg_lib.figures import Prediction
from petseg_lib.figures.canvas import encoded
from petseg_lib.figures.photographs import outline, target_overlay, trimap_overlay
from petseg_lib.figures.predictions import verdict_overlay
from petseg_lib.figures.style import BORDER, ORANGE, PET, SKY, VERDICTS, breed_label, lightness, rgb, run_label, run_looks
from petseg_lib.models import build_model
from petseg_lib.models.shapes import stage_shapes


def make_pair(height=30, width=40, seed=0):
    photograph = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    trimap = np.full((height, width), 2, np.uint8)
    trimap[8:22, 10:30] = 3
    trimap[10:20, 12:28] = 1
    return photograph, trimap


def make_prediction(seed=0, names=None, policy="pet"):
    photograph, trimap = make_pair(seed=seed)
    truth, scored = target_and_scored(trimap, policy)
    drawn = np.random.default_rng(seed + 1).random((len(names or [1]), *truth.shape), dtype=np.float32)
    probability = dict(zip(names, drawn, strict=True)) if names else drawn[0]
    return Prediction(photograph, truth, probability, scored)


def make_history(epochs, best=None):
    number = np.arange(1, epochs + 1)
    dice = number / (2 * epochs)
    dice[(best or epochs) - 1] = 0.9
    return pd.DataFrame(
        {
            "epoch": number,
            "learning_rate": 0.01 / number,
            "train_loss": 1 / number,
            "valid_loss": 1.1 / number,
            "train_dice": dice + 0.01,
            "valid_dice": dice,
            "seconds": 2.0 * number,
        }
    )


def make_table(breeds=("Egyptian_Mau", "pug")):
    species = {"Egyptian_Mau": "cat", "pug": "dog"}
    rows = [
        (f"{breed}_{i}", breed, species.get(breed, "dog"), split, 300 + i, 200 + i)
        for breed in breeds
        for i, split in enumerate(["train", "train", "valid", "test"])
    ]
    return pd.DataFrame(rows, columns=["name", "breed", "species", "split", "width", "height"])


def texts(figure):
    """Every text of a figure that is seen."""
    return {text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()}


def dice_of(predicted, truth):
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())


# Photographs


def test_sample_grid_has_a_panel_a_photograph_and_titles_with_spaces():
    photographs, trimaps = zip(*(make_pair(30 + 10 * i, 40, i) for i in range(5)), strict=True)
    figure = figures.sample_grid(photographs, trimaps, [f"Egyptian_Mau_{i}" for i in range(5)], columns=3)
    assert [axes.get_title() for axes in figure.axes] == [f"Egyptian Mau {i}" for i in range(5)]
    assert [axes.images[0].get_array().shape[:2] for axes in figure.axes] == [image.shape[:2] for image in photographs]
    sizes = np.array([axes.get_position().size for axes in figure.axes])
    assert np.allclose(sizes, sizes[0])
    assert {"pet", "border"} <= texts(figure)


def test_pictures_stand_upright_and_their_rows_run_downwards():
    photographs, trimaps = zip(*(make_pair(30 + 10 * i, 40, i) for i in range(4)), strict=True)
    figure = figures.sample_grid(photographs, trimaps, columns=2)
    assert all(bottom > top for bottom, top in (axes.get_ylim() for axes in figure.axes)), "the first row of pixels is on top"
    places = [axes.get_position() for axes in figure.axes]
    assert places[0].y0 == places[1].y0 > places[2].y1 and places[0].x1 < places[1].x0


def test_the_trimap_tints_the_interior_like_pet_and_the_border_like_border():
    photograph, trimap = make_pair()
    shown = trimap_overlay(photograph, trimap).astype(float)
    for value, colour, strength in ((1, PET, 0.32), (3, BORDER, 0.7)):
        expected = (1 - strength) * photograph + strength * 255 * rgb(colour)
        assert np.abs(shown - expected)[trimap == value].max() <= 1
    assert np.array_equal(shown[trimap == 2], photograph[trimap == 2])


@pytest.mark.parametrize("count", [1, 2])
def test_grids_draw_with_few_pictures(count):
    pairs = [make_pair(seed=i) for i in range(count)]
    assert len(figures.sample_grid(*zip(*pairs, strict=True)).axes) == count
    titles = [axes.get_title() for axes in figures.augmentation_grid(pairs[0], pairs).axes]
    assert titles == ["original", "augmented 1", "augmented 2"][: count + 1]


def test_grids_refuse_nothing_at_all():
    with pytest.raises(ValueError, match="at least 1"):
        figures.sample_grid([], [])
    with pytest.raises(ValueError, match="at least 1"):
        figures.prediction_grid([], [])


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="must be the same"):
        figures.sample_grid([make_pair()[0]], [make_pair(20, 20)[1]])


def test_border_policies_tint_the_target_of_each_policy_and_nothing_else():
    photograph, trimap = make_pair()
    figure = figures.border_policies(photograph, trimap)
    assert len(figure.axes) == 4
    for axes, policy in zip(figure.axes, BORDER_POLICIES, strict=True):
        target, scored = target_and_scored(trimap, policy)
        assert axes.get_title().startswith(f"{policy}:")
        shown = axes.images[0].get_array()
        changed = (shown != photograph).any(axis=2)
        assert not changed[(target == 0) & scored].any()
        assert changed[(target == 1) | ~scored].mean() > 0.99
        tinted = (0.55 * photograph + 0.45 * 255 * rgb(PET)).round()
        assert np.abs(shown.astype(float) - tinted)[target == 1].max() <= 1


def test_what_is_left_out_is_striped_in_the_legend_as_in_the_picture():
    (legend,) = figures.border_policies(*make_pair()).legends
    assert [bool(patch.get_hatch()) for patch in legend.get_patches()] == [False, True]


def test_a_full_and_an_empty_trimap_have_no_outline_and_no_warning():
    photograph, _ = make_pair()
    for value in (1, 2):
        figure = figures.border_policies(photograph, np.full((30, 40), value, np.uint8))
        assert all(np.isnan(line.get_xdata()).all() for axes in figure.axes for line in axes.lines)


def test_an_outline_goes_along_the_edge_of_the_mask_and_not_along_the_frame():
    photograph, trimap = make_pair()
    trimap[:, :5] = 1
    (axes,) = figures.sample_grid([photograph], [trimap]).axes
    points = axes.lines[0].get_xydata()
    points = {tuple(map(int, point)) for point in points if not np.isnan(point).any()}
    edge = {(x, y) for y in range(10, 20) for x in (12, 27)} | {(x, y) for x in range(12, 28) for y in (10, 19)}
    assert points == edge | {(4, y) for y in range(1, 29)}


@pytest.mark.parametrize("policy", BORDER_POLICIES)
def test_browsing_shows_the_augmented_target_under_the_same_border_policy(policy):
    augmented = make_pair(seed=1)
    figure = figures.browse_panel(*make_pair(), policy, augmented)
    target, scored = target_and_scored(augmented[1], policy)
    shown, expected = figure.axes[2], Figure().subplots()
    assert np.array_equal(shown.images[0].get_array(), target_overlay(augmented[0], target > 0, ~scored))
    outline(expected, target > 0)
    assert np.array_equal(shown.lines[0].get_xydata(), expected.lines[0].get_xydata(), equal_nan=True)


def test_batch_grid_brings_colours_back():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    photographs = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    images = ((photographs / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    figure = figures.batch_grid(images, np.zeros((3, 1, 16, 16)), mean, std)
    for axes, photograph in zip(figure.axes, photographs, strict=True):
        assert np.array_equal(axes.images[0].get_array(), photograph)
    assert "left out" not in texts(figure)
    left_out = figures.batch_grid(images, np.zeros((3, 1, 16, 16)), mean, std, np.zeros((3, 1, 16, 16), bool))
    assert "left out" in texts(left_out)


# Predictions


def test_dice_in_the_title_is_of_the_threshold():
    example = make_prediction()
    for threshold in (0.2, 0.5, 0.8):
        figure = figures.prediction_panel(*example[:3], threshold=threshold)
        expected = dice_of(example.probability > threshold, example.truth > 0)
        assert figure.axes[-1].get_title() == f"Dice {expected:.3f}"


@pytest.mark.parametrize("draw", [figures.prediction_grid, figures.model_panel, figures.failure_gallery])
def test_pictures_of_many_predictions_cut_at_their_threshold(draw):
    example = make_prediction(names=["unet"])
    shown = draw([example], ["pug_1"], 0.8).axes[-1]
    expected = dice_of(example.probability["unet"] > 0.8, example.truth > 0)
    assert shown.get_title() == f"UNet: Dice {expected:.3f}"
    assert np.array_equal(shown.images[0].get_array(), verdict_overlay(example, example.probability["unet"], 0.8))


def test_hits_misses_and_false_alarms_are_coloured_as_the_legend_says_at_the_threshold():
    example = make_prediction(policy="ignore")
    shown = verdict_overlay(example, example.probability, 0.8)
    predicted, truth = example.probability > 0.8, example.truth > 0
    where = {"hit": predicted & truth, "miss": ~predicted & truth, "false alarm": predicted & ~truth}
    for verdict, mask in where.items():
        colour = shown[mask & example.scored].mean(axis=0)
        assert min(VERDICTS, key=lambda name: np.abs(colour - 255 * rgb(VERDICTS[name])).sum()) == verdict
    assert np.array_equal(shown, verdict_overlay(example, predicted.astype(np.float32), 0.5))
    other = verdict_overlay(example, 1 - example.probability, 0.8)
    assert np.array_equal(shown[~example.scored], other[~example.scored]), "what does not count is neither"


def test_a_probability_is_drawn_from_black_for_0_to_white_for_1():
    example = make_prediction()
    example = example._replace(probability=0.4 * example.probability + 0.3)
    for axes in (figures.prediction_panel(*example[:3]).axes[2], figures.prediction_grid([example], ["pug"]).axes[2]):
        assert axes.images[0].get_clim() == (0, 1) and axes.images[0].get_cmap().name == "gray"


def test_the_truth_is_shown_with_what_does_not_count():
    example = make_prediction(policy="ignore")
    shown = figures.prediction_panel(*example[:3], scored=example.scored).axes[1].images[0].get_array()
    assert np.array_equal(shown, target_overlay(example.photograph, example.truth > 0, ~example.scored))


def test_pixels_that_do_not_count_stay_out_of_dice():
    example = make_prediction(policy="ignore")
    kept, truth = example.scored, example.truth > 0
    figure = figures.prediction_panel(*example[:3], scored=kept)
    expected = dice_of((example.probability > 0.5) & kept, truth & kept)
    assert expected != pytest.approx(dice_of(example.probability > 0.5, truth), abs=1e-3)
    assert figure.axes[-1].get_title() == f"Dice {expected:.3f}"
    assert "left out" in texts(figure)


def test_an_empty_truth_and_an_empty_prediction_score_1():
    photograph, _ = make_pair()
    assert figures.image_dice(np.zeros((30, 40)), np.zeros((30, 40))) == 1
    figure = figures.prediction_panel(photograph, np.zeros((30, 40)), np.zeros((30, 40)))
    assert figure.axes[-1].get_title() == "Dice 1.000"


def test_moving_the_threshold_gives_the_picture_of_a_new_figure():
    example = make_prediction(names=("unet", "resnet34_unet"), policy="ignore")
    moved = figures.prediction_panel(*example[:3], 0.5, example.scored)
    figures.move_threshold(moved, example, 0.8)
    fresh = figures.prediction_panel(*example[:3], 0.8, example.scored)
    assert encoded(moved, "png", 60) == encoded(fresh, "png", 60)


def test_prediction_panel_gives_each_model_a_row():
    example = make_prediction(names=("unet", "resnet34_unet"))
    figure = figures.prediction_panel(*example[:3], title="Egyptian_Mau_12")
    assert {axes.get_title().split(":")[0] for axes in figure.axes} == {"Egyptian Mau 12", "truth", "UNet", "ResNet34-UNet"}
    assert len(figure.axes) == 6


def test_prediction_grid_and_two_models_show_every_photograph():
    titles = ["best: Egyptian_Mau_1", "worst: pug_2"]
    figure = figures.prediction_grid([make_prediction(0), make_prediction(1)], titles)
    assert len(figure.axes) == 8
    assert {"best: Egyptian Mau 1", "worst: pug 2"} <= texts(figure)
    pairs = [make_prediction(seed, ("unet", "resnet34_unet")) for seed in (0, 1)]
    figure = figures.model_panel(pairs, titles)
    assert len(figure.axes) == 8
    for row, example in enumerate(pairs):
        for column, name in enumerate(("unet", "resnet34_unet")):
            expected = dice_of(example.probability[name] > 0.5, example.truth > 0)
            assert figure.axes[4 * row + 2 + column].get_title() == f"{run_label(name)}: Dice {expected:.3f}"


def test_hits_misses_and_false_alarms_differ_in_grey():
    for first, second in combinations(VERDICTS.values(), 2):
        brighter, darker = sorted((lightness(first), lightness(second)), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) > 1.6, (first, second)


# Charts


def test_breed_counts_bars_are_the_counts():
    figure = figures.breed_counts(make_table())
    (axes,) = figure.axes
    widths = {container.get_label(): [bar.get_width() for bar in container] for container in axes.containers}
    assert widths == {"train": [2, 2], "valid": [1, 1], "test": [1, 1]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Egyptian Mau (cat)", "pug (dog)"]


def test_breed_counts_are_stacked_with_their_sum_at_the_end():
    (axes,) = figures.breed_counts(make_table()).axes
    starts = {container.get_label(): [bar.get_x() for bar in container] for container in axes.containers}
    assert starts == {"train": [0, 0], "valid": [2, 2], "test": [3, 3]}
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("4", 4), ("4", 4)]


def test_37_breeds_do_not_overlap():
    figure = figures.breed_counts(make_table([f"a_breed_{i}" for i in range(37)]))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 37
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_size_scatter_puts_every_size_at_its_place():
    figure = figures.size_scatter(make_table())
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert sorted(map(tuple, axes.collections[0].get_offsets())) == [(300 + i, 200 + i) for i in range(4)]


def test_size_scatter_says_how_many_images_and_how_many_sizes():
    cats, dogs = figures.size_scatter(make_table().assign(width=300, height=[200] * 4 + [200, 200, 201, 202])).axes
    assert cats.get_title(loc="left").startswith("cat: 4 images, 1 size")
    assert dogs.get_title(loc="left").startswith("dog: 4 images, 3 sizes")


def test_foreground_share_counts_every_image_and_names_the_mean():
    shares = {"cat": [0.1, 0.2, 0.6], "dog": [0.5]}
    figure = figures.foreground_share(shares)
    assert [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes] == [3, 1]
    assert figure.axes[0].get_title(loc="left") == "cat: mean 0.300 over 3 images"
    assert figure.axes[1].get_title(loc="left") == "dog: mean 0.500 over 1 image"


def test_mean_std_comparison_draws_the_values():
    rows = {"this dataset": ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)), "the report": ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))}
    figure = figures.mean_std_comparison(rows)
    for column, axes in enumerate(figure.axes):
        drawn = {line.get_label(): tuple(line.get_xdata()) for line in axes.lines if line.get_label() in rows}
        assert drawn == {name: pair[column] for name, pair in rows.items()}
    assert [axes.get_xlabel() for axes in figure.axes] == ["mean, 0 to 1 scale", "standard deviation, 0 to 1 scale"]


def test_channels_of_photographs_black_all_over_are_drawn():
    (axes,) = figures.channel_histogram([np.zeros((4, 5, 3), np.uint8)]).axes
    assert axes.get_ylim()[1] > 100


def test_channels_keep_their_names():
    (axes,) = figures.channel_histogram([np.full((4, 5, 3), (10, 20, 30), np.uint8)]).axes
    assert {line.get_label(): line.get_ydata().argmax() for line in axes.lines} == {"red": 10, "green": 20, "blue": 30}
    means, _ = figures.mean_std_comparison({"mine": ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))}).axes
    rows = [text.get_text() for text in means.get_yticklabels()]
    drawn = {rows[round(place)]: value for value, place in means.lines[0].get_xydata()}
    assert drawn == {"red": 0.1, "green": 0.2, "blue": 0.3}


def test_channel_histogram_sums_to_all_pixels():
    figure = figures.channel_histogram([make_pair()[0], make_pair(20, 10)[0]])
    assert len(figure.axes[0].lines) == 3
    assert all(sum(line.get_ydata()) == pytest.approx(100) for line in figure.axes[0].lines)


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_training_curves_draw_the_history(epochs):
    history = make_history(epochs, best=max(1, epochs - 1))
    figure = figures.training_curves(history)
    loss, dice, rate = figure.axes
    assert np.array_equal(loss.lines[0].get_ydata(), history["train_loss"])
    assert np.array_equal(loss.lines[1].get_ydata(), history["valid_loss"])
    assert np.array_equal(dice.lines[1].get_ydata(), history["valid_dice"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "dice_image, model size", "learning rate"]
    assert loss.lines[2].get_xydata().tolist() == [[max(1, epochs - 1), history["valid_loss"].iloc[max(1, epochs - 1) - 1]]]
    legend = {handle.get_label(): handle.get_color() for handle in figure.legends[0].get_lines()}
    assert (
        legend["train (at the size trained at)"] == loss.lines[0].get_color() != loss.lines[1].get_color() == legend["validation"]
    )
    assert np.array_equal(rate.lines[0].get_ydata(), history["learning_rate"])
    assert dice.lines[2].get_xydata().tolist() == [[max(1, epochs - 1), 0.9]]
    assert f"best epoch: {max(1, epochs - 1)}, Dice 0.900" in texts(figure)


def test_training_curves_mark_where_full_size_begins():
    history = make_history(20)
    assert "full size from epoch 18" in texts(figures.training_curves(history, 18))
    loss, dice, rate = figures.training_curves(history, 18).axes
    assert [line.get_xdata()[0] for line in (loss.lines[-1], dice.lines[-1])] == [18, 18] and len(rate.lines) == 1
    for never in (1, 21):  # all of it at full size; a run that ended before
        assert not [text for text in texts(figures.training_curves(history, never)) if "full size" in text]


def test_dice_over_time_rises_and_ends_with_all_the_seconds():
    history = make_history(4)
    figure = figures.dice_over_time({"unet": history, "resnet34_unet": make_history(2)})
    line = figure.axes[0].get_lines()[0]
    assert line.get_xdata()[-1] == pytest.approx(history["seconds"].sum() / 60)
    assert list(line.get_ydata()) == list(history["valid_dice"].cummax())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["UNet", "ResNet34-UNet"]


def test_dice_over_time_is_not_there_before_its_epoch_has_ended():
    (axes,) = figures.dice_over_time({"unet": make_history(4, best=2)}).axes
    steps, end = axes.lines
    assert steps.get_drawstyle() == "steps-post"
    assert end.get_xydata().tolist() == [[20 / 60, 0.9]]


@pytest.mark.parametrize(("epochs", "scale"), [((8, 40), "linear"), ((8, 41), "log")])
def test_a_run_much_shorter_than_another_is_still_seen(epochs, scale):
    histories = dict(zip(("unet", "resnet34_unet"), map(make_history, epochs), strict=True))
    assert {axes.get_xscale() for axes in figures.training_curves(histories).axes} == {scale}
    same_seconds = {name: history.assign(seconds=1.0) for name, history in histories.items()}
    (axes,) = figures.dice_over_time(same_seconds).axes
    assert axes.get_xscale() == scale and (axes.get_xlim()[0] == 0) == (scale == "linear")
    assert all(line.get_linewidth() <= 2.4 for line in figures.training_curves(histories).axes[2].lines)


def test_training_curves_of_several_runs_keep_each_models_colour():
    figure = figures.training_curves({"resnet34_unet": make_history(3), "unet": make_history(5)})
    assert {"UNet", "ResNet34-UNet", "train (at the size trained at)", "validation", "best epoch"} <= texts(figure)
    colours = [line.get_color() for line in figure.axes[2].lines]
    assert colours == [run_looks(["unet", "resnet34_unet"])[name].colour for name in ("resnet34_unet", "unet")]


def test_marks_tell_runs_apart_where_a_grey_print_has_no_colours():
    histories = {name: make_history(40) for name in ("unet", "resnet34_unet", "unet_report")}
    marks = ["o", "s", "D"]
    _, dice, rate = figures.training_curves(histories).axes
    assert [line.get_marker() for line in rate.lines] == marks
    assert [line.get_marker() for line in dice.lines[1::3]] == marks
    over_time = figures.dice_over_time(histories)
    assert [line.get_marker() for line in over_time.axes[0].lines[::2]] == marks
    assert [handle.get_marker() for handle in over_time.legends[0].get_lines()] == marks


def test_dice_distribution_has_a_dot_an_image_and_the_mean():
    dices = {"unet": np.linspace(0.5, 0.9, 20), "mean_mask": [0.4]}
    figure = figures.dice_distribution(dices)
    (axes,) = figure.axes
    assert [len(dots.get_offsets()) for dots in axes.collections] == [20, 1]
    assert np.allclose(axes.collections[0].get_offsets()[:, 0], dices["unet"])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["UNet\nmean 0.700", "mean mask\nmean 0.400"]


def test_dice_distribution_marks_each_runs_mean_in_its_row_from_above():
    dices = {"unet": [0.1, 0.9, 0.95], "resnet34_unet": [0.2, 0.3, 0.7]}
    (axes,) = figures.dice_distribution(dices).axes
    for place, name in enumerate(dices):
        (mark,) = [line for line in axes.lines if line.get_marker() == run_looks(dices)[name].marker]
        assert mark.get_xydata().tolist() == [[pytest.approx(np.mean(dices[name])), place]]
    assert axes.yaxis_inverted()


def test_cats_stand_above_dogs_and_the_hardest_breed_of_each_first():
    rows = [("dog", "pug", 0.3), ("cat", "Bengal", 0.9), ("dog", "boxer", 0.2), ("cat", "Sphynx", 0.5)]
    table = pd.DataFrame([("unet", *row[:2], 5, *row[2:] * 3) for row in rows])
    table.columns = ["run", "species", "breed", "images", "mean", "low", "high"]
    (axes,) = figures.dice_by_breed(table).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["Sphynx (cat, 5)", "Bengal (cat, 5)", "boxer (dog, 5)", "pug (dog, 5)"] and axes.yaxis_inverted()


def test_dice_by_breed_draws_means_and_intervals():
    table = pd.DataFrame(
        [("unet", "cat", "Egyptian_Mau", 5, 0.8, 0.7, 0.85), ("resnet34_unet", "cat", "Egyptian_Mau", 5, 0.9, 0.88, 0.95)],
        columns=["run", "species", "breed", "images", "mean", "low", "high"],
    )
    (axes,) = figures.dice_by_breed(table).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Egyptian Mau (cat, 5)"]
    for container, (_, row) in zip(axes.containers, table.iterrows(), strict=True):
        points, _, (interval,) = container
        assert points.get_xdata() == [row["mean"]]
        assert interval.get_segments()[0][:, 0].tolist() == pytest.approx([row["low"], row["high"]])


def test_a_breed_of_cats_and_one_of_dogs_may_have_one_name():
    rows = [("unet", species, "mixed", 5, mean, mean, mean) for species, mean in (("cat", 0.8), ("dog", 0.9))]
    table = pd.DataFrame(rows, columns=["run", "species", "breed", "images", "mean", "low", "high"])
    (axes,) = figures.dice_by_breed(table).axes
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[0.8, 0], [0.9, 1]]


@pytest.mark.parametrize("differences", [[0.0], [0.1, -0.05, 0.02, 0.0]])
def test_difference_histogram_counts_every_image(differences):
    interval = SimpleNamespace(mean=float(np.mean(differences)), low=-0.01, high=0.06)
    (axes,) = figures.difference_histogram(differences, interval, "unet", "resnet34_unet").axes
    bars, equal = axes.containers
    assert sum(bar.get_height() for bar in bars) == sum(value != 0 for value in differences)
    assert [bar.get_height() for bar in equal] == [1] and equal[0].get_x() + equal[0].get_width() / 2 == pytest.approx(0)
    assert "equal: 1 image" in [text.get_text() for text in axes.figure.legends[0].get_texts()]
    edges = [bar.get_x() for bar in bars]
    assert min(map(abs, edges)) < 1e-12, "no bar holds images on which either run is better"
    ahead = [bar.get_facecolor() for bar, edge in zip(bars, edges, strict=True) if edge > -1e-12]
    assert len(set(ahead)) == 1 and len(bars) == 2 * len(ahead) and ahead[0] != bars[0].get_facecolor()
    looks = run_looks(["unet", "resnet34_unet"]).values()
    assert [bar.get_facecolor()[:3] for bar in (bars[0], bars[-1])] == [tuple(rgb(look.colour)) for look in looks]
    better = sum(value > 0 for value in differences)
    assert axes.get_title(loc="right") == f"ResNet34-UNet better: {better} images"


def test_difference_histogram_marks_mean_and_interval_and_who_is_ahead_how_often():
    interval = SimpleNamespace(mean=0.02, low=-0.01, high=0.06)
    (axes,) = figures.difference_histogram([0.1, -0.05, -0.02, 0.0], interval, "unet", "resnet34_unet").axes
    span = axes.patches[-1]
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((-0.01, 0.06))
    assert [line.get_xdata()[0] for line in axes.lines] == [0, 0.02]
    assert "mean +0.0200, interval -0.0100 to +0.0600" in texts(axes.figure)
    assert axes.get_title(loc="left") == "UNet better: 2 images"
    assert axes.get_title(loc="right") == "ResNet34-UNet better: 1 image"


@pytest.mark.parametrize("runs", [["unet"], ["unet", "resnet34_unet", "everything_is_pet"]])
def test_cost_against_dice_draws_every_run(runs):
    table = pd.DataFrame({"run": runs, "dice": 0.9, "low": 0.88, "high": 0.91, "parameters": 2e6})
    table["gflop"] = np.arange(len(runs))[::-1]  # a floor costs nothing, which a logarithmic axis cannot show
    table["images_per_second"] = 100.0 * (1 + np.arange(len(runs)))
    figure = figures.cost_against_dice(table)
    gflop, speed, size = figure.axes
    assert [container[0].get_xdata()[0] for container in gflop.containers] == table["gflop"].tolist()
    assert [container[0].get_xdata()[0] for container in speed.containers] == table["images_per_second"].tolist()
    assert {container[0].get_xdata()[0] for container in size.containers} == {2.0}
    assert {container[0].get_ydata()[0] for container in size.containers} == {0.9}


def test_cost_says_its_units_and_which_way_is_better_and_draws_intervals():
    table = pd.DataFrame({"run": ["unet", "mine"], "dice": 0.9, "low": 0.88, "high": 0.91, "parameters": [2e6, 3e7]})
    panels = figures.cost_against_dice(table.assign(gflop=[0.0, 5.0], images_per_second=[30.0, 400.0])).axes
    assert [axes.get_xlabel() for axes in panels] == [
        "GFLOP an image\n(less is better; linear axis)",
        "images a second\n(more is better; log axis)",
        "parameters (millions)\n(less is better; log axis)",
    ]
    for axes in panels:
        for _, _, (interval,) in axes.containers:
            assert interval.get_segments()[0][:, 1].tolist() == pytest.approx([0.88, 0.91])


# Names, notebooks, files


def test_names_are_written_for_people():
    assert breed_label("Egyptian_Mau_12") == "Egyptian Mau 12"
    assert run_label("unet") == "UNet"
    assert run_label("report_resnet34_unet") == "report ResNet34-UNet"
    assert run_label("resnet_short_muon") == "ResNet34-UNet short muon"
    looks = run_looks(["report_unet", "unet", "resnet34_unet", "mean_mask"])
    assert looks["unet"] == run_looks(["unet"])["unet"]
    assert len({(look.colour, look.marker) for look in looks.values()}) == 4
    assert len({look.marker for look in run_looks(["unet", "resnet34_unet", *"abcdef"]).values()}) == 8


@pytest.mark.parametrize("others", [[], ["mine", "unet", "yours"]])
def test_floors_are_grey_and_the_reports_recipe_is_lighter_than_ours_beside_any_runs(others):
    floors = ("everything is pet", "average training mask")
    looks = run_looks([*others, *floors, "resnet34_unet_report", "unet_report", "resnet34_unet"])
    assert all(np.ptp(rgb(looks[name].colour)) < 0.01 for name in floors)
    assert (looks["unet_report"].colour, looks["resnet34_unet_report"].colour) == (SKY, ORANGE)
    looks |= run_looks(["unet"])
    for dark, light in (floors, ("unet", "unet_report"), ("resnet34_unet", "resnet34_unet_report")):
        dark, light = looks[dark], looks[light]
        assert (lightness(light.colour) + 0.05) / (lightness(dark.colour) + 0.05) > 1.6
    assert len({look.marker for look in looks.values()}) == len(looks)


@pytest.mark.parametrize(("kind", "draw"), [("png", lambda: figures.breed_counts(make_table())),
                                            ("jpeg", lambda: figures.border_policies(*make_pair()))])  # fmt: skip
def test_a_figure_shows_once_and_sharp_in_a_notebook(kind, draw):
    data, metadata = DisplayFormatter().format(draw())
    assert set(data) == {f"image/{kind}", "text/plain"}
    size = Image.open(io.BytesIO(data[f"image/{kind}"])).size
    assert size[0] >= 1.4 * metadata[f"image/{kind}"]["width"]


def test_figures_leave_matplotlib_alone():
    before = dict(mpl.rcParams)
    assert isinstance(figures.training_curves(make_history(2)), Figure)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_a_figure_looks_the_same_under_the_callers_settings():
    plain = encoded(figures.breed_counts(make_table()), "png", 50)
    with mpl.rc_context({"font.size": 22, "axes.grid": False, "xtick.labelsize": 30}):
        assert encoded(figures.breed_counts(make_table()), "png", 50) == plain


def test_saving_again_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        figures.save_figure(figures.training_curves(make_history(3)), tmp_path / folder, "curves", "C.")
        figures.save_figure(figures.border_policies(*make_pair()), tmp_path / folder, "borders", "B.")
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("a", "b"))
    assert set(first) == {"README.md"} | {f"{name}.{kind}" for name in ("curves", "borders") for kind in ("png", "svg", "pdf")}
    assert first == second


@pytest.mark.parametrize(
    "draw", [lambda: figures.training_curves(make_history(3)), lambda: figures.border_policies(*make_pair())]
)
def test_a_pdf_has_its_fonts_inside_as_truetype(tmp_path, draw):
    content = figures.save_figure(draw(), tmp_path, "figure", "F.", ("png", "pdf"))[1].read_bytes()
    assert content.count(b"/FontFile2 ") == content.count(b"/Type /FontDescriptor") >= 1
    assert b"/Type3" not in content and b"/Type1" not in content


def test_one_figure_saved_twice_gives_the_same_bytes(tmp_path):
    figure = figures.breed_counts(make_table())
    (path,) = figures.save_figure(figure, tmp_path, "breeds", "Counts.", ("png",))
    before = path.read_bytes()
    figure._repr_mimebundle_()
    figures.save_figure(figure, tmp_path, "breeds", "Counts.", ("png",))
    assert path.read_bytes() == before


def test_a_readme_of_ones_own_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("# My site\n")
    figures.save_figure(figures.training_curves(make_history(2)), tmp_path, "curves", "C.", ("png",))
    assert (tmp_path / "README.md").read_text() == "# My site\n" and (tmp_path / "curves.png").is_file()


def test_pictures_of_ones_own_beside_the_figures_have_their_words_on_one_line_and_damaged_ones_none(tmp_path):
    text = PngInfo()
    text.add_itxt("Description", "my picture\r\nof rex")
    Image.new("L", (2, 2)).save(tmp_path / "mine.png", pnginfo=text)
    (tmp_path / "torn.png").write_bytes((tmp_path / "mine.png").read_bytes()[:60])
    (tmp_path / "folder.png").mkdir()
    figures.save_figure(figures.training_curves(make_history(2)), tmp_path, "curves", "C.", ("png",))
    readme = (tmp_path / "README.md").read_text()
    assert "## curves" in readme and "my picture of rex" in readme and "torn" not in readme


def test_captions_are_collected_in_order_and_replaced(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    figure = figures.training_curves(make_history(2))
    (folder / "results.csv").write_text("kept")
    figures.save_figure(figure, folder, "zebra", "Old words.", ("png",))
    figures.save_figure(figure, folder, "apple", "Loss\n  and Dice – each epoch.", ("png", "svg"))
    figures.save_figure(figure, folder, "zebra", "New words.", ("png",))
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert [line[3:] for line in readme.splitlines() if line.startswith("## ")] == ["apple", "zebra"]
    assert "Loss and Dice – each epoch." in readme
    assert "New words." in readme
    assert "Old words." not in readme
    assert "[PNG](apple.png) · [SVG](apple.svg)" in readme
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "apple.png", "apple.svg", "results.csv", "zebra.png"]


@pytest.mark.parametrize(
    ("draw", "dpi"),
    [(lambda: figures.training_curves(make_history(2)), 150), (lambda: figures.border_policies(*make_pair()), 100)],
)
def test_a_png_of_a_chart_has_the_resolution_of_print_and_one_of_photographs_less(tmp_path, draw, dpi):
    (path,) = figures.save_figure(draw(), tmp_path, "figure", "F.", ("png",))
    with Image.open(path) as image:
        assert image.info["dpi"][0] == pytest.approx(dpi, abs=0.1)
        assert image.width == 9 * dpi


@pytest.mark.parametrize(("name", "formats", "message"), [
    ("a/b", ("png",), "file name"), ("", ("png",), "file name"), ("a", ("svg",), "png"), ("a", ("png", "gif"), "gif"),
])  # fmt: skip
def test_save_figure_refuses_what_it_cannot_write(tmp_path, name, formats, message):
    with pytest.raises(ValueError, match=message):
        figures.save_figure(figures.breed_counts(make_table()), tmp_path / "new", name, "Caption.", formats)
    assert not (tmp_path / "new").exists()


def test_a_network_is_drawn_stage_by_stage_with_its_skips():
    model = build_model("resnet34_unet", width=4)
    (axes,) = figures.network_diagram(stage_shapes(model, 64)).axes
    numbers = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
    assert numbers == ["3", "4", "4", "8", "16", "32", "16", "8", "4", "4", "2", "1"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["64 px", "32 px", "16 px", "8 px", "4 px", "2 px"]
    arrows = [text.arrow_patch for text in axes.texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 11 + 4, "from each stage to the next, and four skips"
    skips = [(text.get_position(), text.xy) for text in axes.texts if getattr(text, "arrow_patch", None)][11:]
    assert [(round(x), y, round(to_x), to_y) for (x, y), (to_x, to_y) in skips] == [
        (4, 4, 6, 4),
        (3, 3, 7, 3),
        (2, 2, 8, 2),
        (1, 1, 9, 1),
    ]
    heights = [box.get_y() + box.get_height() / 2 for bars in axes.containers for box in bars]
    assert heights == pytest.approx([0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 0])
