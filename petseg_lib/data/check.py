"""What is wrong with a dataset: every listed file read once, and everything named at once rather than at the first error."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image
from tqdm.std import tqdm

from petseg_lib.config import workspace
from petseg_lib.data.cache import key
from petseg_lib.data.masks import PET
from petseg_lib.data.pets import LINE_RULE, LISTS, SPLITS, Pet, PetDataset, dataset_root, names_in, read_list, repeated_names
from petseg_lib.data.pictures import (
    DatasetError,
    PassingError,
    decoded_rgb,
    decoded_trimap,
    file_bytes,
    opened,
    orientation,
    some,
)
from petseg_lib.data.problems import CONVERTED, IGNORED, LEVELS, STOPS, UNUSABLE, USED, Check, Problem
from petseg_lib.data.twins import Looks, looks_of, repeated
from petseg_lib.disk import write_json

COLOURS = {"L": "grey levels alone", "P": "a palette", "RGBA": "an alpha channel", "CMYK": "CMYK colours"}


class _Pair(NamedTuple):
    """What was found in a pet's two files: problems, what the photograph looks like, and whether another try may differ."""

    problems: list[Problem]
    looks: Looks | None
    passing: bool


def check_folder(folder: str | Path, progress: bool = False) -> Check:
    """Read every listed photograph and trimap, and name all that training will stop at, convert, ignore or use as it is.

    Args:
        folder: a dataset in the Oxford-IIIT layout; whatever is wrong with it becomes a problem, not an error.
        progress: show a bar.
    """
    try:
        root = dataset_root(Path(folder))
        there = {name: names_in(root / name) for name in ("images", "annotations/trimaps")}
    except DatasetError as error:
        return Check(dict.fromkeys(SPLITS, 0), (Problem(".", str(error), STOPS),))
    dataset, problems = _read_lists(root)
    pairs = _read_pairs(dataset, progress)
    for pair in pairs:
        problems += pair.problems
    problems += _of_another_spelling(
        dataset.pets, there, {problem.file for problem in problems if problem.problem == "is missing"}
    )
    problems += repeated(dataset.pets, [pair.looks for pair in pairs])
    problems += _unlisted("images", there["images"], {f"{pet.name}.jpg" for pet in dataset.pets})
    problems += _unlisted("annotations/trimaps", there["annotations/trimaps"], {f"{pet.name}.png" for pet in dataset.pets})
    problems.sort(key=lambda problem: list(LEVELS).index(problem.consequence))
    return Check({split: len(dataset.split(split)) for split in SPLITS}, tuple(problems))


def _unusable(pets: Sequence[Pet], pairs: Sequence[_Pair]) -> dict[str, str]:
    """The pets whose files training cannot use, and why: `{name: sentence}`, in the order of the pets."""
    reasons = {}
    for pet, pair in zip(pets, pairs, strict=True):
        sentences = [f"{problem.file} {problem.problem}" for problem in pair.problems if problem.level != "note"]
        if sentences:
            reasons[pet.name] = "; ".join(sentences)
    return reasons


def usable(dataset: PetDataset, bad_samples: Literal["stop", "skip"]) -> tuple[PetDataset, dict[str, str]]:
    """The dataset without the pets whose files cannot be used, and why each of those was left out.

    The files are read at the first call; while none of them changes, what was found is remembered beside the caches, unless
    a file could not be read for a reason outside of it.

    Args:
        bad_samples: `stop` or `skip`.

    Raises:
        DatasetError: under `stop`, all that cannot be used at once; under `skip`, a split of which nothing is left.
    """
    remembered = workspace() / "runs" / "cache" / f"checked-{key(dataset, dataset.pets, 0)}.json"
    reasons = _remembered(remembered)
    if reasons is None:
        pairs = _read_pairs(dataset, progress=False)
        reasons = _unusable(dataset.pets, pairs)
        if not any(pair.passing for pair in pairs):
            remembered.parent.mkdir(parents=True, exist_ok=True)
            write_json(remembered, reasons)
    if reasons and bad_samples == "stop":
        raise DatasetError(
            f"{len(reasons)} of {len(dataset.pets)} pets cannot be used: {some(reasons.values())}; repair them, or set "
            f"bad_samples to skip (`petseg data check {dataset.root}` lists all)"
        )
    left = PetDataset(dataset.root, tuple(pet for pet in dataset.pets if pet.name not in reasons))
    for split in SPLITS:
        if not left.split(split):
            raise DatasetError(f"nothing is left of the split {split!r}: none of its files can be used")
    if reasons:
        print(f"left out {len(reasons)} of {len(dataset.pets)} pets: {some(reasons.values())}")
    return left, reasons


def _remembered(path: Path) -> dict[str, str] | None:
    """What `usable` found earlier; None where there is no such file, or half of one, as a power cut may leave."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _read_lists(root: Path) -> tuple[PetDataset, list[Problem]]:
    """The pets of all lines that can be read, each name once."""
    problems: list[Problem] = []
    lists: list[list[Pet]] = []
    for file, settings in LISTS.items():
        try:
            pets, unreadable = read_list(root / "annotations" / file, **settings)
        except DatasetError as error:
            pets, unreadable = [], []
            problems.append(Problem(f"annotations/{file}", str(error), STOPS))
        if unreadable:
            sentence = f"has {len(unreadable)} lines that cannot be read, {some(map(repr, unreadable))}: {LINE_RULE}"
            problems.append(Problem(f"annotations/{file}", sentence, STOPS))
        lists.append(pets)
    problems += [Problem("annotations", sentence, STOPS) for sentence in repeated_names(*lists)]
    by_name: dict[str, Pet] = {}
    for pet in (*lists[0], *lists[1]):
        by_name.setdefault(pet.name, pet)
    dataset = PetDataset(root, tuple(by_name.values()))
    empty = [split for split in SPLITS if not dataset.split(split)]
    needed = "is empty: every split needs one image or more"
    return dataset, problems + [Problem("annotations", f"the split {split!r} {needed}", STOPS) for split in empty]


def _read_pairs(dataset: PetDataset, progress: bool) -> list[_Pair]:
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
        pairs = pool.map(partial(_read_pair, dataset), dataset.pets)
        return list(tqdm(pairs, total=len(dataset.pets), desc="checking", unit="pet", disable=not progress))


def _read_pair(dataset: PetDataset, pet: Pet) -> _Pair:
    photograph, mask = f"images/{pet.name}.jpg", f"annotations/trimaps/{pet.name}.png"
    problems: list[Problem] = []
    image = trimap = looks = None
    turned, passing = 1, False
    try:
        picture = opened(file_bytes(dataset.root / photograph))
        note = _to_convert(picture)
        image = decoded_rgb(picture)
        turned = orientation(picture)
        looks = looks_of(image)
        if note:
            problems.append(Problem(photograph, note, CONVERTED))
    except DatasetError as error:
        problems.append(_unreadable(photograph, error))
        passing = isinstance(error, PassingError)
    try:
        trimap = decoded_trimap(opened(file_bytes(dataset.root / mask)))
        if not (trimap == PET).any():
            problems.append(Problem(mask, "has no pet pixel", USED))
    except DatasetError as error:
        problems.append(_unreadable(mask, error))
        passing |= isinstance(error, PassingError)
    if image and trimap is not None and image.size != trimap.shape[::-1]:
        problems.append(_other_size(photograph, mask, image.size, trimap.shape[::-1], turned))
    elif turned > 1:
        problems.append(Problem(photograph, f"has the EXIF orientation {turned}, which is not followed", USED))
    return _Pair(problems, looks, passing)


def _of_another_spelling(pets: Sequence[Pet], there: dict[str, list[str]], named: set[str]) -> Iterator[Problem]:
    """Listed files that a disk without upper and lower case opens under another name, which training does not."""
    names = {folder: set(listing) for folder, listing in there.items()}
    for folder, suffix in (("images", ".jpg"), ("annotations/trimaps", ".png")):
        for file in (f"{pet.name}{suffix}" for pet in pets):
            if file not in names[folder] and f"{folder}/{file}" not in named:
                yield Problem(f"{folder}/{file}", "is missing under exactly this name", STOPS)


def _unreadable(file: str, error: DatasetError) -> Problem:
    # A missing file says that the download is not complete: then training stops in any case.
    return Problem(file, str(error), STOPS if isinstance(error.__cause__, FileNotFoundError) else UNUSABLE)


def _to_convert(picture: Image.Image) -> str:
    """How a photograph differs from a JPEG in RGB; empty where it does not."""
    parts = [] if picture.format in ("JPEG", "MPO") else [f"is a {picture.format} named .jpg"]
    if picture.mode != "RGB":
        parts.append(f"has {COLOURS.get(picture.mode, f'the colour mode {picture.mode}')}")
    return " and ".join(parts)


def _other_size(photograph: str, mask: str, size: tuple[int, int], mask_size: tuple[int, int], turned: int) -> Problem:
    stored, drawn = (f"{width} x {height}" for width, height in (size, mask_size))
    if turned >= 5 and size == mask_size[::-1]:
        return Problem(photograph, f"has {stored} px as stored, but its mask follows the EXIF rotation: {drawn}", UNUSABLE)
    return Problem(mask, f"has {drawn} px, but its photograph {stored}", UNUSABLE)


def _unlisted(folder: str, there: Sequence[str], listed: set[str]) -> Iterator[Problem]:
    """One row for hidden files and one for the others: there may be thousands."""
    hidden = [name for name in there if name.startswith(".") and name not in listed]
    others = [name for name in there if not name.startswith(".") and name not in listed]
    for kind, names in (("hidden files", hidden), ("files that stand in no list", others)):
        if names:
            yield Problem(folder, f"holds {len(names)} {kind}: {some(names)}", IGNORED)
