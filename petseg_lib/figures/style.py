"""How every picture of the project looks: palette, names, sizes, and the figure that shows itself in a notebook.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; where colours carry meaning on
their own (hits, misses, false alarms), they differ in lightness too, so that a grey print keeps the meaning.
"""

import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, YELLOW, PURPLE, INK, GREY = "#56B4E9", "#F0E442", "#CC79A7", "#333333", "#8A8A8A"

PET, BORDER, LEFT_OUT = SKY, YELLOW, "#8A8A8A"
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
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "petseg",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

WIDTH = 9.0  # inches; a wide figure fills JupyterLab's column, and its text stays readable at half that in a paper
SCREEN_DPI = 110
CSS_DPI = 88  # how large one inch is shown in a notebook, in browser pixels


class SpeciesLook(NamedTuple):
    colour: str
    marker: str


SPECIES = {"cat": SpeciesLook(PURPLE, "o"), "dog": SpeciesLook(GREEN, "^")}


class RunLook(NamedTuple):
    colour: str
    marker: str
    label: str


_FIXED_RUNS = {
    "unet": (BLUE, "o"),
    "resnet34_unet": (VERMILION, "s"),
}
_OTHER_RUNS = ((SKY, "D"), (ORANGE, "^"), (GREEN, "v"), (PURPLE, "P"), (INK, "X"), (GREY, "*"))


class Picture(Figure):
    """A matplotlib Figure outside pyplot: it shows itself once, as the last expression of a cell, and nothing else does.

    Drawn in the project's style whatever the caller's settings are.
    """

    def draw(self, renderer: Any) -> None:
        """Draw in the project's style: matplotlib makes ticks late, with the settings of that moment."""
        with mpl.rc_context(STYLE):
            super().draw(renderer)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        width, height = (round(inches * CSS_DPI) for inches in self.get_size_inches())
        shown = {"image/png": screen_png(self), "text/plain": repr(self)}
        return shown, {"image/png": {"width": width, "height": height}}


def screen_png(figure: Figure, dpi: float = SCREEN_DPI * 1.25) -> bytes:
    """The figure as PNG bytes with 256 colours: a third of the size, for notebooks that stay small."""
    buffer = io.BytesIO()
    pixels = rendered(figure, dpi)
    Image.fromarray(pixels).quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def rendered(figure: Figure, dpi: float) -> np.ndarray:
    """The figure's pixels, (H, W, 3) uint8, at so many pixels an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    own = figure.dpi
    try:
        figure.dpi = dpi
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    finally:
        figure.dpi = own


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a drawing function work in the project's style, and leave matplotlib's own settings as they are."""

    @functools.wraps(function)
    def draw(*arguments: Any, **named: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return function(*arguments, **named)

    return draw


def chart(columns: int = 1, rows: int = 1, width: float = WIDTH, height: float = 3.4, **named: Any) -> tuple[Picture, Any]:
    """A figure for curves and points: constrained layout, so that nothing is clipped. `named` goes to `subplots`."""
    figure = Picture(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **named)


def panels(columns: int, rows: int = 1, aspect: float = 1.0, width: float = WIDTH, title_lines: int = 1, legend: bool = False):
    """A figure for photographs: equal panels without axes, a fixed place for titles and legend.

    Positions are computed, not searched for: panels line up exactly, and drawing is fast enough for widgets.

    Args:
        columns, rows: the grid.
        aspect: height over width of each panel.
        width: of the figure, inches.
        title_lines: lines of text above each panel.
        legend: whether to leave room for one below.

    Returns:
        the figure and its axes, (rows, columns).
    """
    margin, gap, title, foot = 0.06, 0.1, 0.08 + 0.17 * title_lines, 0.36 if legend else 0.06
    side = (width - 2 * margin - gap * (columns - 1)) / columns
    height = rows * (side * aspect + title) + gap * (rows - 1) + foot
    figure = Picture(figsize=(width, height))
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        left = margin + column * (side + gap)
        top = height - row * (side * aspect + title + gap) - title
        place = (left / width, (top - side * aspect) / height, side / width, side * aspect / height)
        axes[row, column] = figure.add_axes(place)
        axes[row, column].set_axis_off()
    return figure, axes


def show(axes: Axes, picture: np.ndarray, title: str = "", aspect: float | None = None, lines: int = 1, **named: Any) -> Any:
    """Show a picture in a panel of `panels`, centred on light grey where the panel has another shape than the picture.

    Args:
        picture: (H, W, 3) uint8, or (H, W) with `cmap`, `vmin`, `vmax` in `named`.
        title: wrapped to the panel's width, at most `lines` lines.
        aspect: of the panel; None = of the picture.
    """
    height, width = picture.shape[:2]
    image = axes.imshow(picture, **named)
    if aspect is not None:
        full_width, full_height = max(width, height / aspect), max(height, width * aspect)
        axes.set_xlim((width - full_width) / 2 - 0.5, (width + full_width) / 2 - 0.5)
        axes.set_ylim((height + full_height) / 2 - 0.5, (height - full_height) / 2 - 0.5)
        if abs(full_width - width) + abs(full_height - height) > 1:
            axes.set_axis_on()
            axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
            axes.grid(False)
            axes.spines[:].set_visible(False)
            axes.set_facecolor("#F1F1F1")
    inches = axes.get_position().width * axes.figure.get_size_inches()[0]
    axes.set_title(wrapped(title, inches, lines), pad=4, linespacing=1.1, fontsize=10)
    return image


def wrapped(text: str, inches: float, lines: int = 1, size: float = 10.0) -> str:
    """The text broken to lines of a width; what does not fit ends in an ellipsis."""
    letters = max(4, int(inches * 72 / (0.56 * size)))
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder="…", break_long_words=True))


def legend_below(figure: Figure, colours: dict[str, str], **named: Any) -> None:
    """A legend of coloured squares in the room that `panels(legend=True)` leaves."""
    handles = [Patch(facecolor=colour, edgecolor="#777777", linewidth=0.6, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), borderaxespad=0.3, handlelength=1.2, **named)


def run_looks(names: Iterable[str]) -> dict[str, RunLook]:
    """Colour, marker and label of each run; the two models look the same in every figure of the project."""
    others = iter(_OTHER_RUNS * 4)
    looks = {}
    for name in names:
        colour, marker = _FIXED_RUNS.get(name) or next(others)
        looks[name] = RunLook(colour, marker, run_label(name))
    return looks


def run_label(name: str) -> str:
    """A run's name for people: `report_resnet34_unet` becomes `report ResNet34+UNet`."""
    spaced = name.replace("resnet34_unet", "ResNet34+UNet").replace("_", " ")
    return re.sub(r"\bunet\b", "UNet", spaced)


def breed_label(name: str) -> str:
    """A breed or pet name with spaces: `Egyptian_Mau_12` becomes `Egyptian Mau 12`."""
    return name.replace("_", " ")


def rgb(colour: str) -> np.ndarray:
    """A colour as three floats in [0, 1]."""
    return np.array(mpl.colors.to_rgb(colour))


def lightness(colour: str) -> float:
    """Relative luminance of a colour in [0, 1], as in WCAG 2: what a grey print keeps of it."""
    linear = np.where(rgb(colour) <= 0.04045, rgb(colour) / 12.92, ((rgb(colour) + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
