"""Measure a model on a split: count first, score later.

One pass gives, for every image exactly once, the true positives, false positives and false negatives under every border
policy, at the network's input size (`model`) and at the photograph's own (`native`). Every Dice is arithmetic on that table.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from petseg_lib.checkpoints import load_run
from petseg_lib.config import BorderPolicy
from petseg_lib.data.cache import Cache, open_cache, resize_photograph
from petseg_lib.data.loaders import normalise
from petseg_lib.data.masks import BORDER_POLICIES, target_and_scored
from petseg_lib.data.pets import Pet, PetDataset, open_dataset
from petseg_lib.data.pictures import read_photograph, read_trimap
from petseg_lib.devices import open_fabric
from petseg_lib.dice import dice_from_counts
from petseg_lib.inference import for_inference, logits_of, map_passes

RESOLUTIONS = ("model", "native")
# Which of the trimap's values 1 pet, 2 background, 3 border are the target, and which are scored at all.
_TARGET: dict[BorderPolicy, tuple[int, ...]] = {"pet": (1, 3), "background": (1,), "edge": (3,), "ignore": (1,)}
_SCORED: dict[BorderPolicy, tuple[int, ...]] = {"pet": (1, 2, 3), "background": (1, 2, 3), "edge": (1, 2, 3), "ignore": (1, 2)}


def counts_by_policy(prediction: np.ndarray, trimap: np.ndarray) -> dict[str, int]:
    """Counts of one image under every border policy.

    Args:
        prediction: (H, W) bool, True where the model says pet.
        trimap: (H, W) uint8 of 1, 2, 3.

    Returns:
        `{policy}_tp`, `{policy}_fp`, `{policy}_fn` in pixels.
    """
    places = {value: trimap == value for value in (1, 2, 3)}  # several times as fast as np.bincount, which copies to int64
    there = {value: np.count_nonzero(place) for value, place in places.items()}
    hit = {value: np.count_nonzero(place & prediction) for value, place in places.items()}
    row = {}
    for policy in BORDER_POLICIES:
        true_positive = sum(hit[value] for value in _TARGET[policy])
        row[f"{policy}_tp"] = true_positive
        row[f"{policy}_fp"] = sum(hit[value] for value in _SCORED[policy]) - true_positive
        row[f"{policy}_fn"] = sum(there[value] for value in _TARGET[policy]) - true_positive
    return row


def soft_sums_by_policy(probability: np.ndarray, trimap: np.ndarray) -> dict[str, float]:
    """The three sums of a soft Dice of one image under every border policy.

    Args:
        probability: (H, W) float, 0 to 1.
        trimap: (H, W) uint8 of 1, 2, 3.

    Returns:
        `{policy}_soft_intersection`, `{policy}_soft_prediction`, `{policy}_soft_target`.
    """
    places = {value: trimap == value for value in (1, 2, 3)}
    there = {value: np.count_nonzero(place) for value, place in places.items()}
    mass = {value: probability[place].sum(dtype=np.float64) for value, place in places.items()}
    row = {}
    for policy in BORDER_POLICIES:
        row[f"{policy}_soft_intersection"] = float(sum(mass[value] for value in _TARGET[policy]))
        row[f"{policy}_soft_prediction"] = float(sum(mass[value] for value in _SCORED[policy]))
        row[f"{policy}_soft_target"] = float(sum(there[value] for value in _TARGET[policy]))
    return row


def evaluate(
    model: nn.Module,
    dataset: PetDataset,
    pets: tuple[Pet, ...],
    cache: Cache,
    description: dict[str, Any],
    fabric: Fabric,
    batch_size: int = 8,
) -> pd.DataFrame:
    """Counts of every image, once.

    Args:
        model: returns logits (N, 1, S, S); a copy of it is used, in evaluation mode and with BatchNorm folded into its convolutions.
        pets: the images to measure, in the cache's order.
        description: `checkpoints.describe_model`: its mean and std are used.
        batch_size: images a forward pass on a GPU. It moves no figure in the table.

    Returns:
        One row an image: name, breed, species, width, height, the counts `{resolution}_{policy}_{tp,fp,fn}` and the sums
        `model_{policy}_soft_{intersection,prediction,target}`.
    """

    def counted(rows: slice, logits: np.ndarray) -> list[dict[str, Any]]:
        return [_row(*each, dataset) for each in zip(pets[rows], logits, cache.trimaps[rows], strict=True)]

    table = pd.DataFrame(chain.from_iterable(map_passes(counted, model, cache, description, fabric, batch_size)))
    assert list(table["name"]) == [pet.name for pet in pets], "every image of the split is measured exactly once"
    return table


def _row(pet: Pet, logits: np.ndarray, model_trimap: np.ndarray, dataset: PetDataset) -> dict[str, Any]:
    native_trimap = read_trimap(dataset.trimap_path(pet))
    height, width = native_trimap.shape
    probability = torch.from_numpy(logits).sigmoid().numpy()
    row = {"name": pet.name, "breed": pet.breed, "species": pet.species, "width": width, "height": height}
    counts = {"model": counts_by_policy(logits > 0, model_trimap)}
    counts["native"] = counts_by_policy(to_size(logits, native_trimap.shape) > 0, native_trimap)
    row |= {f"{resolution}_{name}": value for resolution in RESOLUTIONS for name, value in counts[resolution].items()}
    return row | {f"model_{name}": value for name, value in soft_sums_by_policy(probability, model_trimap).items()}


def dice_per_image(per_image: pd.DataFrame, resolution: str = "native", border_policy: BorderPolicy = "pet") -> pd.Series:
    """Thresholded Dice of each image, by name."""
    counts = (per_image[f"{resolution}_{border_policy}_{kind}"].to_numpy() for kind in ("tp", "fp", "fn"))
    return pd.Series(dice_from_counts(*counts), index=per_image["name"], name="dice_image")


def dice_table(per_image: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """Every Dice convention: columns convention, resolution, border_policy, value.

    Args:
        per_image: as `evaluate` returns it.
        batch_size: of dice_batch_soft, which pools probabilities a batch at a time and so moves with it.
    """
    rows = []
    for policy in BORDER_POLICIES:
        for resolution in reversed(RESOLUTIONS):
            total = [per_image[f"{resolution}_{policy}_{kind}"].sum() for kind in ("tp", "fp", "fn")]
            rows.append(("dice_image", resolution, policy, float(dice_per_image(per_image, resolution, policy).mean())))
            rows.append(("dice_dataset", resolution, policy, float(dice_from_counts(*total))))
        rows.append(("dice_batch_soft", "model", policy, dice_batch_soft(per_image, batch_size, policy)))
    return pd.DataFrame(rows, columns=["convention", "resolution", "border_policy", "value"])


def headline(table: pd.DataFrame, border_policy: BorderPolicy) -> dict[str, float]:
    """The figures of one border policy out of a `dice_table`, by names such as `dice_image_native`."""
    rows = table[table["border_policy"] == border_policy]
    return {f"{row.convention}_{row.resolution}": row.value for row in rows.itertuples()}


def policies_with_target(per_image: pd.DataFrame) -> list[str]:
    """The border policies under which there is something to find: `edge` is none of them where no trimap has a border."""
    return [policy for policy in BORDER_POLICIES if per_image[[f"native_{policy}_tp", f"native_{policy}_fn"]].to_numpy().any()]


def dice_batch_soft(per_image: pd.DataFrame, batch_size: int, border_policy: BorderPolicy = "pet") -> float:
    """Dice of probabilities, pooled over each batch in the table's order, then the mean over batches: the report's figure."""
    columns = [f"model_{border_policy}_soft_{part}" for part in ("intersection", "prediction", "target")]
    batches = per_image[columns].groupby(np.arange(len(per_image)) // batch_size).sum().to_numpy().T
    intersection, predicted, target = batches
    return float(dice_from_counts(intersection, predicted - intersection, target - intersection).mean())


class Prediction(NamedTuple):
    """One photograph with its truth and what a model, or several, make of it.

    photograph: (H, W, 3) uint8. truth: (H, W), 0 or 1. probability: (H, W) in [0, 1], or a dictionary of such by the
    model's name. scored: (H, W) bool, False where a pixel does not count; None = all count.
    """

    photograph: np.ndarray
    truth: np.ndarray
    probability: np.ndarray | Mapping[str, np.ndarray]
    scored: np.ndarray | None = None

    def by_model(self) -> dict[str, np.ndarray]:
        """Probability by the model's name; the name is empty where there is one model without a name."""
        return dict(self.probability) if isinstance(self.probability, Mapping) else {"": self.probability}


def predict(
    model: nn.Module, dataset: PetDataset, pets: Sequence[Pet], description: dict[str, Any], fabric: Fabric
) -> list[Prediction]:
    """The model's probabilities for a few photographs, at their own size.

    Thresholded at 0.5 they are what `evaluate` counts, but for logits so little above 0 that their sigmoid is rounded to 0.5.
    """
    model = for_inference(model, fabric)
    predictions = []
    for pet in pets:
        photograph = read_photograph(dataset.photograph_path(pet))
        truth, scored = target_and_scored(read_trimap(dataset.trimap_path(pet)), description["border_policy"])
        predictions.append(Prediction(photograph, truth, probabilities(model, photograph, description, fabric), scored))
    return predictions


def probabilities(model: nn.Module, photograph: np.ndarray, description: dict[str, Any], fabric: Fabric) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) float32 in [0, 1], how sure the model is of each pixel that it is pet.

    Args:
        model: of `for_inference`.
        description: `checkpoints.describe_model` of it.
    """
    small = resize_photograph(photograph, description["image_size"])
    image = normalise(small[None], description["mean"], description["std"])
    logits = to_size(logits_of(model, image, fabric)[0], photograph.shape[:2])
    return torch.from_numpy(logits).sigmoid().numpy()


def to_size(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(S, S) float32 logits, bilinearly resized to (H, W): as PyTorch's `interpolate` without `align_corners`, and faster."""
    height, width = size
    return cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)


def predict_by_run(
    models: dict[str, tuple[nn.Module, dict[str, Any]]], dataset: PetDataset, pets: Sequence[Pet], fabric: Fabric
) -> list[Prediction]:
    """The same photographs through several models, each with its description: probabilities by the run's name."""
    by_run = {name: predict(model, dataset, pets, description, fabric) for name, (model, description) in models.items()}
    first = next(iter(by_run.values()))
    probabilities = [{name: column[row].probability for name, column in by_run.items()} for row in range(len(pets))]
    return [each._replace(probability=by_model) for each, by_model in zip(first, probabilities, strict=True)]


class ConstantModel(nn.Module):
    """A floor to compare with: the same probabilities for every photograph."""

    def __init__(self, probability: np.ndarray) -> None:
        """Args: probability: (S, S) in [0, 1]."""
        super().__init__()
        limited = torch.from_numpy(np.asarray(probability, dtype=np.float32)).clamp(1e-6, 1 - 1e-6)
        self.register_buffer("logits", limited.logit()[None, None])

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.expand(len(image), -1, -1, -1)


def evaluate_run(run_dir: str, data: str, split: str = "test") -> pd.DataFrame:
    """Measure a run again, with its best weights, on any folder: its `dice_table`, and of how many images it is.

    Raises:
        RunError: the run has no usable model.
        DatasetError: the folder cannot be read.
    """
    run, model, description = load_run(run_dir)
    dataset = open_dataset(data)
    pets = dataset.split(split)
    cache = open_cache(dataset, pets, description["image_size"])
    batch_size = run.parameters["batch_size"]
    table = evaluate(model, dataset, pets, cache, description, open_fabric(), batch_size)
    return dice_table(table, batch_size).assign(images=len(table))
