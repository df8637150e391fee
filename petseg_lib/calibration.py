"""Is a probability of 0.8 right 8 times in 10, and is 0.5 the best place to cut? Counted once, then arithmetic.

One pass gives, for every image, how many pixels got which probability, split by what they truly are. Reliability (Niculescu-Mizil
and Caruana 2005), the expected calibration error (Naeini et al. 2015) and Dice at every threshold all follow from that.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from petseg_lib.checkpoints import load_model
from petseg_lib.comparison import mean_interval, percent
from petseg_lib.data.cache import Cache, open_cache
from petseg_lib.data.masks import target_and_scored
from petseg_lib.data.pets import Pet, PetDataset
from petseg_lib.data.pictures import read_trimap
from petseg_lib.dice import dice_from_counts
from petseg_lib.evaluation import to_size
from petseg_lib.inference import map_passes
from petseg_lib.runs import Run

BINS = 100  # of probability; each threshold of two decimals is the edge of one, 0.5 too
THRESHOLDS = np.arange(1, BINS) / BINS
# Compared with logits: the sigmoid of a small logit rounds to 0.5, and `evaluate` cuts at a logit of exactly 0.
_EDGES = torch.from_numpy(np.log(THRESHOLDS / (1 - THRESHOLDS))).float()


@dataclass(frozen=True)
class ProbabilityCounts:
    """How many pixels of each image got which probability.

    Attributes:
        border_policy: what counts as the target.
        pixels: (N, 2, BINS) int64: of each image, where the target is 0 and where it is 1, pixels whose probability lies
            above k / BINS and not above (k + 1) / BINS, at the photograph's own size.
        probability: (BINS,) the sum of the probabilities in each bin, over all images.
    """

    border_policy: str
    pixels: np.ndarray
    probability: np.ndarray


def count_probabilities(
    model: nn.Module,
    dataset: PetDataset,
    pets: tuple[Pet, ...],
    cache: Cache,
    description: dict[str, Any],
    fabric: Fabric,
) -> ProbabilityCounts:
    """Probabilities of every scored pixel, once, under the model's own border policy. Arguments as of `evaluation.evaluate`."""
    policy = description["border_policy"]

    def counted(rows: slice, logits: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [_count(*each, dataset, policy) for each in zip(pets[rows], logits, strict=True)]

    parts = list(chain.from_iterable(map_passes(counted, model, cache, description, fabric)))
    assert len(parts) == len(pets), "every image of the split is counted exactly once"
    pixels, probability = zip(*parts, strict=True)
    return ProbabilityCounts(policy, np.stack(pixels), np.sum(probability, axis=0))


def count_run(run: Run, dataset: PetDataset, split: str, fabric: Fabric) -> ProbabilityCounts:
    """`count_probabilities` of a finished run on a split."""
    model, description = load_model(run.folder / "model.safetensors")
    pets = dataset.split(split)
    cache = open_cache(dataset, pets, description["image_size"])
    return count_probabilities(model, dataset, pets, cache, description, fabric)


def _count(pet: Pet, logits: np.ndarray, dataset: PetDataset, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """One image's part of `ProbabilityCounts`: (2, BINS) pixels and (BINS,) sums of probability."""
    target, scored = target_and_scored(read_trimap(dataset.trimap_path(pet)), policy)
    native = torch.from_numpy(to_size(logits, target.shape))
    place = torch.bucketize(native, _EDGES).numpy()[scored]
    pixels = np.bincount(place + BINS * target[scored], minlength=2 * BINS).reshape(2, BINS)
    return pixels, np.bincount(place, weights=native.sigmoid().numpy()[scored], minlength=BINS)


def reliability(counts: ProbabilityCounts, bins: int = 20) -> pd.DataFrame:
    """What was predicted and what was true, a row a bin of probability that holds any pixel.

    Args:
        bins: of equal width; it must divide BINS.

    Returns:
        low, high (the bin), predicted (mean probability), observed (share of pixels that are the target), pixels.
    """
    misses, hits = counts.pixels.sum(axis=0).reshape(2, bins, -1).sum(axis=2)
    total = misses + hits
    table = pd.DataFrame({"low": np.arange(bins) / bins, "high": np.arange(1, bins + 1) / bins, "pixels": total})
    table["predicted"] = counts.probability.reshape(bins, -1).sum(axis=1) / np.maximum(total, 1)
    table["observed"] = hits / np.maximum(total, 1)
    return table[total > 0].reset_index(drop=True)[["low", "high", "predicted", "observed", "pixels"]]


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance between predicted and observed over all pixels, bin by bin (Naeini et al. 2015, eq. 3): 0 is calibrated.

    Args:
        table: of `reliability`.
    """
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["pixels"]))


def dice_by_threshold(counts: ProbabilityCounts) -> np.ndarray:
    """dice_image of each image at each of THRESHOLDS, (N, BINS - 1): native size, pet where the probability is above it."""
    above = counts.pixels[..., ::-1].cumsum(axis=-1)[..., ::-1]
    false_positive, true_positive = above[:, 0, 1:], above[:, 1, 1:]
    return dice_from_counts(true_positive, false_positive, above[:, 1, :1] - true_positive)


def best_threshold(dice: np.ndarray) -> float:
    """The threshold of the highest mean Dice, and of several such the one nearest to 0.5.

    Args:
        dice: (N, BINS - 1), of `dice_by_threshold`; of the valid split, never of the one that is reported.
    """
    means = dice.mean(axis=0)
    best = THRESHOLDS[np.isclose(means, means.max(), rtol=0, atol=1e-12)]
    return float(best[np.abs(best - 0.5).argmin()])


def threshold_table(
    valid: dict[str, ProbabilityCounts], test: dict[str, ProbabilityCounts], confidence: float = 0.95
) -> pd.DataFrame:
    """What a threshold chosen on the valid split gives on the test split, beside 0.5.

    Args:
        valid, test: by the run's name.

    Returns:
        A row a run: run, border_policy, valid_images, threshold, valid_half and valid_chosen (mean dice_image on valid at 0.5
        and at the threshold), test_half, test_chosen, and gain, low, high: the paired difference on test with its interval.
    """
    rows = []
    for name, counts in valid.items():
        on_valid, on_test = dice_by_threshold(counts), dice_by_threshold(test[name])
        threshold = best_threshold(on_valid)
        half, chosen = (np.flatnonzero(value == THRESHOLDS)[0] for value in (0.5, threshold))
        gain = mean_interval(on_test[:, chosen] - on_test[:, half], confidence)
        means = {
            f"{split}_{kind}": dice[:, place].mean()
            for split, dice in (("valid", on_valid), ("test", on_test))
            for kind, place in (("half", half), ("chosen", chosen))
        }
        row = {"run": name, "border_policy": counts.border_policy, "valid_images": len(on_valid), "threshold": threshold}
        rows.append(row | means | {"gain": gain.mean, "low": gain.low, "high": gain.high})
    return pd.DataFrame(rows)


def threshold_verdict(row: Any, confidence: float = 0.95) -> str:
    """One sentence: what the chosen threshold is worth.

    Args:
        row: of `threshold_table`, as `itertuples` gives it.
    """
    chosen = (
        f"{row.run}: {row.threshold:.2f}, chosen on {row.valid_images} valid images, gives {row.test_chosen:.4f} dice_image "
        f"(native, {row.border_policy}) on test"
    )
    if row.threshold == 0.5:
        return f"{chosen}: it is 0.50 that is best on valid, so nothing is gained or lost."
    sentence = f"{chosen} and 0.50 gives {row.test_half:.4f}: {row.gain:+z.4f} ({percent(confidence)} interval {row.low:+z.4f} to {row.high:+z.4f})"
    worth = "which these images do not tell from chance"
    if row.low > 0:
        worth = "a gain that images drawn by chance do not explain; another training needs a threshold of its own"
    if row.high < 0:
        worth = "a loss: 0.50 is the better choice"
    return f"{sentence}, {worth}."
