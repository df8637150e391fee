"""ipywidgets over figures: a dataset browser, and viewers of predictions and of cut-outs.

All draw through a function of `figures` into a picture widget, which holds PNG bytes: a saved notebook keeps nothing but
the widget's own view, and a test can read what a control changed.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets
import numpy as np
from ipywidgets import Button, Dropdown, FloatSlider, HBox, Label, VBox
from matplotlib.figure import Figure

from petseg_lib.config import ImageParameters
from petseg_lib.cutouts import Cutout
from petseg_lib.data.augment import build_augmentation
from petseg_lib.data.cache import resize_photograph
from petseg_lib.data.masks import BORDER_POLICIES, resize_trimap
from petseg_lib.data.pets import SPLITS, PetDataset
from petseg_lib.data.pictures import read_photograph, read_trimap
from petseg_lib.figures import Prediction, browse_panel, cutout_panel, image_dice, move_threshold, prediction_panel
from petseg_lib.figures.canvas import CSS_DPI, Live
from petseg_lib.figures.predictions import verdict_axes
from petseg_lib.figures.style import WIDTH, breed_label, run_labels

ALL_BREEDS = "all breeds"
KEPT = 16  # photographs of a viewer that are kept drawn: to come back to one takes half the time of its first look


class DatasetBrowser(VBox):
    """Look through a dataset: breed, split, border policy; next and random pet; the augmentation drawn anew.

    Attributes:
        breed, split, border_policy: dropdowns.
        next, random, augment: buttons.
        picture: an Image with PNG bytes; empty where no pet fits the choice.
        caption: a Label that says which pet it is.
    """

    def __init__(self, dataset: PetDataset, parameters: ImageParameters) -> None:
        """Args: parameters: notebook 01's; the border policy to begin with, the input size and the augmentation."""
        self._dataset, self._size = dataset, parameters.image_size
        self._augmentation = build_augmentation(parameters, parameters.seed)
        self._draws = np.random.default_rng(parameters.seed)
        self._place = 0
        breeds = [(breed_label(breed), breed) for breed in sorted({pet.breed for pet in dataset.pets})]
        self.breed = _dropdown("breed", [(ALL_BREEDS, ALL_BREEDS), *breeds], ALL_BREEDS)
        self.split = _dropdown("split", SPLITS, SPLITS[0])
        self.border_policy = _dropdown("border", BORDER_POLICIES, parameters.border_policy)
        self.next = Button(description="next", icon="arrow-right")
        self.random = Button(description="random", icon="random")
        self.augment = Button(description="augment again", icon="refresh")
        self.picture, self.caption = _picture(), Label()
        super().__init__(
            [
                _row(self.breed, self.split, self.border_policy),
                _row(self.next, self.random, self.augment),
                self.picture,
                self.caption,
            ]
        )
        self.breed.observe(lambda change: self._go(0), "value")
        self.split.observe(lambda change: self._go(0), "value")
        self.border_policy.observe(lambda change: self._draw(), "value")
        self.next.on_click(lambda button: self._go(self._place + 1))
        self.random.on_click(lambda button: self._go(int(self._draws.integers(1_000_000))))
        self.augment.on_click(lambda button: self._augment())
        self._go(0)

    def __repr__(self) -> str:
        return f"DatasetBrowser of {len(self._dataset.pets)} photographs: run this cell to use it"

    def _go(self, place: int) -> None:
        """Show the pet at a place of the chosen breed and split; after the last comes the first."""
        pets = [p for p in self._dataset.split(self.split.value) if self.breed.value in (ALL_BREEDS, p.breed)]
        for button in (self.next, self.random, self.augment):
            button.disabled = not pets
        if not pets:
            self._pet, self.picture.value = None, b""
            self.picture.layout.display = "none"  # else the browser shows its sign for a broken picture
            self.caption.value = f"the {self.split.value} split has no {breed_label(self.breed.value)}"
            return
        self._place = place % len(pets)
        self._pet = pets[self._place]
        self.caption.value = (
            f"{breed_label(self._pet.name)}: {self._pet.species}, {self._pet.split} split, {self._place + 1} of {len(pets)}"
        )
        self._photograph = read_photograph(self._dataset.photograph_path(self._pet))
        self._trimap = read_trimap(self._dataset.trimap_path(self._pet))
        self._small = resize_photograph(self._photograph, self._size), resize_trimap(self._trimap, self._size)
        self._augment()

    def _augment(self) -> None:
        image, trimap = self._small
        drawn = self._augmentation(image=image, mask=trimap)
        self._augmented = drawn["image"], drawn["mask"]
        self._draw()

    def _draw(self) -> None:
        if self._pet is None:
            return
        figure = browse_panel(self._photograph, self._trimap, self.border_policy.value, self._augmented, self._pet.name)
        self.picture.value = Live(figure, []).png()
        self.picture.layout.display = None


class _Viewer(VBox):
    """What viewers of photographs share: which one, and the threshold above which a pixel is pet.

    Attributes:
        choice: dropdown of the photographs.
        previous, next: buttons.
        threshold: slider from 0 to 1.
        picture: an Image with PNG bytes.
    """

    def __init__(self, titles: Sequence[str], threshold: float, *beside: ipywidgets.Widget) -> None:
        """Args: titles: one a photograph. beside: widgets to stand beside the threshold."""
        if not titles:
            raise ValueError("there is no photograph to view: at least 1 is needed")
        self._titles = list(titles)
        options = [(breed_label(title), number) for number, title in enumerate(titles)]
        self.choice = _dropdown("photograph", options, 0, "26em")
        self.previous = Button(description="previous", icon="arrow-left")
        self.next = Button(description="next", icon="arrow-right")
        self.threshold = FloatSlider(threshold, min=0, max=1, step=0.01, description="threshold", readout_format=".2f")
        self.picture = _picture()
        super().__init__([_row(self.choice, self.previous, self.next), self.picture, _row(self.threshold, *beside)])
        self.choice.observe(lambda change: self._load(), "value")
        self.previous.on_click(lambda button: self._step(-1))
        self.next.on_click(lambda button: self._step(1))
        self.threshold.observe(lambda change: self._move(), "value")
        self._load()

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self._titles)} photographs: run this cell to use it"

    def _step(self, by: int) -> None:
        self.choice.value = (self.choice.value + by) % len(self._titles)

    def _load(self) -> None:
        """Show the chosen photograph."""
        self._move()

    def _move(self) -> None:
        """Show it at the threshold."""
        raise NotImplementedError


class PredictionViewer(_Viewer):
    """Look through predictions: photograph, truth, probability, and hits, misses and false alarms at any threshold.

    Attributes:
        dice: a Label with the Dice of the photograph, for each model.
    """

    def __init__(
        self,
        items: Sequence[Prediction] | Callable[[int], Prediction],
        titles: Sequence[str],
        threshold: float = 0.5,
    ) -> None:
        """A viewer of as many photographs as there are titles.

        Args:
            items: the predictions, or a function that makes number i of them when it is looked at.
            titles: one a photograph.
            threshold: pet where the probability is above it.
        """
        self._item = items if callable(items) else items.__getitem__
        self._drawn = lru_cache(KEPT)(self._draw)
        self.dice = Label()
        super().__init__(titles, threshold, self.dice)

    def _load(self) -> None:
        self._shown, self._figure, self._live = self._drawn(self.choice.value)
        self._move()

    def _draw(self, number: int) -> tuple[Prediction, Figure, Live]:
        shown = self._item(number)
        figure = prediction_panel(*shown[:3], self.threshold.value, shown.scored, self._titles[number])
        return shown, figure, Live(figure, verdict_axes(figure))

    def _move(self) -> None:
        move_threshold(self._figure, self._shown, self.threshold.value)
        shown, threshold = self._shown, self.threshold.value
        scores = {
            name: image_dice(shown.truth, probability, threshold, shown.scored) for name, probability in shown.by_model().items()
        }
        labels = run_labels(scores)
        self.dice.value = " · ".join(f"{labels[name]} Dice {score:.4f}".strip() for name, score in scores.items())
        self.picture.value = self._live.png()


class CutoutViewer(_Viewer):
    """Look through cut-outs: photograph, probability, and what is cut out at any threshold."""

    def __init__(self, cutouts: Sequence[Cutout], threshold: float = 0.5) -> None:
        """Args: cutouts: one or more. threshold: pet where the probability is above it."""
        self._cutouts = list(cutouts)
        super().__init__([each.name for each in cutouts], threshold)

    def _move(self) -> None:
        figure = cutout_panel(self._cutouts[self.choice.value], self.threshold.value)
        self.picture.value = Live(figure, []).png()


def cutout_viewer(cutouts: Sequence[Cutout], threshold: float = 0.5) -> CutoutViewer:
    """A viewer of cut-outs, to stand as the last expression of a cell."""
    return CutoutViewer(cutouts, threshold)


def dataset_browser(dataset: PetDataset, parameters: ImageParameters) -> DatasetBrowser:
    """A browser of a dataset, to stand as the last expression of a cell."""
    return DatasetBrowser(dataset, parameters)


def prediction_viewer(
    items: Sequence[Prediction] | Callable[[int], Prediction], titles: Sequence[str], threshold: float = 0.5
) -> PredictionViewer:
    """A viewer of predictions, to stand as the last expression of a cell; arguments as of `PredictionViewer`."""
    return PredictionViewer(items, titles, threshold)


def _row(*widgets: ipywidgets.Widget) -> HBox:
    """Widgets side by side, on more lines where the window is narrow."""
    return HBox(widgets, layout={"flex_flow": "row wrap"})


def _dropdown(name: str, options: Any, value: Any, width: str = "16em") -> Dropdown:
    return Dropdown(options=options, value=value, description=name, layout={"width": width})


def _picture() -> ipywidgets.Image:
    return ipywidgets.Image(format="png", layout={"width": f"{WIDTH * CSS_DPI:.0f}px", "max_width": "100%"})
