"""Widgets answer their controls: the picture changes, and the words under it are those of the data."""

import io
import statistics
import time

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from ipywidgets import Widget
from PIL import Image

from petseg_lib import dice
from petseg_lib.config import ExplorationParameters
from petseg_lib.data.pets import load_pets
from petseg_lib.figures import Prediction
from petseg_lib.widgets import dataset_browser, prediction_viewer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight pets of two breeds; the only valid pet is a cat."""
    root = tmp_path_factory.mktemp("pets")
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    draws = np.random.default_rng(0)
    lines = []
    for number in range(8):
        name, species = (f"Egyptian_Mau_{number}", 1) if number % 2 == 0 else (f"pug_{number}", 2)
        noise = draws.integers(0, 256, (60, 80 + number, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{name}.jpg")
        trimap = np.full(noise.shape[:2], 2, np.uint8)
        trimap[10:50, 15:60] = 3
        trimap[15:45, 20:55] = 1
        Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
        lines.append(f"{name} {species} {species} 1\n")
    (root / "annotations" / "trainval.txt").write_text("".join(lines[:5]))
    (root / "annotations" / "test.txt").write_text("".join(lines[5:]))
    return load_pets(root)


@pytest.fixture
def browser(dataset):
    return dataset_browser(dataset, ExplorationParameters(image_size=32, affine_probability=1.0))


def make_predictions(count=3, models=None, shape=(60, 80)):
    draws = np.random.default_rng(0)
    items = []
    for _ in range(count):
        truth = np.zeros(shape, np.uint8)
        truth[10:50, 20:60] = 1
        scored = np.ones(shape, bool)
        scored[10:14] = False
        made = {name: draws.random(shape, dtype=np.float32) for name in models or ("",)}
        photograph = draws.integers(0, 256, (*shape, 3), dtype=np.uint8)
        items.append(Prediction(photograph, truth, made if models else made[""], scored))
    return items


def expected_dice(item, probability, threshold):
    masks = (probability > threshold, item.truth, item.scored)
    counts = dice.count(*(torch.from_numpy(mask)[None, None] for mask in masks))[0]
    return float(dice.dice_from_counts(*counts.tolist()))


def changes(widget, act):
    """Whether an act changes a widget's picture; the picture is one in any case."""
    before = widget.picture.value
    act()
    assert Image.open(io.BytesIO(widget.picture.value)).width > 400
    return widget.picture.value != before


def test_browser_begins_with_the_first_pet_of_the_train_split(browser):
    assert browser.caption.value == "pug 1: dog, train split, 1 of 4"
    assert browser.border_policy.value == "pet"
    assert Image.open(io.BytesIO(browser.picture.value)).format == "PNG"


def test_browser_goes_round_its_pets(browser):
    seen = [browser.caption.value]
    for _ in range(4):
        assert changes(browser, browser.next.click)
        seen.append(browser.caption.value)
    assert len(set(seen)) == 4
    assert seen[0] == seen[4]


def test_browser_random_reaches_every_pet(browser):
    seen = set()
    for _ in range(12):
        browser.random.click()
        seen.add(browser.caption.value)
    assert len(seen) == 4


def test_browser_shows_the_chosen_breed_and_split(browser):
    assert changes(browser, lambda: setattr(browser.split, "value", "test"))
    assert browser.caption.value == "pug 5: dog, test split, 1 of 3"
    assert changes(browser, lambda: setattr(browser.breed, "value", "Egyptian_Mau"))
    assert browser.caption.value == "Egyptian Mau 6: cat, test split, 1 of 1"
    assert "Egyptian Mau" in [label for label, _ in browser.breed.options]


def test_browser_draws_the_augmentation_anew_and_keeps_it_under_another_policy(browser):
    first = browser._augmented[0].copy()
    assert changes(browser, browser.augment.click)
    assert not np.array_equal(browser._augmented[0], first)
    assert set(np.unique(browser._augmented[1])) <= {1, 2, 3}
    drawn = browser._augmented[0].copy()
    for policy in ("background", "edge", "ignore"):
        assert changes(browser, lambda policy=policy: setattr(browser.border_policy, "value", policy))
        assert np.array_equal(browser._augmented[0], drawn)


def test_browser_says_where_there_is_no_pet_and_comes_back(browser):
    browser.split.value, browser.breed.value = "valid", "pug"
    assert browser.caption.value == "the valid split has no pug"
    assert browser.picture.value == b""
    assert browser.next.disabled
    browser.border_policy.value = "edge"
    assert browser.picture.value == b""
    browser.breed.value = "Egyptian_Mau"
    assert browser.caption.value == "Egyptian Mau 0: cat, valid split, 1 of 1"
    assert Image.open(io.BytesIO(browser.picture.value)).width > 400
    assert browser.picture.layout.display is None
    assert not browser.next.disabled


def test_viewer_threshold_changes_picture_and_dice():
    items = make_predictions()
    viewer = prediction_viewer(items, ["a", "b", "c"])
    assert viewer.dice.value == f"Dice {expected_dice(items[0], items[0].probability, 0.5):.4f}"
    for threshold in (0.0, 0.31, 0.9, 1.0):
        assert changes(viewer, lambda threshold=threshold: setattr(viewer.threshold, "value", threshold))
        assert viewer.dice.value == f"Dice {expected_dice(items[0], items[0].probability, threshold):.4f}"
    assert viewer.dice.value == "Dice 0.0000"


def test_viewer_keeps_its_threshold_from_photograph_to_photograph():
    items = make_predictions()
    viewer = prediction_viewer(items, ["Egyptian_Mau_1", "pug_2", "pug_3"], threshold=0.7)
    for number in (1, 2, 0):
        assert changes(viewer, viewer.next.click)
        assert viewer.choice.value == number
        assert viewer.dice.value == f"Dice {expected_dice(items[number], items[number].probability, 0.7):.4f}"
    viewer.previous.click()
    assert viewer.choice.value == 2
    assert viewer.choice.options[0] == ("Egyptian Mau 1", 0)


def test_viewer_puts_two_models_side_by_side():
    items = make_predictions(2, ("unet", "resnet34_unet"))
    viewer = prediction_viewer(items, ["a", "b"])
    assert changes(viewer, lambda: setattr(viewer.threshold, "value", 0.4))
    first, second = (expected_dice(items[0], items[0].probability[name], 0.4) for name in ("unet", "resnet34_unet"))
    assert first != second
    assert viewer.dice.value == f"UNet Dice {first:.4f} · ResNet34-UNet Dice {second:.4f}"


def test_viewer_asks_a_function_for_one_photograph_at_a_time():
    asked, items = [], make_predictions()

    def item(number):
        asked.append(number)
        return items[number]

    viewer = prediction_viewer(item, ["a", "b", "c"])
    viewer.threshold.value = 0.3
    viewer.choice.value = 2
    assert asked == [0, 2]


def test_viewer_refuses_nothing_at_all():
    with pytest.raises(ValueError, match="at least 1"):
        prediction_viewer([], [])


def test_viewer_answers_quickly():
    items = make_predictions(2, ("unet", "resnet34_unet"), shape=(375, 500))
    viewer = prediction_viewer(items, ["a", "b"])
    for _ in range(2):
        viewer.next.click()  # a first look at each
    moves = [lambda at=at: setattr(viewer.threshold, "value", at) for at in np.linspace(0.2, 0.8, 9)]
    for act in (moves, [viewer.next.click] * 9):
        seconds = []
        for move in act:
            began = time.process_time()  # not the time by the clock: the machine may be busy with other things
            move()
            seconds.append(time.process_time() - began)
        assert statistics.median(seconds) < 0.3


def test_a_notebook_keeps_of_a_widget_its_view_alone(browser):
    viewer = prediction_viewer(make_predictions(), ["a", "b", "c"])
    for widget, words in ((viewer, "PredictionViewer of 3 photographs"), (browser, "DatasetBrowser of 8 photographs")):
        data, _ = DisplayFormatter().format(widget)
        assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/plain"}
        assert data["text/plain"] == f"{words}: run this cell to use it"


@pytest.fixture(autouse=True)
def close_widgets():
    yield
    Widget.close_all()
