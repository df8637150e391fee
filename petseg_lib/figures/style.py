"""How every picture of the project looks: palette, marks, names and sizes.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; where colours carry meaning on
their own (hits, misses, false alarms), they differ in lightness too, so that a grey print keeps the meaning.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, YELLOW, PURPLE, INK, GREY = "#56B4E9", "#F0E442", "#CC79A7", "#333333", "#8A8A8A"

PET, BORDER, LEFT_OUT, UNCERTAIN = SKY, YELLOW, "#8A8A8A", PURPLE
STRIPED = (LEFT_OUT, UNCERTAIN)
HIT, MISS, FALSE_ALARM = SKY, "#A32A00", YELLOW
VERDICTS = {"hit": HIT, "miss": MISS, "false alarm": FALSE_ALARM}
SPLITS = {"train": "#3B5168", "valid": "#8DA2B5", "test": "#CFD9E2"}
CHANNELS = {"red": VERMILION, "green": GREEN, "blue": BLUE}

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": "#B0B0B0",
    "xtick.color": "#B0B0B0",
    "ytick.color": "#B0B0B0",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 1.4,
    "svg.hashsalt": "petseg",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

WIDTH = 9.0  # inches; a wide figure fills JupyterLab's column, and its text stays readable at half that in a paper


class SpeciesLook(NamedTuple):
    colour: str
    marker: str


SPECIES = {"cat": SpeciesLook(PURPLE, "o"), "dog": SpeciesLook(GREEN, "^")}


class RunLook(NamedTuple):
    colour: str
    marker: str
    label: str


# Blues are UNets and reds ResNet34-UNets, those of the report's recipe lighter; what has learned nothing has no colour.
_NETWORKS = {
    "unet": (BLUE, "o"),
    "resnet34_unet": (VERMILION, "s"),
    "unet_report": (SKY, "D"),
    "resnet34_unet_report": (ORANGE, "^"),
}
_FIXED_RUNS = _NETWORKS | {"everything is pet": (INK, "X"), "average training mask": (GREY, "*")}
_OTHER_RUNS = ((GREEN, "v"), (PURPLE, "P"))
_LAST_RUNS = ((INK, "<"), (GREY, ">"))  # marks that are no floor's: whether floors are beside a run moves no look of its own


def run_looks(names: Iterable[str]) -> dict[str, RunLook]:
    """Colour, marker and label of each run; networks, report's recipe and floors look the same in every figure of the project."""
    names = list(names)
    others = _other_looks(look for name, look in _NETWORKS.items() if name not in names)
    return {name: RunLook(*(_FIXED_RUNS.get(name) or next(others)), label) for name, label in run_labels(names).items()}


def _other_looks(spare: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Colours and markers without end, the spare ones late: when all colours are used, they come again with other markers."""
    colours, markers = zip(*_OTHER_RUNS, *spare, *_LAST_RUNS, strict=True)
    for number in count():
        again, place = divmod(number, len(colours))
        yield colours[place], markers[(place + again) % len(markers)]


def run_labels(names: Iterable[str]) -> dict[str, str]:
    """`run_label` of each name; where two would have the same, as `resnet` and `resnet34_unet`, they keep their names."""
    labels = {name: run_label(name) for name in names}
    often = Counter(labels.values())
    return {name: label if often[label] == 1 else name for name, label in labels.items()}


def run_label(name: str) -> str:
    """A run's name for people: `report_resnet34_unet` becomes `report ResNet34-UNet`, as does `resnet` in a recipe's name."""
    spaced = name.replace("resnet34_unet", "ResNet34-UNet").replace("_", " ")
    return re.sub(r"\bunet\b", "UNet", re.sub(r"\bresnet\b", "ResNet34-UNet", spaced))


def breed_label(name: str) -> str:
    """A breed or pet name with spaces: `Egyptian_Mau_12` becomes `Egyptian Mau 12`."""
    return name.replace("_", " ")


def rgb(colour: str) -> np.ndarray:
    """A colour as three floats in [0, 1]."""
    return np.array(to_rgb(colour))


def lightness(colour: str) -> float:
    """Relative luminance of a colour in [0, 1], as in WCAG 2: what a grey print keeps of it."""
    linear = np.where(rgb(colour) <= 0.04045, rgb(colour) / 12.92, ((rgb(colour) + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
