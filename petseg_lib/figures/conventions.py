"""One run's predictions, scored in every way."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from petseg_lib.data.masks import BORDER_POLICIES
from petseg_lib.figures.canvas import chart, fitted, styled
from petseg_lib.figures.style import INK, run_looks

_MARKERS = {"dice_image": "o", "dice_dataset": "s", "dice_batch_soft": "^"}
_STYLES = {"native": {"markersize": 5.5}, "model": {"markersize": 9, "markerfacecolor": "none"}}  # a dot fits into a ring
_GROUP = len(BORDER_POLICIES) + 1.4  # rows that a run takes: its name, a row a policy, and a gap

_NAME_INCHES = 2.4  # room for a run's name beside what stands on the right


@styled
def convention_ranges(conventions: pd.DataFrame, border_policy: str = "pet") -> Figure:
    """How far the convention alone moves each run's Dice: under every border policy, and within one.

    Args:
        conventions: of `comparison.convention_table`: index convention, resolution, border_policy; a column a run.
        border_policy: the one that is shown alone, at a scale of its own.
    """
    looks, tops = run_looks(conventions.columns), [number * _GROUP for number in range(conventions.shape[1])]
    figure, (every, one) = chart(2, height=1.2 + len(tops) * 0.2 * _GROUP, width_ratios=(5, 4))
    spread = (len(BORDER_POLICIES) - 1) / (len(_MARKERS) - 1)
    policies = {policy: 1 + row for row, policy in enumerate(BORDER_POLICIES)}
    scores = {convention: 1 + row * spread for row, convention in enumerate(_MARKERS)}
    for (name, look), top in zip(looks.items(), tops, strict=True):
        values = conventions[name]
        within = values.xs(border_policy, level="border_policy", drop_level=False)
        _heading(every, top, values, look.label)
        _heading(one, top, within)
        for (convention, resolution, policy), value in values.items():
            _mark(every, value, top + policies[policy], convention, resolution, look.colour)
        for (convention, resolution, _), value in within.items():
            _mark(one, value, top + scores[convention], convention, resolution, look.colour)
    for axes, rows, title in ((every, policies, "every border policy"), (one, scores, f"border policy {border_policy} alone")):
        axes.set_yticks([top + row for top in tops for row in rows.values()], list(rows) * len(tops))
        axes.set(title=title, xlabel="Dice", ylim=(len(tops) * _GROUP - 0.7, -0.6))
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    figure.legend(handles=_legend(conventions), loc="outside lower center", ncols=5, handletextpad=0.2)
    return figure


def _heading(axes: Axes, place: float, values: pd.Series, label: str = "") -> None:
    """Above a run's rows: its name on the left, how far apart its figures are on the right."""
    across, (name, size) = axes.get_yaxis_transform(), fitted(label, _NAME_INCHES)
    apart = f"{values.max() - values.min():.3f} apart"
    axes.text(0.015, place, name, transform=across, va="center", fontweight="bold", fontsize=size)
    axes.text(0.985, place, apart, transform=across, va="center", ha="right")


def _mark(axes: Axes, value: float, place: float, convention: str, resolution: str, colour: str) -> None:
    axes.plot(value, place, _MARKERS[convention], color=colour, **_STYLES[resolution])


def _legend(conventions: pd.DataFrame) -> list[Line2D]:
    shown = dict.fromkeys((convention, resolution) for convention, resolution, _ in conventions.index)
    look = {"color": INK, "linestyle": "none"}
    return [
        Line2D([], [], marker=_MARKERS[convention], label=f"{convention}, {resolution}", **look, **_STYLES[resolution])
        for convention, resolution in shown
    ]
