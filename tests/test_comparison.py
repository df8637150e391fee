"""Any number of runs side by side: pairs, strata, conventions, calibration and thresholds, against arithmetic by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from small_model import DESCRIPTION, SETTINGS
from torch import nn

from petseg_lib import calibration, comparison, conventions, disputes, evaluation, strata
from petseg_lib.checkpoints import save_model
from petseg_lib.data.cache import open_cache
from petseg_lib.data.masks import BORDER_POLICIES, target_and_scored
from petseg_lib.data.pictures import read_trimap
from petseg_lib.models import build_model
from petseg_lib.runs import Run, RunError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("unet", **SETTINGS)


@pytest.fixture(scope="module")
def cache(pets, tmp_path_factory):
    return open_cache(pets, pets.split("test"), 48, tmp_path_factory.mktemp("cache"))


def table_of(dice, names=None):
    """A per_image table of photographs of 10 x 20 px whose dice_image, under every policy and resolution, is as given."""
    dice = np.asarray(dice, dtype=float)
    table = pd.DataFrame({"name": names or [f"pet_{i}" for i in range(len(dice))], "width": 20, "height": 10})
    table["breed"] = ["pug" if i % 2 else "Bengal" for i in range(len(dice))]
    table["species"] = ["dog" if i % 2 else "cat" for i in range(len(dice))]
    for policy in BORDER_POLICIES:
        for resolution in ("native", "model"):
            table[f"{resolution}_{policy}_tp"] = 100 * dice
            table[f"{resolution}_{policy}_fp"] = table[f"{resolution}_{policy}_fn"] = 100 * (1 - dice)
        table[f"model_{policy}_soft_intersection"] = 100 * dice
        table[f"model_{policy}_soft_prediction"] = table[f"model_{policy}_soft_target"] = 100.0
    return table


# Which runs


def test_runs_of_one_name_get_that_of_the_folder_above(tmp_path):
    runs = [Run(tmp_path / place) for place in ("demo/unet", "sample/unet", "sample/best")]
    assert list(comparison.named(runs)) == ["demo/unet", "sample/unet", "best"]
    with pytest.raises(RunError, match="run demo/unet is named more than once"):
        comparison.named([runs[0], runs[0]])


def test_other_photographs_than_the_runs_were_measured_on_are_refused(pets):
    names = [pet.name for pet in pets.split("test")]
    comparison.same_photographs({"a": table_of(np.ones(len(names)), names)}, pets)
    with pytest.raises(RunError, match=f"a was measured on 2 images, which are not the {len(names)} test images of .*drawn"):
        comparison.same_photographs({"a": table_of([1, 1], names[:2])}, pets)


def test_as_many_other_images_or_the_same_in_another_order_are_not_compared(pets):
    names = [pet.name for pet in pets.split("test")]
    table = table_of(np.ones(len(names)), names)
    for others in (names[::-1], [*names[:-1], "another"]):
        other = table_of(np.ones(len(names)), others)
        with pytest.raises(RunError, match=f"a was measured on {len(names)} images and b on {len(names)}, not the same ones"):
            comparison.same_images({"a": table, "b": other})
        with pytest.raises(RunError, match=f"which are not the {len(names)} test images"):
            comparison.same_photographs({"b": other}, pets)


def test_runs_that_were_measured_before_and_after_a_mask_was_mended_are_not_compared():
    before, after = table_of([1.0, 0.3, 0.7]), table_of([0.9, 0.4, 0.8])
    comparison.same_images({"a": before, "b": after})
    after.loc[1, "native_pet_fn"] += 1
    with pytest.raises(RunError, match="a and b were measured on other masks of pet_1: where masks were mended"):
        comparison.same_images({"a": before, "b": after})


# Pairs


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path):
    table = table_of([0.5, 0.6, 0.7], ["0001", "0002", "NA"]).assign(breed=["NA", "None", "12"])
    run = Run(tmp_path)
    run.write_table("per_image.csv", table)
    pd.testing.assert_frame_equal(run.per_image, table)


def test_ten_runs_are_ranked_and_every_pair_is_there():
    draws = np.random.default_rng(0)
    tables = {f"run_{i}": table_of(0.5 + 0.04 * i + 0.01 * draws.random(12)) for i in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)}
    ranking = comparison.ranked(tables)
    assert ranking == [f"run_{i}" for i in range(9, -1, -1)]
    pairs = comparison.paired_table(tables)
    assert len(pairs) == 45
    assert pairs.loc[:8, ["against", "run"]].to_numpy().tolist() == [["run_9", f"run_{i}"] for i in range(8, -1, -1)]
    means = {name: evaluation.dice_per_image(table).mean() for name, table in tables.items()}
    expected = [means[row.run] - means[row.against] for row in pairs.itertuples()]
    np.testing.assert_allclose(pairs["difference"], expected, atol=1e-12)
    assert (pairs["low"] <= pairs["difference"]).all() and (pairs["difference"] <= pairs["high"]).all()
    assert (pairs["high"] < 0).all() and (pairs["ahead"] == 0).all()
    sentences = comparison.verdicts(pairs, ranking)
    assert [sentence.split(" by ")[0] for sentence in sentences] == [f"run_9 is better than run_{i}" for i in range(8, -1, -1)]


def test_ahead_counts_the_images_on_which_the_worse_run_is_better():
    tables = {"a": table_of([0.9, 0.9, 0.9, 0.5]), "b": table_of([0.8, 0.8, 0.9, 0.6])}
    (row,) = comparison.paired_table(tables).itertuples()
    assert (row.run, row.against, row.images, row.ahead) == ("b", "a", 4, 1)
    assert row.difference == pytest.approx(-0.025)


def test_one_run_alone_is_said_to_be_alone():
    tables = {"unet": table_of([0.5, 0.7])}
    pairs = comparison.paired_table(tables)
    assert len(pairs) == 0
    assert comparison.verdicts(pairs, ["unet"]) == ["unet is the only run: there is no pair to compare."]


@pytest.mark.parametrize("policy", BORDER_POLICIES)
def test_a_paired_difference_is_of_one_border_policy_at_the_photographs_own_size(policy):
    tables = [table_of([0.5] * 3) for _ in range(2)]
    for table, dice in zip(tables, (0.2, 0.7), strict=True):
        table[f"native_{policy}_tp"] = 100 * dice
        table[f"native_{policy}_fp"] = table[f"native_{policy}_fn"] = 100 * (1 - dice)
    difference, interval = comparison.paired_difference(*tables, border_policy=policy)
    assert difference.tolist() == pytest.approx([0.5] * 3) and interval.mean == pytest.approx(0.5)


def test_runs_are_ranked_by_their_mean():
    assert comparison.ranked({"a": table_of([0.9, 0.9, 0.0]), "b": table_of([0.7, 0.7, 0.7])}) == ["b", "a"]


def test_a_verdict_names_the_confidence_of_its_interval():
    tables = {"best": table_of([0.9, 0.8, 0.9]), "near": table_of([0.8, 0.9, 0.8]), "far": table_of([0.1, 0.2, 0.15])}
    near, far = comparison.verdicts(comparison.paired_table(tables, 0.8), ["best", "near", "far"], 0.8)
    assert "the 80% interval of its lead" in near and "(80% interval 0." in far


# Intervals


def test_one_image_says_nothing_of_others():
    assert comparison.mean_interval([0.7]) == comparison.Interval(0.7, -np.inf, np.inf)


@pytest.mark.parametrize("images", [6, 60])
def test_each_table_has_intervals_as_sure_as_asked_and_none_below_a_dice_of_0(images):
    dice = np.random.default_rng(0).random(images) ** 4
    table, asked = table_of(dice), 0.8

    def ends(members, lowest=0):
        interval = comparison.mean_interval(members, asked, lowest=lowest)
        return pytest.approx([interval.low, interval.high])

    breeds = comparison.dice_by_breed({"a": table}, asked).set_index("breed")
    shapes = pd.DataFrame({"species": ["cat", "dog"] * (images // 2), "size": range(images), "outline": range(images)})
    species = strata.dice_by_stratum({"a": table}, shapes, asked).set_index("stratum")
    for found, odd, even in ((breeds, "pug", "Bengal"), (species, "dog", "cat")):
        assert found.loc[odd, ["low", "high"]].tolist() == ends(dice[1::2])
        assert found.loc[even, ["low", "high"]].tolist() == ends(dice[::2])
    costs = {"parameters": 7, "gflop": 1.5, "images_per_second": 3.0, "epochs": 4, "best_epoch": 2, "training_seconds": 9.0}
    summary = comparison.summary_table({"a": SimpleNamespace(metrics=costs)}, {"a": table}, {"floor": table[::2]}, asked)
    assert summary["run"].tolist() == ["a", "floor"] and summary.loc[0, list(costs)].to_dict() == costs
    assert summary[["low", "high"]].to_numpy().tolist() == [ends(dice), ends(dice[::2])]
    (pair,) = comparison.paired_table({"a": table, "b": table_of(1 - dice)}, asked).itertuples()
    assert [pair.low, pair.high] == ends(2 * dice - 1, lowest=-1)


# Conventions


def test_the_batches_of_each_run_are_of_its_own_size():
    table = table_of([0.8, 0.4])
    for part in ("intersection", "prediction", "target"):
        table.loc[0, f"model_pet_soft_{part}"] *= 10
    tables, sizes = {"a": table, "b": table}, {"a": 1, "b": 2}
    row = "pooled over (soft)", "an image", "a batch"
    assert conventions.convention_moves(tables, sizes).loc[row].tolist() == pytest.approx([0, 840 / 1100 - 0.6])
    row = "dice_batch_soft", "model", "pet"
    assert comparison.convention_table(tables, sizes).loc[row].tolist() == pytest.approx([0.6, 840 / 1100])


def test_each_move_is_the_difference_that_one_change_makes():
    table = table_of([0.8, 0.4])
    table["model_pet_tp"] = [50.0, 50.0]
    table["model_pet_fp"] = table["model_pet_fn"] = [50.0, 50.0]
    table["native_edge_tp"] = [0.0, 0.0]
    table["native_pet_tp"], table["native_pet_fp"], table["native_pet_fn"] = [80.0, 4.0], [20.0, 6.0], [20.0, 6.0]
    table["model_pet_soft_intersection"] = [90.0, 30.0]
    moves = conventions.convention_moves({"unet": table}, {"unet": 2})["unet"]
    assert moves["resolution", "native", "model"] == pytest.approx(0.5 - 0.6)
    assert moves["pooled over", "an image", "the dataset"] == pytest.approx(2 * 84 / (2 * 84 + 52) - 0.6)
    assert moves["prediction", "thresholded", "soft"] == pytest.approx((0.9 + 0.3) / 2 - 0.5)
    assert moves["pooled over (soft)", "an image", "a batch"] == pytest.approx(0)  # both photographs weigh the same
    assert moves["border policy", "pet", "edge"] == pytest.approx(-0.6)


def test_a_policy_without_a_target_is_no_convention():
    table = table_of([0.8, 0.4]).assign(native_edge_tp=0, native_edge_fn=0)
    assert evaluation.policies_with_target(table) == ["pet", "background", "ignore"]
    policies = comparison.convention_table({"unet": table}, {"unet": 2}).index.unique("border_policy")
    assert policies.tolist() == ["pet", "background", "ignore"]
    assert ("border policy", "pet", "edge") not in conventions.convention_moves({"unet": table}, {"unet": 2}).index


@pytest.mark.parametrize(("difference", "words"), [(0.0, "0.0000"), (4e-5, "less than 0.0001"), (0.01234, "0.0123")])
def test_what_rounds_to_nothing_is_said_to_be_less(difference, words):
    assert comparison.apart(difference) == words


def test_the_sentence_names_both_ends_and_how_far_apart_the_runs_are():
    index = pd.MultiIndex.from_tuples(
        [("dice_image", "native", "pet"), ("dice_dataset", "model", "pet"), ("dice_image", "native", "edge")],
        names=["convention", "resolution", "border_policy"],
    )
    both = pd.DataFrame({"a": [0.9, 0.95, 0.3], "b": [0.85, 0.9, 0.2]}, index=index)
    sentence = conventions.convention_verdict(both, "a")
    assert "0.3000 (dice_image, native, edge) to 0.9500 (dice_dataset, model, pet), 0.6500 apart" in sentence
    assert "border policy pet alone 0.9000 (dice_image, native) to 0.9500 (dice_dataset, model), 0.0500 apart" in sentence
    assert sentence.endswith("best and worst run are 0.0500 apart.")
    assert "worst run" not in conventions.convention_verdict(both[["a"]], "a")


# Strata


def test_the_border_of_a_circle_is_its_circumference_and_the_photographs_edge_is_none():
    y, x = np.mgrid[:200, :200] - 99.5
    assert strata.outline_length(np.hypot(x, y) < 60) == pytest.approx(2 * np.pi * 60, rel=0.01)
    assert strata.outline_length(np.hypot(x, y + 99.5) < 60) == pytest.approx(np.pi * 60, rel=0.02)
    square = np.zeros((100, 100), bool)
    square[20:60, 30:70] = True
    assert strata.outline_length(square) == pytest.approx(160, rel=0.06)
    assert strata.outline_length(np.ones((5, 5))) == strata.outline_length(np.zeros((5, 5))) == 0


def test_an_outline_is_as_long_in_a_mirror():
    leaning = np.tri(200, dtype=bool)
    assert strata.outline_length(leaning) == pytest.approx(strata.outline_length(leaning[:, ::-1]))
    assert strata.outline_length(leaning) == pytest.approx(200 * 2**0.5, rel=0.06)


def test_shapes_are_those_of_the_trimaps(pets):
    test = pets.split("test")
    shapes = strata.pet_shapes(pets, test)
    assert list(shapes.index) == [pet.name for pet in test]
    target = np.isin(read_trimap(pets.trimap_path(test[1])), (1, 3))
    assert shapes["size"].iloc[1] == pytest.approx(target.mean())
    assert shapes["outline"].iloc[1] == pytest.approx(strata.outline_length(target) / np.sqrt(target.sum()))


def test_thirds_are_of_equal_numbers_and_in_order():
    names = ("small", "middle", "large")
    found = strata.thirds(pd.Series([5.0, 1.0, 3.0, 2.0, 9.0, 4.0]), names)
    assert found.tolist() == ["large", "small", "middle", "small", "large", "middle"]
    assert strata.thirds(pd.Series([7.0] * 7), names).value_counts().to_dict() == {"small": 3, "middle": 2, "large": 2}


def test_dice_by_stratum_is_the_mean_of_its_members():
    dice = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    shapes = pd.DataFrame({"species": ["cat", "dog"] * 3, "size": [1, 2, 3, 4, 5, 6], "outline": [6, 5, 4, 3, 2, 1]})
    found = strata.dice_by_stratum({"a": table_of(dice), "b": table_of(1 - dice)}, shapes)
    a = found[found["run"] == "a"].set_index(["factor", "stratum"])
    assert a["images"].to_dict() == {
        ("species", "cat"): 3, ("species", "dog"): 3,
        ("size", "small"): 2, ("size", "middle"): 2, ("size", "large"): 2,
        ("outline", "short"): 2, ("outline", "middle"): 2, ("outline", "long"): 2,
    }  # fmt: skip
    assert a.loc[("size", "small"), "mean"] == a.loc[("outline", "long"), "mean"] == pytest.approx(0.85)
    assert a.loc[("species", "dog"), "mean"] == pytest.approx(0.6)
    assert a.loc[("size", "large"), ["from", "to"]].tolist() == [5, 6]
    assert found[found["run"] == "b"].set_index(["factor", "stratum"]).loc[("size", "small"), "mean"] == pytest.approx(0.15)


def test_the_interval_of_a_stratum_is_of_its_members_and_as_sure_as_asked():
    dice = np.array([0.1, 0.3, 0.5, 0.35, 0.2, 0.4])
    shapes = pd.DataFrame({"species": ["cat", "dog"] * 3, "size": range(6), "outline": range(6)})
    found = strata.dice_by_stratum({"a": table_of(dice)}, shapes, confidence=0.9).set_index("stratum")
    for species, members in (("cat", dice[::2]), ("dog", dice[1::2])):
        reach = 2.9200 * members.std(ddof=1) / np.sqrt(3)  # Student's, of two degrees of freedom
        ends = [max(members.mean() - reach, 0), members.mean() + reach]  # there is no Dice below 0
        assert found.loc[species, ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-4)


@pytest.mark.parametrize("images", [1, 2])
def test_few_images_leave_strata_out(images):
    shapes = pd.DataFrame({"species": ["cat"] * images, "size": range(images), "outline": range(images)})
    found = strata.dice_by_stratum({"a": table_of([0.5] * images)}, shapes)
    assert found.groupby("factor")["images"].sum().to_dict() == {"species": images, "size": images, "outline": images}


# Single photographs


def test_disputes_show_one_photograph_for_each_run_that_wins_and_one_on_which_all_agree():
    tables = {"a": table_of([0.9, 0.2, 0.5, 0.8]), "b": table_of([0.2, 0.7, 0.5, 0.4])}
    table = disputes.disagreement(tables)
    assert table.index.tolist() == ["pet_0", "pet_1", "pet_3", "pet_2"]
    np.testing.assert_allclose(table["spread"], [0.7, 0.5, 0.4, 0], atol=1e-12)
    assert table.loc["pet_1", ["best", "worst", "breed"]].tolist() == ["b", "a", "pug"]
    assert disputes.disputed(table) == ["pet_0", "pet_1", "pet_2"]
    assert disputes.disputed(table, most=1) == ["pet_0", "pet_2"]
    assert len(disputes.disputed(disputes.disagreement({"a": tables["a"]}))) == 2


def test_failures_are_the_lowest_dice_and_say_of_which_kind():
    tables = {"a": table_of([0.9, 0.2, 0.5]), "b": table_of([0.1, 0.7, 0.6])}
    tables["b"].loc[0, ["native_pet_tp", "native_pet_fp", "native_pet_fn"]] = [10.0, 15.0, 30.0]
    shapes = pd.DataFrame({"size": [0.1, 0.2, 0.3], "outline": [4, 5, 6]}, index=["pet_0", "pet_1", "pet_2"])
    worst = disputes.failures(tables, "b", 2, shapes)
    assert worst.index.tolist() == ["pet_0", "pet_2"]
    assert worst.columns[:2].tolist() == ["b", "a"]
    assert worst.loc["pet_0", ["b", "missed", "false_alarm", "size"]].tolist() == pytest.approx([20 / 65, 0.75, 0.375, 0.1])
    assert len(disputes.failures(tables, "b", 50, shapes)) == 3
    tables["b"].loc[2, ["native_pet_tp", "native_pet_fp", "native_pet_fn"]] = [0.0, 7.0, 0.0]
    found = disputes.failures({"size": tables["b"]}, "size", 1, shapes)
    assert found.columns.tolist() == ["size", "missed", "false_alarm", "size", "outline"]
    assert found.loc["pet_2", ["missed", "false_alarm"]].isna().all(), "there is no pet to have a share of"


def test_models_are_shown_under_the_border_policy_that_runs_are_compared_under(model, tmp_path):
    save_model(tmp_path / "model.safetensors", model.state_dict(), DESCRIPTION | {"border_policy": "edge"})
    ((_, description),) = disputes.load_models({"a": Run(tmp_path)}).values()
    assert description == DESCRIPTION


# Calibration and thresholds


@pytest.mark.parametrize("policy", BORDER_POLICIES)
def test_dice_at_one_half_is_that_of_evaluate(policy, model, pets, cache, fabric):
    description, test = DESCRIPTION | {"border_policy": policy}, pets.split("test")
    counts = calibration.count_probabilities(model, pets, test, cache, description, fabric)
    table = evaluation.evaluate(model, pets, test, cache, description, fabric)
    at_half = calibration.dice_by_threshold(counts)[:, calibration.THRESHOLDS == 0.5][:, 0]
    np.testing.assert_array_equal(at_half, evaluation.dice_per_image(table, "native", policy))
    assert 0 < at_half.mean() < 1


def test_every_threshold_cuts_where_a_prediction_does(model, pets, cache, fabric):
    test = pets.split("test")
    counts = calibration.count_probabilities(model, pets, test, cache, DESCRIPTION, fabric)
    (prediction,) = evaluation.predict(model, pets, test[2:3], DESCRIPTION, fabric)
    place = np.searchsorted(calibration.THRESHOLDS, np.median(prediction.probability))
    predicted, truth = prediction.probability > calibration.THRESHOLDS[place], prediction.truth > 0
    expected = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
    assert calibration.dice_by_threshold(counts)[2, place] == pytest.approx(expected, abs=1e-4)
    assert counts.pixels[2].sum() == truth.size
    assert counts.probability.sum() > 0


def test_what_does_not_count_is_not_counted(model, pets, cache, fabric):
    test = pets.split("test")
    ignore = DESCRIPTION | {"border_policy": "ignore"}
    counts = calibration.count_probabilities(model, pets, test, cache, ignore, fabric)
    for pixels, pet in zip(counts.pixels, test, strict=True):
        target, scored = target_and_scored(read_trimap(pets.trimap_path(pet)), "ignore")
        assert pixels.sum(axis=1).tolist() == [(scored & (target == 0)).sum(), target.sum()]


class Stripes(nn.Module):
    """Logits by column: -1, exactly 0, the smallest float above 0, and 1, whatever the photograph."""

    def forward(self, image):
        columns = torch.tensor([-1.0, 0.0, torch.finfo(torch.float32).tiny, 1.0]).repeat_interleave(image.shape[-1] // 4)
        return columns.expand(len(image), 1, image.shape[-1], -1)


def test_a_logit_of_zero_is_below_one_half_and_the_smallest_above_it(pets, cache, fabric, monkeypatch):
    monkeypatch.setattr(calibration, "to_size", lambda logits, size: np.ascontiguousarray(logits))
    monkeypatch.setattr(calibration, "read_trimap", lambda path: np.full((48, 48), 2, np.uint8))
    counts = calibration.count_probabilities(Stripes(), pets, pets.split("test"), cache, DESCRIPTION, fabric)
    filled = {int(place): int(counts.pixels[0, 0, place]) for place in np.flatnonzero(counts.pixels[0, 0])}
    assert filled == {26: 576, 49: 576, 50: 576, 73: 576}  # the sigmoid of -1 is 0.269, of 1 it is 0.731


def made_of(*images, policy="pet"):
    """ProbabilityCounts of images given as {(target, bin): pixels}, each probability at the middle of its bin."""
    pixels = np.zeros((len(images), 2, calibration.BINS), int)
    for image, entries in zip(pixels, images, strict=True):
        for place, number in entries.items():
            image[place] = number
    return calibration.ProbabilityCounts(policy, pixels, pixels.sum(axis=(0, 1)) * (np.arange(calibration.BINS) + 0.5) / 100)


def test_reliability_by_hand():
    counts = made_of({(0, 12): 30, (1, 13): 10}, {(1, 90): 60})
    table = calibration.reliability(counts, bins=10)
    assert table[["low", "high", "pixels"]].to_numpy().tolist() == [[0.1, 0.2, 40], [0.9, 1.0, 60]]
    assert table["predicted"].tolist() == pytest.approx([(30 * 0.125 + 10 * 0.135) / 40, 0.905])
    assert table["observed"].tolist() == [0.25, 1]
    error = 0.4 * (0.25 - 0.1275) + 0.6 * (1 - 0.905)
    assert calibration.expected_calibration_error(table) == pytest.approx(error)


def test_probabilities_that_are_true_have_no_error_and_shifted_ones_have():
    draws = np.random.default_rng(0)
    places = draws.integers(0, 100, 200_000)
    for power, low, high in ((1, 0, 0.005), (3, 0.2, 0.3)):
        truth = draws.random(len(places)) < ((places + 0.5) / 100) ** power
        pixels = np.bincount(places + 100 * truth, minlength=200).reshape(1, 2, 100)
        counts = calibration.ProbabilityCounts("pet", pixels, pixels.sum(axis=(0, 1)) * (np.arange(100) + 0.5) / 100)
        assert low <= calibration.expected_calibration_error(calibration.reliability(counts)) <= high


def test_the_threshold_is_chosen_on_valid_alone():
    valid = {"a": made_of({(1, 35): 10, (1, 90): 10, (0, 20): 10})}  # best between 0.21 and 0.35, of which 0.35 is nearest to 0.5
    test = {"a": made_of({(0, 40): 10, (1, 90): 10}, {(1, 40): 30, (1, 90): 10})}
    (row,) = calibration.threshold_table(valid, test).itertuples()
    assert (row.threshold, row.valid_images, row.border_policy) == (0.35, 1, "pet")
    assert (row.valid_half, row.valid_chosen) == pytest.approx((2 * 10 / 30, 1))
    assert (row.test_half, row.test_chosen) == pytest.approx(((1 + 0.4) / 2, (2 / 3 + 1) / 2))
    assert row.gain == pytest.approx(row.test_chosen - row.test_half)
    assert row.low <= row.gain <= row.high


@pytest.mark.parametrize("images", [4, 30])
def test_the_gain_of_a_threshold_has_an_interval_as_sure_as_asked(images):
    draws = np.random.default_rng(images).integers(1, [40, 160], (images, 2))
    valid = {"a": made_of({(1, 35): 10, (0, 20): 10})}
    test = {"a": made_of(*({(1, 40): hits, (0, 40): false, (1, 90): 20} for hits, false in draws))}
    (row,) = calibration.threshold_table(valid, test, 0.8).itertuples()
    dice = calibration.dice_by_threshold(test["a"])
    chosen, half = (int(100 * threshold) - 1 for threshold in (row.threshold, 0.5))
    expected = comparison.mean_interval(dice[:, chosen] - dice[:, half], 0.8)
    assert row.low < 0 and [row.gain, row.low, row.high] == pytest.approx([expected.mean, expected.low, expected.high])


def test_a_flat_curve_keeps_one_half_and_empty_images_score_1():
    counts = made_of({(0, 0): 5}, {(1, 99): 5})
    dice = calibration.dice_by_threshold(counts)
    np.testing.assert_array_equal(dice, np.ones((2, 99)))
    assert calibration.best_threshold(dice) == 0.5


@pytest.mark.parametrize(
    ("interval", "threshold", "words"),
    [
        ((0.01, 0.005, 0.02), 0.4, "do not explain"),
        ((0.01, -0.005, 0.02), 0.4, "do not tell from chance"),
        ((-0.01, -0.02, -0.005), 0.4, "a loss: 0.50 is the better choice"),
        ((0.0, 0.0, 0.0), 0.5, "nothing is gained or lost"),
    ],
)
def test_the_threshold_verdict_says_what_the_interval_allows(interval, threshold, words):
    gain, low, high = interval
    row = pd.Series({"run": "a", "border_policy": "ignore", "valid_images": 7, "threshold": threshold})
    row = pd.concat([row, pd.Series({"test_half": 0.8, "test_chosen": 0.8 + gain, "gain": gain, "low": low, "high": high})])
    sentence = calibration.threshold_verdict(row)
    assert words in sentence and "chosen on 7 valid images" in sentence and "(native, ignore)" in sentence


def test_equal_but_for_rounding_is_no_difference():
    assert comparison.mean_interval(np.array([0.5, 0.5 + 1e-16, 0.5])) == comparison.Interval(0.5, 0.5, 0.5)


def test_a_confidence_keeps_its_digits():
    assert [comparison.percent(share) for share in (0.95, 0.9, 0.975, 0.999)] == ["95%", "90%", "97.5%", "99.9%"]


def test_strata_side_by_side_keep_their_order():
    names = [("species", "dog"), ("species", "cat"), ("size", "small"), ("size", "middle"), ("size", "large")]
    rows = [(*name, 4, run, place + 0.1 * number) for place, name in enumerate(names) for number, run in enumerate(("b", "a"))]
    table = strata.side_by_side(pd.DataFrame(rows, columns=["factor", "stratum", "images", "run", "mean"]))
    assert [index[:2] for index in table.index] == names and list(table.columns) == ["b", "a"]
    assert table["a"].tolist() == pytest.approx([0.1, 1.1, 2.1, 3.1, 4.1])
