"""How far the convention alone moves a run's Dice: the same predictions, scored in other ways."""

import pandas as pd

from petseg_lib.comparison import apart
from petseg_lib.evaluation import dice_batch_soft, dice_table, policies_with_target

HEADLINE = ("dice_image", "native", "pet")  # convention, resolution, border_policy: what the project quotes first


def convention_moves(tables: dict[str, pd.DataFrame], batch_sizes: dict[str, int]) -> pd.DataFrame:
    """What one change of convention adds to a run's Dice, all else the same.

    Args:
        tables: each run's per_image table, by the run's name.
        batch_sizes: of dice_batch_soft, by the run's name.

    Returns:
        A row a change (what is changed, from, to), a column a run.
    """
    moves = {name: _moves(table, batch_sizes[name]) for name, table in tables.items()}
    return pd.DataFrame(moves).rename_axis(["changed", "from", "to"])


def _moves(table: pd.DataFrame, batch_size: int) -> pd.Series:
    values = _values(table, batch_size)
    one = dice_batch_soft(table, 1)  # soft as it is image by image, so that thresholding and pooling are told apart
    model = values["dice_image", "model", "pet"]
    moves = {
        ("resolution", "native", "model"): model - values[HEADLINE],
        ("pooled over", "an image", "the dataset"): values["dice_dataset", "native", "pet"] - values[HEADLINE],
        ("prediction", "thresholded", "soft"): one - model,
        ("pooled over (soft)", "an image", "a batch"): values["dice_batch_soft", "model", "pet"] - one,
    }
    others = [policy for policy in policies_with_target(table) if policy != HEADLINE[2]]
    moves |= {
        ("border policy", HEADLINE[2], policy): values["dice_image", "native", policy] - values[HEADLINE] for policy in others
    }
    return pd.Series(moves)


def _values(table: pd.DataFrame, batch_size: int) -> pd.Series:
    return dice_table(table, batch_size).set_index(["convention", "resolution", "border_policy"])["value"]


def convention_verdict(conventions: pd.DataFrame, run: str) -> str:
    """In sentences: between which figures the convention alone moves a run, and how far apart the runs are in one of them.

    Args:
        conventions: of `comparison.convention_table`.
        run: the name of a column.
    """
    values = conventions[run]
    policy = HEADLINE[2]
    sentence = f"{run}: the same predictions score {_span(values)}"
    sentence += f"; under border policy {policy} alone {_span(values.xs(policy, level='border_policy'))}."
    if conventions.shape[1] == 1:
        return sentence
    runs = conventions.loc[HEADLINE]
    return f"{sentence} In one convention ({', '.join(HEADLINE)}) best and worst run are {apart(runs.max() - runs.min())} apart."


def _span(values: pd.Series) -> str:
    lowest, highest = values.idxmin(), values.idxmax()
    distance = apart(values.max() - values.min())
    return f"{values.min():.4f} ({', '.join(lowest)}) to {values.max():.4f} ({', '.join(highest)}), {distance} apart"
