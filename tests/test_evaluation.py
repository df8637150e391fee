"""Counts, conventions and comparisons, against arithmetic done another way."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from scipy import stats
from small_model import DESCRIPTION, SETTINGS

from petseg_lib import comparison, evaluation, inference
from petseg_lib.checkpoints import load_model, save_model
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import normalise
from petseg_lib.data.masks import BORDER_POLICIES, target_and_scored
from petseg_lib.data.pictures import read_trimap
from petseg_lib.dice import count, soft_dice
from petseg_lib.models import build_model, convolutions
from petseg_lib.runs import RunError


@pytest.fixture(scope="module")
def measured(pets, fabric, tmp_path_factory):
    torch.manual_seed(0)
    model, test = build_model("unet", **SETTINGS), pets.split("test")
    cache = open_cache(pets, test, 48, tmp_path_factory.mktemp("cache"))
    assert len(test) > 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "PIXELS_A_PASS", 2 * 48**2)
        return model, cache, evaluation.evaluate(model, pets, test, cache, DESCRIPTION, fabric)


def test_threads_of_a_cpu_have_about_as_many_passes_each():
    given = [(298, 128, 2), (298, 96, 2), (8, 512, 2), (31, 128, 8), (7, 2048, 3), (1, 64, 4), (0, 64, 4)]  # images, px, threads
    assert [inference.images_a_pass(*each) for each in given] == [15, 25, 1, 4, 1, 1, 1]


@pytest.mark.parametrize(
    ("precision", "capabilities", "most"),
    [("32-true", {}, 1e-5), ("32-true", {"avx2": True}, 1e-5), ("bf16-mixed", {"avx512_bf16": True}, 1e-2)],
)
def test_how_many_images_go_through_together_moves_no_logit(measured, monkeypatch, precision, capabilities, most):
    cache = measured[1]
    torch.manual_seed(0)
    model = build_model("unet", width=4, depth=4)  # 3 x 3 px at its bottleneck
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    monkeypatch.setattr(convolutions, "MANY_WEIGHTS", 0)
    always = ((4, 0, 0), (2, 0, 0))
    monkeypatch.setattr(convolutions, "WINOGRAD_FROM", dict.fromkeys((torch.float32, torch.bfloat16), always))
    monkeypatch.setattr(convolutions, "_capabilities", lambda: capabilities)
    prepared = [layer for layer in inference.for_inference(model, fabric).modules() if isinstance(layer, convolutions.Conv3x3)]
    assert prepared and all(layer.filters == {} for layer in prepared), "they are kept from the first pass on"
    logits, sizes = [], []
    for images in (1, len(cache)):
        monkeypatch.setattr(inference, "images_a_pass", lambda *_, images=images: images)
        passes = inference.map_passes(lambda rows, logits: logits, model, cache, DESCRIPTION, fabric)
        sizes.append({len(each) for each in passes})
        logits.append(np.concatenate(passes))
    assert sizes == [{1}, {len(cache)}]
    assert logits[0].shape == (len(cache), 48, 48) and np.abs(logits[0] - logits[1]).max() < most * np.ptp(logits[0])


@pytest.mark.parametrize(("device", "layout"), [("cpu", torch.channels_last), ("mps", torch.contiguous_format)])
def test_images_to_measure_lie_in_memory_as_their_device_wants_them(device, layout):
    seen = []
    fabric = SimpleNamespace(device=torch.device(device), to_device=lambda image: image)
    image = normalise(np.zeros((2, 8, 8, 3), np.uint8), (0.5,) * 3, (0.25,) * 3)
    inference.logits_of(lambda given: seen.append(given) or given[:, :1], image, fabric)
    assert seen[0].is_contiguous(memory_format=layout)


def test_passes_come_in_order_and_leave_the_threads_as_they_were(measured, monkeypatch):
    model, cache, _ = measured
    monkeypatch.setattr(inference, "PIXELS_A_PASS", 48**2)
    fabric, before = Fabric(accelerator="cpu", devices=1), torch.get_num_threads()
    seen = []

    def in_a_new_thread(ask):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask).result()

    def measure(rows, logits):
        seen.append((torch.get_num_threads(), threading.get_ident()))
        return rows.start

    torch.set_num_threads(3)
    try:
        assert inference.map_passes(measure, model, cache, DESCRIPTION, fabric) == list(range(len(cache)))
        assert {threads for threads, _ in seen} == {1} and in_a_new_thread(torch.get_num_threads) == 3
        assert threading.get_ident() not in {thread for _, thread in seen}
        with pytest.raises(ZeroDivisionError):
            inference.map_passes(lambda rows, logits: 1 / 0, model, cache, DESCRIPTION, fabric)
        assert in_a_new_thread(torch.get_num_threads) == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_large_images_are_no_more_at_a_time_than_a_batch(measured, monkeypatch, batch_size):
    model, cache, _ = measured
    monkeypatch.setattr(inference, "PIXELS_A_PASS", 1)
    at_once, most, seen, lock = 0, 0, 0, threading.Lock()
    together = threading.Barrier(batch_size)  # as many as a batch are at work at the same moment, however slow the machine

    def measure(rows, logits):
        nonlocal at_once, most, seen
        with lock:
            at_once, seen = at_once + 1, seen + 1
            most, among_the_first = max(most, at_once), seen <= batch_size
        if among_the_first:
            together.wait(timeout=60)
        with lock:
            at_once -= 1

    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        inference.map_passes(measure, model, cache, DESCRIPTION, Fabric(accelerator="cpu", devices=1), batch_size)
    finally:
        torch.set_num_threads(before)
    assert most == batch_size and seen == len(cache)


def test_behind_a_gpu_measures_come_in_order_and_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(inference, "MOST_THREADS", 2)
    monkeypatch.setattr(inference, "usable_cores", lambda: 2)
    made, done, waiting = [], [], []

    def logits(rows):
        made.append(rows.start)
        waiting.append(len(made) - len(done))
        return np.zeros(rows.stop - rows.start)

    def measure(rows, logits):
        time.sleep(0.02)
        done.append(rows.start)
        return rows.start, len(logits)

    measures = inference._measured_behind(measure, logits, inference.passes(46, 4))
    assert measures == [(start, 4) for start in range(0, 44, 4)] + [(44, 2)]
    assert made == sorted(done) and max(waiting) == 2  # one that is measured, and the one just made


def test_counts_by_policy_are_those_of_target_and_scored():
    draws = np.random.default_rng(0)
    trimap, prediction = draws.integers(1, 4, (40, 30), dtype=np.uint8), draws.random((40, 30)) > 0.4
    row = evaluation.counts_by_policy(prediction, trimap)
    for policy in BORDER_POLICIES:
        target, scored = (torch.from_numpy(array)[None, None].bool() for array in target_and_scored(trimap, policy))
        expected = count(torch.from_numpy(prediction)[None, None], target, scored)[0].tolist()
        assert [row[f"{policy}_{kind}"] for kind in ("tp", "fp", "fn")] == expected


def test_every_image_is_measured_once_at_both_resolutions(pets, measured):
    _, cache, table = measured
    assert list(table["name"]) == [pet.name for pet in pets.split("test")]
    for row, pet in zip(table.itertuples(), pets.split("test"), strict=True):
        trimap = read_trimap(pets.trimap_path(pet))
        assert (row.height, row.width) == trimap.shape
        assert row.native_pet_tp + row.native_pet_fn == np.isin(trimap, (1, 3)).sum()
    assert (table["model_edge_tp"] + table["model_edge_fn"]).tolist() == (cache.trimaps == 3).sum((1, 2)).tolist()


@pytest.mark.parametrize("size", [(375, 500), (20, 90), (48, 48)])
def test_logits_are_resized_as_pytorch_does(size):
    logits = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(torch.from_numpy(evaluation.to_size(logits.numpy(), size)), expected, rtol=1e-4, atol=1e-4)


def test_the_soft_dice_of_a_batch_is_that_of_its_probabilities(pets, measured, fabric):
    model, cache, table = measured
    image = evaluation.normalise(cache.images, DESCRIPTION["mean"], DESCRIPTION["std"])
    with torch.no_grad():
        probability = model.eval()(image).sigmoid()
    target = torch.from_numpy(np.isin(cache.trimaps, (1, 3))).float()[:, None]
    expected = np.mean([soft_dice(probability[i : i + 4], target[i : i + 4]).item() for i in range(0, len(target), 4)])
    assert evaluation.dice_batch_soft(table, 4) == pytest.approx(expected, abs=1e-5)
    assert evaluation.dice_batch_soft(table, 4) != pytest.approx(evaluation.dice_batch_soft(table, 1), abs=1e-6)


def test_a_prediction_is_what_is_counted(pets, measured, fabric):
    model, _, table = measured
    pet = pets.split("test")[3]
    (prediction,) = evaluation.predict(model, pets, [pet], DESCRIPTION, fabric)
    hits = ((prediction.probability > 0.5) & (prediction.truth > 0)).sum()
    assert hits == table.loc[3, "native_pet_tp"]


def test_a_model_is_prepared_once_and_the_given_one_stays_as_it_is(pets, measured, fabric):
    model, names = measured[0], list(measured[0].state_dict())
    prepared = inference.for_inference(model, fabric)
    assert inference.for_inference(prepared, fabric) is prepared
    assert list(model.state_dict()) == names and len(prepared.state_dict()) < len(names)  # BatchNorm is folded
    ways = (evaluation.predict(each, pets, pets.split("test")[:1], DESCRIPTION, fabric)[0] for each in (model, prepared))
    np.testing.assert_array_equal(*(way.probability for way in ways))
    assert all(each.requires_grad for each in model.parameters()) and not any(
        each.requires_grad for each in prepared.parameters()
    )
    in_bf16 = inference.for_inference(model, Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    kept = [layer.filters is not None for layer in in_bf16.modules() if isinstance(layer, convolutions.Conv3x3)]
    assert kept and all(kept)


def test_weights_are_cast_to_float16_once_and_not_in_every_pass(measured):
    """For GPUs without bf16; Lightning Fabric has no float16 on a CPU, PyTorch has."""

    class OnSuchAGpu(Fabric):
        def setup_module(self, module):
            module.forward = autocast(module.forward)
            return module

    autocast, fabric = torch.autocast("cpu", torch.float16), OnSuchAGpu(accelerator="cpu", devices=1)
    images = torch.rand(2, 3, 32, 32)
    in_each_pass = inference.logits_of(inference.for_inference(measured[0], fabric), images, fabric)
    fabric._precision.precision = "16-mixed"
    prepared = inference.for_inference(measured[0], fabric)
    assert {each.weight.dtype for each in prepared.modules() if isinstance(each, torch.nn.Conv2d)} == {torch.float16}
    np.testing.assert_array_equal(inference.logits_of(prepared, images, fabric), in_each_pass)


def test_the_conventions_by_hand():
    counts = {"tp": [8, 0], "fp": [2, 0], "fn": [2, 10]}
    table = pd.DataFrame({"name": ["a", "b"]})
    for policy in BORDER_POLICIES:
        for kind, values in counts.items():
            table[f"native_{policy}_{kind}"] = table[f"model_{policy}_{kind}"] = values
        for part, values in {"intersection": [6.0, 0.0], "prediction": [9.0, 1.0], "target": [10.0, 10.0]}.items():
            table[f"model_{policy}_soft_{part}"] = values
    values = evaluation.dice_table(table, 2).query("border_policy == 'pet'").set_index(["convention", "resolution"])["value"]
    assert values["dice_image", "native"] == pytest.approx((0.8 + 0) / 2)
    assert values["dice_dataset", "native"] == pytest.approx(16 / (16 + 2 + 12))
    assert values["dice_batch_soft", "model"] == pytest.approx(2 * 6 / (10 + 20))


def test_a_saved_model_measures_the_same(measured, pets, fabric, tmp_path):
    model, cache, table = measured
    save_model(tmp_path / "model.safetensors", model.state_dict(), DESCRIPTION)
    loaded, description = load_model(tmp_path / "model.safetensors")
    assert description == DESCRIPTION
    again = evaluation.evaluate(loaded, pets, pets.split("test"), cache, description, fabric, batch_size=4)
    pd.testing.assert_frame_equal(again, table)


def test_a_file_that_is_no_model_is_one_sentence(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(RunError, match="is no safetensors file"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="does not exist"):
        load_model(tmp_path / "missing.safetensors")


def test_everything_is_pet_scores_what_its_share_says(pets, measured, fabric):
    _, cache, _ = measured
    everything = evaluation.ConstantModel(np.ones((48, 48)))
    table = evaluation.evaluate(everything, pets, pets.split("test"), cache, DESCRIPTION, fabric)
    share = np.array([np.isin(read_trimap(pets.trimap_path(pet)), (1, 3)).mean() for pet in pets.split("test")])
    np.testing.assert_allclose(evaluation.dice_per_image(table), 2 * share / (1 + share), atol=1e-12)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    draws = np.random.default_rng(1)
    intervals = [comparison.mean_interval(draws.normal(0.8, 0.1, 60), 0.9) for _ in range(1000)]
    assert 880 <= sum(each.low <= 0.8 <= each.high for each in intervals) <= 920


@pytest.mark.parametrize("images", [20, 30, 60, 120])
def test_an_interval_of_differences_most_of_which_are_small_misses_the_truth_about_one_time_in_twenty(images):
    draws = np.random.default_rng(images)
    spread = np.where(draws.random((2000, images)) < 0.1, 0.15, 0.02)  # a few photographs that one of two runs does not see
    intervals = [comparison.mean_interval(values) for values in draws.normal(0, spread)]
    assert 0.03 <= np.mean([not each.low <= 0 <= each.high for each in intervals]) <= 0.06


@pytest.mark.parametrize("images", [2, 3, 5, 10, 19])
@pytest.mark.parametrize("skewed", [False, True])
def test_an_interval_of_few_images_misses_the_truth_no_more_than_one_time_in_seven(images, skewed):
    random = np.random.default_rng(images)
    drawn = random.exponential(0.05, (600, images)) if skewed else random.normal(0.05, 0.05, (600, images))
    intervals = [comparison.mean_interval(-values) for values in drawn]
    assert 0.02 <= np.mean([not each.low <= -0.05 <= each.high for each in intervals]) <= 1 / 7


def test_no_interval_of_few_images_leaves_the_range_of_dice():
    assert comparison.mean_interval([0.9, 0.5]) == comparison.Interval(0.7, -1.0, 1.0)
    assert comparison.mean_interval([0.9, 0.5], lowest=0) == comparison.Interval(0.7, 0.0, 1.0)


def test_the_interval_is_students():
    values = np.random.default_rng(2).normal(0.1, 0.3, 1000)
    low, high = stats.t.interval(0.95, 999, values.mean(), stats.sem(values))
    interval = comparison.mean_interval(values)
    assert (interval.low, interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (comparison.Interval(0.02, -0.01, 0.05), "do not tell a and b apart"),
        (
            comparison.Interval(-0.02, -0.05, 0.01),
            "a is 0.0200 dice_image ahead, but the 95% interval of its lead (-0.0100 to +0.0500)",
        ),
        (comparison.Interval(0.05, 0.02, 0.08), "b is better than a by 0.0500"),
        (comparison.Interval(-0.05, -0.08, -0.02), "a is better than b by 0.0500 dice_image (95% interval 0.0200 to 0.0800"),
        (comparison.Interval(0.019, 0.001, 0.037), "cannot support less than 0.02: another seed may turn it round"),
        (comparison.Interval(0.02, 0.0, 0.05), "interval of its lead (+0.0000 to +0.0500) includes zero"),
        (comparison.Interval(0.05, 0.005, 0.09), "more than images drawn by chance explain"),
        (comparison.Interval(0.0, 0.0, 0.0), "a and b have the same dice_image on each of these images."),
    ],
)
def test_the_verdict_says_what_the_interval_allows(interval, words):
    assert words in comparison.verdict("a", "b", interval)


def test_runs_on_other_images_are_not_compared():
    one, two = pd.DataFrame({"name": ["x", "y"]}), pd.DataFrame({"name": ["x"]})
    with pytest.raises(RunError, match="a was measured on 2 images and b on 1"):
        comparison.same_images({"a": one, "b": two})
