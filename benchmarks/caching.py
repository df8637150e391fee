"""The cache: what it costs to make and to open, that it reads only what is asked for, and when it is made anew."""

import os
import shutil
from pathlib import Path

import psutil

from benchmarks.rows import Row, build_row, in_rounds, target
from benchmarks.setting import Setting
from benchmarks.timing import alternate, timed
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import build_loader
from petseg_lib.data.masks import BORDER_POLICIES
from petseg_lib.data.pets import PetDataset, load_pets
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD

MAKING = "making it"


def caching(setting: Setting) -> list[Row]:
    size = setting.sizes.image_size
    dataset = setting.dataset()
    pets, folder = dataset.split("train"), setting.new_folder("caching")

    def make() -> None:
        open_cache(dataset, pets, size, setting.new_folder("caching"))

    taken = alternate(
        "cache", {"ours": timed(lambda: open_cache(dataset, pets, size, folder)), MAKING: timed(make)}, setting.sizes.rounds
    )
    size_mb = len(pets) * size * size * 4 / 1e6
    return [
        build_row(
            "cache",
            "opening a cache that is there",
            "s",
            taken,
            rivals=[MAKING],
            conditions=f"{in_rounds(setting.sizes.rounds)}; {len(pets)} photographs at {size} px, {size_mb:.1f} MB",
            targets=[
                target("cache: share of it in memory after one batch", _share_read(setting, dataset), at_most=0.25),
                *(target(f"cache: {what} (1 = yes)", float(holds), at_least=1) for what, holds in _made_anew(setting).items()),
            ],
        )
    ]


def _share_read(setting: Setting, dataset: PetDataset) -> float:
    """Of a cache that was just opened, the share that one shuffled batch has brought into memory."""
    cache = open_cache(dataset, dataset.split("train"), setting.sizes.image_size, setting.folder / "caching")
    loader = build_loader(cache, setting.parameters("unet"), REPORT_MEAN, REPORT_STD, train=True, workers=0)
    next(iter(loader))
    maps = psutil.Process().memory_maps() if hasattr(psutil.Process, "memory_maps") else []
    read = sum(each.rss for each in maps if Path(each.path).parent == cache.folder)
    return read / (cache.images.nbytes + cache.trimaps.nbytes)


def _made_anew(setting: Setting) -> dict[str, bool]:
    """What changes a cache and what does not, tried on a copy of a few photographs."""
    size, folder = setting.sizes.image_size, setting.new_folder("anew")
    dataset = _copy_of_a_few(setting, folder / "pets")

    def place(side: int = size) -> Path:
        return open_cache(dataset, dataset.pets, side, folder / "caches").folder

    first = place()
    answers = {"used again where nothing changed": place() == first}
    answers["made anew for another size"] = place(size + 32) != first
    photograph = dataset.photograph_path(dataset.pets[0])
    photograph.write_bytes(photograph.read_bytes())
    os.utime(photograph, (0, 0))
    answers["made anew when a file changes"] = place() != first
    answers["another policy changes the targets"] = _policies_differ(setting, dataset, folder / "caches")
    return answers


def _policies_differ(setting: Setting, dataset: PetDataset, folder: Path) -> bool:
    """Trimaps are stored and targets made of them a batch at a time, so that all policies share one cache."""
    cache = open_cache(dataset, dataset.pets, setting.sizes.image_size, folder)
    areas = set()
    for policy in BORDER_POLICIES:
        parameters = setting.parameters("unet", border_policy=policy)
        loader = build_loader(cache, parameters, REPORT_MEAN, REPORT_STD, train=False)
        areas.add(tuple((batch.target.sum().item(), batch.scored.sum().item()) for batch in loader))
    return len(areas) == len(BORDER_POLICIES)


def _copy_of_a_few(setting: Setting, root: Path) -> PetDataset:
    source = setting.dataset(4)
    for folder in ("images", "annotations/trimaps"):
        (root / folder).mkdir(parents=True)
    for pet in source.pets:
        shutil.copy(source.photograph_path(pet), root / "images")
        shutil.copy(source.trimap_path(pet), root / "annotations" / "trimaps")
    for file, splits in (("trainval.txt", ("valid", "train")), ("test.txt", ("test",))):
        lines = [f"{pet.name} 1 1 1\n" for split in splits for pet in source.split(split)]
        (root / "annotations" / file).write_text("".join(lines))
    return load_pets(root)
