"""Which photographs and masks a training was begun with, so that no others take their place unnoticed."""

import hashlib
from typing import Any

from petseg_lib.config import TrainingParameters, shown
from petseg_lib.data.cache import Cache, content_of
from petseg_lib.data.check import usable
from petseg_lib.data.pets import draw_train, open_dataset
from petseg_lib.data.pictures import DatasetError
from petseg_lib.runs import Run, RunError

SPLITS = {"train": "train", "validate": "valid"}  # as params.json names what the photographs are for, and their split


def check_photographs(run: Run, train: Cache, validate: Cache) -> None:
    """Hold a training to the photographs and masks that it was begun with: a folder may have grown, or been repaired, since.

    A finished run keeps its weights where masks alone were mended since, or photographs replaced by others of their names,
    and says so.

    Raises:
        RunError: there are other photographs now, or, of an interrupted run, other files of their names.
    """
    if not run.provenance:
        return
    now = {name: [*_names(cache.names), cache.content] for name, cache in (("train", train), ("validate", validate))}
    begun = run.provenance.get("photographs", now)
    if [begun[name][:2] for name in now] != [now[name][:2] for name in now]:
        before, after = (", ".join(f"{each[name][0]} to {name}" for name in SPLITS) for each in (begun, now))
        raise RunError(
            f"{shown(run.folder)} was begun with other photographs ({before}) than there are now ({after}): choose another "
            "run folder, or remove this one"
        )
    others = " and ".join(f"to {name}" for name in SPLITS if begun[name][2:] not in ([], now[name][2:]))
    if others and not run.complete:
        raise RunError(
            f"{shown(run.folder)} was begun with other photographs or masks {others}, of the same names: choose another run "
            "folder, or remove this one"
        )
    if others:
        print(f"Photographs or masks {others} have changed since these weights were trained.", flush=True)
    if "photographs" not in run.provenance and not run.complete:
        run.record(photographs=now)


def changed_since(run: Run, parameters: TrainingParameters) -> bool:
    """Whether the photographs or masks of a run's training are others now; not where they are gone, or no record was kept."""
    begun = run.provenance.get("photographs", {})
    if not begun:
        return False
    try:
        dataset, _ = usable(open_dataset(parameters.data, parameters.limit_images), parameters.bad_samples)
        dataset = draw_train(dataset, parameters.train_images, parameters.seed)
        members = {name: dataset.split(split) for name, split in SPLITS.items()}
        now = {name: [*_names(tuple(pet.name for pet in pets)), content_of(dataset, pets)] for name, pets in members.items()}
    except DatasetError:  # the run is finished, and needs them no longer
        return False
    return any(begun[name] != now[name][: len(begun[name])] for name in now)


def _names(names: tuple[str, ...]) -> list[Any]:
    return [len(names), hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]]
