"""The index of a dataset in the Oxford-IIIT layout: which pets there are, in which split, and where their files lie.

Layout and list files: Parkhi, Vedaldi, Zisserman, Jawahar, "Cats and Dogs", CVPR 2012. The list files say what belongs
to the dataset; folders are never searched, because archives of it hold hidden and unlisted files as well.
"""

import os
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from petseg_lib.config import workspace
from petseg_lib.data.pictures import DatasetError, named, opened, reason
from petseg_lib.disk import from_here, settle
from petseg_lib.words import some

SPLITS = ("train", "valid", "test")
SPECIES = {"1": "cat", "2": "dog"}
DEMO_COUNT = 240
VALID_EVERY = 10
LISTS = {"trainval.txt": {"split": "train", "valid_every": VALID_EVERY}, "test.txt": {"split": "test"}}
LINE_RULE = "a line must be NAME CLASS SPECIES BREED, NAME and BREED without spaces and SPECIES 1 (cat) or 2 (dog)"
NO_PATH = set("/\\\0")  # a name must not lead out of the folder


@dataclass(frozen=True, slots=True)
class Pet:
    """One line of a list file."""

    name: str
    breed: str
    species: Literal["cat", "dog"]
    split: Literal["train", "valid", "test"]


@dataclass(frozen=True)
class PetDataset:
    """The pets of a dataset, in the order of trainval.txt and then of test.txt."""

    root: Path
    pets: tuple[Pet, ...]

    def photograph_path(self, pet: Pet) -> Path:
        return self.root / "images" / f"{pet.name}.jpg"

    def trimap_path(self, pet: Pet) -> Path:
        return self.root / "annotations" / "trimaps" / f"{pet.name}.png"

    def split(self, name: str) -> tuple[Pet, ...]:
        """The pets of `train`, `valid`, `test`, or `trainval` (the first two, in the order of the list file).

        Raises:
            DatasetError: there is no split of this name.
        """
        if name not in (*SPLITS, "trainval"):
            raise DatasetError(f"there is no split {name!r}: it must be train, valid, trainval or test")
        wanted = ("train", "valid") if name == "trainval" else (name,)
        return tuple(pet for pet in self.pets if pet.split in wanted)


def load_pets(root: str | Path, limit_images: int = 0) -> PetDataset:
    """The index of the dataset in a folder.

    Lines 0, 10, 20, ... of trainval.txt are the `valid` split, its other lines `train`; test.txt is `test`.

    Args:
        root: folder that holds `images` and `annotations`, itself or in its sub-folder `oxford-iiit-pet`.
        limit_images: images kept of each split, evenly spaced along it; 0 = all.

    Raises:
        DatasetError: a folder, list file, photograph or trimap is missing, a split is empty, a line cannot be read,
            or a name stands twice.
    """
    root = dataset_root(Path(root))
    trainval, test = (_read_list(root, file) for file in LISTS)
    if repeated := repeated_names(trainval, test):
        raise DatasetError(repeated[0])
    dataset = PetDataset(root, (*trainval, *test))
    for split in SPLITS:
        if not dataset.split(split):
            raise DatasetError(f"the split {split!r} of {root} is empty: every split needs one image or more")
    _check_files(dataset)
    if limit_images == 0:
        return dataset
    kept = {pet for split in SPLITS for pet in _evenly_spaced(dataset.split(split), limit_images)}
    return PetDataset(root, tuple(pet for pet in dataset.pets if pet in kept))


def draw_train(dataset: PetDataset, count: int, seed: int) -> PetDataset:
    """A dataset with `count` pets in its split `train`, drawn at random; 0 = all, and its other splits as they are.

    Of one seed, those drawn for a smaller count are among those drawn for a larger one.

    Raises:
        DatasetError: the split has not as many.
    """
    train = dataset.split("train")
    if count > len(train):
        raise DatasetError(f"parameter train_images is {count}, but the train split has {len(train)} (0 = all)")
    if count == 0:
        return dataset
    drawn = {train[place] for place in np.random.default_rng(seed).permutation(len(train))[:count]}
    return replace(dataset, pets=tuple(pet for pet in dataset.pets if pet.split != "train" or pet in drawn))


def open_dataset(data: str, limit_images: int = 0) -> PetDataset:
    """The dataset that the parameter `data` names.

    Args:
        data: as in `dataset_folder`.
        limit_images: as in `load_pets`.

    Raises:
        DatasetError: the folder cannot be used.
    """
    return load_pets(dataset_folder(data), limit_images)


def dataset_folder(data: str) -> Path:
    """The folder that the parameter `data` names, which need not exist.

    Args:
        data: `demo` for the built-in synthetic pets, drawn at first use into `data/demo` of the workspace; or a folder,
            absolute, or relative to the current folder or else to the workspace.

    Raises:
        ReadableError: it is in the home of a user who is not known here.
    """
    if data == "demo":
        return _demo_folder()
    return from_here(data)


def describe(dataset: PetDataset) -> pd.DataFrame:
    """One row a pet: name, breed, species, split, width and height of the photograph in px (from its header alone)."""
    rows = []
    for pet in dataset.pets:
        path = dataset.photograph_path(pet)
        with named(f"the photograph {path}"), opened(path) as image:
            rows.append((pet.name, pet.breed, pet.species, pet.split, *image.size))
    return pd.DataFrame(rows, columns=["name", "breed", "species", "split", "width", "height"])


def dataset_root(root: Path) -> Path:
    """The folder that has images, annotations and annotations/trimaps: this one, or torchvision's nesting in it.

    Raises:
        DatasetError: it is not in the Oxford-IIIT layout.
    """
    if not root.is_dir():
        raise DatasetError(f"the data folder {root} {'is a file' if root.is_file() else 'does not exist'}")
    nested = root / "oxford-iiit-pet"
    root = nested if nested.is_dir() else root
    needed = ("images", "annotations", "annotations/trimaps")
    missing = [name for name in needed if not (root / name).is_dir()]
    missing += [f"annotations/{name}" for name in ("trainval.txt", "test.txt") if not (root / "annotations" / name).is_file()]
    if missing:
        raise DatasetError(f"the data folder {root} is not in the Oxford-IIIT layout: it lacks {', '.join(missing)}")
    return root


def read_list(path: Path, split: str, valid_every: int = 0) -> tuple[list[Pet], list[str]]:
    """The pets of a list file: lines `NAME CLASS SPECIES BREED`; empty lines and comments (`#`) do not count.

    The breed is BREED, or where that is a number, as in Oxford-IIIT Pet, what NAME has before its last underscore.

    With `valid_every` n, lines 0, n, 2n, ... belong to `valid` instead of `split`.

    Returns:
        The pets, and the lines that cannot be read (their first 80 characters).

    Raises:
        DatasetError: the file cannot be read, or is no text in UTF-8. The error leaves it to the caller to name the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a text with a byte order mark
    except OSError as error:
        raise DatasetError(f"cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"is no text in UTF-8: {reason(error)}") from error
    lines = [line.split() for line in text.splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    pets, unreadable = [], []
    for number, words in enumerate(lines):
        if not 3 <= len(words) <= 4 or words[2] not in SPECIES or not NO_PATH.isdisjoint(words[0]):
            unreadable.append(" ".join(words)[:80])
            continue
        name = words[0]
        validates = valid_every and number % valid_every == 0
        breed = words[3] if len(words) > 3 and not words[3].isdigit() else name.rpartition("_")[0] or name
        pets.append(Pet(name, breed, SPECIES[words[2]], "valid" if validates else split))
    return pets, unreadable


def _read_list(root: Path, file: str) -> list[Pet]:
    path = root / "annotations" / file
    with named(str(path)):
        pets, unreadable = read_list(path, **LISTS[file])
        if unreadable:
            raise DatasetError(f"has the line {unreadable[0]!r}, but {LINE_RULE}")
    return pets


def repeated_names(trainval: list[Pet], test: list[Pet]) -> list[str]:
    """A sentence for each way in which names stand more than once in the lists."""
    problems = []
    for file, pets in (("trainval.txt", trainval), ("test.txt", test)):
        twice = [name for name, count in Counter(pet.name for pet in pets).items() if count > 1]
        if twice:
            problems.append(f"{len(twice)} names stand more than once in {file}: {some(twice)}")
    tested = {pet.name for pet in test}
    both = [pet.name for pet in trainval if pet.name in tested]
    if both:
        problems.append(f"{len(both)} names stand in both trainval.txt and test.txt: {some(both)}")
    return problems


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, sorted: asking for each file alone is slow on network drives.

    Raises:
        DatasetError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError as error:
        raise DatasetError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _check_files(dataset: PetDataset) -> None:
    """Every listed photograph and trimap is there."""
    problems = []
    for kind, path_of in (("photographs", dataset.photograph_path), ("trimaps", dataset.trimap_path)):
        folder, suffix = path_of(dataset.pets[0]).parent, path_of(dataset.pets[0]).suffix
        there = set(names_in(folder))
        missing = [f"{pet.name}{suffix}" for pet in dataset.pets if f"{pet.name}{suffix}" not in there]
        if missing:
            problems.append(f"{len(missing)} of {len(dataset.pets)} listed {kind} are missing: {some(missing)}")
    if problems:
        raise DatasetError(f"in {dataset.root}, " + "; ".join(problems))


def _evenly_spaced(pets: tuple[Pet, ...], count: int) -> list[Pet]:
    count = min(count, len(pets))
    return [pets[index * len(pets) // count] for index in range(count)]


def _demo_folder() -> Path:
    """The synthetic pets, drawn aside and then renamed, so that no other process ever sees half of them."""
    from petseg_lib.data.synthetic import draw_pets

    folder = workspace() / "data" / "demo"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder.parent) as aside:
            finished = Path(aside) / "demo"
            draw_pets(finished, count=DEMO_COUNT, seed=0)
            settle(finished, folder)
    return folder
