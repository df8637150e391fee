"""Photographs that come more than once: the same pixels, or the same picture in another size or quality."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from petseg_lib.data.pets import Pet
from petseg_lib.data.problems import USED, Problem

SIDE = 16  # px of what is left of a photograph to compare it by
# Of the 178,503 pairs of 598 photographs of Oxford-IIIT Pet six correlate by 0.98 or more, all of which are the same picture, and
# none of the others by more than 0.87 (`test_check.py::test_the_real_photographs_that_come_twice`).
ALIKE = 0.97
ROWS = 256  # photographs compared with all others at once: 60,000 of them take 60 MB


class Looks(NamedTuple):
    """What photographs are compared by.

    Attributes:
        digest: of the size and the pixels.
        thumbnail: (SIDE * SIDE,) float32, grey levels with a mean of 0 and a length of 1; zeros for a picture of one colour.
    """

    digest: bytes
    thumbnail: np.ndarray


def looks_of(image: Image.Image) -> Looks:
    """Of a photograph in RGB."""
    grey = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX).convert("L"), dtype=np.float32).ravel()
    grey -= grey.mean()
    length = np.linalg.norm(grey)
    digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
    return Looks(digest, grey / length if length else grey)


def repeated(pets: Sequence[Pet], looks: Sequence[Looks | None]) -> Iterator[Problem]:
    """Each photograph that one before it shows already, and whether the two leak from one split into another.

    Args:
        pets: in the order of their lists.
        looks: of their photographs; None where one cannot be read.
    """
    first: dict[bytes, Pet] = {}
    different: list[tuple[Pet, np.ndarray]] = []
    for pet, seen in zip(pets, looks, strict=True):
        if seen is None:
            continue
        other = first.setdefault(seen.digest, pet)
        if other is pet:
            different.append((pet, seen.thumbnail))
        else:
            yield _problem(pet, other, f"is the same photograph as {other.name}.jpg")
    for pet, other in _alike(different):
        yield _problem(pet, other, f"looks like {other.name}.jpg in another size or quality")


def _alike(photographs: Sequence[tuple[Pet, np.ndarray]]) -> Iterator[tuple[Pet, Pet]]:
    """Each photograph with the first before it that its thumbnail correlates with by `ALIKE` or more."""
    if not photographs:
        return
    thumbnails = np.stack([thumbnail for _, thumbnail in photographs])
    for start in range(0, len(photographs), ROWS):
        rows = thumbnails[start : start + ROWS]
        alike = np.tril(rows @ thumbnails[: start + len(rows)].T >= ALIKE, start - 1)
        for row in np.flatnonzero(alike.any(axis=1)):
            yield photographs[start + row][0], photographs[alike[row].argmax()][0]


def _problem(pet: Pet, other: Pet, sentence: str) -> Problem:
    if pet.split != other.split:
        sentence += f", and leaks: this one is in {pet.split}, that one in {other.split}"
    return Problem(f"images/{pet.name}.jpg", sentence, USED)
