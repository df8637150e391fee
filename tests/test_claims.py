"""Claims that one wrong line would break, held to numbers that are made in another way."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from small_model import DESCRIPTION, SETTINGS
from torchvision.models import ResNet34_Weights

from petseg_lib import ablations, calibration, checkpoints, comparison, cutouts, evaluation, runs, training
from petseg_lib.config import UNetParameters
from petseg_lib.conventions import convention_moves
from petseg_lib.data import own
from petseg_lib.data.augment import build_augmentation
from petseg_lib.data.cache import open_cache, resize_photograph
from petseg_lib.data.loaders import Batch, build_loader, halved_batch
from petseg_lib.data.masks import BORDER_POLICIES, target_and_scored
from petseg_lib.data.pets import PetDataset
from petseg_lib.data.pictures import read_trimap
from petseg_lib.dice import soft_dice
from petseg_lib.models import build_model
from petseg_lib.models.blocks import pad_to_stride
from petseg_lib.normalisation import mean_and_std

ALWAYS = {"flip_probability": 0.0, "affine_probability": 1.0, "shift": 0.0, "rotate": 0.0, "scale_min": 1.0, "scale_max": 1.0}
SMALL = {"image_size": 32, "width": 4, "depth": 2, "batch_size": 4, "epochs": 2, "device": "cpu"}


def changed(image: np.ndarray, trimap: np.ndarray, count: int = 150, **settings):
    augmentation = build_augmentation(UNetParameters(**ALWAYS | {"colour": 0.0} | settings), 0)
    return [augmentation(image=image, mask=trimap) for _ in range(count)]


def extent(values, low: float, high: float) -> None:
    near, least, most = 0.1 * (high - low), np.min(values, axis=0), np.max(values, axis=0)
    assert (low - near / 2 <= least).all() and (least < low + near).all()
    assert (high - near < most).all() and (most <= high + near / 2).all()


def test_flips_and_affine_changes_are_as_often_and_as_far_as_asked_for_and_go_both_ways():
    image, trimap = np.arange(96, dtype=np.uint8)[None, :, None].repeat(96, 0).repeat(3, 2), np.full((96, 96), 2, np.uint8)
    flipped = [each["image"][0, 0, 0] == 95 for each in changed(image, trimap, flip_probability=0.2, affine_probability=0.0)]
    assert np.mean(flipped) == pytest.approx(0.2, abs=0.1)
    trimap[42:54, 33:63] = 1
    kinds = ({"shift": 0.25}, {"scale_min": 0.5, "scale_max": 1.5}, {"rotate": 40.0})
    moved, zoomed, turned = ([np.argwhere(each["mask"] == 1) for each in changed(image, trimap, **kind)] for kind in kinds)
    extent([places.mean(axis=0) - [47.5, 47.5] for places in moved], -24, 24)
    sizes = np.array([(np.ptp(places, axis=0) + 1) / [12, 30] for places in zoomed])
    extent(sizes, 0.5, 1.5)
    assert np.abs(sizes[:, 0] - sizes[:, 1]).max() < 0.15, "no pet is squeezed"
    spreads = [np.cov(places.T) for places in turned]
    extent([np.degrees(np.arctan2(2 * each[0, 1], each[1, 1] - each[0, 0]) / 2) for each in spreads], -40, 40)


def test_colours_change_both_ways_and_as_far_as_asked_for_and_so_does_the_black_from_outside():
    image, trimap = np.full((64, 64, 3), 200, dtype=np.uint8), np.full((64, 64), 1, dtype=np.uint8)
    for colour in (0.0, 0.8):
        draws = changed(image, trimap, 40, shift=0.3, colour=colour)
        outside = [np.median(each["image"][each["mask"] == 2]) for each in draws if (each["mask"] == 2).sum() > 200]
        assert len(outside) > 20 and (max(outside) > 5) == (colour > 0)
    grey, two = (np.repeat(np.uint8(levels), 16)[:, None, None].repeat(32, 1).repeat(3, 2) for levels in ([100, 100], [60, 100]))
    plain, halves = (changed(image, grey[..., 0], affine_probability=0.0, colour=0.4) for image in (grey, two))
    extent([each["image"].mean() / 100 for each in plain], 0.6, 1.4)  # brightness
    ends = [(each["image"][20].mean(), each["image"][4].mean()) for each in halves]
    extent([4 * (high - low) / (high + low) for high, low in ends], 0.6, 1.4)  # contrast


def test_another_seed_has_another_order_masks_go_with_their_images_and_shrinking_passes_over_no_pixel(pets):
    cache = open_cache(pets, pets.split("train"), 32)
    given = SMALL | {"colour": 0.0, "flip_probability": 0.0, "affine_probability": 0.0, "cutmix": 1.0}
    both = [build_loader(cache, UNetParameters(**given, seed=seed), (0.5,) * 3, (0.5,) * 3, train=True) for seed in (0, 1)]
    first, other = (torch.cat([batch.index for batch in loader]).tolist() for loader in both)
    assert first != other and any(
        (batch.target[:, 0].numpy() != np.isin(cache.trimaps[batch.index], (1, 3))).any() for batch in both[0]
    )
    draws = torch.rand(2, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    large = draws.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    batch = halved_batch(Batch(torch.zeros(2, 3, 16, 16), large[0].float(), large[1], torch.arange(2)))
    assert torch.equal(batch.target, draws[0].float()) and torch.equal(batch.scored, draws[1])
    dots = np.tile(np.pad(np.full((1, 1, 3), 160, np.uint8), ((0, 3), (0, 3), (0, 0))), (20, 20, 1))
    assert set(np.unique(resize_photograph(dots, 20))) == {10}


@pytest.mark.parametrize(
    ("values", "pet"),
    [
        ([0, 100, 101, 200], [False, False, True, True]),  # half of the brightest is not brighter than half
        ([(0, 0, 0), (255, 255, 255), (200, 0, 0), (0, 90, 0)], [False, True, True, False]),  # in any channel
        ([(9, 9, 9, 90), (9, 9, 9, 255), (0, 0, 0, 128), (9, 9, 9, 127)], [False, True, True, False]),
    ],
)
def test_a_masks_pet_is_what_is_bright_or_opaque_by_more_than_half(values, pet):
    assert (own._trimap_of(Image.fromarray(np.array([values], dtype=np.uint8)))[0] == 1).tolist() == pet


def test_soft_sums_are_of_the_scored_pixels_and_their_target():
    probability, trimap = np.random.default_rng(0).random((20, 30)), (np.arange(600) % 7 % 3 + 1).reshape(20, 30)
    row = evaluation.soft_sums_by_policy(probability, trimap)
    for policy in BORDER_POLICIES:
        masks = [torch.from_numpy(each)[None, None] for each in (probability, *target_and_scored(trimap, policy))]
        hit, predicted, wanted = (row[f"{policy}_soft_{part}"] for part in ("intersection", "prediction", "target"))
        assert 2 * hit / (predicted + wanted) == pytest.approx(soft_dice(*masks).item(), rel=1e-5)


def test_pet_is_where_a_resized_logit_is_above_zero_and_truth_is_that_of_the_models_border_policy(pets, fabric):
    test, cache = pets.split("test")[:2], open_cache(pets, pets.split("test")[:2], 48)
    for left, right, cut in ((0.5, 0.5, -1), (1.0, 0.3, 23 + 13.8155 / (13.8155 + 0.8473))):  # where a line between logits is 0
        undecided = evaluation.ConstantModel(np.where(np.arange(48) < 24, left, right)[None].repeat(48, axis=0))
        for row in evaluation.evaluate(undecided, pets, test, cache, DESCRIPTION, fabric).itertuples():
            columns = (np.arange(row.width) + 0.5) * 48 / row.width - 0.5 < cut
            assert row.native_pet_tp + row.native_pet_fp == row.height * columns.sum()
            assert row.model_pet_tp + row.model_pet_fp == 48 * 24 * (cut > 0)
    trimap = np.asarray(Image.open(pets.trimap_path(test[0])))
    (prediction,) = evaluation.predict(undecided, pets, test[:1], DESCRIPTION | {"border_policy": "ignore"}, fabric)
    assert np.array_equal(prediction.truth, trimap == 1) and np.array_equal(prediction.scored, trimap != 3)


@pytest.mark.parametrize("confidence", [0.6, 0.95])
def test_an_interval_is_students_and_of_the_confidence_asked_for(confidence):
    values = np.random.default_rng(0).exponential(0.1, 25)
    # Confidence is the share of Student's t, of 24 degrees of freedom, that lies within the interval.
    interval = comparison.mean_interval(values, confidence)
    reach = (interval.high - values.mean()) / stats.sem(values)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)
    assert 2 * stats.t.cdf(reach, 24) - 1 == pytest.approx(confidence)


def counts(fp: list[int]) -> pd.DataFrame:
    table = pd.DataFrame({"name": [f"pet_{number}" for number in range(len(fp))]})
    for size, policy in product(("native", "model"), BORDER_POLICIES):
        table[f"{size}_{policy}_tp"], table[f"{size}_{policy}_fp"], table[f"{size}_{policy}_fn"] = 1, fp, 0
    return table


def test_breeds_are_means_the_same_dice_is_no_difference_and_pooling_moves_dice_towards_large_pets():
    table = counts([0, 2, 0, 6]).assign(breed=["pug", "Bengal"] * 2, species=["dog", "cat"] * 2)
    found = comparison.dice_by_breed({"a": table}).set_index("breed")
    assert found["mean"].to_dict() == pytest.approx({"Bengal": (1 / 2 + 1 / 4) / 2, "pug": 1})
    same = comparison.Interval(0.0, 0.0, 0.0)
    assert comparison.verdict("a", "b", same) == "a and b have the same dice_image on each of these images."
    assert ablations.Answer("", "", "a", "b", np.ones((2, 3, 4)), same).outcome == "not told apart"
    soft = {"intersection": [90.0, 2.0], "prediction": [100.0, 10.0], "target": [100.0, 10.0]}
    columns = {f"model_{policy}_soft_{part}": soft[part] for policy, part in product(BORDER_POLICIES, soft)}
    moves = convention_moves({"a": counts([0, 0]).assign(**columns)}, {"a": 2})["a"]
    assert moves["pooled over (soft)", "an image", "a batch"] == pytest.approx(92 / 110 - (0.9 + 0.2) / 2)


def test_mean_probabilities_lie_in_their_bins_and_are_of_the_split_and_policy(pets, fabric, tmp_path):
    torch.manual_seed(0)
    state = build_model("unet", **SETTINGS).state_dict()
    state["head.weight"] *= 30
    checkpoints.save_model(tmp_path / "model.safetensors", state, DESCRIPTION | {"border_policy": "edge"})
    found = calibration.count_run(runs.Run(tmp_path), pets, "valid", fabric)
    edges = (read_trimap(pets.trimap_path(pets.split("valid")[0])) == 3).sum()
    assert found.pixels[:, 1].sum() == edges and found.border_policy == "edge"
    table = calibration.reliability(found, bins=calibration.BINS)
    assert len(table) > 3 and table["predicted"].between(table["low"] - 1e-6, table["high"] + 1e-6).all()


def test_over_seeds_an_interval_is_of_crossed_random_effects_and_a_spread_of_a_sample():
    """Mean squares of a two-way layout (Searle, Casella, McCulloch 1992, "Variance components", chapter 4)."""
    values = np.array([[0.10, 0.02, 0.05, -0.04], [0.13, 0.06, 0.02, 0.01], [0.05, 0.03, 0.01, -0.06]])
    mean, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    by_seed, by_image = 4 * ((rows - mean) ** 2).sum() / 2, 3 * ((columns - mean) ** 2).sum() / 3
    both = sum((values[s, i] - rows[s] - columns[i] + mean) ** 2 for s, i in product(range(3), range(4))) / 6
    parts = by_seed / 12, (by_image - both) / 12
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3)
    for confidence in (0.8, 0.95):
        reach = stats.t.ppf((1 + confidence) / 2, freedom) * sum(parts) ** 0.5
        interval = ablations.interval_over_seeds(values, confidence)
        assert (interval.low, interval.mean, interval.high) == pytest.approx((mean - reach, mean, mean + reach))
    tables, metrics = [counts(fp) for fp in ([0, 2], [2, 6], [0, 0])], [{"training_seconds": each} for each in (1.0, 2.0, 9.0)]
    found = {seed: SimpleNamespace(complete=True, per_image=tables[seed], metrics=metrics[seed]) for seed in range(3)}
    sweep = SimpleNamespace(runs={"base": ("03_unet_training", {})}, points={"base": {"variant": "base"}})
    row = ablations.variants_table(sweep, {"base": found}).loc["base"]
    assert row[["dice_image", "sd", "seconds"]].tolist() == pytest.approx([17 / 24, np.std([3 / 4, 3 / 8, 1], ddof=1), 2.0])


def fit(pets, run_dir: str, images: int, **settings):
    parameters, mean, std = UNetParameters.checked(SMALL | {"run_dir": run_dir} | settings), (0.5,) * 3, (0.25,) * 3
    run, fabric = runs.open_run(parameters, "test"), training.start(parameters)
    caches = [open_cache(pets, split, 32) for split in (pets.split("train")[:images], pets.split("valid"))]
    loaders = [build_loader(cache, parameters, mean, std, train=not place) for place, cache in enumerate(caches)]
    model, description = build_model("unet", **SETTINGS), checkpoints.describe_model(parameters, mean, std)
    return run, model, training.fit(model, *loaders, parameters, run, fabric, description)


def test_averages_follow_steps_seeds_epochs_losses_weigh_batches_by_images_and_rates_come_down(pets, monkeypatch):
    averaged, plain = (fit(pets, f"runs/t/{ema}", 4, epochs=1, ema_decay=ema)[1].state_dict() for ema in (0.9, 0.0))
    assert all(torch.equal(value, averaged[name]) for name, value in plain.items())  # after the one step they are the model's
    epochs, seeds = training._train_epoch, []
    monkeypatch.setattr(training, "_train_epoch", lambda *given: seeds.append(torch.initial_seed()) or epochs(*given))
    monkeypatch.setattr(training, "build_loss", lambda name: lambda logits, *_: 0 * logits.mean() + len(logits))
    for number, seed in enumerate((0, 1, 0)):
        _, _, history = fit(pets, f"runs/t/{number}", 6, seed=seed, accumulate=2, learning_rate=0.01)
    begun = [(training.start(UNetParameters(seed=seed, device="cpu")), torch.rand(1).item())[1] for seed in (0, 1, 0)]
    assert len(set(seeds)) == 4 and seeds[:2] == seeds[4:] and begun[0] == begun[2] != begun[1]  # of dropout, of first weights
    assert history["train_loss"].tolist() == pytest.approx([(4 * 4 + 2 * 2) / 6] * 2)
    assert history["learning_rate"].iloc[-1] < 1e-5 < history["learning_rate"].iloc[0]


def test_a_model_ends_with_its_best_weights_and_metrics_are_those_of_its_history(pets, fabric, monkeypatch):
    measure, dices = training._measure, iter([0.9, 0.1])
    monkeypatch.setattr(training, "_measure", lambda *given: ((1.0, next(dices)), measure(*given)[1]))
    run, model, history = fit(pets, "runs/t/best", 4, border_policy="background")
    loaded, description = checkpoints.load_model(run.folder / "model.safetensors")
    assert description["border_policy"] == "background"
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert not model.training and not loaded.training and (description["mean"], description["std"]) == ([0.5] * 3, [0.25] * 3)
    found = training.metrics(UNetParameters(epochs=9), model, history.assign(seconds=[1.0, 2.0]), fabric)
    assert [found[name] for name in ("epochs", "best_epoch", "best_valid_dice", "training_seconds")] == [2, 1, 0.9, 3.0]


def test_named_normalisations_are_those_of_imagenet_and_of_the_report(pets, tmp_path):
    imagenet = ResNet34_Weights.IMAGENET1K_V1.transforms()
    found = [mean_and_std(UNetParameters(normalisation=name), runs.Run(tmp_path), pets)[:2] for name in ("imagenet", "report")]
    assert found == [(tuple(imagenet.mean), tuple(imagenet.std)), ((0.481, 0.449, 0.396), (0.269, 0.265, 0.273))]


def test_no_result_outlasts_a_forced_start_and_as_many_other_photographs_are_refused(pets):
    train = pets.split("train")
    first, last = (PetDataset(pets.root, pets.split("valid") + part) for part in (train[:4], train[-4:]))
    run, _, _ = fit(first, "runs/t/before", 4, epochs=1)
    with pytest.raises(runs.RunError, match="was begun with other photographs"):
        fit(last, "runs/t/before", 4, epochs=1)
    for name in ("per_image.csv", "stats.json", "cutouts.csv"):
        (run.folder / name).write_text("name\n")
    for name in ("masks", "cutouts"):
        (run.folder / name).mkdir()
    run.finish({})
    runs.open_run(UNetParameters.checked(SMALL | {"run_dir": "runs/t/before", "epochs": 1, "force": True}), "test")
    assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "params.json"]


def test_networks_pool_by_maximum_and_crop_what_they_padded():
    model, image = build_model("unet", **SETTINGS).eval(), torch.randn(1, 3, 33, 47)
    first, second, _ = model.encoder(image[..., :32, :32])
    torch.testing.assert_close(second, model.encoder.stages[1](torch.nn.functional.max_pool2d(first, 2)))
    torch.testing.assert_close(model(image), model(pad_to_stride(image, model.stride))[..., :33, :47])


def test_petseg_predict_cuts_at_the_threshold_given(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(cutouts, "load_run", lambda run_dir: (None, None, None))
    monkeypatch.setattr(cutouts, "cut_out_all", lambda *given: given)
    assert 0.7 in cutouts.cut_out_folder("run", str(pets.photograph_path(pets.pets[0])), str(tmp_path), 0.7)
