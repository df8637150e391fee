"""What pictures are drawn on: a figure that shows itself in a notebook, charts, and grids of photographs."""

import functools
import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from petseg_lib.figures.style import STRIPED, STYLE, WIDTH

SCREEN_DPI = 138  # pixels an inch in a notebook's output
CSS_DPI = 92  # browser pixels that one inch takes there: fewer, so that the picture is sharp on fine screens


class Picture(Figure):
    """A matplotlib Figure outside pyplot: it shows itself once, as the last expression of a cell.

    Drawn in the project's style whatever the caller's settings are.
    """

    photographic = False  # photographs are shown as JPEG, which keeps notebooks small; charts as PNG, which keeps lines clean

    def draw(self, renderer: Any) -> None:
        """Draw in the project's style: matplotlib makes ticks late, with the settings of that moment."""
        with mpl.rc_context(STYLE):
            super().draw(renderer)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        kind = "jpeg" if self.photographic else "png"
        width, height = (round(inches * CSS_DPI) for inches in self.get_size_inches())
        shown = {f"image/{kind}": encoded(self, kind, SCREEN_DPI), "text/plain": repr(self)}
        return shown, {f"image/{kind}": {"width": width, "height": height}}


def encoded(figure: Figure, kind: str, dpi: float) -> bytes:
    """The figure as the bytes of a `png` or `jpeg` picture, at so many pixels an inch."""
    canvas, own = FigureCanvasAgg(figure), figure.dpi
    try:
        figure.dpi = dpi
        canvas.draw()
        if kind == "jpeg":
            return _compressed(canvas, kind, quality=80, optimize=True)
        return _compressed(canvas, kind, colours=None if getattr(figure, "photographic", False) else 256)
    finally:
        figure.dpi = own


class Live:
    """A figure that is drawn again and again while only some of its axes change: the rest is drawn once and kept.

    Used by widgets, which have to answer at once: at the browser's resolution, with the fastest compression.
    """

    def __init__(self, figure: Figure, changing: list[Axes]) -> None:
        """Draw what stays. Args: changing: axes of the figure to draw anew at each `png`."""
        figure.dpi = CSS_DPI
        self._changing, self._canvas = changing, FigureCanvasAgg(figure)
        for axes in changing:
            axes.set_visible(False)
        self._canvas.draw()
        self._rest = self._canvas.copy_from_bbox(figure.bbox)
        for axes in changing:
            axes.set_visible(True)

    def png(self) -> bytes:
        """The figure as it is now, as the bytes of a PNG picture."""
        self._canvas.restore_region(self._rest)
        with mpl.rc_context(STYLE):
            for axes in self._changing:
                self._canvas.figure.draw_artist(axes)
        return _compressed(self._canvas, "png", compress_level=1)


def _compressed(canvas: FigureCanvasAgg, kind: str, colours: int | None = None, **options: Any) -> bytes:
    """What was drawn, as a file. A chart of so many colours, chosen for it, looks the same and takes less than half the room."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    if colours:
        picture = picture.quantize(colours, dither=Image.Dither.NONE)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


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


def panels(columns: int, rows: int = 1, aspect: float = 1.0, width: float = WIDTH, titles: int = 1):
    """A figure for photographs: equal panels without axes, a fixed place for titles, and for `legend_below`.

    Positions are computed, not searched for: panels line up exactly, and drawing is fast enough for widgets.

    Args:
        columns, rows: the grid.
        aspect: height over width of each panel.
        width: of the figure, inches.
        titles: lines of text to leave room for above each panel.

    Returns:
        the figure and its axes, (rows, columns).
    """
    margin, gap, title, foot = 0.06, 0.1, 0.1 + 0.15 * titles if titles else 0.06, 0.36
    side = (width - 2 * margin - gap * (columns - 1)) / columns
    height = rows * (side * aspect + title) + gap * (rows - 1) + foot
    figure = Picture(figsize=(width, height))
    figure.photographic = True
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        left = margin + column * (side + gap)
        top = height - row * (side * aspect + title + gap) - title
        place = (left / width, (top - side * aspect) / height, side / width, side * aspect / height)
        axes[row, column] = figure.add_axes(place)
        axes[row, column].set(xticks=[], yticks=[])
        axes[row, column].set_axis_off()
    return figure, axes


def show(axes: Axes, picture: np.ndarray, title: str = "", aspect: float | None = None, **named: Any) -> Any:
    """Show a picture in a panel of `panels`, centred on light grey where the panel has another shape than the picture.

    Args:
        picture: (H, W, 3) uint8, or (H, W) with `cmap`, `vmin`, `vmax` in `named`.
        title: made to fit the panel's width.
        aspect: of the panel; None = of the picture.
    """
    height, width = picture.shape[:2]
    image = axes.imshow(picture, **named)
    if aspect is not None:
        full_width, full_height = max(width, height / aspect), max(height, width * aspect)
        axes.set_xlim((width - full_width) / 2 - 0.5, (width + full_width) / 2 - 0.5)
        axes.set_ylim((height + full_height) / 2 - 0.5, (height - full_height) / 2 - 0.5)
        if abs(full_width - width) + abs(full_height - height) > 1:
            box = axes.get_position()
            axes.figure.add_artist(Rectangle(box.p0, box.width, box.height, color="#F1F1F1", linewidth=0, zorder=-1))
    inches = axes.get_position().width * axes.figure.get_size_inches()[0]
    text, size = fitted(title, inches)
    # A fixed place: matplotlib is slow to search for a free one. What lies between two $ of a file's name is no formula.
    axes.set_title(text, y=1.0, pad=4, fontsize=size, parse_math=False)
    return image


def fitted(text: str, inches: float) -> tuple[str, float]:
    """A title and its font size: smaller where a line is too wide for so many inches, and cut where that is not enough."""
    lines = text.split("\n")
    size = float(np.clip(inches * 72 / (0.58 * max(1, *map(len, lines))), 7.5, 10))
    letters = max(4, int(inches * 72 / (0.58 * size) + 1e-6))
    return "\n".join(line if len(line) <= letters else line[: letters - 1] + "…" for line in lines), size


def legend_below(figure: Figure, colours: dict[str, str], **named: Any) -> None:
    """A legend of coloured squares in the room that `panels` leaves; what is striped in pictures is so here."""
    handles = [
        Patch(facecolor="white", edgecolor=colour, hatch="/////", linewidth=0.6, label=label)
        if colour in STRIPED
        else Patch(facecolor=colour, edgecolor="#777777", linewidth=0.6, label=label)
        for label, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), borderaxespad=0.3, handlelength=1.2, **named)
