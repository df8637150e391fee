"""Photographs and trimaps at the network's input size, decoded once and then mapped into memory.

The cache lies beside the runs, never in the data folder, under a name made from everything that it depends on.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock

from petseg_lib.config import workspace
from petseg_lib.data.masks import resize_trimap
from petseg_lib.data.pets import Pet, PetDataset
from petseg_lib.data.pictures import DatasetError, read_photograph, read_trimap, reason
from petseg_lib.disk import remove_left, settle

FORMAT_VERSION = 3  # raise it when the same files would give other pixels, or other files are kept


@dataclass
class Cache:
    """Row i of each array belongs to `names[i]`.

    Attributes:
        folder: where the arrays are stored.
        names: names of the pets, N of them.
        images: (N, S, S, 3) uint8 RGB, read-only.
        trimaps: (N, S, S) uint8, 1 pet, 2 background, 3 border, read-only.
        content: `content_of` the files that they were made from.
    """

    folder: Path
    names: tuple[str, ...]
    images: np.memmap
    trimaps: np.memmap
    content: str

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self):
        # A worker process maps the files anew: a pickled memory map would be a copy of all its pixels.
        return _mapped, (self.folder, self.names)


def open_cache(dataset: PetDataset, pets: Sequence[Pet], image_size: int, folder: Path | None = None) -> Cache:
    """The pets' photographs and trimaps at `image_size`, built at first use and reopened from then on.

    Photographs are squeezed into the square by area averaging (linearly where they must grow), trimaps by nearest
    neighbour. Several processes may open the same cache at once: one of them builds it, and the others wait.

    Args:
        dataset: where the files are.
        pets: which of them, one or more, in the order of the rows.
        image_size: side S of the square, px.
        folder: where caches are kept; `runs/cache` of the workspace by default.

    Raises:
        DatasetError: a file cannot be read, a trimap does not fit its photograph, or the disk is too full.
    """
    parent = workspace() / "runs" / "cache" if folder is None else Path(folder)
    place = parent / key(dataset, pets, image_size)
    if not place.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / ".lock"):
            if not place.is_dir():  # another process may have built it meanwhile
                _build_aside(dataset, pets, image_size, place)
    return _mapped(place, tuple(pet.name for pet in pets))


def resize_photograph(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3): area averaging along an axis that shrinks, linear along one that grows."""
    height, width = image.shape[:2]
    shrunk = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR)


def _mapped(place: Path, names: tuple[str, ...]) -> Cache:
    images = np.load(place / "images.npy", mmap_mode="r")
    trimaps = np.load(place / "trimaps.npy", mmap_mode="r")
    return Cache(place, names, images, trimaps, (place / "content").read_text(encoding="utf-8"))


def key(dataset: PetDataset, pets: Sequence[Pet], image_size: int) -> str:
    """A name that changes with the pets, their files' sizes and times, the image size (px; 0 = their own) and the format."""
    made_from = hashlib.sha256(json.dumps([FORMAT_VERSION, image_size]).encode())
    for pet in pets:
        stats = [path.stat() for path in (dataset.photograph_path(pet), dataset.trimap_path(pet))]
        made_from.update(json.dumps([pet.name, *((stat.st_size, stat.st_mtime_ns) for stat in stats)]).encode())
    return f"{image_size}px-{len(pets)}-{made_from.hexdigest()[:16]}"


def content_of(dataset: PetDataset, pets: Sequence[Pet]) -> str:
    """What stands in the pets' files, whatever their names and times: 16 hexadecimal digits of a SHA-256.

    Raises:
        DatasetError: a file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        return _joined(pool.map(lambda pet: _digest(dataset, pet), pets))


def _digest(dataset: PetDataset, pet: Pet) -> bytes:
    both = b""
    for path in (dataset.photograph_path(pet), dataset.trimap_path(pet)):
        try:
            both += hashlib.sha256(path.read_bytes()).digest()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {reason(error)}") from error
    return both


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def _build_aside(dataset: PetDataset, pets: Sequence[Pet], size: int, place: Path) -> None:
    """Build a cache beside its place and rename it; what a process that was killed had left of it goes."""
    remove_left(place.parent, ".building-*")
    needed, free = len(pets) * size * size * 4, shutil.disk_usage(place.parent).free
    if free < needed:
        raise DatasetError(_no_room(place.parent, needed, free))
    # Where building fails, its error must be seen, and not that Windows cannot yet delete the half-made files.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=place.parent, ignore_cleanup_errors=True) as aside:
        finished = Path(aside) / "cache"
        _build(dataset, pets, size, finished)
        settle(finished, place)


def _no_room(folder: Path, needed: int, free: int) -> str:
    return f"the cache needs {needed / 1e9:.1f} GB in {folder}, but only {free / 1e9:.1f} GB are free"


def _reserve(array: np.memmap) -> None:
    """Take a new file's room on the disk: running out of it under a memory map kills the process without a word."""
    if hasattr(os, "posix_fallocate"):  # not on macOS or Windows, where other programs may still take it
        path = Path(array.filename)
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return  # a file system that cannot reserve
            raise DatasetError(_no_room(path.parent, array.nbytes, shutil.disk_usage(path.parent).free)) from error


def _build(dataset: PetDataset, pets: Sequence[Pet], size: int, place: Path) -> None:
    place.mkdir()
    shape = (len(pets), size, size)
    images = np.lib.format.open_memmap(place / "images.npy", "w+", np.uint8, (*shape, 3))
    trimaps = np.lib.format.open_memmap(place / "trimaps.npy", "w+", np.uint8, shape)
    for array in (images, trimaps):
        _reserve(array)

    def fill(row: int) -> bytes:
        images[row], trimaps[row] = _read_pair(dataset, pets[row], size)
        return _digest(dataset, pets[row])  # of files that the operating system holds in memory now

    # Threads: Pillow and OpenCV let go of the interpreter while they decode and resize.
    with ThreadPoolExecutor() as pool:
        content = _joined(pool.map(fill, range(len(pets))))
    images.flush()
    trimaps.flush()
    (place / "content").write_text(content, encoding="utf-8")


def _read_pair(dataset: PetDataset, pet: Pet, size: int) -> tuple[np.ndarray, np.ndarray]:
    image = read_photograph(dataset.photograph_path(pet))
    trimap = read_trimap(dataset.trimap_path(pet))
    if image.shape[:2] != trimap.shape:
        (height, width), (trimap_height, trimap_width) = image.shape[:2], trimap.shape
        raise DatasetError(
            f"the trimap of {pet.name} has {trimap_width} x {trimap_height} px, but its photograph {width} x {height}"
        )
    return resize_photograph(image, size), resize_trimap(trimap, size)
