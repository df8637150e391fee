"""Mean and standard deviation of the colour channels: exact, in one pass, in constant memory.

Two definitions stand side by side, both on the 0..1 scale:

- pixel-pooled: every pixel of every photograph weighs the same.
- image-averaged: the mean of the photographs' own means, so that every photograph weighs the same, and the standard
  deviation of all pixels about that mean. This is the definition of the source report.
"""

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from petseg_lib.data.pets import Pet, PetDataset
from petseg_lib.data.pictures import DatasetError, open_rgb, read_trimap
from petseg_lib.disk import write_json

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
REPORT_MEAN: Triple = (0.481, 0.449, 0.396)
REPORT_STD: Triple = (0.269, 0.265, 0.273)

_LEVELS = np.arange(256, dtype=np.int64)
_FIXED_POINT = 1 << 60  # image means are summed as integers in this unit, so that their order cannot matter


@dataclass(frozen=True)
class ChannelStatistics:
    """Red, green and blue on the 0..1 scale; the definitions stand at the head of this module."""

    images: int
    pixels: int
    pixel_mean: Triple
    pixel_std: Triple
    image_mean: Triple
    image_std: Triple


def channel_statistics(paths: Sequence[Path]) -> ChannelStatistics:
    """Both definitions of mean and standard deviation over photographs at their original sizes.

    The sums are integers, so the result is the same in any order and with any number of threads (Pillow decodes outside the
    interpreter's lock, and threads were as fast as processes).

    Args:
        paths: photographs, one or more.

    Raises:
        DatasetError: there is no photograph, or one cannot be read.
    """
    if not paths:
        raise DatasetError("mean and standard deviation need one photograph or more, but there are none")
    pixels, totals, squares, means = 0, [0, 0, 0], [0, 0, 0], [0, 0, 0]
    with ThreadPoolExecutor() as pool:
        for count, total, square in pool.map(_sums, paths):
            pixels += count
            for channel in range(3):
                totals[channel] += total[channel]
                squares[channel] += square[channel]
                means[channel] += total[channel] * _FIXED_POINT // count
    return _statistics(len(paths), pixels, totals, squares, means)


def save_statistics(stats: ChannelStatistics, path: Path) -> None:
    """Write them as JSON, whole or not at all."""
    write_json(path, asdict(stats))


def load_statistics(path: Path) -> ChannelStatistics:
    """Read what `save_statistics` wrote.

    Raises:
        DatasetError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise DatasetError(f"the statistics {path} do not exist: run notebook 02, or choose another normalisation")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"the statistics {path} are not JSON: {error}") from error
    names = [field.name for field in fields(ChannelStatistics)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise DatasetError(f"the statistics {path} must hold exactly {', '.join(names)}")
    lists_as_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return ChannelStatistics(**lists_as_tuples)


def _sums(path: Path) -> tuple[int, list[int], list[int]]:
    """Of one photograph: its pixels, and of each channel the sum and the sum of squares, on the 0..255 scale."""
    histogram = np.array(open_rgb(path).histogram(), dtype=np.int64).reshape(3, 256)
    return int(histogram[0].sum()), (histogram @ _LEVELS).tolist(), (histogram @ _LEVELS**2).tolist()


def _statistics(images: int, pixels: int, totals: list[int], squares: list[int], means: list[int]) -> ChannelStatistics:
    """From sums to statistics; rounding happens only here."""
    pixel_mean = [total / pixels for total in totals]
    image_mean = [mean / (images * _FIXED_POINT) for mean in means]
    # Python's integers make n * sum(x**2) - sum(x)**2 exact, where floats would cancel.
    variance = [(pixels * square - total**2) / pixels**2 for total, square in zip(totals, squares, strict=True)]
    # The mean square about m is the variance plus (mean - m)**2.
    about = [v + (p - m) ** 2 for v, p, m in zip(variance, pixel_mean, image_mean, strict=True)]
    return ChannelStatistics(
        images=images,
        pixels=pixels,
        pixel_mean=tuple(mean / 255 for mean in pixel_mean),
        pixel_std=tuple(math.sqrt(v) / 255 for v in variance),
        image_mean=tuple(mean / 255 for mean in image_mean),
        image_std=tuple(math.sqrt(v) / 255 for v in about),
    )


def trimap_shares(dataset: PetDataset) -> pd.DataFrame:
    """How much of each photograph is what.

    Returns:
        One row a pet: name, breed, species, split, and the shares pet, background, border of its trimap's pixels, 0 to 1.
    """

    def shares(pet: Pet) -> tuple:
        counts = np.bincount(read_trimap(dataset.trimap_path(pet)).ravel(), minlength=4)[1:]
        return (pet.name, pet.breed, pet.species, pet.split, *(counts / counts.sum()).tolist())

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(shares, dataset.pets))
    return pd.DataFrame(rows, columns=["name", "breed", "species", "split", "pet", "background", "border"])
