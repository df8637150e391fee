"""Which photographs are hard."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from petseg_lib.comparison import percent
from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import run_looks
from petseg_lib.words import in_words

_TITLES = {
    "species": "species",
    "size": "size of the pet (share of the photograph)",
    "outline": "length of its outline (over √area)",
}


@styled
def dice_by_stratum(table: pd.DataFrame, confidence: float = 0.95) -> Figure:
    """Mean Dice of each run with its interval, by species and by thirds of the pets' size and of their outline's length.

    Args:
        table: factor, stratum, from, to, images, run, mean, low, high, as `strata.dice_by_stratum` gives.
        confidence: of the intervals.
    """
    factors = list(dict.fromkeys(table["factor"]))
    looks = run_looks(table["run"].unique())
    groups = {factor: table[table["factor"] == factor] for factor in factors}
    widths = [1 + groups[factor]["stratum"].nunique() for factor in factors]
    figure, axes = chart(len(factors), height=3.9, sharey=True, width_ratios=widths, squeeze=False)
    step = min(0.16, 0.7 / len(looks))
    for panel, factor in zip(axes[0], factors, strict=True):
        strata = groups[factor].drop_duplicates("stratum")
        for number, (name, look) in enumerate(looks.items()):
            rows = groups[factor][groups[factor]["run"] == name]
            places = np.arange(len(rows)) + step * (number - (len(looks) - 1) / 2)
            errors = (rows["mean"] - rows["low"], rows["high"] - rows["mean"])
            panel.errorbar(
                places, rows["mean"], errors, fmt=look.marker, color=look.colour, markersize=6, elinewidth=1.4, label=look.label
            )
        panel.set_xticks(range(len(strata)), [_stratum(row) for _, row in strata.iterrows()])
        panel.set(title=_TITLES[factor], xlim=(-0.6, len(strata) - 0.4))
        panel.grid(axis="x", visible=False)
        panel.tick_params(axis="x", length=0)
    axes[0, 0].set_ylabel(f"dice_image, native, with {percent(confidence)} interval")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 5))
    return figure


def _stratum(row: pd.Series) -> str:
    """Under each group: its name, the range of values in it, and how many images."""
    ranges = {"size": f"{row['from']:.0%} to {row['to']:.0%}\n", "outline": f"{row['from']:.1f} to {row['to']:.1f}\n"}
    return f"{row['stratum']}\n{ranges.get(row['factor'], '')}{in_words(row['images'], 'image')}"
