"""Predictions beside the truth: one photograph, best to worst, several models.

The picture of hits, misses and false alarms keeps its meaning in grey: the three differ in lightness, and the
outline of the truth has misses within and false alarms without.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petseg_lib import dice
from petseg_lib.evaluation import Prediction
from petseg_lib.figures.canvas import fitted, legend_below, panels, show, styled
from petseg_lib.figures.photographs import outline, target_overlay, tinted
from petseg_lib.figures.style import LEFT_OUT, VERDICTS, WIDTH, breed_label, run_labels

_MODELS_A_LINE = 4  # of `model_panel`: with more, panels are too small to see a misplaced ear


def image_dice(truth: np.ndarray, probability: np.ndarray, threshold: float = 0.5, scored: np.ndarray | None = None) -> float:
    """Dice of one image: pet where the probability is above the threshold, over the pixels that count.

    Args:
        truth, probability, scored: (H, W), as in `Prediction`.

    Returns:
        0 to 1; 1 where truth and prediction are both empty.
    """
    masks = [np.asarray(probability) > threshold, np.asarray(truth) > 0]
    masks += [] if scored is None else [np.asarray(scored, dtype=bool)]
    counts = dice.count(*(torch.from_numpy(mask)[None, None] for mask in masks))
    return float(dice.dice_from_counts(*counts[0]))


@styled
def prediction_panel(
    photograph: np.ndarray,
    truth: np.ndarray,
    probability: np.ndarray | Mapping[str, np.ndarray],
    threshold: float = 0.5,
    scored: np.ndarray | None = None,
    title: str = "photograph",
) -> Figure:
    """One photograph, its truth, the probability, and hits, misses and false alarms with Dice.

    Args:
        photograph, truth, probability, scored: as in `Prediction`; several models get a row each.
        threshold: pet where the probability is above it.
        title: over the photograph.
    """
    example = Prediction(photograph, truth, probability, scored)
    models = example.by_model()
    aspect = _aspect([example])
    # One model: four panels in a row. Several: the truth goes below the photograph, and each model has a row.
    columns, rows = (4, 1) if len(models) == 1 else (3, len(models))
    figure, axes = panels(columns, rows, aspect)
    show(axes[0, 0], photograph, breed_label(title), aspect)
    show_truth(axes[0, 1] if rows == 1 else axes[1, 0], example, aspect)
    for spare in axes[2:, 0]:
        spare.remove()
    for row, (name, shares) in zip(axes, models.items(), strict=True):
        show(row[-2], shares, f"{_prefix(models, name)}probability", aspect, cmap="gray", vmin=0, vmax=1)
        show_verdict(row[-1], example, name, threshold, aspect)
    legend_below(figure, _legend(example))
    return figure


def move_threshold(figure: Figure, prediction: Prediction, threshold: float) -> None:
    """Change a `prediction_panel` to another threshold, in place: much faster than a new figure.

    Args:
        figure: what `prediction_panel` returned for this prediction.
    """
    models = prediction.by_model()
    for axes, (name, probability) in zip(verdict_axes(figure), models.items(), strict=True):
        axes.images[0].set_data(verdict_overlay(prediction, probability, threshold))
        axes.title.set_text(_verdict_title(prediction, probability, threshold, _prefix(models, name)))


def verdict_axes(figure: Figure) -> list[Axes]:
    """The axes of a `prediction_panel` that `move_threshold` changes, a model each."""
    return [axes for axes in figure.axes if axes.get_label() == "verdict"]


@styled
def prediction_grid(predictions: Sequence[Prediction], titles: Sequence[str], threshold: float = 0.5) -> Figure:
    """Predictions of one model in rows (best, middle, worst): photograph, truth, probability, verdict with Dice.

    Args:
        predictions: each with one probability.
        titles: one a prediction, over its photograph.
    """
    aspect = _aspect(predictions)
    figure, axes = panels(4, len(predictions), aspect)
    for row, example, title in zip(axes, predictions, titles, strict=True):
        ((name, shares),) = example.by_model().items()
        show(row[0], example.photograph, breed_label(title), aspect)
        show_truth(row[1], example, aspect)
        show(row[2], shares, "probability", aspect, cmap="gray", vmin=0, vmax=1)
        show_verdict(row[3], example, name, threshold, aspect)
    legend_below(figure, _legend(*predictions))
    return figure


@styled
def model_panel(predictions: Sequence[Prediction], titles: Sequence[str], threshold: float = 0.5) -> Figure:
    """The same photographs through any number of models: photograph, truth, then each model's verdict with Dice.

    Args:
        predictions: each with a dictionary of probabilities, of the same models; four stand in one line, more in several.
        titles: one a prediction, over its photograph.
    """
    aspect = _aspect(predictions)
    models = list(predictions[0].by_model())
    columns = 2 + min(len(models), _MODELS_A_LINE)
    lines = -(-len(models) // _MODELS_A_LINE)
    between = _between_name_and_dice(models, columns)
    figure, axes = panels(columns, lines * len(predictions), aspect, titles=1 + between.count("\n"))
    for rows, example, title in zip(axes.reshape(len(predictions), lines, columns), predictions, titles, strict=True):
        show(rows[0, 0], example.photograph, breed_label(title), aspect)
        show_truth(rows[0, 1], example, aspect)
        for panel, name in zip(rows[:, 2:].flat, models, strict=False):
            show_verdict(panel, example, name, threshold, aspect, between)
        for spare in (*rows[1:, :2].flat, *rows[:, 2:].flat[len(models) :]):
            spare.remove()
    legend_below(figure, _legend(*predictions))
    return figure


@styled
def failure_gallery(predictions: Sequence[Prediction], titles: Sequence[str], threshold: float = 0.5) -> Figure:
    """Many predictions of one model in little room, two in a line: the photograph with the truth's outline, and the verdict.

    Args:
        predictions: each with one probability.
        titles: one a prediction, over its photograph.
    """
    aspect = _aspect(predictions)
    columns = 2 * min(len(predictions), 2)
    figure, axes = panels(columns, -(-len(predictions) // 2), aspect)
    pairs = axes.reshape(-1, 2)
    for (left, right), example, title in zip(pairs, predictions, titles, strict=False):
        ((name, _),) = example.by_model().items()
        show(left, example.photograph, breed_label(title), aspect)
        outline(left, np.asarray(example.truth) > 0)
        show_verdict(right, example, name, threshold, aspect)
    for spare in pairs[len(predictions) :].flat:
        spare.remove()
    legend_below(figure, _legend(*predictions))
    return figure


def _between_name_and_dice(names: Iterable[str], columns: int) -> str:
    """A colon, or a new line where one line would be too long for a panel."""
    names = list(names)
    longest = max((f"{_prefix(names, name)}Dice 0.000" for name in names), key=len)
    shown, size = fitted(longest, WIDTH / columns - 0.12)
    return ": " if shown == longest and size >= 8 else "\n"


def show_truth(axes: Axes, example: Prediction, aspect: float) -> None:
    """The truth over the photograph, with the pixels that do not count in striped grey."""
    left_out = np.zeros(example.truth.shape, bool) if example.scored is None else ~np.asarray(example.scored, dtype=bool)
    show(axes, target_overlay(example.photograph, np.asarray(example.truth) > 0, left_out), "truth", aspect)
    outline(axes, np.asarray(example.truth) > 0)


def show_verdict(axes: Axes, example: Prediction, name: str, threshold: float, aspect: float, between: str = ": ") -> None:
    """Hits, misses and false alarms of one model over the grey photograph, with Dice in the title, after its name."""
    models = example.by_model()
    title = _verdict_title(example, models[name], threshold, _prefix(models, name, between))
    show(axes, verdict_overlay(example, models[name], threshold), title, aspect)
    outline(axes, np.asarray(example.truth) > 0)
    axes.set_label("verdict")


def _verdict_title(example: Prediction, probability: np.ndarray, threshold: float, prefix: str) -> str:
    return f"{prefix}Dice {image_dice(example.truth, probability, threshold, example.scored):.3f}"


def verdict_overlay(example: Prediction, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Hits, misses and false alarms in their colours over the grey photograph, (H, W, 3) uint8."""
    predicted, truth = np.asarray(probability) > threshold, np.asarray(example.truth) > 0
    counted = np.ones_like(truth) if example.scored is None else np.asarray(example.scored, dtype=bool)
    # Half contrast about a middle grey: the photograph stays readable and no verdict's colour hides in it.
    grey = (example.photograph @ (0.299, 0.587, 0.114) * 0.45 + 95)[..., None].repeat(3, axis=2).astype(np.uint8)
    where = {"hit": predicted & truth, "miss": ~predicted & truth, "false alarm": predicted & ~truth}
    for verdict, mask in where.items():
        grey = tinted(grey, mask & counted, VERDICTS[verdict], 0.72)
    return target_overlay(grey, np.zeros_like(truth), ~counted)


def _prefix(names: Iterable[str], name: str, between: str = ": ") -> str:
    """The label of one of the models beside each other, of which no two have the same."""
    return f"{run_labels(names)[name]}{between}" if name else ""


def _legend(*examples: Prediction) -> dict[str, str]:
    out = any(example.scored is not None and not np.all(example.scored) for example in examples)
    return VERDICTS | ({"left out": LEFT_OUT} if out else {})


def _aspect(predictions: Sequence[Prediction]) -> float:
    if not predictions:
        raise ValueError("there is no prediction to show: at least 1 is needed")
    return float(np.clip(np.median([len(example.truth) / example.truth.shape[1] for example in predictions]), 0.6, 1.3))
