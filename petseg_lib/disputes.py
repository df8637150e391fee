"""Single photographs worth a look: where the runs disagree most, and where the best of them fails."""

from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from petseg_lib.checkpoints import load_model
from petseg_lib.evaluation import dice_per_image
from petseg_lib.runs import Run


def disagreement(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far apart the runs are on each photograph, the most disputed first.

    Args:
        tables: each run's per_image table, of the same images, by the run's name.

    Returns:
        By name: breed, spread (highest less lowest dice_image, native, pet), and the runs that are best and worst there.
    """
    breeds = next(iter(tables.values())).set_index("name")["breed"]
    dice = _dice(tables)
    spread = dice.max(axis=1) - dice.min(axis=1)
    found = pd.DataFrame({"breed": breeds, "spread": spread, "best": dice.idxmax(axis=1), "worst": dice.idxmin(axis=1)})
    return found.sort_values("spread", ascending=False, kind="stable")


def disputed(table: pd.DataFrame, most: int = 3) -> list[str]:
    """Names of photographs to show: for each run the most disputed one on which it is the best, and the least disputed of all.

    Args:
        table: of `disagreement`.
        most: disputed photographs at most.
    """
    of_each = table.drop_duplicates("best").index[:most]
    return list(dict.fromkeys([*of_each, table.index[-1]]))


def failures(tables: dict[str, pd.DataFrame], run: str, count: int, shapes: pd.DataFrame) -> pd.DataFrame:
    """The photographs on which a run is worst, the worst first.

    Args:
        tables: each run's per_image table, of the same images, by the run's name.
        run: whose failures they are.
        count: of photographs at most.
        shapes: of `strata.pet_shapes`.

    Returns:
        By name: missed (share of the pet's pixels that the run misses) and false_alarm (pixels wrongly called pet, as a share
        of the pet's), dice_image (native, pet) of every run, that of `run` first, and the pet's size and outline.
    """
    counts = tables[run].set_index("name")
    pet = (counts["native_pet_tp"] + counts["native_pet_fn"]).replace(0, np.nan)  # no share of a pet that is not there
    kinds = pd.DataFrame({"missed": counts["native_pet_fn"] / pet, "false_alarm": counts["native_pet_fp"] / pet})
    dice = _dice({run: tables[run]} | tables)
    worst = dice[run].sort_values(kind="stable").index[:count]
    parts = (dice, kinds, shapes[["size", "outline"]])
    return pd.concat([part.loc[worst] for part in parts], axis=1)  # no join: a run may be called `size`


def load_models(runs: dict[str, Run]) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """The runs' models with their descriptions, for `evaluation.predict_by_run`: the truth is that of border policy `pet`.

    Under it runs are compared, whatever they were trained for, so that a picture's Dice is the one in the tables.
    """
    loaded = {name: load_model(run.folder / "model.safetensors") for name, run in runs.items()}
    return {name: (model, description | {"border_policy": "pet"}) for name, (model, description) in loaded.items()}


def _dice(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame({name: dice_per_image(table) for name, table in tables.items()})
