"""Do BatchNorm's statistics, pooled over the train split once more after training, make a finished run better?

    python -m benchmarks.pooled_statistics runs/sample/unet runs/sample/resnet34_unet --data DIR

While training, BatchNorm keeps a moving average over batches; here it is replaced by the mean over three passes of augmented
photographs, through the weights as they ended. Prints dice_image (native, the run's border policy) on test, before and after.
"""

import argparse
import copy
import sys
from pathlib import Path

import torch
from torch import nn

from petseg_lib import checkpoints
from petseg_lib.comparison import paired_difference
from petseg_lib.config import NOTEBOOKS
from petseg_lib.data import cache, loaders, pets
from petseg_lib.devices import open_fabric
from petseg_lib.evaluation import dice_per_image, evaluate
from petseg_lib.runs import Run

PASSES = 3


def pooled(model: nn.Module, loader: torch.utils.data.DataLoader, passes: int = PASSES) -> nn.Module:
    """A copy whose BatchNorm layers have the mean statistics of the loader's batches."""
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean
            layer.train()
    with torch.no_grad():
        for number in range(passes):
            loaders.set_epoch(loader, number + 1)  # else every pass has the first one's augmentation
            for batch in loader:
                model(batch.image)
    return model.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR")
    parser.add_argument("--data", required=True)
    options = parser.parse_args()
    dataset, fabric = pets.open_dataset(options.data), open_fabric()
    train, test = (dataset.split(split) for split in ("train", "test"))
    for folder in options.runs:
        run = Run(Path(folder))
        parameters = NOTEBOOKS[run.notebook].checked(run.parameters)
        model, description = checkpoints.load_model(run.folder / "model.safetensors")
        images = cache.open_cache(dataset, train, parameters.image_size)
        torch.manual_seed(0)
        loader = loaders.build_loader(images, parameters, description["mean"], description["std"], train=True)
        measured = cache.open_cache(dataset, test, parameters.image_size)
        ways = (model, pooled(model, loader))
        before, after = (evaluate(each, dataset, test, measured, description, fabric) for each in ways)
        policy = parameters.border_policy
        _, difference = paired_difference(before, after, border_policy=policy)
        print(f"{run.name}: {dice_per_image(before, 'native', policy).mean():.4f}, pooled {difference.mean:+.4f}", end=" ")
        print(f"[{difference.low:+.4f}, {difference.high:+.4f}]", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
