"""What is wrong with a dataset: every listed file read once, and everything named at once rather than at the first error."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from tqdm.std import tqdm

from petseg_lib.data.masks import PET
from petseg_lib.data.pets import (
    LINE_RULE,
    LISTS,
    SPLITS,
    DatasetError,
    Pet,
    PetDataset,
    dataset_root,
    decoded_rgb,
    decoded_trimap,
    file_bytes,
    names_in,
    opened,
    orientation,
    read_list,
    repeated_names,
    some,
)

STOPS = "training stops"
UNUSABLE = "training stops; left out under bad_samples: skip"
CONVERTED, IGNORED, USED = "converted", "ignored", "used as it is"
LEVELS = {STOPS: "stops", UNUSABLE: "unusable", CONVERTED: "note", IGNORED: "note", USED: "note"}

COLOURS = {
    "1": "two grey levels alone",
    "L": "grey levels alone",
    "LA": "grey levels and an alpha channel",
    "P": "a palette",
    "PA": "a palette and an alpha channel",
    "RGBA": "an alpha channel",
    "CMYK": "CMYK colours",
    "I;16": "16 bits a pixel, of which values above 255 become white",
}
ROWS_ALIKE = 10


@dataclass(frozen=True)
class Problem:
    """One row of the table.

    Attributes:
        file: relative to the folder that holds `images`, with forward slashes.
        problem: what is wrong, a sentence whose subject is the file.
        consequence: what training will do about it.
    """

    file: str
    problem: str
    consequence: str

    @property
    def level(self) -> Literal["stops", "unusable", "note"]:
        """`stops`: no training on this folder; `unusable`: not with this pair of files; `note`: training goes on."""
        return LEVELS[self.consequence]


@dataclass(frozen=True)
class Check:
    """What was found in a folder.

    Attributes:
        pets: how many each split lists.
        problems: what stops training first, then unusable pairs, then notes.
    """

    pets: dict[str, int]
    problems: tuple[Problem, ...]

    @property
    def trainable(self) -> bool:
        """Whether training can start with every listed pair."""
        return all(problem.level == "note" for problem in self.problems)

    def table(self) -> str:
        """The problems as aligned text, where many files with the same problem share a row, and a line that sums up."""
        alike: dict[tuple[str, str], list[str]] = {}
        for problem in self.problems:
            alike.setdefault((problem.problem, problem.consequence), []).append(problem.file)
        rows = [("file", "problem", "what will happen")] if alike else []
        for (sentence, consequence), files in alike.items():
            rows += [(file, sentence, consequence) for file in files[:ROWS_ALIKE]]
            if len(files) > ROWS_ALIKE:
                rows.append((f"and {len(files) - ROWS_ALIKE} more files", sentence, consequence))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        listed = ", ".join(f"{count} {split}" for split, count in self.pets.items())
        stopping = sum(problem.level != "note" for problem in self.problems)
        verdict = "training can start" if self.trainable else f"{stopping} problems stop training"
        notes = len(self.problems) - stopping
        return "\n".join([*lines, f"{sum(self.pets.values())} pets ({listed}): {verdict}; {notes} notes"])

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: `trainable`, `pets` and `problems`, each with file, problem, consequence and level."""
        rows = [asdict(problem) | {"level": problem.level} for problem in self.problems]
        return {"trainable": self.trainable, "pets": self.pets, "problems": rows}


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
    pairs = _read_pairs(dataset, dataset.pets, progress)
    for pair in pairs:
        problems += pair.problems
    problems += _same_photographs(dataset.pets, [pair.pixels for pair in pairs])
    problems += _unlisted("images", there["images"], {f"{pet.name}.jpg" for pet in dataset.pets})
    problems += _unlisted("annotations/trimaps", there["annotations/trimaps"], {f"{pet.name}.png" for pet in dataset.pets})
    problems.sort(key=lambda problem: list(LEVELS).index(problem.consequence))
    return Check({split: len(dataset.split(split)) for split in SPLITS}, tuple(problems))


def write_json(check: Check, path: str | Path) -> None:
    """`check.as_dict()` as a file.

    Raises:
        DatasetError: the file cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(check.as_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror}") from error


def bad_samples(dataset: PetDataset, pets: Sequence[Pet], progress: bool = False) -> dict[str, str]:
    """The pets whose files training cannot use, and why: `{name: sentence}`, in the order of the pets.

    Args:
        dataset: where the files are.
        pets: which of them to read.
        progress: show a bar.
    """
    bad = {}
    for pet, pair in zip(pets, _read_pairs(dataset, pets, progress), strict=True):
        reasons = [f"{problem.file} {problem.problem}" for problem in pair.problems if problem.level != "note"]
        if reasons:
            bad[pet.name] = "; ".join(reasons)
    return bad


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
    for split in SPLITS:
        if not dataset.split(split):
            problems.append(Problem("annotations", f"the split {split!r} is empty: every split needs one image or more", STOPS))
    return dataset, problems


@dataclass(frozen=True)
class _Pair:
    """What is kept of two files once they were read: their problems, and a digest of the photograph's pixels."""

    problems: tuple[Problem, ...]
    pixels: bytes | None


def _read_pairs(dataset: PetDataset, pets: Sequence[Pet], progress: bool) -> list[_Pair]:
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
        pairs = pool.map(partial(_read_pair, dataset), pets)
        return list(tqdm(pairs, total=len(pets), desc="checking", unit="pet", disable=not progress))


def _read_pair(dataset: PetDataset, pet: Pet) -> _Pair:
    paths = dataset.photograph_path(pet), dataset.trimap_path(pet)
    photograph, mask = (path.relative_to(dataset.root).as_posix() for path in paths)
    problems = []
    image = trimap = pixels = None
    turned = 1
    try:
        source = opened(file_bytes(paths[0]))
        turned, note = orientation(source), _to_convert(source, ("JPEG", "MPO"), "jpg", COLOURS)
        image = decoded_rgb(source)
        pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
        if note:
            problems.append(Problem(photograph, note, CONVERTED))
    except DatasetError as error:
        problems.append(_unreadable(photograph, error))
    try:
        source = opened(file_bytes(paths[1]))
        trimap = decoded_trimap(source)
        if note := _to_convert(source, ("PNG",), "png"):
            problems.append(Problem(mask, note, CONVERTED))
        if not (trimap == PET).any():
            problems.append(Problem(mask, "has no pet pixel", USED))
    except DatasetError as error:
        problems.append(_unreadable(mask, error))
    fits = image is None or trimap is None or image.size == trimap.shape[::-1]
    if not fits:
        (width, height), (mask_height, mask_width) = image.size, trimap.shape
        if turned >= 5 and image.size == trimap.shape:
            sentence = (
                f"has {width} x {height} px as stored, but its mask follows the EXIF rotation: {mask_width} x {mask_height}"
            )
            problems.append(Problem(photograph, sentence, UNUSABLE))
        else:
            sentence = f"has {mask_width} x {mask_height} px, but its photograph {width} x {height}"
            problems.append(Problem(mask, sentence, UNUSABLE))
    elif turned > 1:
        problems.append(Problem(photograph, f"has the EXIF orientation {turned}, which is not followed", USED))
    return _Pair(tuple(problems), pixels)


def _unreadable(file: str, error: DatasetError) -> Problem:
    # A missing file stops training in any case, as it says that the download is not complete.
    return Problem(file, str(error), STOPS if isinstance(error.__cause__, FileNotFoundError) else UNUSABLE)


def _to_convert(image: Image.Image, formats: tuple[str, ...], suffix: str, colours: dict[str, str] | None = None) -> str:
    """How a picture differs from the format and the colours that its name promises; empty where it does not."""
    parts = [] if image.format in formats else [f"is a {image.format} named .{suffix}"]
    if colours and image.mode != "RGB":
        parts.append(f"has {colours.get(image.mode, f'the colour mode {image.mode}')}")
    return " and ".join(parts)


def _same_photographs(pets: Sequence[Pet], pixels: Sequence[bytes | None]) -> Iterator[Problem]:
    """Photographs that show the same pixels as one before them."""
    first: dict[bytes, Pet] = {}
    for pet, digest in zip(pets, pixels, strict=True):
        other = pet if digest is None else first.setdefault(digest, pet)
        if other is pet:
            continue
        sentence = f"is the same photograph as {other.name}.jpg"
        if pet.split != other.split:
            sentence += f", and leaks: this one is in {pet.split}, that one in {other.split}"
        yield Problem(f"images/{pet.name}.jpg", sentence, USED)


def _unlisted(folder: str, there: Sequence[str], listed: set[str]) -> Iterator[Problem]:
    """One row for hidden files and one for the others: there may be thousands."""
    hidden = [name for name in there if name.startswith(".") and name not in listed]
    others = [name for name in there if not name.startswith(".") and name not in listed]
    for kind, names in (("hidden files", hidden), ("files that stand in no list", others)):
        if names:
            yield Problem(folder, f"holds {len(names)} {kind}: {some(names)}", IGNORED)
