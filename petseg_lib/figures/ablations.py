"""Variants of a recipe over seeds: curves, paired differences, and the answers to many questions at once."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from petseg_lib.comparison import percent
from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import BLUE, GREY, INK, ORANGE, VERMILION, run_labels

# They differ in lightness, marker and line too. Dashes lie on top: what is under a dashed line is still seen.
_DASHED, _SOLID = (ORANGE, "s", (0, (4, 1.5)), 3), (BLUE, "o", "solid", 2)
OUTCOMES = {"better": (BLUE, "o"), "worse": (VERMILION, "s"), "not told apart": (GREY, "D")}


@styled
def ablation_panel(
    histories: Mapping[str, Sequence[pd.DataFrame]], by_seed: Mapping[int, float], interval: Any, confidence: float = 0.95
) -> Figure:
    """Two variants over seeds: validation Dice by epoch, and the paired test difference.

    Args:
        histories: by the variant's name, the first and the second: one table a seed with epoch and valid_dice.
        by_seed: mean difference in Dice of each seed, the second less the first.
        interval: has `mean`, `low`, `high`, as `comparison.Interval`.
        confidence: of the interval.
    """
    figure, (curves, difference) = chart(2, height=3.3, width_ratios=[1.25, 1])
    looks = (_SOLID, _DASHED) if next(iter(histories)) == "base" else (_DASHED, _SOLID)  # `base` looks the same in every panel
    labels = run_labels(histories)
    for (name, tables), look in zip(histories.items(), looks, strict=True):
        _mean_and_range(curves, tables, labels[name], *look)
    curves.set(xlabel="epoch", ylabel="validation dice_image,\nown border policy")
    curves.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    figure.legend(loc="outside upper left", ncols=2)
    first, second = labels.values()
    places = np.arange(len(by_seed), 0, -1)
    difference.axvline(0, color=INK, linewidth=1)
    difference.plot(list(by_seed.values()), places, "o", color=GREY, markersize=6)
    error = [[interval.mean - interval.low], [interval.high - interval.mean]]
    difference.errorbar(interval.mean, 0, xerr=error, fmt="D", color=INK, markersize=7, elinewidth=2, capsize=4)
    difference.set_yticks([*places, 0], [*(f"seed {seed}" for seed in by_seed), f"all, {percent(confidence)}\ninterval"])
    difference.set_ylim(-0.7, len(by_seed) + 0.6)
    far = [abs(end) for end in (*by_seed.values(), interval.low, interval.high) if np.isfinite(end)]  # one image says nothing
    reach = 1.15 * max(*far, 1e-4)
    difference.set_xlim(-reach, reach)
    difference.xaxis.set_major_locator(MaxNLocator(5))
    difference.set_xlabel(f"dice_image, native:\n{second}\nless {first}")
    difference.grid(axis="y", visible=False)
    difference.tick_params(axis="y", length=0)
    return figure


def _mean_and_range(
    axes: Axes, tables: Sequence[pd.DataFrame], label: str, colour: str, marker: str, line: Any, layer: float
) -> None:
    """As far as every seed goes (`patience` ends some early): where one is gone, the mean of those left would jump."""
    dice = pd.concat([table.set_index("epoch")["valid_dice"] for table in tables], axis=1, join="inner")
    axes.fill_between(dice.index, dice.min(axis=1), dice.max(axis=1), color=colour, alpha=0.22, linewidth=0)
    mean = dice.mean(axis=1)
    style = {"color": colour, "linestyle": line, "marker": marker, "markevery": [len(mean) - 1], "markersize": 7}
    axes.plot(mean.index, mean, **style, label=label, zorder=layer)


@styled
def variants(dice: Mapping[str, np.ndarray]) -> Figure:
    """Each variant's test Dice, one row each, in the order given: every seed, their mean, and how far they spread.

    Args:
        dice: by the variant's name, (S, N) dice_image by seed and image, as `ablations.dice_by_seed` gives.
    """
    figure, axes = chart(height=0.9 + 0.36 * len(dice))
    for place, values in enumerate(dice.values()):
        by_seed = values.mean(axis=1)
        axes.plot(
            by_seed, np.full(len(by_seed), place), "o", color=GREY, markersize=6, alpha=0.8, label="" if place else "a seed"
        )
        mean = {"marker": "|", "markersize": 17, "markeredgewidth": 2.5, "linestyle": "none", "color": INK}
        axes.plot(by_seed.mean(), place, **mean, label="" if place else "mean")
        spread = f" ± {by_seed.std(ddof=1):.4f}" if len(by_seed) > 1 else ""
        words = f"{by_seed.mean():.4f}{spread}"
        axes.annotate(words, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
    axes.set_yticks(range(len(dice)), run_labels(dice).values())
    axes.set(xlabel="dice_image, native, of the test images (right: mean and standard deviation over seeds)")
    axes.set_ylim(len(dice) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def answers(table: pd.DataFrame, confidence: float = 0.95) -> Figure:
    """Every question's difference with its interval, one row each, in the table's order.

    Args:
        table: question, first, second, difference, low, high, seeds, outcome, report, as `ablations.answers_table` gives.
        confidence: of the intervals.
    """
    figure, axes = chart(height=1.3 + 0.56 * len(table))
    for place, row in enumerate(table.itertuples()):
        colour, marker = OUTCOMES[row.outcome]
        error = [[row.difference - row.low], [row.high - row.difference]]
        axes.errorbar(row.difference, place, xerr=error, fmt=marker, color=colour, markersize=8, elinewidth=2, capsize=3)
    axes.axvline(0, color=INK, linewidth=1)
    over = "images" if (table["seeds"] == 1).all() else "seeds and images"
    labels = run_labels([*table["first"], *table["second"]])
    names = [f"{fill(row.question, 60)}\n{labels[row.second]} less {labels[row.first]}" for row in table.itertuples()]
    axes.set_yticks(range(len(table)), names)
    for place, word in enumerate(table["report"].fillna("")):
        if word:
            axes.annotate(f"report: {word}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
    axes.set(
        xlabel=f"difference in dice_image, native, with {percent(confidence)} interval over {over}",
        ylim=(len(table) - 0.4, -0.6),
    )
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for outcome, (colour, marker) in OUTCOMES.items():
        if outcome not in set(table["outcome"]):
            continue
        # Rows read "second less first": the variant named first is the one that the outcome is said of.
        label = outcome if outcome == "not told apart" else f"first named {outcome}"
        axes.plot([], [], marker, color=colour, markersize=8, label=label)
    figure.legend(loc="outside upper center", ncols=3)
    return figure
