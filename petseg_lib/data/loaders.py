"""From the cache to normalised batches, whose order and augmentation depend on nothing but seed and epoch."""

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from petseg_lib.config import TrainingParameters
from petseg_lib.data.augment import build_augmentation, cutmix, reseed
from petseg_lib.data.cache import Cache
from petseg_lib.data.masks import target_and_scored
from petseg_lib.devices import memory_format
from petseg_lib.gpus import RUNS_AT_ONCE, finds_cuda, usable_cores

MOST_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")  # through which Linux' worker processes hand over batches; small in many containers
BATCHES_A_WORKER = 3  # two made ahead, and one on its way


class Batch(NamedTuple):
    """A batch of N images.

    Attributes:
        image: (N, 3, S, S) float32, normalised, channels last in memory.
        target: (N, 1, S, S) float32, 0 or 1.
        scored: (N, 1, S, S) bool, False where a pixel must not count.
        index: (N,) int64, rows in the cache.
    """

    image: Tensor
    target: Tensor
    scored: Tensor
    index: Tensor


def build_loader(
    cache: Cache,
    parameters: TrainingParameters,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    train: bool,
    workers: int | None = None,
) -> DataLoader:
    """Batches of everything in a cache; call `set_epoch` before each epoch of training.

    Args:
        cache: images and trimaps.
        parameters: border policy, augmentation, batch size, seed; workers where they are not given.
        mean, std: of the channels, on the 0..1 scale.
        train: True: shuffled and augmented, and a last batch of a single image is left out of the epoch, since
            BatchNorm would see that one alone (unless `batch_size` is 1). False: in order, unchanged, every image exactly once.
        workers: worker processes, which live as long as a pass over the loader; 0 = none. Where it is not given, training
            has those of `worker_count` and measuring has none.
    """
    workers = worker_count(parameters) * train if workers is None else workers
    return DataLoader(
        _BatchDataset(cache, parameters, mean, std, train),
        sampler=_BatchSampler(len(cache), parameters.batch_size, parameters.seed, train),
        batch_size=None,  # the sampler gives whole batches, so that an image is normalised with its batch
        num_workers=workers,
        # Python 3.14 begins workers afresh on Linux too, each of which would import everything.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_start_worker,
        # A generator of its own: otherwise each epoch draws from the global one, which dropout uses.
        generator=torch.Generator().manual_seed(parameters.seed),
        pin_memory=_computes_on_cuda(parameters),  # it opens the GPU, which a run on the CPU has no need of
    )


def worker_count(parameters: TrainingParameters) -> int:
    """How many worker processes the parameters ask for: `loader_workers`, or what suits the device and the memory they share.

    A CPU has no cores to spare for them, and an NVIDIA GPU would wait for batches that are made between its steps. Elsewhere
    than on Linux each of them would import everything anew.
    """
    if parameters.loader_workers >= 0:
        return parameters.loader_workers
    if sys.platform != "linux" or not _computes_on_cuda(parameters):
        return 0
    batch_bytes = parameters.batch_size * parameters.image_size**2 * (3 * 4 + 4 + 1)  # a Batch's image, target and scored
    room = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    at_once = int(os.environ.get(RUNS_AT_ONCE, "1"))  # each with a GPU of its own
    return min(MOST_WORKERS, max(1, usable_cores() // at_once), room // at_once // (BATCHES_A_WORKER * batch_bytes))


def _computes_on_cuda(parameters: TrainingParameters) -> bool:
    return parameters.device in ("auto", "cuda") and finds_cuda()


def set_epoch(loader: DataLoader, epoch: int, last: int | None = None) -> None:
    """Make the next pass over a training loader that of an epoch, or of all from it to the last: each epoch's order and
    augmentation are a function of (seed, epoch) alone, whatever ran before and however many workers there are. A loader
    starts at epoch 0; its length is that of one epoch."""
    loader.sampler.epochs = range(epoch, (epoch if last is None else last) + 1)


@contextmanager
def one_pass(loader: DataLoader) -> Iterator[Iterator[Batch]]:
    """A pass over a loader, whose workers end with it even where a traceback that a notebook keeps holds it."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if hasattr(batches, "_shutdown_workers"):
            batches._shutdown_workers()


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A network's input from stored pixels: (x / 255 - mean) / std.

    Args:
        images: (N, S, S, 3) uint8.
        mean, std: of the channels, on the 0..1 scale.

    Returns:
        (N, 3, S, S) float32, channels last in memory.
    """
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (mean, std))
    batch = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(torch.float32)
    # as one multiplication and one addition, in place: half the time of the formula as written
    return batch.mul_((1 / (255 * std)).float()).add_((-mean / std).float())


def to_device(batch: Batch, fabric: Fabric) -> Batch:
    """The batch where Fabric computes, its images in memory as convolutions there want them."""
    batch = fabric.to_device(batch)
    return batch._replace(image=batch.image.contiguous(memory_format=memory_format(batch.image.device)))


def halved_batch(batch: Batch) -> Batch:
    """The batch at half its size, (N, C, S // 2, S // 2): images by averaging, masks by nearest neighbour."""
    image = F.avg_pool2d(batch.image, 2)
    target, scored = (F.interpolate(mask.float(), image.shape[-2:], mode="nearest") for mask in (batch.target, batch.scored))
    return batch._replace(image=image, target=target, scored=scored.bool())


def cropped_batch(batch: Batch, *seed: int) -> Batch:
    """A random square of the batch at half its size, (N, C, S // 2, S // 2): images bilinearly, masks by nearest neighbour.

    It is the same square of all images, and its side is uniform from half of theirs to the whole. Pets appear up to as large
    as at full size, and not always half as large (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").

    Args:
        batch: of images of 2 px or more.
        seed: the draws are a function of these numbers, each 0 or more.
    """
    whole = batch.image.shape[-1]
    generator = np.random.default_rng(seed)
    side = int(generator.integers(whole // 2, whole + 1))
    rows, columns = (slice(start, start + side) for start in generator.integers(0, whole - side + 1, 2).tolist())
    image, target, scored = (each[..., rows, columns] for each in batch[:3])
    size = (whole // 2, whole // 2)
    image = F.interpolate(image, size, mode="bilinear").contiguous(memory_format=memory_format(image.device))
    target, scored = (F.interpolate(mask.float(), size, mode="nearest-exact") for mask in (target, scored))
    return batch._replace(image=image, target=target, scored=scored.bool())


def full_size_from(parameters: TrainingParameters) -> int:
    """The first epoch (from 1) at full size: what comes before is the `half_size_share` of the epochs."""
    return 1 + math.ceil(round(parameters.half_size_share * parameters.epochs, 6))  # 0.28 * 25 is a little more than 7


def half_size(parameters: TrainingParameters, epoch: int) -> Callable[[Batch, int], Batch] | None:
    """Makes half as large a batch of an epoch (from 1), given with its number in it (from 0); None for an epoch at full size."""
    if epoch >= full_size_from(parameters):
        return None
    if parameters.half_size_crop:
        return lambda batch, number: cropped_batch(batch, parameters.seed, epoch, number)
    return lambda batch, number: halved_batch(batch)


class _BatchSampler(Sampler[tuple[int, list[int]]]):
    """The epoch and rows of the cache, a batch at a time.

    The epochs are an attribute: a method `set_epoch`, where there is one, Lightning Fabric calls with a count of its own.
    """

    def __init__(self, count: int, batch_size: int, seed: int, train: bool) -> None:
        self.count, self.batch_size, self.seed, self.train = count, batch_size, seed, train
        self.epochs = range(1)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return ((epoch, rows) for epoch in self.epochs for rows in self.of_epoch(epoch))

    def of_epoch(self, epoch: int) -> Iterator[list[int]]:
        order = np.arange(self.count)
        if self.train:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        single_left_out = self.train and rest == 1 and whole > 0
        return whole + (rest > 0 and not single_left_out)


class _BatchDataset(Dataset):
    """Makes a batch from an epoch and a list of rows."""

    def __init__(self, cache: Cache, parameters: TrainingParameters, mean, std, train: bool) -> None:
        self.cache, self.border_policy, self.seed = cache, parameters.border_policy, parameters.seed
        self.augmentation = build_augmentation(parameters, parameters.seed) if train else None
        self.cutmix = parameters.cutmix if train else 0.0
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, drawn: tuple[int, list[int]]) -> Batch:
        epoch, rows = drawn
        images, trimaps = self.cache.images[rows], self.cache.trimaps[rows]
        if self.augmentation is not None:
            for position, row in enumerate(rows):
                self._augment(images[position], trimaps[position], epoch, row)
        if self.cutmix > 0:
            cutmix(images, trimaps, self.cutmix, self.seed, epoch, *rows)
        target, scored = target_and_scored(trimaps, self.border_policy)
        return Batch(
            normalise(images, self.mean, self.std),
            torch.from_numpy(target).to(torch.float32).unsqueeze(1),
            torch.from_numpy(scored).unsqueeze(1),
            torch.tensor(rows, dtype=torch.int64),
        )

    def _augment(self, image: np.ndarray, trimap: np.ndarray, epoch: int, row: int) -> None:
        """Augment in place, by draws that belong to (seed, epoch, row): no worker shares or repeats another's."""
        reseed(self.augmentation, self.seed, epoch, row)
        changed = self.augmentation(image=image, mask=trimap)
        image[:], trimap[:] = changed["image"], changed["mask"]


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism; OpenCV's own threads would only crowd them
