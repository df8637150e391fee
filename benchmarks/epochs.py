"""A whole training epoch, all included, beside its steps alone; and what checkpointing takes of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.report_way import ReportTraining, report_loader
from benchmarks.rows import Row, build_row, in_rounds, speed_over, target, time_over
from benchmarks.setting import REPORT_NETWORKS, TITLES, Setting
from benchmarks.steps import our_step
from benchmarks.timing import Measure, alternate, as_usual, quotient, spread, timed
from petseg_lib import checkpoints, training
from petseg_lib.checkpoints import WRITING_SHARE, describe_model
from petseg_lib.config import TrainingParameters
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import build_loader
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD
from petseg_lib.gpus import usable_cores
from petseg_lib.models import build_model
from petseg_lib.runs import Run

REPORT, STEPS_ALONE = "the report's way", "its steps alone"
PARTS = {
    "_measure": training,
    "log_epoch": training,
    "keep": checkpoints.Checkpointer,
    "_write": checkpoints.Checkpointer,
    "__exit__": checkpoints.Checkpointer,
    "_load_kept": training,
}
WORDS = {
    "_measure": "validating",
    "log_epoch": "TensorBoard",
    "keep": "copying the state to go on",
    "_write": "writing the best weights and what else is due, in the background (seconds of one core)",
}


def epoch(network: str) -> Callable[[Setting], list[Row]]:
    """The row of one of the report's own networks, at full width."""

    def row(setting: Setting) -> list[Row]:
        # The report's settings, but for a learning rate at which the weights are of use to the evaluation's row.
        parameters = setting.parameters(network, learning_rate=1e-3, epochs=setting.sizes.epochs[network])
        ours = OurEpochs(setting, parameters, f"epoch_{network}")
        report, loaders = _report(setting, parameters, ours)
        measures = {
            "ours": ours,
            REPORT: as_usual(timed(lambda: report.epoch(*loaders), setting.device)),
            STEPS_ALONE: ours.steps_alone(setting.sizes.alone_steps),
        }
        for _ in range(1 + (setting.device == "cuda")):  # where each size of a batch is recorded the second time that it comes
            measures[STEPS_ALONE]()  # one step of each is enough to warm up: an epoch may take minutes
        report.step(*next(iter(loaders[0])))
        taken = alternate(f"epoch of {TITLES[network]}", measures, setting.sizes.slow_rounds, warm_up=False)
        return [_row(setting, network, parameters, taken, ours)]

    return row


class OurEpochs:
    """Epochs of `training.fit`, each with a new run folder, as measures; and where their time went."""

    def __init__(self, setting: Setting, parameters: TrainingParameters, name: str) -> None:
        self.setting, self.parameters, self.name = setting, parameters, name
        self.dataset = setting.dataset(setting.sizes.epoch_images)
        self.loaders = {split: self._loader(split) for split in ("train", "valid")}
        self.model = build_model(parameters.model, **parameters.model_settings())
        self.description = describe_model(parameters, REPORT_MEAN, REPORT_STD)
        self.parts: dict[str, list[float]] = {name: [] for name in PARTS}

    def _loader(self, split: str) -> DataLoader:
        size = self.parameters.image_size
        cache = open_cache(self.dataset, self.dataset.split(split), size, self.setting.caches)
        return build_loader(cache, self.parameters, REPORT_MEAN, REPORT_STD, train=split == "train")

    def __call__(self) -> float:
        """Seconds of an epoch.

        To read the best weights back, and to wait for the last files, belongs to a run's end and not to each epoch; the
        processor's time that writing takes in the background is counted, shared among the cores.
        """
        run = Run(self.setting.new_folder(self.name))
        fabric = training.start(self.parameters)
        with clocked(PARTS) as seconds:
            began = time.perf_counter()
            training.fit(self.model, *self.loaders.values(), self.parameters, run, fabric, self.description)
            total = time.perf_counter() - began
        for name, spent in seconds.items():
            self.parts[name].append(spent / self.parameters.epochs)
        alone = total - seconds["_load_kept"] - seconds["__exit__"]
        return (alone + seconds["_write"] / usable_cores()) / self.parameters.epochs

    def steps_alone(self, count: int) -> Measure:
        """Seconds of an epoch's steps, from some of them on batches that are in memory; an epoch's last batch may be smaller."""
        batches = list(islice(self.loaders["train"], count))
        step = our_step(self.model, self.parameters, batches)
        images = sum(map(len, self.loaders["train"].sampler.of_epoch(0)))
        return timed(step, self.setting.device, per=sum(len(batch.image) for batch in batches) / images)

    @property
    def checkpointing(self) -> list[float]:
        """Seconds an epoch."""
        pairs = zip(self.parts["keep"], self.parts["_write"], strict=True)
        return [copying + writing / usable_cores() for copying, writing in pairs]


@contextmanager
def clocked(parts: dict[str, Any]) -> Iterator[dict[str, float]]:
    """The seconds spent in functions, by their names in a module or class, while the context lasts; of `_write` the processor's."""
    seconds = dict.fromkeys(parts, 0.0)
    originals = {name: getattr(owner, name) for name, owner in parts.items()}

    def with_clock(name: str) -> Callable[..., Any]:
        now = time.thread_time if name == "_write" else time.perf_counter

        def clock(*arguments: Any, **options: Any) -> Any:
            began = now()
            try:
                return originals[name](*arguments, **options)
            finally:
                seconds[name] += now() - began

        return clock

    try:
        for name, owner in parts.items():
            setattr(owner, name, with_clock(name))
        yield seconds
    finally:
        for name, owner in parts.items():
            setattr(owner, name, originals[name])


def _report(setting: Setting, parameters: TrainingParameters, ours: OurEpochs) -> tuple[ReportTraining, list[DataLoader]]:
    """The report's loop on the same photographs."""
    model = build_model(parameters.model, **parameters.model_settings())
    loaders = [
        report_loader(ours.dataset, ours.dataset.split(split), parameters.image_size, split == "train", parameters.batch_size)
        for split in ("train", "valid")
    ]
    return ReportTraining(model, setting.device, setting.new_folder("tensorboard")), loaders


def _row(setting: Setting, network: str, parameters: TrainingParameters, taken: dict, ours: OurEpochs) -> Row:
    images = {split: len(loader.dataset) for split, loader in ours.loaders.items()}
    where = f"epoch of {TITLES[network]}"
    return build_row(
        f"epoch_{network}",
        f"a whole {where}",
        "s",
        taken,
        rivals=[REPORT],
        limits=[STEPS_ALONE],
        conditions=f"{in_rounds(setting.sizes.slow_rounds)} of {parameters.epochs} epochs; {images['train']} photographs to train and "
        f"{images['valid']} to validate, {parameters.image_size} px, {parameters.batch_size} a batch, width {parameters.width}; "
        f"the steps alone from {min(setting.sizes.alone_steps, len(ours.loaders['train']))} of them",
        targets=[
            target(f"{where}: speed over the report's way", speed_over(taken, REPORT), at_least=2.5),
            target(f"{where}: time over its steps alone", time_over(taken, STEPS_ALONE), at_most=1.05),
            target(f"{where}: share of checkpointing", quotient(ours.checkpointing, taken["ours"]), at_most=0.02),
        ],
        notes=[
            f"its steps alone are {spread(quotient(taken[REPORT], taken[STEPS_ALONE]))['median']:.2f} x as fast as the report's epoch",
            "beside the steps: "
            + ", ".join(f"{words} {spread(ours.parts[name])['median']:.2f} s" for name, words in WORDS.items())
            + f"; what a run goes on from is written whenever it is due, for up to {WRITING_SHARE:.0%} of the time, and not after the last epoch",
        ],
    )


def checkpoint_sample(setting: Setting) -> list[Row]:
    """What checkpointing takes of an epoch at the sizes of the profile `sample`."""
    return [_checkpoint_sample(setting, network) for network in ("unet", "resnet34_unet")]


def _checkpoint_sample(setting: Setting, network: str) -> Row:
    parameters = setting.parameters(network, "sample", width=setting.sizes.sample_width, epochs=setting.sizes.sample_epochs)
    ours = OurEpochs(setting, parameters, f"sample_{network}")
    taken = alternate(f"epoch of {TITLES[network]}, profile sample", {"ours": ours}, setting.sizes.slow_rounds, warm_up=False)
    taken["checkpointing"] = ours.checkpointing
    where = f"epoch of {TITLES[network]} in the profile sample"
    return build_row(
        f"checkpoint_sample_{network}",
        f"checkpointing in an {where}",
        "s",
        taken,
        conditions=f"{in_rounds(setting.sizes.slow_rounds)} of {parameters.epochs} epochs; {parameters.image_size} px, width {parameters.width}, "
        f"{len(ours.loaders['train'].dataset)} photographs",
        targets=[target(f"{where}: share of checkpointing", quotient(taken["checkpointing"], taken["ours"]), at_most=0.02)],
    )


EPOCHS = {f"epoch_{network}": epoch(network) for network in REPORT_NETWORKS}
