"""One photograph: how long until its mask is there, in a new process (cold) and in one that predicts all the time (warm)."""

from lightning_fabric import Fabric

from benchmarks.children import seconds_of
from benchmarks.prediction_child import eager_prediction, load_eager
from benchmarks.rows import Row, build_row
from benchmarks.setting import TITLES, Setting
from benchmarks.steps import precision_of
from benchmarks.timing import alternate, timed
from petseg_lib.checkpoints import describe_model, load_model, save_model
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD
from petseg_lib.evaluation import predict
from petseg_lib.models import build_model

EAGER = "eager float32"


def prediction(setting: Setting) -> list[Row]:
    """The UNet at the width of the profile `sample`, and at the report's."""
    widths = (setting.sizes.sample_width, setting.sizes.width)
    return [row for width in dict.fromkeys(widths) for row in _at(setting, width)]


def _at(setting: Setting, width: int) -> list[Row]:
    parameters = setting.parameters("unet", width=width)
    path = setting.new_folder("prediction") / "model.safetensors"
    description = describe_model(parameters, REPORT_MEAN, REPORT_STD)
    save_model(path, build_model(parameters.model, **parameters.model_settings()), description)
    dataset = setting.dataset()
    pet = dataset.split("test")[0]
    model, description = load_model(path)
    loaded = load_eager(str(path), setting.device)
    fabric = Fabric(accelerator=setting.device, devices=1, precision=precision_of(setting))
    photograph = dataset.photograph_path(pet)
    warm = {
        "ours": timed(lambda: predict(model, dataset, [pet], description, fabric), setting.device),
        EAGER: timed(lambda: eager_prediction(loaded, photograph, setting.device), setting.device),
    }
    child = ("-m", "benchmarks.prediction_child")
    cold = {
        name: lambda way=way: seconds_of(*child, way, path, dataset.root, pet.name, setting.device)
        for name, way in (("ours", "ours"), (EAGER, "eager"))
    }
    what = f"prediction of one photograph, {TITLES['unet']} of width {width}"
    conditions = f"{parameters.image_size} px, resized to the photograph's own size"
    warm_taken = alternate(f"warm {what}", warm, setting.sizes.predictions)
    cold_taken = alternate(f"cold {what}", cold, setting.sizes.rounds, warm_up=not setting.quick)
    return [
        build_row(f"prediction_warm_{width}", f"{what}, warm", "s", warm_taken, rivals=[EAGER], conditions=conditions),
        build_row(
            f"prediction_cold_{width}",
            f"{what}, cold",
            "s",
            cold_taken,
            rivals=[EAGER],
            conditions=f"{conditions}; from the start of Python, its imports and the reading of the weights included",
        ),
    ]
