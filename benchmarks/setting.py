"""What all rows share: the photographs, the sizes, the device, and where to work."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petseg_lib.config import NOTEBOOKS, TrainingParameters
from petseg_lib.data.pets import PetDataset, open_dataset
from petseg_lib.profiles import load_profile

# The three networks by a name: the run of the profiles whose parameters they take, and what differs.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {}),
    "resnet34_unet": ("resnet34_unet", {"variant": "default", "depth": 5}),
    "resnet34_unet_report": ("resnet34_unet", {"variant": "report", "depth": 6}),
}
TITLES = {"unet": "UNet", "resnet34_unet": "ResNet34-UNet", "resnet34_unet_report": "ResNet34-UNet, variant report"}
REPORT_NETWORKS = ("unet", "resnet34_unet_report")


@dataclass(frozen=True)
class Sizes:
    """How much of everything. The defaults are those of a real run, of about half an hour on 2 cores."""

    rounds: int = 3
    slow_rounds: int = 2  # where a round takes minutes
    statistics: tuple[int, ...] = (600, 7390)  # photographs: the sample's, and the whole dataset's
    many: int = 60_000
    few: int = 600
    feeding: tuple[tuple[int, int], ...] = ((128, 256), (512, 96))  # px, photographs
    steps: tuple[tuple[int, int], ...] = ((128, 8), (256, 4))  # px, images a batch
    step_rounds: int = 9  # more than elsewhere, since a step is short
    step_repeats: int = 1  # steps that are timed together; the report's wait for the device each time, and are timed one by one
    width: int = 64
    image_size: int = 128
    batch_size: int = 8
    epoch_images: int = 270  # of the train split
    alone_steps: int = 8  # that stand for the steps of an epoch
    # The report's 20 epochs, or as many as take minutes: a large network's checkpoints are not written after each of them.
    epochs: dict[str, int] = field(default_factory=lambda: {"unet": 5, "resnet34_unet_report": 20})
    sample_width: int = 16
    sample_epochs: int = (
        20  # 17 at half size and three at full size, as the profile divides them: a state to go on from falls due
    )
    evaluated: int = 0  # photographs of the test split; 0: all
    predictions: int = 10
    profile_epochs: int = 2
    memory_epochs: int = 50
    notebooks: tuple[str, ...] = tuple(NOTEBOOKS)
    matrix_side: int = 2048
    product_seconds: float = 0.3


# A GPU computes while the next step is prepared, and fills up at sizes that would take a CPU minutes.
GPU = Sizes(
    steps=((128, 8), (512, 8)),
    step_repeats=10,
    rounds=2,
    step_rounds=2,
    alone_steps=34,
    epochs={"unet": 10, "resnet34_unet_report": 10},
    matrix_side=8192,
)
QUICK = Sizes(
    rounds=1,
    step_rounds=1,
    slow_rounds=1,
    statistics=(20, 60),
    many=600,
    few=100,
    feeding=((32, 8), (48, 8)),
    steps=((32, 2),),
    width=4,
    image_size=32,
    epoch_images=12,
    alone_steps=1,
    epochs={"unet": 1, "resnet34_unet_report": 2},
    sample_width=4,
    sample_epochs=2,
    evaluated=4,
    predictions=1,
    memory_epochs=4,
    notebooks=("02_mean_std",),
    matrix_side=128,
    product_seconds=0.001,
)


@dataclass(frozen=True)
class Setting:
    """One run of the suite.

    Attributes:
        data: the parameter `data`: a folder, or `demo`.
        sizes: how much of everything.
        folder: an empty folder to work in.
        device: `cpu` or `cuda`.
        quick: whether the sizes are those of the test, which prove nothing about speed.
    """

    data: str
    sizes: Sizes
    folder: Path
    device: str
    quick: bool

    @property
    def caches(self) -> Path:
        return self.folder / "cache"

    def dataset(self, limit_images: int = 0) -> PetDataset:
        return open_dataset(self.data, limit_images)

    def parameters(self, network: str, profile: str = "report", **changes: Any) -> TrainingParameters:
        """A profile's parameters of a network at the suite's own size and width; `changes` come on top."""
        run, own = NETWORKS[network]
        notebook, values = load_profile(profile).runs[run]
        values = values | ({"half_size_share": 0.0} if self.sizes.image_size < 64 else {})
        size = {"image_size": self.sizes.image_size, "width": self.sizes.width, "batch_size": self.sizes.batch_size}
        common = {"data": self.data, "device": self.device, "encoder_weights": "", "epochs": 1}
        known = NOTEBOOKS[notebook].model_fields
        given = values | own | {name: value for name, value in (common | size).items() if name in known} | changes
        return NOTEBOOKS[notebook].checked(given)

    def new_folder(self, name: str) -> Path:
        """An empty folder of that name, whatever stood there before."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder
