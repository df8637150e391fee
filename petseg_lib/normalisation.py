"""What a training normalises its photographs with, and where that comes from."""

from petseg_lib.config import ReadableError, TrainingParameters, shown
from petseg_lib.data.pets import PetDataset, dataset_folder
from petseg_lib.data.statistics import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    REPORT_MEAN,
    REPORT_STD,
    channel_statistics,
    load_statistics,
)
from petseg_lib.runs import Run, find_run


def mean_and_std(parameters: TrainingParameters, run: Run, dataset: PetDataset) -> tuple[tuple, tuple, str]:
    """Mean and standard deviation of the channels, on the 0..1 scale, and in words where they come from.

    Under `dataset` they are notebook 02's, pixel-pooled; where that has not run on this dataset, they are computed here in the
    same way. Once begun, a run keeps its own.
    """
    if parameters.normalisation == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD, "ImageNet's"
    if parameters.normalisation == "report":
        return REPORT_MEAN, REPORT_STD, "the report's"
    if "normalisation" not in run.provenance:
        saved = find_run(parameters.statistics_run, run)
        data = saved.provenance.get("parameters", {}).get("data", parameters.data)
        named = saved.folder.parent == run.folder.parent  # any other folder was chosen on purpose, for other photographs too
        if saved.complete and not (named and dataset_folder(data).resolve() != dataset_folder(parameters.data).resolve()):
            statistics, source = load_statistics(saved.folder / "stats.json"), f"from {shown(saved.folder)}"
        else:
            photographs = [dataset.photograph_path(pet) for pet in dataset.split("train")]
            statistics = channel_statistics(photographs)
            source = f"computed now from the train split (no finished notebook 02 of these photographs at {shown(saved.folder)})"
        if 0 in statistics.pixel_std:
            flat = ("red", "green", "blue")[statistics.pixel_std.index(0)]
            raise ReadableError(
                f"{flat} has the same value in every pixel (standard deviation 0, {source}), and cannot be normalised: set "
                "normalisation to imagenet"
            )
        run.record(normalisation={"mean": statistics.pixel_mean, "std": statistics.pixel_std, "source": source})
    own = run.provenance["normalisation"]
    return tuple(own["mean"]), tuple(own["std"]), own["source"]
