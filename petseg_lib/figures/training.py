"""Training, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import BLUE, GREY, INK, ORANGE, run_looks

_TRAIN = (0, (3, 1.5))
_FEW = 15  # epochs
_TIMES_AS_LONG = 5  # of runs that differ more, the short ones would be a sliver of a linear axis


@styled
def training_curves(history: pd.DataFrame | Mapping[str, pd.DataFrame], full_size_from: int = 1) -> Figure:
    """Loss, Dice and learning rate by epoch, the best epoch (highest validation Dice) marked.

    Args:
        history: epoch, train_loss, valid_loss, train_dice, valid_dice, learning_rate, a row an epoch; or a dictionary
            of such by the run's name.
        full_size_from: of one run, the first epoch at full size, marked where others came before it.
    """
    several = isinstance(history, Mapping)
    figure, axes = chart(3, height=3.3)
    if several:
        for number, (name, look) in enumerate(run_looks(history).items()):
            # Each learning rate is thinner than the one before: runs of one schedule lie on top of each other.
            width = max(2.4 - 0.8 * number, 0.8)
            marks = _marks(look.marker, len(history[name]), number)
            _curves(axes, history[name], look.colour, look.colour, marks, look.colour, width)
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, label=look.label) for look in run_looks(history).values()
        ]
    else:
        _curves(axes, history, ORANGE, BLUE, _marks("o", len(history)) if len(history) <= _FEW else {}, INK)
        handles = []
    train, valid, rate = (ORANGE, BLUE, INK) if not several else (GREY, GREY, GREY)
    handles += [
        Line2D([], [], color=train, linestyle=_TRAIN, label="train (at the size trained at)"),
        Line2D([], [], color=valid, label="validation"),
    ]
    best = "best epoch" if several else f"best epoch: {_best(history)['epoch']:.0f}, Dice {_best(history)['valid_dice']:.3f}"
    handles.append(Line2D([], [], color=rate, marker="*", markersize=12, linestyle="none", markeredgecolor="white", label=best))
    if 1 < full_size_from <= (0 if several else len(history)):
        looks = {"color": GREY, "linestyle": ":", "linewidth": 1.8}
        for panel in axes[:2]:
            panel.axvline(full_size_from, **looks)
        handles.append(Line2D([], [], **looks, label=f"full size from epoch {full_size_from}"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if len(handles) <= 5 else -(-len(handles) // 2))
    epochs = [len(each) for each in history.values()] if several else [len(history)]
    for panel, label in zip(axes, ("loss", "dice_image, model size", "learning rate"), strict=True):
        panel.set(xlabel="epoch", ylabel=label)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        _log_where_unequal(panel, epochs)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(top=1)
    axes[2].set_ylim(bottom=0)
    axes[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    return figure


@styled
def dice_over_time(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The best validation Dice reached after so much training time, by run: what a minute of computing buys.

    Args:
        histories: seconds (of each epoch) and valid_dice, a row an epoch, by the run's name.
    """
    figure, axes = chart(height=3.6)
    for number, (name, look) in enumerate(run_looks(histories).items()):
        history = histories[name]
        minutes, best = history["seconds"].cumsum() / 60, history["valid_dice"].cummax()
        axes.step(minutes, best, where="post", color=look.colour, label=look.label, **_marks(look.marker, len(history), number))
        axes.plot(minutes.iloc[-1], best.iloc[-1], look.marker, color=look.colour, markersize=7, clip_on=False)
    axes.set(xlabel="training time, minutes", ylabel="best validation dice_image so far", ylim=(None, 1))
    if not _log_where_unequal(axes, [history["seconds"].sum() for history in histories.values()]):
        axes.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=min(4, len(histories)))
    return figure


def _log_where_unequal(axes: Axes, lengths: Sequence[float]) -> bool:
    """Make the x axis logarithmic, with plain numbers, where runs differ much in length; return whether it is."""
    if max(lengths) <= _TIMES_AS_LONG * min(lengths):
        return False
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return True


def _best(history: pd.DataFrame) -> pd.Series:
    return history.loc[history["valid_dice"].idxmax()]


def _marks(marker: str, points: int, number: int = 0) -> dict[str, Any]:
    """A mark at each point where they are few, else here and there along the line, each run's at other places.

    In grey, marks are what tells runs apart.
    """
    everywhere = {"marker": marker, "markersize": 5}
    return everywhere if points <= _FEW else everywhere | {"markevery": (0.02 + 0.03 * number, 0.28)}


def _curves(
    axes: list[Axes], history: pd.DataFrame, train: str, valid: str, marks: dict[str, Any], rate: str, width: float = 1.8
) -> None:
    """One run's curves, those of validation and learning rate with marks, that of training where it is but a point."""
    one = marks if len(history) == 1 else {}
    epochs, best = history["epoch"], _best(history)
    for panel, measure in zip(axes, ("loss", "dice"), strict=False):
        panel.plot(epochs, history[f"train_{measure}"], color=train, linestyle=_TRAIN, linewidth=1.4, **one)
        panel.plot(epochs, history[f"valid_{measure}"], color=valid, **marks)
        panel.plot(
            best["epoch"],
            best[f"valid_{measure}"],
            "*",
            color=rate,
            markersize=14,
            markeredgecolor="white",
            zorder=5,
            clip_on=False,
        )
    axes[2].plot(epochs, history["learning_rate"], color=rate, linewidth=width, **marks)
