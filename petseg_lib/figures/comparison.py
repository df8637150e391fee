"""Several runs side by side: Dice by image and by breed, paired differences, and what accuracy costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from petseg_lib.comparison import percent
from petseg_lib.figures.canvas import chart, fitted, styled
from petseg_lib.figures.style import GREY, INK, breed_label, run_looks
from petseg_lib.words import in_words


@styled
def dice_distribution(dices: Mapping[str, Sequence[float]]) -> Figure:
    """Dice of every image, by run: each image a dot, a box of the quartiles, the mean a larger mark.

    Args:
        dices: by the run's name, one Dice in [0, 1] an image.
    """
    figure, axes = chart(width=7.5, height=1.0 + 0.8 * len(dices))
    for place, (name, look) in enumerate(run_looks(dices).items()):
        values = np.asarray(dices[name], dtype=float)
        # Seeded, so that the same data give the same picture.
        jitter = np.random.default_rng(place).uniform(-0.3, 0.3, len(values))
        size = float(np.clip(3000 / max(len(values), 1), 4, 18))
        axes.scatter(values, place + jitter, size, look.colour, alpha=0.45, linewidths=0)
        box = {"facecolor": "white", "alpha": 0.65, "edgecolor": INK}
        line = {"color": INK, "linewidth": 1.3}
        axes.boxplot(
            values, positions=[place], orientation="horizontal", widths=0.34, showfliers=False, patch_artist=True,
            boxprops=box, medianprops=line | {"linewidth": 2}, whiskerprops=line, capprops=line, manage_ticks=False,
        )  # fmt: skip
        axes.plot(values.mean(), place, look.marker, color=look.colour, markersize=9, markeredgecolor=INK, zorder=5)
    looks = run_looks(dices)
    names = [f"{looks[name].label}\nmean {np.mean(dices[name]):.3f}" for name in dices]
    axes.set_yticks(range(len(dices)), names)
    axes.set(xlabel="dice_image, native", ylim=(len(dices) - 0.5, -0.5))
    axes.set_xlim(right=1.005)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure


@styled
def dice_by_breed(table: pd.DataFrame, confidence: float = 0.95) -> Figure:
    """Mean Dice of each breed and run with its interval, cats above dogs, the hardest breed of each first.

    Args:
        table: run, species, breed, images, mean, low, high, as `comparison.dice_by_breed` gives.
        confidence: of the intervals.
    """
    order = table.groupby(["species", "breed"]).agg(dice=("mean", "mean"), images=("images", "max"))
    order = order.reset_index().sort_values(["species", "dice"], ignore_index=True)
    place_of = {breed: place for place, breed in enumerate(zip(order["species"], order["breed"], strict=True))}
    looks = run_looks(table["run"].unique())
    figure, axes = chart(height=1.2 + len(order) * max(0.27, 0.13 * len(looks)))
    spread = dict(zip(looks, np.linspace(-0.24, 0.24, len(looks)) if len(looks) > 1 else [0.0], strict=True))
    for name, look in looks.items():
        rows = table[table["run"] == name]
        places = [place_of[breed] + spread[name] for breed in zip(rows["species"], rows["breed"], strict=True)]
        errors = (rows["mean"] - rows["low"], rows["high"] - rows["mean"])
        axes.errorbar(
            rows["mean"],
            places,
            xerr=errors,
            fmt=look.marker,
            color=look.colour,
            markersize=6,
            elinewidth=1.4,
            label=look.label,
        )
    for place in range(1, len(order)):
        new_species = order["species"][place] != order["species"][place - 1]
        axes.axhline(place - 0.5, color="#9A9A9A" if new_species else "#E4E4E4", linewidth=0.8, zorder=0)
    rows = zip(order["breed"], order["species"], order["images"], strict=True)
    axes.set_yticks(range(len(order)), [f"{breed_label(breed)} ({species}, {images})" for breed, species, images in rows])
    axes.set(xlabel=f"dice_image, native, with {percent(confidence)} interval", ylim=(len(order) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right", ncols=min(len(looks), 4))
    return figure


@styled
def difference_histogram(
    differences: Sequence[float], interval: Any, first: str, second: str, runs: Sequence[str] = ()
) -> Figure:
    """Dice of the second run less the first on the same images, with the mean and its interval.

    Args:
        differences: one an image, in [-1, 1].
        interval: has `mean`, `low`, `high`, as `comparison.Interval`.
        first, second: the runs' names.
        runs: every run's name, in the order of the other figures, so that each looks the same.
    """
    looks = run_looks(runs or (first, second))
    values = np.asarray(differences, dtype=float)
    figure, axes = chart(width=7, height=3.2)
    reach = max(1.05 * np.abs(values).max(), 0.01)
    edges = np.linspace(-reach, reach, 43)
    _, _, bars = axes.hist(values[values != 0], edges, edgecolor="white", linewidth=0.6)
    for bar in bars:
        ahead = second if bar.get_x() + bar.get_width() / 2 >= 0 else first
        bar.set_facecolor((looks[ahead].colour, 0.55))
    if equal := int((values == 0).sum()):
        style = {"color": GREY, "alpha": 0.8, "linewidth": 0, "label": f"equal: {in_words(equal, 'image')}"}
        axes.bar(0, equal, (edges[1] - edges[0]) / 2, **style)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvspan(max(interval.low, -reach), min(interval.high, reach), color=GREY, alpha=0.35, linewidth=0)
    label = f"mean {interval.mean:+z.4f}, interval {interval.low:+z.4f} to {interval.high:+z.4f}"
    axes.axvline(interval.mean, color=INK, linewidth=2, linestyle=(0, (4, 2)), label=label)
    better = {first: int((values < 0).sum()), second: int((values > 0).sum())}
    for run, side in ((first, "left"), (second, "right")):
        words, size = fitted(f"{looks[run].label} better: {in_words(better[run], 'image')}", 3.0)
        axes.set_title(words, loc=side, fontsize=size)
    axes.set(xlabel=f"dice_image, native: {looks[second].label} less {looks[first].label}", ylabel="images", xlim=(-reach, reach))
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def differences_from_best(pairs: pd.DataFrame, runs: Sequence[str]) -> Figure:
    """Mean difference of each run from the best one, with its paired interval; hollow where the interval includes zero.

    Args:
        pairs: run, against, images, ahead, difference, low, high, as `comparison.paired_table` gives, one or more.
        runs: every run's name, in the order of the other figures, so that each looks the same.
    """
    best = pairs["against"].iloc[0]
    rows = pairs[pairs["against"] == best]
    looks = run_looks(runs)
    figure, axes = chart(height=1.1 + 0.42 * len(rows))
    axes.axvline(0, color=INK, linewidth=1)
    for place, row in enumerate(rows.itertuples()):
        look, tied = looks[row.run], row.low <= 0 <= row.high
        error = [[row.difference - row.low], [row.high - row.difference]]
        axes.errorbar(
            row.difference, place, xerr=error, fmt=look.marker, color=look.colour, markersize=8, elinewidth=1.6,
            markerfacecolor="white" if tied else look.colour,
        )  # fmt: skip
        words = f"{row.difference:+z.4f} ({row.low:+z.4f} to {row.high:+z.4f}), ahead on {row.ahead} of {row.images}"
        axes.text(1.02, place, words.replace("-", "−"), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [looks[name].label for name in rows["run"]])
    axes.set(xlabel=f"dice_image, native, less that of {looks[best].label}", ylim=(len(rows) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure


@styled
def cost_against_dice(table: pd.DataFrame) -> Figure:
    """Mean Dice with its interval against arithmetic, speed and size of each run: up is better in all three.

    Args:
        table: run, dice, low, high, gflop (an image), images_per_second, parameters, as of
            `comparison.summary_table`.
    """
    costs = {
        "gflop": ("GFLOP an image", "less is better", 1),
        "images_per_second": ("images a second", "more is better", 1),
        "parameters": ("parameters (millions)", "less is better", 1e-6),
    }
    figure, axes = chart(3, height=3.6, sharey=True)
    for panel, (column, (label, better, unit)) in zip(axes, costs.items(), strict=True):
        for (_, row), look in zip(table.iterrows(), run_looks(table["run"]).values(), strict=True):
            error = [[row["dice"] - row["low"]], [row["high"] - row["dice"]]]
            panel.errorbar(
                row[column] * unit,
                row["dice"],
                yerr=error,
                fmt=look.marker,
                color=look.colour,
                markersize=9,
                elinewidth=1.5,
                label=look.label,
            )
        _readable_log_axis(panel, table[column].to_numpy() * unit)
        panel.set_xlabel(f"{label}\n({better}; {panel.get_xscale()} axis)")
    axes[0].set_ylabel("dice_image, native")
    axes[0].margins(y=0.12)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 4))
    return figure


def _readable_log_axis(axes: Any, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers, from a round number below the values to one above; linear at zero."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0:
        return
    steps = np.array([1, 2, 5])
    ticks = np.concatenate([steps * 10.0**power for power in range(-6, 9)])
    low, high = ticks[ticks <= values.min() / 1.05].max(), ticks[ticks >= values.max() * 1.05].min()
    axes.set_xscale("log")
    axes.set_xlim(low * 0.95, high * 1.05)
    inside = ticks[(ticks >= low) & (ticks <= high)]
    axes.set_xticks(inside[:: 1 + len(inside) // 6])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.grid(axis="x", color="#E4E4E4", which="major")
