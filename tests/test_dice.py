"""Counts, scores and losses against two other packages, and at their edges."""

import math
import pickle

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index, binary_stat_scores

from petseg_lib.dice import build_loss, count, dice_from_counts, iou_from_counts, soft_dice

LOSSES = ("bce_dice", "bce_dice_image", "bce", "dice", "double_sigmoid")
every_loss = pytest.mark.parametrize("loss", LOSSES)


def random_masks(seed, shape=(5, 1, 13, 17)):
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(shape[0], 1, 1, 1, generator=generator)  # from nearly empty to nearly full images
    prediction, target = (torch.rand(shape, generator=generator) < share for _ in range(2))
    return prediction, target, torch.rand(shape, generator=generator) < 0.8


def random_logits(seed=0, shape=(4, 1, 16, 12)):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    target = (torch.rand(shape, generator=generator) < 0.4).float()
    return logits, target, torch.rand(shape, generator=generator) < 0.7


# Counts and scores


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_scores_are_those_of_other_packages(seed):
    prediction, target, _ = random_masks(seed)
    counts = count(prediction, target)
    assert counts.dtype == torch.int64
    tp, fp, fn = counts.T
    smp_counts = smp.metrics.get_stats(prediction.long(), target.long(), mode="binary")
    assert torch.equal(counts, torch.cat(smp_counts[:3], dim=1))
    torchmetrics_counts = binary_stat_scores(prediction, target.long(), multidim_average="samplewise")
    assert torch.equal(counts, torchmetrics_counts[:, [0, 1, 3]])

    f1 = binary_f1_score(prediction, target.long(), multidim_average="samplewise")
    torch.testing.assert_close(dice_from_counts(tp, fp, fn), f1)
    dice, iou = dice_from_counts(tp, fp, fn), iou_from_counts(tp, fp, fn)
    torch.testing.assert_close(dice, smp.metrics.f1_score(*smp_counts).squeeze(1))
    torch.testing.assert_close(iou, smp.metrics.iou_score(*smp_counts).squeeze(1))
    pooled = [column.sum() for column in (tp, fp, fn)]
    torch.testing.assert_close(iou_from_counts(*pooled), binary_jaccard_index(prediction, target.long()))
    torch.testing.assert_close(dice_from_counts(*pooled), smp.metrics.f1_score(*smp_counts, reduction="micro"))


@pytest.mark.parametrize("seed", range(3))
def test_pixels_not_scored_are_not_counted(seed):
    prediction, target, scored = random_masks(seed)
    expected = [
        [*map(int, (((p & t & s).sum()), (p & ~t & s).sum(), (~p & t & s).sum()))]
        for p, t, s in zip(prediction, target, scored, strict=True)
    ]
    assert count(prediction, target, scored).tolist() == expected
    ignored = torch.where(scored, target.long(), -1)
    assert torch.equal(
        count(prediction, target, scored),
        binary_stat_scores(prediction, ignored, ignore_index=-1, multidim_average="samplewise")[:, [0, 1, 3]],
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_count_takes_zeros_and_ones_of_any_dtype(dtype):
    prediction, target, scored = random_masks(0, (3, 1, 40, 40))  # more than 255 pixels: no uint8 sum may wrap
    assert torch.equal(count(prediction.to(dtype), target.to(dtype), scored), count(prediction, target, scored))


ONES, ZEROS = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
HALF = torch.cat([ONES[..., :2], ZEROS[..., 2:]], dim=-1)
EDGES = {
    "perfect": (HALF, HALF, [8, 0, 0], 1.0, 1.0),
    "disjoint": (HALF, 1 - HALF, [0, 8, 8], 0.0, 0.0),
    "both empty": (ZEROS, ZEROS, [0, 0, 0], 1.0, 1.0),
    "prediction empty": (ZEROS, HALF, [0, 0, 8], 0.0, 0.0),
    "target empty": (HALF, ZEROS, [0, 8, 0], 0.0, 0.0),
    "twice too large": (ONES, HALF, [8, 8, 0], 2 / 3, 1 / 2),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge):
    prediction, target, counts, dice, iou = EDGES[edge]
    assert count(prediction, target).tolist() == [counts]
    for kind in (int, float, np.array, np.float32, torch.tensor):
        assert float(dice_from_counts(*map(kind, counts))) == pytest.approx(dice)
        assert float(iou_from_counts(*map(kind, counts))) == pytest.approx(iou)
    assert soft_dice(prediction, target).item() == pytest.approx(dice)


def test_scores_of_arrays_and_tensors():
    counts = np.array([[8, 8, 0], [0, 0, 0], [0, 1, 2]])
    for columns in (counts.T, torch.tensor(counts.T), torch.tensor(counts.T, dtype=torch.float32)):
        assert dice_from_counts(*columns).tolist() == pytest.approx([2 / 3, 1, 0])
        assert iou_from_counts(*columns).tolist() == pytest.approx([1 / 2, 1, 0])
    assert isinstance(dice_from_counts(*counts.T), np.ndarray)
    assert dice_from_counts(*counts.T).dtype == np.float64
    assert dice_from_counts(0.2, 0.1, 0.1) == pytest.approx(2 / 3)  # soft counts below one pixel
    assert dice_from_counts(*torch.tensor([0.2, 0.1, 0.1])).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.full((2, 1, 3, 3), 255, dtype=torch.uint8),
        torch.full((2, 1, 3, 3), 0.5),
        torch.full((2, 1, 3, 3), -1),
        torch.full((2, 1, 3, 3), math.nan),
    ],
)
def test_count_refuses_what_is_no_mask(wrong):
    good = torch.zeros(2, 1, 3, 3)
    with pytest.raises(ValueError, match="values of target must be 0 or 1, but one is"):
        count(good, wrong)
    with pytest.raises(ValueError, match="values of prediction must be 0 or 1, but one is"):
        count(wrong, good)


@pytest.mark.parametrize("function", [count, soft_dice, *map(build_loss, LOSSES)])
def test_shapes_and_scored_are_checked(function):
    mask = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"shapes must be the same, but they are \(2, 1, 4, 4\), \(2, 4, 4\)"):
        function(mask, mask[:, 0])
    with pytest.raises(ValueError, match="shapes must be the same"):
        function(mask, mask, torch.ones(2, 1, 4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"scored must be bool, but it is torch\.float32"):
        function(mask, mask, mask)


# Soft Dice


@pytest.mark.parametrize("seed", range(3))
def test_soft_dice_is_that_of_segmentation_models_pytorch(seed):
    logits, target, scored = random_logits(seed)
    probability = logits.sigmoid()
    expected = 1 - smp.losses.DiceLoss("binary")(logits, target)
    torch.testing.assert_close(soft_dice(probability, target), expected)
    ignored = torch.where(scored, target, 9)
    expected = 1 - smp.losses.DiceLoss("binary", ignore_index=9)(logits, ignored)
    torch.testing.assert_close(soft_dice(probability, target, scored), expected)


def test_soft_dice_of_hard_masks_is_the_pooled_dice():
    prediction, target, scored = random_masks(3)
    pooled = count(prediction, target, scored).sum(0)
    torch.testing.assert_close(soft_dice(prediction, target, scored), dice_from_counts(*pooled))


@pytest.mark.parametrize("wrong", [255.0, 1.0001, -0.001, math.nan])
def test_soft_dice_refuses_values_out_of_range(wrong):
    values = torch.zeros(1, 1, 2, 2)
    values[0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"values of probability run from .*, but they must lie in \[0, 1\]"):
        soft_dice(values, torch.zeros_like(values))
    with pytest.raises(ValueError, match=r"values of target run from"):
        soft_dice(torch.zeros_like(values), values)
    with pytest.raises(ValueError, match=r"values of target run from 0 to 255, but"):
        soft_dice(torch.zeros_like(values), torch.tensor([[[[0, 255], [0, 0]]]], dtype=torch.uint8))


# Losses


def test_losses_are_their_formulas():
    logits, target, _ = random_logits()
    bce = F.binary_cross_entropy_with_logits(logits, target)
    dice = smp.losses.DiceLoss("binary")(logits, target)
    each = torch.stack([smp.losses.DiceLoss("binary")(logits[i : i + 1], target[i : i + 1]) for i in range(4)]).mean()
    twice = F.binary_cross_entropy(logits.sigmoid().sigmoid(), target)
    expected = {"bce": bce, "dice": dice, "bce_dice": bce + dice, "bce_dice_image": bce + each}
    expected["double_sigmoid"] = twice + dice
    assert abs(each - dice) > 1e-3  # so that the test can tell them apart
    for name in LOSSES:
        torch.testing.assert_close(build_loss(name)(logits, target, None), expected[name])
        everything = torch.ones_like(target, dtype=torch.bool)
        torch.testing.assert_close(build_loss(name)(logits, target, everything), expected[name])


@every_loss
def test_pixels_not_scored_change_nothing(loss):
    logits, target, scored = random_logits()
    results = []
    for noise in (0.0, 5.0):
        changed = torch.where(scored, logits, logits + noise).requires_grad_()
        flipped = torch.where(scored, target, 1 - target) if noise else target
        value = build_loss(loss)(changed, flipped, scored)
        value.backward()
        assert (changed.grad[~scored] == 0).all()
        assert (changed.grad[scored] != 0).all()
        results.append((value.detach(), changed.grad))
    torch.testing.assert_close(results[0], results[1])


@every_loss
def test_loss_equals_that_of_the_scored_pixels_cut_out(loss):
    logits, target, _ = random_logits()
    scored = torch.zeros_like(target, dtype=torch.bool)
    scored[..., 2:9, 3:] = True
    cut = build_loss(loss)(logits[..., 2:9, 3:], target[..., 2:9, 3:], None)
    torch.testing.assert_close(build_loss(loss)(logits, target, scored), cut)


@every_loss
@pytest.mark.parametrize("case", ["nothing scored", "empty target", "huge logits", "all wrong"])
def test_losses_and_gradients_stay_finite(loss, case):
    logits, target, scored = random_logits()
    if case == "nothing scored":
        scored = torch.zeros_like(scored)
    elif case == "empty target":
        target = torch.zeros_like(target)
    else:
        logits = (2 * target - 1) * (1e4 if case == "huge logits" else -1e4)
    logits.requires_grad_()
    value = build_loss(loss)(logits, target, scored)
    value.backward()
    assert value.isfinite()
    assert value >= 0
    assert logits.grad.isfinite().all()
    if case == "nothing scored":
        assert value == 0
        assert (logits.grad == 0).all()


@every_loss
def test_empty_image_predicted_empty_costs_nothing(loss):
    logits, target = torch.full((2, 1, 8, 8), -200.0, requires_grad=True), torch.zeros(2, 1, 8, 8)
    value = build_loss(loss)(logits, target, None)
    value.backward()
    assert value.item() == pytest.approx(math.log(2) if loss == "double_sigmoid" else 0)
    assert logits.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_compute_in_float32(loss, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(2, 1, 300, 300, generator=generator)).to(dtype)  # sums beyond float16's 65504
    target = (torch.rand(logits.shape, generator=generator) < 0.5).to(dtype)
    exact = build_loss(loss)(logits.double().float(), target.float(), None)
    for autocast in (True, False):
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            mixed = build_loss(loss)(logits, target, None)
        assert mixed.dtype == torch.float32
        assert mixed.item() == pytest.approx(exact.item(), rel=1e-6)


@every_loss
def test_a_step_downhill_lowers_the_loss(loss):
    logits, target, scored = random_logits()
    logits = logits.requires_grad_()
    before = build_loss(loss)(logits, target, scored)
    before.backward()
    after = build_loss(loss)(logits.detach() - logits.grad, target, scored)
    assert after < before


@every_loss
def test_losses_can_be_sent_to_another_process(loss):
    assert pickle.loads(pickle.dumps(build_loss(loss))) is build_loss(loss)


def test_two_sigmoids_confine_the_scores():
    logits = torch.linspace(-30, 30, 1001)
    scores = logits.sigmoid().sigmoid()
    assert scores.min().item() == pytest.approx(0.5, abs=1e-3)
    assert scores.max().item() == pytest.approx(0.731, abs=1e-3)
    # So the report's loss cannot go below a floor, even where every pixel is right and sure.
    for target, floor in ((torch.zeros(1, 1, 4, 4), math.log(2)), (torch.ones(1, 1, 4, 4), math.log(1 + math.exp(-1)))):
        perfect = 200 * (2 * target - 1)
        assert build_loss("double_sigmoid")(perfect, target, None).item() == pytest.approx(floor)
        assert build_loss("bce_dice")(perfect, target, None).item() == pytest.approx(0)


def test_unknown_loss():
    with pytest.raises(ValueError, match="loss is 'focal', but it must be one of bce_dice, bce_dice_image, bce, dice"):
        build_loss("focal")
