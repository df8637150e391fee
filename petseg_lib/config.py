"""Every parameter once: its name, type, unit, range, default and one sentence.

The parameters cell of each notebook, the profiles and the command line all use these names; the defaults are
those of the `demo` profile. A bad value ends in one sentence that names the parameter, the value and what is allowed.
"""

import ast
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from petseg_lib.network_rules import check_network
from petseg_lib.refusals import sentence

BorderPolicy = Literal["pet", "background", "edge", "ignore"]
Split = Literal["train", "valid", "trainval", "test"]


class ReadableError(ValueError):
    """An error for people. In a notebook, and from the command line, it shows as its sentences alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class ParameterError(ReadableError):
    """A parameter that cannot be used."""


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def number(kind: type, **bounds: Any) -> Any:
    """An `int` or `float` type within bounds, which (unlike Python) does not take True for 1."""
    return Annotated[kind, BeforeValidator(_no_bool), Field(allow_inf_nan=False if kind is float else None, **bounds)]


class Parameters(BaseModel):
    """What every notebook takes. A field's description says its unit and range in words."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    needs_dataset: ClassVar[bool] = True  # False: the notebook can do without what `data` names

    data: str = Field("demo", min_length=1, description="dataset folder in the Oxford-IIIT layout, or `demo`")
    run_dir: str = Field(min_length=1, description="run folder to write, relative to the workspace")
    figures_dir: str = Field("figures/demo", min_length=1, description="folder for exported figures")
    figure_formats: list[Literal["png", "svg", "pdf"]] = Field(["png", "svg", "pdf"], description="png, and any of svg and pdf")
    limit_images: number(int, ge=0) = Field(0, description="images used of each split, evenly spaced; 0: all")
    bad_samples: Literal["stop", "skip"] = Field("stop", description="what to do with damaged photographs or trimaps: stop, skip")

    @field_validator("figure_formats")
    @classmethod
    def _png_carries_the_caption(cls, formats: list[str]) -> list[str]:
        if "png" not in formats:
            raise ValueError("png must be among them")
        return formats

    def of_data(self) -> dict[str, str]:
        """`data`, and which of it is used where that is not the default, as settings for the runs that a notebook trains."""
        fields = type(self).model_fields
        changed = [name for name in ("limit_images", "bad_samples") if getattr(self, name) != fields[name].default]
        return {name: str(getattr(self, name)) for name in ("data", *changed)}

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any]) -> "Parameters":
        """The parameters of a notebook's cell, checked.

        Args:
            namespace: the notebook's `globals()`, after the parameters cell (and papermill's own) ran.

        Raises:
            ParameterError: one line for each name or value that is wrong, missing or unknown.
        """
        given = {name: namespace[name] for name in cls.model_fields if name in namespace}
        given |= {name: namespace.get(name) for name in _injected_names(namespace.get("In", []))}
        missing = [name for name in cls.model_fields if name not in given]
        if missing:
            raise ParameterError(f"the parameters cell must run first, and set {', '.join(missing)}")
        return cls.checked(given)

    @classmethod
    def checked(cls, values: dict[str, Any]) -> "Parameters":
        """The same from a dictionary, in which missing names take their defaults."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError("\n".join(sentence(cls, item) for item in error.errors())) from None


def _injected_names(cells: list[str]) -> list[str]:
    """The names that papermill's injected cell sets: it only warns of a name that the notebook does not know."""
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    return [
        target.id
        for cell in injected
        for statement in ast.parse(cell).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


class ImageParameters(Parameters):
    """How a photograph becomes a network's input."""

    image_size: number(int, ge=32, le=4096) = Field(96, description="side of the square input, px, 32 to 4096")
    border_policy: BorderPolicy = Field("pet", description="what the trimap's border counts as: pet, background, edge, ignore")
    flip_probability: number(float, ge=0, le=1) = Field(0.5, description="chance of a left-right flip, 0 to 1")
    affine_probability: number(float, ge=0, le=1) = Field(0.5, description="chance of an affine change, 0 to 1")
    shift: number(float, ge=0, le=0.5) = Field(0.1, description="largest shift, share of the side, 0 to 0.5")
    scale_min: number(float, gt=0, le=1) = Field(0.8, description="smallest zoom factor, above 0 to 1")
    scale_max: number(float, ge=1, le=4) = Field(1.2, description="largest zoom factor, 1 to 4")
    rotate: number(float, ge=0, le=180) = Field(15.0, description="largest rotation, degrees, 0 to 180")
    colour: number(float, ge=0, le=1) = Field(
        0.2, description="strength of changes of brightness, contrast, saturation, hue, 0 to 1"
    )
    seed: number(int, ge=0, lt=2**31) = Field(0, description="seed of every random choice, 0 to 2147483647")


class ExplorationParameters(ImageParameters):
    """Notebook 01."""

    run_dir: str = Field("runs/demo/data_exploration", min_length=1, description=Parameters.model_fields["run_dir"].description)


class MeanStdParameters(Parameters):
    """Notebook 02."""

    run_dir: str = Field("runs/demo/mean_std", min_length=1, description=Parameters.model_fields["run_dir"].description)
    statistics_split: Split = Field("train", description="split over which mean and std are taken: train, valid, trainval, test")


class TrainingParameters(ImageParameters):
    """What notebooks 03 and 04 share."""

    model: ClassVar[str]

    train_images: number(int, ge=0) = Field(0, description="photographs of the train split used, drawn by `seed`; 0: all")
    normalisation: Literal["dataset", "imagenet", "report"] = Field(
        "dataset", description="mean and std to normalise with: dataset (those of notebook 02), imagenet, report"
    )
    statistics_run: str = Field("mean_std", min_length=1, description="run folder of notebook 02, or its name beside this run")
    width: number(int, ge=4, le=512) = Field(16, description="channels of the first stage, 4 to 512; the report has 64")
    dropout: number(float, ge=0, lt=1) = Field(0.1, description="share of bottleneck channels dropped, 0 to below 1")
    initialisation: Literal["kaiming", "default"] = Field("kaiming", description="how weights start: kaiming, default")
    epochs: number(int, ge=1, le=100_000) = Field(16, description="passes over the train split, 1 or more")
    half_size_share: number(float, ge=0, lt=1) = Field(
        0.0, description="share of the epochs, the first ones, at half the image size, 0 to below 1"
    )
    half_size_crop: bool = Field(
        False, description="at half size, first crop each batch to one random square, its side 0.5 to 1 of the image's"
    )
    cutmix: number(float, ge=0, le=1) = Field(
        0.0, description="chance that a rectangle of an image is taken from another one of its batch, 0 to 1"
    )
    batch_size: number(int, ge=1, le=65_536) = Field(4, description="images a batch, 1 or more")
    accumulate: number(int, ge=1, le=65_536) = Field(1, description="batches whose gradients make one step, 1 or more")
    optimizer: Literal["adam", "adamw", "muon"] = Field("adamw", description="optimiser: adam, adamw, muon")
    learning_rate: number(float, gt=0, le=1) = Field(3e-3, description="learning rate at its peak, above 0 to 1")
    weight_decay: number(float, ge=0, le=1) = Field(1e-2, description="weight decay, 0 to 1")
    schedule: Literal["constant", "cosine", "onecycle"] = Field(
        "onecycle", description="course of the learning rate: constant, cosine, onecycle"
    )
    loss: Literal["bce_dice", "bce_dice_image", "bce", "dice", "double_sigmoid"] = Field(
        "bce_dice_image", description="loss: bce_dice_image, bce_dice, bce, dice, double_sigmoid (the report's)"
    )
    ema_decay: number(float, ge=0, lt=1) = Field(
        0.0, description="share that averaged weights keep at each step, 0 to below 1; 0: off (no average)"
    )
    patience: number(int, ge=0) = Field(
        0, description="epochs without a better validation Dice before stopping, at full size; 0: off"
    )
    kept_weights: Literal["best", "last"] = Field("best", description="epoch whose weights are kept: best (validation), last")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="arithmetic of the network: auto, 32-true, bf16-mixed, 16-mixed"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to compute: auto, cpu, cuda, mps")
    loader_workers: number(int, ge=-1, le=256) = Field(
        -1, description="worker processes that make batches; 0: none, -1: up to 8 for an NVIDIA GPU on Linux, else none"
    )
    cuda_graphs: bool = Field(True, description="record training steps of an NVIDIA GPU and replay them, which saves it waiting")
    force: bool = Field(False, description="train a finished run again, over what it left")

    def model_settings(self) -> dict[str, Any]:
        """The keyword arguments of `models.build_model`."""
        names = ("width", "depth", "dropout", "initialisation", "variant", "encoder_weights", "stem", "stem_stride", "batch_norm")
        return {name: getattr(self, name) for name in names if name in type(self).model_fields}

    @model_validator(mode="after")
    def _they_go_together(self) -> "TrainingParameters":
        for name in ("limit_images", "train_images"):
            if getattr(self, name) == 1:
                raise ValueError(f"parameter {name} is 1, but training needs 2 images or more (or 0 = all)")
        if self.cutmix > 0 and self.batch_size < 2:
            raise ValueError(f"parameter cutmix is {self.cutmix}, but it needs a batch_size of 2 or more ({self.batch_size} now)")
        if self.half_size_share > 0 and self.image_size < 64:
            raise ValueError(
                f"parameter image_size is {self.image_size}, but half_size_share needs 64 or more (a network takes 32)"
            )
        return self


class UNetParameters(TrainingParameters):
    """Notebook 03."""

    model: ClassVar[str] = "unet"
    run_dir: str = Field("runs/demo/unet", min_length=1, description=Parameters.model_fields["run_dir"].description)
    depth: number(int, ge=1, le=8) = Field(4, description="halvings of the resolution, 1 to 8; the report has 4")
    batch_norm: bool = Field(True, description="BatchNorm after each 3x3 convolution")


class ResNet34UNetParameters(TrainingParameters):
    """Notebook 04."""

    model: ClassVar[str] = "resnet34_unet"
    run_dir: str = Field("runs/demo/resnet34_unet", min_length=1, description=Parameters.model_fields["run_dir"].description)
    variant: Literal["default", "report"] = Field(
        "default", description="default (true ResNet34 blocks), report (the report's own network)"
    )
    epochs: number(int, ge=1, le=100_000) = Field(32, description=TrainingParameters.model_fields["epochs"].description)
    depth: number(int, ge=2, le=6) = Field(
        5, description="halvings of the resolution, 2 to 5 (stem_stride 1: one less); report: 6"
    )
    stem: Literal["7x7", "3x3"] = Field("7x7", description="first convolution: 7x7 (ResNet's), 3x3 (two of them, as in the UNet)")
    stem_stride: number(int, ge=1, le=2) = Field(
        2, description="stride of the first convolution; 1 keeps full resolution, at 3.5 times the arithmetic"
    )
    encoder_weights: str = Field("", description="`imagenet`, a file with a torchvision resnet34 state dict, or empty")

    @model_validator(mode="after")
    def _is_a_network(self) -> "ResNet34UNetParameters":
        """As `models.build_model` would find, before a run folder is touched."""
        check_network(self.model, self.variant, self.depth, self.width, self.encoder_weights, self.stem, self.stem_stride)
        return self


class ComparisonParameters(Parameters):
    """Notebook 05."""

    run_dir: str = Field("runs/demo/comparison", min_length=1, description=Parameters.model_fields["run_dir"].description)
    runs: list[str] = Field(["unet", "resnet34_unet"], min_length=1, description="run folders, or their names beside this run")
    train_missing: bool = Field(True, description="train the profile's runs that are missing")
    confidence: number(float, gt=0.5, lt=1) = Field(0.95, description="confidence of each interval, above 0.5 to below 1")
    failures: number(int, ge=1, le=50) = Field(4, description="photographs in the gallery of failures, 1 to 50")


class AblationParameters(Parameters):
    """Notebook 06."""

    needs_dataset: ClassVar[bool] = False
    data: str = Field("demo", min_length=1, description="dataset in the Oxford-IIIT layout, or `demo` (the sweep's own, if any)")
    limit_images: number(int, ge=0) = Field(0, description="images used of each split, evenly spaced; 0: as the sweep says")
    run_dir: str = Field("runs/demo/ablations", min_length=1, description=Parameters.model_fields["run_dir"].description)
    sweep: str = Field("demo", min_length=1, description="sweep with questions: a file, or a name in profiles/sweeps")
    train_missing: bool = Field(True, description="train the sweep's runs that are missing")
    confidence: number(float, gt=0.5, lt=1) = Field(0.95, description="confidence of each interval, above 0.5 to below 1")


class PredictionParameters(Parameters):
    """Notebook 07."""

    needs_dataset: ClassVar[bool] = False
    run_dir: str = Field("runs/demo/predict", min_length=1, description=Parameters.model_fields["run_dir"].description)
    model_run: str = Field("unet", min_length=1, description="run folder of a training, or its name beside this run")
    photographs: str = Field("", description="folder of photographs to cut out, or one file; empty: the test split's")
    threshold: number(float, gt=0, lt=1) = Field(0.5, description="pet where the probability is above it, above 0 to below 1")
    shown: number(int, ge=1, le=50) = Field(8, description="photographs in the picture, 1 to 50")
    train_missing: bool = Field(True, description="train the profile's run if it is missing")


NOTEBOOKS: dict[str, type[Parameters]] = {
    "01_data_exploration": ExplorationParameters,
    "02_mean_std": MeanStdParameters,
    "03_unet_training": UNetParameters,
    "04_resnet34_unet_training": ResNet34UNetParameters,
    "05_comparison": ComparisonParameters,
    "06_ablations": AblationParameters,
    "07_predict": PredictionParameters,
}


def workspace() -> Path:
    """The folder that holds `runs/`, `data/` and `figures/`.

    The environment variable PETSEG_WORKSPACE, or the nearest folder above the current one that has both `notebooks`
    and `pyproject.toml` (so that JupyterLab, nbval and papermill all find the same), or the current one.
    """
    if os.environ.get("PETSEG_WORKSPACE"):
        return Path(os.environ["PETSEG_WORKSPACE"]).resolve()
    here = Path.cwd()
    above = (here, *here.parents)
    return next((each for each in above if (each / "notebooks").is_dir() and (each / "pyproject.toml").is_file()), here)


def shown(path: Path) -> str:
    """A path as people should see it: relative to the workspace where it lies inside, with forward slashes."""
    path = Path(path).absolute()
    return path.relative_to(workspace()).as_posix() if path.is_relative_to(workspace()) else str(path)
