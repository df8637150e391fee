"""Photographs with their trimaps: samples, border policies, augmentation, batches.

Trimaps are (H, W) uint8 with 1 pet, 2 background, 3 border; photographs are (H, W, 3) uint8 RGB of the same size.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from petseg_lib.data import masks
from petseg_lib.data.masks import BORDER_POLICIES, target_and_scored
from petseg_lib.figures.canvas import legend_below, panels, show, styled
from petseg_lib.figures.style import BORDER, INK, LEFT_OUT, PET, breed_label, rgb

POLICY_TITLES = {
    "pet": "pet: interior and border",
    "background": "background: interior alone",
    "edge": "edge: border alone",
    "ignore": "ignore: border left out",
}


@styled
def sample_grid(
    photographs: Sequence[np.ndarray],
    trimaps: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """Photographs with the trimap over them: interior and border each in its colour.

    Args:
        photographs, trimaps: as many of one as of the other.
        titles: one a photograph; underscores are shown as spaces.
        columns: panels in a row.
    """
    titles = [breed_label(title) for title in titles] if titles is not None else [""] * len(photographs)
    figure, axes = _grid(len(photographs), columns, [picture.shape for picture in photographs])
    for panel, photograph, trimap, title in zip(axes, photographs, trimaps, titles, strict=True):
        show(panel, trimap_overlay(photograph, trimap), title, _panel_aspect(panel))
        outline(panel, trimap == masks.PET)
    legend_below(figure, {"pet": PET, "border": BORDER})
    return figure


@styled
def border_policies(photograph: np.ndarray, trimap: np.ndarray) -> Figure:
    """What the trimap's border counts as under each of the four policies, side by side."""
    figure, axes = panels(len(BORDER_POLICIES), aspect=_shape_aspect(photograph.shape))
    for panel, policy in zip(axes.flat, BORDER_POLICIES, strict=True):
        show_policy(panel, photograph, trimap, policy, POLICY_TITLES[policy])
    legend_below(figure, {"target": PET, "left out of loss and measure": LEFT_OUT})
    return figure


@styled
def augmentation_grid(original: tuple[np.ndarray, np.ndarray], augmented: Sequence[tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One photograph as it is, then as training sees it: pairs of (photograph, trimap)."""
    pairs = [original, *augmented]
    figure, axes = _grid(len(pairs), 5, [photograph.shape for photograph, _ in pairs])
    for number, (panel, (photograph, trimap)) in enumerate(zip(axes, pairs, strict=True)):
        title = f"augmented {number}" if number else "original"
        show(panel, trimap_overlay(photograph, trimap), title, _panel_aspect(panel))
        outline(panel, trimap == masks.PET)
    legend_below(figure, {"pet": PET, "border": BORDER})
    return figure


@styled
def batch_grid(
    images: np.ndarray,
    targets: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    scored: np.ndarray | None = None,
) -> Figure:
    """One batch as the network gets it, brought back to colours.

    Args:
        images: (N, 3, H, W) float, normalised with `mean` and `std` (a tensor on the CPU does, too).
        targets: (N, 1, H, W), 0 or 1.
        scored: (N, 1, H, W) bool, False where a pixel is left out; None = all count.
    """
    figure, axes = _grid(len(images), 8, [images.shape[2:]] * len(images), titles=0)
    shown = np.asarray(images).transpose(0, 2, 3, 1) * np.asarray(std) + np.asarray(mean)
    photographs = (255 * shown.clip(0, 1)).round().astype(np.uint8)
    targets = np.asarray(targets)[:, 0] > 0
    left_out = np.zeros_like(targets) if scored is None else ~np.asarray(scored)[:, 0].astype(bool)
    for panel, photograph, target, out in zip(axes, photographs, targets, left_out, strict=True):
        show(panel, target_overlay(photograph, target, out))
        outline(panel, target)
    names = {"target": PET} | ({"left out": LEFT_OUT} if left_out.any() else {})
    legend_below(figure, names)
    return figure


@styled
def browse_panel(
    photograph: np.ndarray,
    trimap: np.ndarray,
    border_policy: str,
    augmented: tuple[np.ndarray, np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """One pet: the photograph, its target under a border policy, and, if given, an augmented (photograph, trimap)."""
    aspect = float(np.clip(_shape_aspect(photograph.shape), 0.6, 1.2))
    figure, axes = panels(2 + (augmented is not None), aspect=aspect)
    show(axes[0, 0], photograph, breed_label(title), aspect)
    show_policy(axes[0, 1], photograph, trimap, border_policy, POLICY_TITLES[border_policy], aspect)
    if augmented is not None:
        show_policy(axes[0, 2], *augmented, border_policy, "augmented, as training sees it", aspect)
    names = {"target": PET} | ({"left out of loss and measure": LEFT_OUT} if border_policy == "ignore" else {})
    legend_below(figure, names)
    return figure


def show_policy(
    axes: Axes, photograph: np.ndarray, trimap: np.ndarray, border_policy: str, title: str, aspect: float | None = None
) -> None:
    """Show the target that a border policy makes of a trimap, over the photograph."""
    target, scored = target_and_scored(trimap, border_policy)
    show(axes, target_overlay(photograph, target > 0, ~scored), title, aspect)
    outline(axes, target > 0)


def trimap_overlay(photograph: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """The photograph with interior and border tinted, (H, W, 3) uint8."""
    return tinted(tinted(photograph, trimap == masks.PET, PET, 0.32), trimap == masks.BORDER, BORDER, 0.7)


def target_overlay(photograph: np.ndarray, target: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """The photograph with the target tinted and the pixels that do not count in striped grey, (H, W, 3) uint8."""
    covered = tinted(tinted(photograph, target, PET, 0.45), left_out, LEFT_OUT, 0.75)
    return tinted(covered, left_out & stripes(left_out.shape), "white", 0.7)


def stripes(shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: every other diagonal stripe, for what must be seen on any colour of photograph."""
    rows, columns = np.indices(shape, sparse=True)
    period = max(4, min(shape) // 40)
    return (rows + columns) % period < period / 2


def tinted(photograph: np.ndarray, where: np.ndarray, colour: str, strength: float) -> np.ndarray:
    """The photograph with a colour laid over some pixels.

    Args:
        photograph: (H, W, 3) uint8.
        where: (H, W) bool.
        strength: 0 leaves the photograph, 1 paints it over.
    """
    if photograph.shape[:2] != where.shape:
        raise ValueError(f"the photograph is {photograph.shape[:2]} pixels and its mask {where.shape}: they must be the same")
    paint = np.full_like(photograph, (255 * rgb(colour)).round())
    mixed = cv2.addWeighted(photograph, 1 - strength, paint, strength, 0)
    return np.where(where[..., None], mixed, photograph)


def outline(axes: Axes, mask: np.ndarray) -> None:
    """A line round a mask; none along the frame, where the mask is cut off.

    By OpenCV's border following, which is faster than matplotlib's contours.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    pieces = [np.full((1, 2), np.nan)]
    for contour in contours:
        points = contour[:, 0].astype(float)
        points[((points == 0) | (points == np.array(mask.shape[::-1]) - 1)).any(axis=1)] = np.nan
        pieces += [points, points[:1], pieces[0]]
    axes.add_line(Line2D(*np.concatenate(pieces).T, color=INK, linewidth=0.9))


def _grid(count: int, columns: int, shapes: Sequence[tuple[int, ...]], titles: int = 1) -> tuple[Figure, list[Axes]]:
    """`count` equal panels in rows, with a legend below; the figure is narrower where there are only one or two."""
    if count < 1:
        raise ValueError("there is no picture to show: at least 1 is needed")
    columns = min(columns, count)
    aspect = float(np.clip(np.median([_shape_aspect(shape) for shape in shapes]), 0.6, 1.4))
    width = {1: 4.5, 2: 7.0}.get(columns, 9.0)
    figure, axes = panels(columns, -(-count // columns), aspect, width, titles)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def _shape_aspect(shape: tuple[int, ...]) -> float:
    return shape[0] / shape[1]


def _panel_aspect(axes: Axes) -> float:
    width, height = axes.get_position().size * axes.figure.get_size_inches()
    return float(height / width)
