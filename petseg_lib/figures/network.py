"""A network as a drawing: what each stage makes of the photograph, and which features skip to the decoder."""

import itertools
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import BLUE, GREY, INK, ORANGE, SKY

_WIDE, _HIGH = 0.72, 0.56  # of a box, in steps from one stage to the next
_COLOURS = {"encoder": SKY, "bottleneck": BLUE, "decoder": ORANGE}


@styled
def network_diagram(shapes: Any) -> Figure:
    """Every stage a box with its number of channels, at the height of its resolution; arrows are the way through the network.

    Args:
        shapes: photograph, encoder, decoder, skips and logits, as `models.shapes.stage_shapes` gives.
    """
    *encoder, bottleneck = [("encoder", shape) for shape in shapes.encoder]
    stages = [("", shapes.photograph), *encoder, ("bottleneck", bottleneck[1])]
    stages += [("decoder", shape) for shape in shapes.decoder] + [("", shapes.logits)]
    sides = sorted({side for _, (_, side) in stages}, reverse=True)
    figure, axes = chart(height=0.9 + 0.42 * len(sides))
    places = [(step, sides.index(side)) for step, (_, (_, side)) in enumerate(stages)]
    for (x, y), (part, (channels, _)) in zip(places, stages, strict=True):
        box = {"facecolor": _COLOURS.get(part, "white"), "edgecolor": INK, "linewidth": 0.8}
        axes.bar(x, _HIGH, _WIDE, bottom=y - _HIGH / 2, **box)
        colour = "white" if part == "bottleneck" else INK
        axes.text(x, y, f"{channels}", ha="center", va="center", fontsize=9, color=colour)
    for (x, y), (to_x, to_y) in itertools.pairwise(places):
        # From a box's side to the next one's, or where it lies elsewhere to the middle of its edge.
        rise = np.sign(to_y - y)
        start, end = (x + _WIDE / 2, y), (to_x - _WIDE / 2, to_y) if not rise else (to_x, to_y - rise * _HIGH / 2)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0})
    first_block = 1 + len(shapes.encoder)
    for block, skip in enumerate(shapes.skips):
        if skip is not None:
            (x, y), (to_x, to_y) = places[1 + skip], places[first_block + block]
            line = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.2, "linestyle": (0, (4, 2)), "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (to_x - _WIDE / 2, to_y), (x + _WIDE / 2, y), arrowprops=line)
    for word, (x, y) in (("photograph", places[0]), ("logits", places[-1])):
        axes.text(x, y - _HIGH / 2 - 0.08, word, ha="center", va="bottom", fontsize=8.5)
    axes.set(xlim=(-0.7, len(stages) - 0.3), ylim=(len(sides) - 0.5, -0.8))
    axes.set_yticks(range(len(sides)), [f"{side} px" for side in sides])
    axes.set_xticks([])
    axes.set_xlabel("in each box the number of channels; at the left their resolution", fontsize=9)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    handles = [Patch(facecolor=colour, edgecolor=INK, linewidth=0.8, label=part) for part, colour in _COLOURS.items()]
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), label="skip"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
