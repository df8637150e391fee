"""Whether probabilities are right, and where to cut them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import GREY, INK, run_looks

_FEW = 1e-4  # share of all pixels: a bin of fewer says nothing and is not drawn
_DEEP = 0.1  # how far below the lowest of the runs' best Dice the threshold curves are shown


@styled
def reliability_diagram(tables: Mapping[str, pd.DataFrame], errors: Mapping[str, float]) -> Figure:
    """How often pixels of a predicted probability belong to the target, which a run's border policy says, and how many pixels have which.

    Args:
        tables: by the run's name: low, high, predicted, observed, pixels, as `calibration.reliability` gives.
        errors: by the run's name: expected calibration error.
    """
    figure, (diagram, amount) = chart(2, height=4.6, width_ratios=(1, 1))
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    for place, sentence in (((0.04, 0.96), "more than predicted"), ((0.96, 0.04), "less than predicted")):
        ends = {"ha": "left", "va": "top"} if place[0] < 0.5 else {"ha": "right", "va": "bottom"}
        diagram.text(*place, sentence, color="#6A6A6A", fontsize=9, style="italic", **ends)
    for name, look in run_looks(tables).items():
        table, label = tables[name], f"{look.label}: error {errors[name]:.3f}"
        style = {"color": look.colour, "marker": look.marker, "markersize": 5}
        share = table["pixels"] / table["pixels"].sum()
        amount.plot((table["low"] + table["high"]) / 2, share, **style)
        table = table[share >= _FEW]
        diagram.plot(table["predicted"], table["observed"], label=label, **style)
    diagram.set(xlabel="predicted probability", ylabel="share of pixels in the target", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    diagram.set_aspect("equal")
    amount.set(xlabel="predicted probability", ylabel="share of all pixels in a bin", xlim=(-0.02, 1.02), yscale="log")
    amount.set_ylim(max(_FEW, amount.get_ylim()[0]), 1)
    amount.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    figure.legend(loc="outside upper center", ncols=_columns(len(tables)))
    return figure


@styled
def threshold_curves(
    thresholds: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]], chosen: Mapping[str, float]
) -> Figure:
    """Mean Dice at every threshold, on the split that it is chosen on and on the one that is reported.

    Args:
        thresholds: (T,) in (0, 1).
        curves: by split, then by the run's name: (T,) mean dice_image.
        chosen: by the run's name: the threshold chosen on the first split.
    """
    figure, axes = chart(len(curves), height=3.7, sharey=True, squeeze=False)
    looks = run_looks(chosen)
    left, right = min(0.1, *chosen.values()), max(0.9, *chosen.values())
    marks = []
    for panel, (split, by_run) in zip(axes[0], curves.items(), strict=True):
        panel.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
        for name, look in looks.items():
            panel.plot(thresholds, by_run[name], color=look.colour)
            for threshold, face in ((0.5, "white"), (chosen[name], look.colour)):
                dice = by_run[name][np.abs(thresholds - threshold).argmin()]
                marks.append(dice)
                panel.plot(threshold, dice, look.marker, color=look.colour, markerfacecolor=face, markersize=8, zorder=3)
        panel.set(title=f"{split} split", xlabel="threshold: pet where the probability is above it", xlim=(left, right))
    drawn = [curve[(thresholds >= left) & (thresholds <= right)] for by_run in curves.values() for curve in by_run.values()]
    highest = [curve.max() for curve in drawn]
    # Far from its best, a curve may fall to 0: that it falls is seen, and what lies near the best stays readable.
    low = min(max(min(curve.min() for curve in drawn), min(highest) - _DEEP), *marks)
    axes[0, 0].set(ylabel="dice_image, native", ylim=(low - 0.01, max(highest) + 0.01))
    figure.legend(handles=_threshold_legend(looks, chosen), loc="outside upper center", ncols=_columns(len(looks) + 1))
    return figure


def _columns(entries: int) -> int:
    """Of a legend: one line of three at most, and else lines of about the same number."""
    return entries if entries <= 3 else 2 if entries == 4 else 3


def _threshold_legend(looks: Mapping[str, Any], chosen: Mapping[str, float]) -> list[Line2D]:
    runs = [
        Line2D([], [], color=look.colour, marker=look.marker, label=f"{look.label}: {chosen[name]:.2f} chosen")
        for name, look in looks.items()
    ]
    return [*runs, Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="none", label="at 0.50")]
