"""Many runs side by side, with intervals: what differs, and whether these images tell it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from lightning_fabric import Fabric
from scipy.stats import t as student

from petseg_lib.checkpoints import load_model
from petseg_lib.config import BorderPolicy, shown
from petseg_lib.data.cache import open_cache
from petseg_lib.data.masks import target_and_scored
from petseg_lib.data.pets import PetDataset
from petseg_lib.evaluation import ConstantModel, dice_per_image, dice_table, evaluate, policies_with_target
from petseg_lib.runs import Run, RunError
from petseg_lib.words import some

TOO_CLOSE = 0.02  # two seeds of one recipe lay this far apart, and farther on breeds not trained on (benchmarks/recipes.json)
ROUNDING = 1e-12  # values of Dice that differ by less are equal


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; of a single image, which tells nothing of others, from -inf to inf."""

    mean: float
    low: float
    high: float

    def __neg__(self) -> "Interval":
        """Of the difference taken the other way round."""
        return Interval(-self.mean, -self.high, -self.low)

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def mean_interval(values: np.ndarray, confidence: float = 0.95, lowest: float = -1.0) -> Interval:
    """The mean of values and Student's interval of it.

    A bootstrap's is too short here: most differences of two runs are small and some are large, of which a test split of a
    few dozen images has too few to draw from (benchmarks/NOTES.md; tests/test_evaluation.py bounds Student's misses).

    Args:
        values: (N,) of Dice; for a paired comparison, the differences on the same images.
        lowest: what no value can be below: -1 of differences, 0 of Dice.
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf)
    if np.ptp(values) < ROUNDING:
        return Interval(mean, mean, mean)
    reach = float(student.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, max(mean - reach, lowest), min(mean + reach, 1.0))


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """The runs by name; where several folders have the same name, with that of the folder above: `sample/unet`.

    Raises:
        RunError: two runs cannot be told apart.
    """
    often = Counter(run.name for run in runs)
    names = [run.name if often[run.name] == 1 else f"{run.folder.parent.name}/{run.name}" for run in runs]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise RunError(f"run {twice[0]} is named more than once: name every run once, and give two of one name other folders")
    return dict(zip(names, runs, strict=True))


def same_images(tables: dict[str, pd.DataFrame]) -> None:
    """Refuse to compare runs that were not measured on the same images with the same masks.

    Args:
        tables: each run's per_image table, by the run's name.
    """
    (first, reference), *others = tables.items()
    for name, table in others:
        if list(table["name"]) != list(reference["name"]):
            raise RunError(
                f"{first} was measured on {len(reference)} images and {name} on {len(table)}, not the same ones: "
                "run both with the same data and limit_images"
            )
        if (other := _marked(table) != _marked(reference)).any():
            raise RunError(
                f"{first} and {name} were measured on other masks of {some(reference['name'][other])}: where masks were mended "
                "in between, run the older one's notebook again in Jupyter or with papermill, which measures a finished run anew"
            )


def _marked(table: pd.DataFrame) -> np.ndarray:
    """(N,) the pixels of pet and border in the mask of each image of a per_image table."""
    return np.rint((table["native_pet_tp"] + table["native_pet_fn"]).to_numpy(dtype=float))


def same_photographs(tables: dict[str, pd.DataFrame], dataset: PetDataset) -> None:
    """Refuse a dataset whose test split is not what the runs were measured on.

    Args:
        tables: each run's per_image table, by the run's name, of the same images.
    """
    name, table = next(iter(tables.items()))
    test = [pet.name for pet in dataset.split("test")]
    if list(table["name"]) != test:
        raise RunError(
            f"{name} was measured on {len(table)} images, which are not the {len(test)} test images of {shown(dataset.root)}: "
            "give the data, limit_images and bad_samples that the runs had"
        )


def convention_table(tables: dict[str, pd.DataFrame], batch_sizes: dict[str, int]) -> pd.DataFrame:
    """Every Dice convention of every run: rows convention, resolution, border_policy (those with a target); a column a run."""
    keys = ["convention", "resolution", "border_policy"]
    columns = {name: dice_table(table, batch_sizes[name]).set_index(keys)["value"] for name, table in tables.items()}
    table = pd.DataFrame(columns)
    return table[table.index.isin(policies_with_target(next(iter(tables.values()))), level="border_policy")]


def dice_by_breed(tables: dict[str, pd.DataFrame], confidence: float = 0.95) -> pd.DataFrame:
    """dice_image (native, pet) of each breed and run, with its interval: run, species, breed, images, mean, low, high."""
    rows = []
    for run, table in tables.items():
        dice = dice_per_image(table).to_numpy()
        for (species, breed), index in table.groupby(["species", "breed"]).indices.items():
            interval = mean_interval(dice[index], confidence, lowest=0)
            rows.append((run, species, breed, len(index), interval.mean, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["run", "species", "breed", "images", "mean", "low", "high"])


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    confidence: float = 0.95,
    border_policy: BorderPolicy = "pet",
) -> tuple[np.ndarray, Interval]:
    """dice_image (native) of the second less the first, image by image, and the interval of its mean."""
    difference = (
        dice_per_image(second, "native", border_policy).to_numpy() - dice_per_image(first, "native", border_policy).to_numpy()
    )
    return difference, mean_interval(difference, confidence)


def percent(share: float) -> str:
    """A share in percent, with the digits it has: `95%`, `99.9%`."""
    return f"{round(100 * share, 6):g}%"


def apart(difference: float) -> str:
    """How far two Dices are apart, 0 or more: `0.0123`."""
    return f"{difference:.4f}" if difference == 0 or difference >= 0.00005 else "less than 0.0001"


def verdict(first: str, second: str, difference: Interval, confidence: float = 0.95) -> str:
    """One sentence: which run is better, and whether the difference is real.

    Args:
        difference: of `paired_difference`, the second less the first.
    """
    better, worse = (second, first) if difference.mean > 0 else (first, second)
    lead = difference if difference.mean >= 0 else -difference
    amount = f"{apart(lead.mean)} dice_image"
    if lead.low == lead.high == 0:
        return f"{first} and {second} have the same dice_image on each of these images."
    if lead.low <= 0:
        return (
            f"These images do not tell {first} and {second} apart: {better} is {amount} ahead, but the "
            f"{percent(confidence)} interval of its lead ({lead.low:+z.4f} to {lead.high:+z.4f}) includes zero."
        )
    interval = f"{percent(confidence)} interval {lead.low:.4f} to {lead.high:.4f}"
    sentence = f"{better} is better than {worse} by {amount} ({interval}, paired over images)"
    if lead.mean < TOO_CLOSE:
        return sentence + f"; but one training run each cannot support less than {TOO_CLOSE}: another seed may turn it round."
    return sentence + ": more than images drawn by chance explain. Another seed of the training is not in this interval."


def ranked(tables: dict[str, pd.DataFrame]) -> list[str]:
    """The runs' names, the one of the highest mean dice_image (native, pet) first."""
    return sorted(tables, key=lambda name: -dice_per_image(tables[name]).mean())


def paired_table(tables: dict[str, pd.DataFrame], confidence: float = 0.95) -> pd.DataFrame:
    """Every pair of runs on the same images: first each run against the best one, the closest pair on top.

    Each interval is for its pair alone. Among many runs the best is partly the luckiest on these images.

    Args:
        tables: each run's per_image table, by the run's name.

    Returns:
        run, against (the better one), images, ahead (images on which `run` is the better one), difference (mean dice_image,
        native, pet, of `run` less that of `against`: 0 or less), low, high. Empty where there is one run alone.
    """
    rows = []
    for better, worse in combinations(ranked(tables), 2):
        difference, interval = paired_difference(tables[better], tables[worse], confidence)
        rows.append((worse, better, len(difference), int((difference > 0).sum()), interval.mean, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["run", "against", "images", "ahead", "difference", "low", "high"])


def verdicts(pairs: pd.DataFrame, runs: Sequence[str], confidence: float = 0.95) -> list[str]:
    """A sentence for each run against the best one; one sentence that says so where there is no other.

    Args:
        pairs: of `paired_table`.
        runs: of `ranked`.
    """
    best = runs[0]
    if len(runs) == 1:
        return [f"{best} is the only run: there is no pair to compare."]
    rows = pairs[pairs["against"] == best].itertuples()
    return [verdict(best, row.run, Interval(row.difference, row.low, row.high), confidence) for row in rows]


def floors(dataset: PetDataset, run: Run, fabric: Fabric) -> dict[str, pd.DataFrame]:
    """Two models that know nothing of the photograph, measured as a run is: its size, its border policy, its test images.

    Raises:
        RunError: the dataset's masks are not those that the run was measured on.
    """
    _, description = load_model(run.folder / "model.safetensors")
    size, policy = description["image_size"], description["border_policy"]
    train, test = (dataset.split(split) for split in ("train", "test"))
    target, _ = target_and_scored(open_cache(dataset, train, size).trimaps, policy)
    constants = {"everything is pet": np.ones((size, size)), "average training mask": target.mean(axis=0)}
    cache = open_cache(dataset, test, size)
    tables = {
        name: evaluate(ConstantModel(probability), dataset, test, cache, description, fabric)
        for name, probability in constants.items()
    }
    if (run.folder / "per_image.csv").is_file():
        same_images({run.name: run.per_image} | tables)
    return tables


def summary_table(
    runs: dict[str, Run],
    tables: dict[str, pd.DataFrame],
    floor_tables: dict[str, pd.DataFrame],
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row a run: dice_image (native, pet) with its interval, and what the run cost; the floors, which cost nothing, below."""
    names = ("parameters", "gflop", "images_per_second", "epochs", "best_epoch", "training_seconds")
    costs = {run: {name: found.metrics[name] for name in names} for run, found in runs.items()}
    rows = []
    for name, table in (tables | floor_tables).items():
        interval = mean_interval(dice_per_image(table).to_numpy(), confidence, lowest=0)
        rows.append({"run": name, "dice": interval.mean, "low": interval.low, "high": interval.high} | costs.get(name, {}))
    return pd.DataFrame(rows).astype(dict.fromkeys(("parameters", "epochs", "best_epoch"), "Int64"))


def results_table(tables: dict[str, pd.DataFrame], batch_sizes: dict[str, int]) -> pd.DataFrame:
    """Every convention of every run in long form: run, convention, resolution, border_policy, value, images."""
    parts = [
        dice_table(table, batch_sizes.get(name, max(batch_sizes.values()))).assign(images=len(table)).assign(run=name)
        for name, table in tables.items()
    ]
    return pd.concat(parts)[["run", "convention", "resolution", "border_policy", "value", "images"]]
