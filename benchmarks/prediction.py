"""One photograph: how long until its mask is there, in a new process (cold) and in one that predicts all the time (warm)."""

from pathlib import Path

from benchmarks.children import seconds_of
from benchmarks.prediction_child import eager_prediction, load_eager
from benchmarks.rows import Row, build_row
from benchmarks.setting import TITLES, Setting
from benchmarks.timing import Measure, alternate, as_usual, timed
from petseg_lib.checkpoints import describe_model, load_model, save_model
from petseg_lib.data.statistics import REPORT_MEAN, REPORT_STD
from petseg_lib.devices import open_fabric
from petseg_lib.evaluation import predict
from petseg_lib.inference import for_inference
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
    save_model(path, build_model(parameters.model, **parameters.model_settings()).state_dict(), description)
    what = f"prediction of one photograph, {TITLES['unet']} of width {width}"
    conditions = f"{parameters.image_size} px, resized to the photograph's own size"
    warm = alternate(f"warm {what}", _warm(setting, path), setting.sizes.predictions)
    cold = alternate(f"cold {what}", _cold(setting, path), setting.sizes.slow_rounds, warm_up=not setting.quick)
    rows = [build_row(f"prediction_warm_{width}", f"{what}, warm", "s", warm, rivals=[EAGER], conditions=conditions)]
    conditions += "; from the start of Python, its imports and the reading of the weights included"
    rows.append(build_row(f"prediction_cold_{width}", f"{what}, cold", "s", cold, rivals=[EAGER], conditions=conditions))
    return rows


def _warm(setting: Setting, path: Path) -> dict[str, Measure]:
    """In this process, again and again."""
    dataset = setting.dataset()
    pet = dataset.split("test")[0]
    model, description = load_model(path)
    loaded, photograph = load_eager(str(path), setting.device), dataset.photograph_path(pet)
    fabric = open_fabric(setting.device)
    prepared = for_inference(model, fabric)  # once, as whoever predicts again and again does
    return {
        "ours": timed(lambda: predict(prepared, dataset, [pet], description, fabric), setting.device),
        EAGER: as_usual(timed(lambda: eager_prediction(loaded, photograph, setting.device), setting.device)),
    }


def _cold(setting: Setting, path: Path) -> dict[str, Measure]:
    """In a new process each."""
    dataset = setting.dataset()
    name = dataset.split("test")[0].name
    arguments = (path, dataset.root, name, setting.device)
    child = ("-m", "benchmarks.prediction_child")
    return {"ours": lambda: seconds_of(*child, "ours", *arguments), EAGER: lambda: seconds_of(*child, "eager", *arguments)}
