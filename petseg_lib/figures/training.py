"""Training, epoch by epoch."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import BLUE, GREY, INK, ORANGE, run_looks

_TRAIN = (0, (3, 1.5))


@styled
def training_curves(history: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Figure:
    """Loss, Dice and learning rate by epoch, the best epoch (highest validation Dice) marked.

    Args:
        history: epoch, train_loss, valid_loss, train_dice, valid_dice, learning_rate, a row an epoch; or a dictionary
            of such by the run's name.
    """
    several = isinstance(history, Mapping)
    figure, axes = chart(3, height=3.3)
    if several:
        for number, (name, look) in enumerate(run_looks(history).items()):
            # Each learning rate is thinner than the one before: runs of one schedule lie on top of each other.
            _curves(axes, history[name], look.colour, look.colour, look.marker, look.colour, max(4.2 - 1.4 * number, 1.2))
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, label=look.label) for look in run_looks(history).values()
        ]
    else:
        _curves(axes, history, ORANGE, BLUE, "o", INK)
        handles = []
    train, valid, rate = (ORANGE, BLUE, INK) if not several else (GREY, GREY, GREY)
    handles += [
        Line2D([], [], color=train, linestyle=_TRAIN, label="train"),
        Line2D([], [], color=valid, label="validation"),
    ]
    best = "best epoch" if several else f"best epoch: {_best(history)['epoch']:.0f}, Dice {_best(history)['valid_dice']:.3f}"
    handles.append(Line2D([], [], color=rate, marker="*", markersize=12, linestyle="none", markeredgecolor="white", label=best))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if len(handles) <= 5 else -(-len(handles) // 2))
    for panel, label in zip(axes, ("loss", "dice_image (model size)", "learning rate"), strict=True):
        panel.set(xlabel="epoch", ylabel=label)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
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
    for name, look in run_looks(histories).items():
        history = histories[name]
        minutes, best = history["seconds"].cumsum() / 60, history["valid_dice"].cummax()
        axes.step(minutes, best, where="post", color=look.colour, label=look.label)
        axes.plot(minutes.iloc[-1], best.iloc[-1], look.marker, color=look.colour, markersize=7, clip_on=False)
    axes.set(xlabel="training time, minutes", ylabel="best validation dice_image so far", ylim=(None, 1))
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")
    return figure


def _best(history: pd.DataFrame) -> pd.Series:
    return history.loc[history["valid_dice"].idxmax()]


def _curves(axes: list[Axes], history: pd.DataFrame, train: str, valid: str, marker: str, rate: str, width: float = 1.8) -> None:
    """One run's curves. A run of one epoch is a point, so points are marked where they are few."""
    few = {"marker": marker, "markersize": 5} if len(history) <= 15 else {}
    one = few if len(history) == 1 else {}
    epochs, best = history["epoch"], _best(history)
    for panel, measure in zip(axes, ("loss", "dice"), strict=False):
        panel.plot(epochs, history[f"train_{measure}"], color=train, linestyle=_TRAIN, linewidth=1.4, **one)
        panel.plot(epochs, history[f"valid_{measure}"], color=valid, **few)
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
    axes[2].plot(epochs, history["learning_rate"], color=rate, linewidth=width, **one)
