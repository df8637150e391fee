"""Which photographs are hard: Dice by species, by how large the pet is, and by how long its outline is for its size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from petseg_lib.comparison import mean_interval
from petseg_lib.data.masks import target_and_scored
from petseg_lib.data.pets import Pet, PetDataset
from petseg_lib.data.pictures import read_trimap
from petseg_lib.evaluation import dice_per_image

THIRDS = {"size": ("small", "middle", "large"), "outline": ("short", "middle", "long")}


def outline_length(target: np.ndarray) -> float:
    """How long the line between target and background is, px; along the photograph's own edge there is none.

    Crofton's formula over lines in four directions, which is right for a circle and 5% short for an upright square. The
    trimap's border band is no measure of it: the band is wider in larger photographs.

    Args:
        target: (H, W), bool or 0 and 1.
    """
    target = np.asarray(target, dtype=bool)
    straight = (target[1:] ^ target[:-1]).sum() + (target[:, 1:] ^ target[:, :-1]).sum()
    diagonal = (target[1:, 1:] ^ target[:-1, :-1]).sum() + (target[1:, :-1] ^ target[:-1, 1:]).sum()
    return float(np.pi / 8 * (straight + diagonal / np.sqrt(2)))


def pet_shapes(dataset: PetDataset, pets: Sequence[Pet]) -> pd.DataFrame:
    """What makes a photograph hard, read off its trimap at its own size; border policy `pet`.

    Returns:
        A row a pet, by name: species; size, the share of the photograph that the pet covers, in [0, 1]; outline, the length
        of its outline over the square root of its area: 3.5 for a circle, more for what is thin or ragged, less for what the
        photograph cuts off.
    """
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(_shape, pets, [dataset] * len(pets)))
    return pd.DataFrame(rows, columns=["name", "species", "size", "outline"]).set_index("name")


def _shape(pet: Pet, dataset: PetDataset) -> tuple[str, str, float, float]:
    target, _ = target_and_scored(read_trimap(dataset.trimap_path(pet)), "pet")
    return pet.name, pet.species, float(target.mean()), outline_length(target) / max(float(np.sqrt(target.sum())), 1.0)


def thirds(values: pd.Series, names: tuple[str, str, str]) -> pd.Series:
    """The name of the third that each value lies in: of as equal numbers as can be, equal values in the rows' order."""
    ranks = values.rank(method="first").to_numpy(dtype=int) - 1
    return pd.Series(np.array(names)[3 * ranks // len(values)], index=values.index)


def dice_by_stratum(tables: dict[str, pd.DataFrame], shapes: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """dice_image (native, pet) by species and by thirds of the pets' size and outline, with intervals.

    Args:
        tables: each run's per_image table, of the same images, by the run's name.
        shapes: of `pet_shapes`, of the same images in the same order.

    Returns:
        factor, stratum, from and to (the factor's range in it; empty for species), images, run, mean, low, high.
    """
    dices = {run: dice_per_image(table).to_numpy() for run, table in tables.items()}
    rows = []
    for factor, stratum, start, end, index in _strata(shapes):
        for run, dice in dices.items():
            interval = mean_interval(dice[index], confidence, lowest=0)
            rows.append((factor, stratum, start, end, len(index), run, interval.mean, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["factor", "stratum", "from", "to", "images", "run", "mean", "low", "high"])


def side_by_side(by_stratum: pd.DataFrame) -> pd.DataFrame:
    """The means of `dice_by_stratum`: a stratum a row and a run a column, both in its order."""
    keys = ["factor", "stratum", "images"]
    strata = pd.MultiIndex.from_frame(by_stratum[keys].drop_duplicates())
    return by_stratum.pivot_table("mean", keys, "run").reindex(index=strata, columns=by_stratum["run"].unique())


def _strata(shapes: pd.DataFrame) -> list[tuple[str, str, float, float, np.ndarray]]:
    """factor, stratum, its range of values and its rows; a third that few images leave empty is no stratum."""
    found = [("species", name, np.nan, np.nan, rows) for name, rows in shapes.groupby("species").indices.items()]
    for factor, names in THIRDS.items():
        members, values = thirds(shapes[factor], names), shapes[factor].to_numpy()
        groups = {name: np.flatnonzero(members == name) for name in names}
        found += [(factor, name, values[rows].min(), values[rows].max(), rows) for name, rows in groups.items() if len(rows)]
    return found
