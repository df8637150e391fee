"""What must hold however long a training lasts and however many photographs there are: memory, cost an image, the cache."""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.children import answer_of
from benchmarks.rows import Row, build_row, in_rounds, target
from benchmarks.setting import Setting
from benchmarks.timing import Measure, alternate, quotient, timed
from petseg_lib.data.cache import Cache, key
from petseg_lib.data.loaders import build_loader, set_epoch
from petseg_lib.data.pets import load_pets
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD

GROWTH_AT_MOST = 0.02  # of the memory: less is the allocator's own coming and going
SAME_COST = 1.15  # the noise of a shared machine
SIDE = 32


def memory(setting: Setting) -> list[Row]:
    """The memory of a training process from its second epoch to its last."""
    epochs = setting.sizes.memory_epochs
    folder = setting.new_folder("memory")
    print(f"  training for {epochs} epochs in a new process", flush=True)
    taken = answer_of("memory_child", setting.data, epochs, setting.device, folder)["memory"]
    growth = (taken[-1] - taken[1]) / taken[1]
    return [
        build_row(
            "memory",
            f"memory of a training process after epoch {epochs}",
            "MB",
            {"ours": [taken[-1]], "after epoch 2": [taken[1]], "the most after any epoch": [max(taken[1:])]},
            limits=["after epoch 2"],
            conditions=f"one training of {epochs} epochs; memory that is the process's alone (USS)",
            targets=[target(f"memory: growth from epoch 2 to epoch {epochs}, as a share", growth, at_most=GROWTH_AT_MOST)],
        )
    ]


def scale(setting: Setting) -> list[Row]:
    """Cost an image with few and with very many photographs, simulated: the index, the cache's name, feeding, mean and std."""
    few, many = setting.sizes.few, setting.sizes.many
    small = min((setting.dataset().root / "images").glob("*.jpg"), key=lambda path: path.stat().st_size)
    rows = []
    for name, title, prepare in (
        ("index", "reading the index and naming the cache", _index),
        ("feeding", f"feeding at {SIDE} px", _feeding),
        ("mean_std", "mean and std, of one small photograph repeated", partial(_mean_std, small)),
    ):
        measures = {"ours": prepare(setting, many), "the same of few": prepare(setting, few)}
        taken = alternate(title, measures, setting.sizes.rounds)
        taken = {who: [1e6 * seconds for seconds in figures] for who, figures in taken.items()}
        what = f"{title}: cost an image with {many:,} over that with {few:,}"
        ratios = quotient(taken["ours"], taken["the same of few"])
        rows.append(
            build_row(
                f"scale_{name}",
                f"{title}, cost an image with {many:,} images",
                "µs",
                taken,
                limits=["the same of few"],
                conditions=f"simulated; {in_rounds(setting.sizes.rounds)}; few are {few}",
                targets=[target(what, ratios, at_most=SAME_COST)],
            )
        )
    return rows


def _index(setting: Setting, count: int) -> Measure:
    """Empty files under the names of so many pets: neither the index nor the cache's name reads what is in them."""
    root = setting.new_folder(f"index_{count}")
    for folder in ("images", "annotations/trimaps"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        (root / "images" / f"Bengal_{number}.jpg").touch()
        (root / "annotations" / "trimaps" / f"Bengal_{number}.png").touch()
    lines = [f"Bengal_{number} 1 1 1\n" for number in range(count)]
    (root / "annotations" / "trainval.txt").write_text("".join(lines[: count // 2]))
    (root / "annotations" / "test.txt").write_text("".join(lines[count // 2 :]))

    def work() -> None:
        dataset = load_pets(root)
        key(dataset, dataset.pets, SIDE)

    return timed(work, per=count)


def _feeding(setting: Setting, count: int) -> Measure:
    """As many batches out of a large cache as out of a small one: its files are sparse, so that they take no room."""
    parameters = setting.parameters("unet", image_size=SIDE)
    loader = build_loader(_sparse_cache(setting, count), parameters, REPORT_MEAN, REPORT_STD, train=True, workers=0)
    batches = setting.sizes.few // parameters.batch_size

    def work() -> None:
        set_epoch(loader, loader.sampler.epochs[-1] + 1)
        for _ in zip(range(batches), loader, strict=False):
            pass

    return timed(work, per=batches * parameters.batch_size)


def _sparse_cache(setting: Setting, count: int) -> Cache:
    folder = setting.new_folder(f"sparse_{count}")
    shape = (count, SIDE, SIDE)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, 3))
    trimaps = np.lib.format.open_memmap(folder / "trimaps.npy", "w+", np.uint8, shape)
    images.max(), trimaps.max()  # all of it in memory: the disk is not what is measured
    return Cache(folder, tuple(str(number) for number in range(count)), images, trimaps, content="")


def _mean_std(photograph: Path, setting: Setting, count: int) -> Measure:
    return lambda: answer_of("mean_std_child", "ours", count, photograph.parent, photograph.name)["seconds"] / count
