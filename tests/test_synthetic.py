"""Synthetic pets: the layout, the same bytes for the same seed, sensible masks, and colour alone does not find them."""

import multiprocessing
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from petseg_lib.cli import main
from petseg_lib.data.synthetic import draw_pets, draw_picture
from petseg_lib.data.synthetic_coat import COATS
from petseg_lib.data.synthetic_paint import Painter
from petseg_lib.data.synthetic_shapes import Blob, Box, Frame, Limb, curve

COUNT = 40


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return draw_pets(tmp_path_factory.mktemp("synthetic") / "pets", count=COUNT, seed=3, workers=1)


def read_list(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]


def read_trimap(root: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(root / "annotations" / "trimaps" / f"{name}.png"))


def test_the_layout_is_that_of_the_real_dataset(drawn):
    listed, trainval, test = (read_list(drawn / "annotations" / f"{n}.txt") for n in ("list", "trainval", "test"))
    assert len(listed) == COUNT and len(trainval) == len(test) == COUNT // 2
    names = [row[0] for row in listed]
    assert len(set(names)) == COUNT
    assert sorted(names) == sorted(row[0] for row in trainval + test)
    assert (drawn / "annotations" / "list.txt").read_text().startswith("#")
    assert sorted(names) == sorted(path.stem for path in (drawn / "images").glob("*.jpg"))
    assert sorted(names) == sorted(path.stem for path in (drawn / "annotations" / "trimaps").glob("*.png"))


def test_breeds_are_balanced_and_numbered_as_in_the_real_dataset(drawn):
    classes = {}
    for split in ("trainval", "test"):
        rows = read_list(drawn / "annotations" / f"{split}.txt")
        counts = Counter(row[0].rsplit("_", 1)[0] for row in rows)
        assert len(counts) == len(COATS) and max(counts.values()) - min(counts.values()) <= 1
        for name, *numbers in rows:
            breed = name.rsplit("_", 1)[0]
            assert classes.setdefault(breed, numbers) == numbers
            assert breed[0].isupper() == (numbers[1] == "1"), "cat breeds are capitalised, dog breeds are not"
    assert sorted(int(numbers[0]) for numbers in classes.values()) == list(range(1, len(COATS) + 1))
    for species in ("1", "2"):
        within = sorted(int(numbers[2]) for numbers in classes.values() if numbers[1] == species)
        assert len(within) >= 3 and within == list(range(1, len(within) + 1))


def test_photographs_and_trimaps_fit_and_vary(drawn):
    sizes = set()
    for name, *_ in read_list(drawn / "annotations" / "list.txt"):
        photograph, trimap = Image.open(drawn / "images" / f"{name}.jpg"), read_trimap(drawn, name)
        assert photograph.mode == "RGB" and photograph.size == trimap.shape[::-1]
        assert trimap.dtype == np.uint8 and set(np.unique(trimap)) == {1, 2, 3}
        assert all(200 <= side <= 400 for side in photograph.size)
        sizes.add(photograph.size)
    assert any(w > h for w, h in sizes) and any(w < h for w, h in sizes)


def test_shares_are_like_those_of_real_trimaps(drawn):
    names = [row[0] for row in read_list(drawn / "annotations" / "list.txt")]
    trimaps = [read_trimap(drawn, name) for name in names]
    assert 0.30 < np.mean([(t != 2).mean() for t in trimaps]) < 0.50
    assert 0.08 < np.mean([(t == 3).mean() for t in trimaps]) < 0.14
    assert all(0.08 < (t != 2).mean() < 0.95 for t in trimaps)


def test_the_border_is_a_thin_band_between_pet_and_background(drawn):
    for name, *_ in read_list(drawn / "annotations" / "test.txt"):
        trimap = read_trimap(drawn, name)
        grown = cv2.dilate((trimap == 1).astype(np.uint8), np.ones((3, 3)))
        assert not (grown & (trimap == 2)).any(), f"{name}: pet touches background"
        band = cv2.distanceTransform((trimap == 3).astype(np.uint8), cv2.DIST_L2, 5)
        assert np.quantile(band[band > 0], 0.9) < 8, f"{name}: the border is wide"


def test_each_picture_follows_from_seed_and_index_alone():
    again, trimap_again = draw_picture(7, 3)
    picture, trimap = draw_picture(7, 3)
    assert np.array_equal(picture, again) and np.array_equal(trimap, trimap_again)
    other_seed, other_index = draw_picture(7, 4)[0], draw_picture(7 + len(COATS), 3)[0]
    for other in (other_seed, other_index):
        assert other.shape != picture.shape or not np.array_equal(other, picture)


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    one, two = (draw_pets(tmp_path / str(workers), 20, seed=1, workers=workers) for workers in (1, 2))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 2 * 20 + 3
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    assert not multiprocessing.active_children()


def test_a_script_without_a_guard_for_its_own_processes_draws_and_runs_once(tmp_path):
    script = tmp_path / "script.py"
    draw = f"draw_pets({str(tmp_path / 'pets')!r}, 20, workers=2)"
    script.write_text(f"from petseg_lib.data.synthetic import draw_pets\nprint('run')\n{draw}\n")
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run\n"
    assert len(list((tmp_path / "pets" / "images").iterdir())) == 20


def small(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Photographs (N, 64, 64, 3) uint8 and where the pet is, border included, (N, 64, 64) bool."""
    images, masks = [], []
    for name, *_ in read_list(root / "annotations" / f"{split}.txt"):
        image = np.asarray(Image.open(root / "images" / f"{name}.jpg"))
        images.append(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA))
        masks.append(cv2.resize(read_trimap(root, name), (64, 64), interpolation=cv2.INTER_NEAREST) != 2)
    return np.stack(images), np.stack(masks)


def dice(prediction: np.ndarray, target: np.ndarray) -> float:
    pixels = (1, 2)
    return float(np.mean(2 * (prediction & target).sum(pixels) / (prediction.sum(pixels) + target.sum(pixels))))


def test_colour_alone_does_not_find_the_pet(drawn):
    (images, masks), (test_images, test_masks) = small(drawn, "trainval"), small(drawn, "test")
    bins = (images // 16).astype(int) @ (256, 16, 1)
    pet, rest = (np.bincount(bins[where], minlength=4096) + 1.0 for where in (masks, ~masks))
    probability = (pet / (pet + rest))[(test_images // 16).astype(int) @ (256, 16, 1)]
    best = max(dice(probability > threshold, test_masks) for threshold in np.linspace(0.1, 0.7, 13))
    assert best < 0.80
    assert best > dice(np.ones_like(test_masks), test_masks), "colour should still say something"


def test_the_place_alone_does_not_find_the_pet(drawn):
    masks, test_masks = small(drawn, "trainval")[1], small(drawn, "test")[1]
    usual = masks.mean(0)
    predictions = (np.broadcast_to(usual > threshold, test_masks.shape) for threshold in np.linspace(0.1, 0.7, 13))
    assert max(dice(prediction, test_masks) for prediction in predictions) < 0.80


@pytest.mark.parametrize(("count", "seed"), [(19, 0), (0, 0), (-5, 0), (20, -1)])
def test_a_bad_count_or_seed_is_one_sentence(tmp_path, count, seed):
    with pytest.raises(ValueError, match=r"^(count|seed) is -?\d+, but .* or more$"):
        draw_pets(tmp_path / "pets", count, seed)
    assert not (tmp_path / "pets").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    for folder in (taken, taken / "notes.txt"):
        with pytest.raises(ValueError, match="not an empty folder"):
            draw_pets(folder, 20)
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]
    assert (taken / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("shape", "inside", "outside", "far"),
    [
        (Blob(1, 2, 0.5, 0.5), (1, 2), (1, 4), 1.5),
        (Box(1, 2, 0.5, 0.25, 0.1), (1.3, 2.1), (3, 2), 1.5),
        (Limb(((0, 0, 0.5), (2, 0, 0.25))), (1, 0.2), (4, 0), 1.75),
        (curve(((0, 0), (1, 0), (2, 0)), 0.5, 0.5), (1, 0.2), (1, 3), 2.5),
    ],
)
def test_distances_are_negative_inside_and_right_outside(shape, inside, outside, far):
    x, y = np.float32([inside[0], outside[0]]), np.float32([inside[1], outside[1]])
    within, beyond = shape.distance(x, y)[0]
    assert within < 0 and beyond == pytest.approx(far, abs=1e-4)
    left, top, right, bottom = shape.bounds()
    assert left <= inside[0] <= right and top <= inside[1] <= bottom


@pytest.mark.parametrize("flip", [-1.0, 1.0])
def test_frames_go_there_and_back(flip):
    frame = Frame(40, 30, 20, flip, 0.4).at(0.5, -0.25, 0.5, 0.2)
    assert frame.local(*frame.pixels(1.5, -0.75)) == pytest.approx((1.5, -0.75))


def test_a_part_outside_the_picture_paints_nothing():
    painter = Painter(40, 50, np.random.default_rng(0))
    painter.part(Frame(500, 500, 10), [Blob(0, 0, 1, 1)], (1, 0, 0), pet=True)
    assert (painter.image == 1).all() and not painter.pet.any()
    painter.part(Frame(25, 20, 10), [Blob(0, 0, 1, 1)], (1, 0, 0), pet=True)
    assert painter.pet.sum() == pytest.approx(np.pi * 100, rel=0.02)
    assert painter.image[:, 20, 25].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["full"], "full is not an empty folder: synthetic pets are drawn only into a new or an empty one"),
        (["new", "--count", "5"], "count is 5, but a synthetic dataset needs 20 pets or more"),
        (["new", "--seed", "-1"], "seed is -1, but it must be 0 or more"),
    ],
)
def test_the_command_says_in_a_sentence_what_it_cannot_draw(tmp_path, monkeypatch, capsys, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full" / "something").mkdir(parents=True)
    assert main(["pets", *options]) == 2
    assert capsys.readouterr().err == f"petseg: {sentence}\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "workspace"] == ["full"]
