"""Charts of a dataset: how many pets of each breed, how large, how much of the frame they fill, and their colours."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from petseg_lib.figures.canvas import chart, styled
from petseg_lib.figures.style import (
    BLUE,
    CHANNELS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SPECIES,
    SPLITS,
    VERMILION,
    breed_label,
)
from petseg_lib.words import in_words

_DEFINITIONS = (
    (BLUE, "o"),
    (VERMILION, "D"),
    (INK, "s"),
    (GREEN, "^"),
    (ORANGE, "v"),
    (PURPLE, "P"),
    (SKY, "X"),
    (GREY, "*"),
)


@styled
def breed_counts(table: pd.DataFrame) -> Figure:
    """How many images of each breed are in each split, as stacked bars: cats first, then dogs.

    Args:
        table: a row a pet with breed, species, split, as `pets.describe` gives.
    """
    counts = table.groupby(["species", "breed", "split"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[split for split in SPLITS if split in counts], fill_value=0)
    counts = counts.sort_index(ascending=[True, True])
    figure, axes = chart(height=1.1 + 0.26 * len(counts))
    places, left = np.arange(len(counts)), np.zeros(len(counts))
    for split in counts:
        axes.barh(places, counts[split], 0.72, left, color=SPLITS[split], edgecolor="white", linewidth=0.8, label=split)
        left += counts[split].to_numpy()
    for place, total in zip(places, left, strict=True):
        axes.annotate(f"{total:.0f}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [f"{breed_label(breed)} ({species})" for species, breed in counts.index])
    axes.set(xlabel="images", ylim=(len(counts) - 0.4, -0.6))
    axes.margins(x=0.07)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right", ncols=len(SPLITS), handlelength=1.2)
    return figure


@styled
def size_scatter(table: pd.DataFrame) -> Figure:
    """Width against height of the photographs, by species; a mark is larger where more of them have one size.

    Args:
        table: a row a pet with width and height in px and species, as `pets.describe` gives.
    """
    sizes = table.groupby(["species", "width", "height"]).size().rename("images").reset_index()
    low, high = table[["width", "height"]].to_numpy().min(), table[["width", "height"]].to_numpy().max()
    room = max(0.08 * (high - low), 10)
    species = list(sizes["species"].unique())
    figure, axes = chart(len(species), width=0.5 + 4 * len(species), height=4.3, sharex=True, sharey=True, squeeze=False)
    for panel, name in zip(axes.flat, species, strict=True):
        rows = sizes[sizes["species"] == name]
        area = 16 + 400 * rows["images"] / sizes["images"].max()
        panel.axline((low, low), slope=1, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        look = SPECIES[name]
        panel.scatter(rows["width"], rows["height"], area, look.colour, marker=look.marker, alpha=0.6, linewidths=0)
        panel.set(xlabel="width (px)", xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
        panel.set_title(f"{name}: {in_words(rows['images'].sum(), 'image')}, {in_words(len(rows), 'size')}", loc="left")
        panel.locator_params(nbins=6)
    axes[0, 0].set_ylabel("height (px)")
    return figure


@styled
def foreground_share(shares: Mapping[str, Sequence[float]]) -> Figure:
    """How much of the frame is pet: a histogram of each species with its mean, one above the other.

    Args:
        shares: by species (`cat`, `dog`), one share in [0, 1] an image.
    """
    shares = {species: np.asarray(values, dtype=float) for species, values in shares.items() if len(values)}
    figure, axes = chart(1, len(shares), width=7, height=0.7 + 1.6 * len(shares), sharex=True, sharey=True, squeeze=False)
    for panel, (species, values) in zip(axes.flat, shares.items(), strict=True):
        panel.hist(values, np.linspace(0, 1, 26), color=SPECIES[species].colour, alpha=0.8, edgecolor="white", linewidth=0.8)
        panel.axvline(values.mean(), color=INK, linewidth=1.6)
        panel.set_ylabel("images")
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_title(f"{species}: mean {values.mean():.3f} over {in_words(len(values), 'image')}", loc="left")
        panel.grid(axis="x", visible=False)
    axes[-1, 0].set(xlabel="share of the photograph that is pet or border", xlim=(0, 1))
    return figure


@styled
def mean_std_comparison(rows: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Mean and standard deviation of red, green and blue by several definitions, as dots on common scales.

    Args:
        rows: (mean, std) by name, such as `this dataset, pixel-pooled`; each three numbers on the 0 to 1 scale.
    """
    figure, axes = chart(2, height=1.5 + 0.95 * 3 * max(0.35, 0.12 * len(rows)) + 0.3 * (len(rows) > 4), sharey=True)
    places = np.arange(3)
    spread = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else np.zeros(1)
    for number, (name, pair) in enumerate(rows.items()):
        colour, marker = _DEFINITIONS[number % len(_DEFINITIONS)]
        for panel, values in zip(axes, pair, strict=True):
            panel.plot(values, places + spread[number], marker, color=colour, markersize=7, linestyle="none", label=name)
    for panel, title in zip(axes, ("mean", "standard deviation"), strict=True):
        panel.set(xlabel=f"{title}, 0 to 1 scale", ylim=(2.5, -0.5))
        panel.set_yticks(places, CHANNELS)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", visible=False)
        for edge in (0.5, 1.5):
            panel.axhline(edge, color="#C8C8C8", linewidth=0.8)
        panel.margins(x=0.08)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(rows), 4), handletextpad=0.2)
    return figure


@styled
def channel_histogram(photographs: Sequence[np.ndarray]) -> Figure:
    """How often each brightness occurs in red, green and blue, over all pixels of the photographs.

    Args:
        photographs: (H, W, 3) uint8 each, of any sizes; or one array (N, H, W, 3).
    """
    figure, axes = chart(width=7, height=3)
    counts = sum(np.stack([np.bincount(photo[..., c].ravel(), minlength=256) for c in range(3)]) for photo in photographs)
    shares = counts / counts.sum(axis=1, keepdims=True)
    for (channel, colour), line, dash in zip(CHANNELS.items(), shares, ("-", "--", "-."), strict=True):
        axes.plot(np.arange(256), 100 * line, dash, color=colour, linewidth=1.4, label=channel)
    axes.set(xlabel="value, 0 to 255", ylabel="pixels (%)", xlim=(0, 255))
    # Black and white frames pile up at 0 and 255, and would squeeze everything else to the floor.
    axes.set_ylim(0, 105 * (shares[:, 1:-1].max() or shares.max()))
    axes.legend()
    return figure
