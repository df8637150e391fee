"""Feeding an epoch: augmented batches a second, with the model left out."""

from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.report_way import BACKGROUND, report_loader
from benchmarks.rows import Row, build_row, in_rounds
from benchmarks.setting import Setting
from benchmarks.timing import Measure, alternate, timed
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import Batch, build_loader, set_epoch, worker_count
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD
from petseg_lib.gpus import usable_cores

REPORT, TORCHVISION, COPYING = "the report's way", "torchvision v2 with workers", "copying the same bytes"
COLOUR = "ours with flips and colour changes"


def feeding(setting: Setting) -> list[Row]:
    return [_at(setting, size, images) for size, images in setting.sizes.feeding]


def _at(setting: Setting, size: int, images: int) -> Row:
    dataset = setting.dataset(images)
    pets = dataset.split("train")
    parameters = setting.parameters("unet", image_size=size)
    sample = setting.parameters("unet", "sample", image_size=size)
    cache = open_cache(dataset, pets, size, setting.caches)
    loaders = {
        "ours": build_loader(cache, parameters, REPORT_MEAN, REPORT_STD, train=True),
        REPORT: report_loader(dataset, pets, size, train=True, batch_size=parameters.batch_size),
        TORCHVISION: _torchvision_loader(dataset, pets, size, parameters.batch_size),
        COLOUR: build_loader(cache, sample, REPORT_MEAN, REPORT_STD, train=True),
    }
    batches = list(loaders["ours"])
    measures = {name: _rate(partial(_pass, loader), len(loader)) for name, loader in loaders.items()}
    buffers = Batch(*(torch.empty_like(field) for field in batches[0]))
    measures[COPYING] = _rate(partial(_copy, batches, buffers), len(batches))
    taken = alternate(f"feeding at {size} px", measures, setting.sizes.rounds)
    return build_row(
        f"feeding_{size}",
        f"feeding an epoch at {size} px",
        "batches/s",
        taken,
        rivals=[REPORT, TORCHVISION],
        limits=[COPYING],
        higher_is_better=True,
        conditions=f"{in_rounds(setting.sizes.rounds)} of {len(pets)} photographs, {parameters.batch_size} a batch; "
        "affine changes as in the report; ours from a cache that is made before, which is not counted; "
        f"workers: {usable_cores()} for torchvision, {worker_count(parameters)} for ours, none for the report's way",
    )


def _rate(work, batches: int) -> Measure:
    """Batches a second."""
    seconds = timed(work, per=batches)
    return lambda: 1 / seconds()


def _pass(loader: DataLoader) -> None:
    if hasattr(loader.sampler, "epochs"):
        set_epoch(loader, loader.sampler.epochs[-1] + 1)
    for _ in loader:
        pass


def _copy(batches: list[Batch], buffers: Batch) -> None:
    for batch in batches:
        for buffer, field in zip(buffers, batch, strict=True):
            buffer[: len(field)].copy_(field)


class TorchvisionPets(Dataset):
    """What torchvision's own tutorial on transforms v2 does with an image and its mask."""

    def __init__(self, dataset, pets, size: int) -> None:
        self.dataset, self.pets = dataset, pets
        affine = v2.RandomAffine(degrees=30, translate=(0.1, 0.1), scale=(0.8, 1.2), interpolation=v2.InterpolationMode.BILINEAR)
        self.transform = v2.Compose(
            [
                v2.Resize((size, size)),
                v2.RandomApply([affine], p=0.5),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(REPORT_MEAN, REPORT_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pets)

    def __getitem__(self, index: int):
        pet = self.pets[index]
        with Image.open(self.dataset.photograph_path(pet)) as image, Image.open(self.dataset.trimap_path(pet)) as trimap:
            picture = tv_tensors.Image(v2.functional.pil_to_tensor(image.convert("RGB")))
            mask = tv_tensors.Mask(torch.from_numpy((np.array(trimap) != BACKGROUND).astype(np.uint8))[None])
        picture, mask = self.transform(picture, mask)
        return picture, mask.to(torch.float32)


def _torchvision_loader(dataset, pets, size: int, batch_size: int) -> DataLoader:
    pictures = TorchvisionPets(dataset, pets, size)
    return DataLoader(pictures, batch_size=batch_size, shuffle=True, num_workers=usable_cores(), persistent_workers=True)
