"""Photographs and what was cut out of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petseg_lib.cutouts import UNSURE, Cutout, cut_out
from petseg_lib.figures.canvas import legend_below, panels, show, styled
from petseg_lib.figures.photographs import outline, stripes, tinted
from petseg_lib.figures.style import UNCERTAIN, breed_label

_LIGHT, _DARK = 250, 216  # greys of the chequered ground that stands for transparency


@styled
def cutout_grid(cutouts: Sequence[Cutout], threshold: float = 0.5) -> Figure:
    """Each photograph with the outline of its mask and the pixels of which the network is not sure, and what is cut out below.

    Args:
        cutouts: one or more.
        threshold: pet where the probability is above it.
    """
    if not cutouts:
        raise ValueError("there is no picture to show: at least 1 is needed")
    columns = min(4, len(cutouts))
    rows = -(-len(cutouts) // columns)
    shapes = [each.probability.shape for each in cutouts]
    aspect = float(np.clip(np.median([height / width for height, width in shapes]), 0.6, 1.4))
    figure, axes = panels(columns, 2 * rows, aspect, {1: 4.5, 2: 7.0}.get(columns, 9.0))
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        if number >= len(cutouts):
            above.remove()
            below.remove()
            continue
        _show_mask(above, cutouts[number], threshold, aspect)
        show(below, on_chequers(cutouts[number], threshold), _share(cutouts[number], threshold), aspect)
    legend_below(figure, {_unsure_words(): UNCERTAIN})
    return figure


@styled
def cutout_panel(cutout: Cutout, threshold: float = 0.5) -> Figure:
    """One photograph with the outline of its mask, the probability, and what is cut out."""
    height, width = cutout.probability.shape
    aspect = float(np.clip(height / width, 0.6, 1.2))
    figure, axes = panels(3, aspect=aspect)
    _show_mask(axes[0, 0], cutout, threshold, aspect)
    show(axes[0, 1], cutout.probability, "probability", aspect, cmap="gray", vmin=0, vmax=1)
    show(axes[0, 2], on_chequers(cutout, threshold), _share(cutout, threshold), aspect)
    legend_below(figure, {_unsure_words(): UNCERTAIN})
    return figure


def on_chequers(cutout: Cutout, threshold: float = 0.5) -> np.ndarray:
    """(H, W, 3) uint8: the cut-out on the grey chequers by which pictures show that nothing is there."""
    cut = cut_out(cutout.photograph, cutout.probability, threshold)
    rows, columns = np.indices(cut.shape[:2], sparse=True)
    side = max(4, min(cut.shape[:2]) // 24)
    ground = np.where((rows // side + columns // side) % 2, np.uint8(_DARK), np.uint8(_LIGHT))
    return np.where(cut[..., 3:] > 0, cut[..., :3], ground[..., None])


def _show_mask(axes: Axes, cutout: Cutout, threshold: float, aspect: float) -> None:
    unsure = cutout.unsure
    veiled = tinted(tinted(cutout.photograph, unsure, "white", 0.5), unsure & stripes(unsure.shape), UNCERTAIN, 0.85)
    show(axes, veiled, breed_label(cutout.name), aspect)
    outline(axes, cutout.probability > threshold)


def _share(cutout: Cutout, threshold: float) -> str:
    return f"{(cutout.probability > threshold).mean():.0%} of it is pet"


def _unsure_words() -> str:
    return f"probability between {UNSURE[0]:g} and {UNSURE[1]:g} (line: outline of the mask)"
