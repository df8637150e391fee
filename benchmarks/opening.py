"""What one waits for before there is anything to see: importing the library, and opening each notebook to its first picture."""

import time

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from benchmarks.children import REPOSITORY, seconds_of
from benchmarks.rows import Row, build_row, in_rounds
from benchmarks.setting import Setting
from benchmarks.timing import Measure, alternate
from petseg_lib import training
from petseg_lib.checkpoints import describe_model
from petseg_lib.config import NOTEBOOKS
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import build_loader
from petseg_lib.data.statistics import channel_statistics, save_statistics
from petseg_lib.evaluation import evaluate
from petseg_lib.execute import find_notebook
from petseg_lib.models import build_model
from petseg_lib.runs import open_run

TORCH = "importing torch"
ALL = "what notebook 03 imports"
EVERYTHING = (
    "from petseg_lib import checkpoints, config, evaluation, figures, models, runs, training, widgets; "
    "from petseg_lib.data import cache, check, loaders, pets; from petseg_lib.models import shapes; "
    "from petseg_lib.normalisation import mean_and_std"
)


def imports(setting: Setting) -> list[Row]:
    """Each in a new process, from the start of Python to its end."""
    measures = {
        "ours": lambda: seconds_of("-c", "import petseg_lib"),
        ALL: lambda: seconds_of("-c", EVERYTHING),
        TORCH: lambda: seconds_of("-c", "import torch"),
    }
    taken = alternate("imports", measures, setting.sizes.rounds, warm_up=not setting.quick)
    everything = {"ours": taken[ALL], TORCH: taken[TORCH]}
    conditions = f"{in_rounds(setting.sizes.rounds)}; a new process each"
    return [
        build_row(
            "import",
            "importing petseg_lib",
            "s",
            {"ours": taken["ours"], TORCH: taken[TORCH]},
            limits=[TORCH],
            conditions=conditions,
        ),
        build_row("import_all", "importing all that notebook 03 needs", "s", everything, limits=[TORCH], conditions=conditions),
    ]


# Notebook 06 reads a sweep: two runs as short as can be, which it trains at its first opening.
SWEEP = """
notebook: 03_unet_training
parameters: {limit_images: 8, image_size: 32, width: 4, epochs: 1}
grid: {seed: [0]}
variants: {base: {}, without_dropout: {dropout: 0}}
questions:
  dropout: {question: "Does dropout help?", first: without_dropout, second: base}
"""


def notebooks(setting: Setting) -> list[Row]:
    """Each notebook, from the start of its kernel to its first picture, with the runs that it reads in place."""
    _prepare(setting)
    measures = {name: _opening(setting, name) for name in setting.sizes.notebooks}
    measures[TORCH] = lambda: seconds_of("-c", "import torch")
    taken = alternate("opening", measures, setting.sizes.slow_rounds, warm_up=not setting.quick)
    conditions = f"{in_rounds(setting.sizes.slow_rounds)}; kernel started, caches of photographs there from a round before"
    return [
        build_row(
            f"open_{name}",
            f"opening {name} to its first picture",
            "s",
            {"ours": taken[name], TORCH: taken[TORCH]},
            limits=[TORCH],
            conditions=conditions,
        )
        for name in setting.sizes.notebooks
    ]


def _opening(setting: Setting, name: str) -> Measure:
    """Seconds to the first picture."""

    def measure() -> float:
        source = nbformat.read(find_notebook(name), as_version=4)
        _inject(source, _settings(setting, name, "opened"))
        began = time.perf_counter()
        client = NotebookClient(
            source, timeout=600, extra_arguments=["--log-level=ERROR"], resources={"metadata": {"path": str(REPOSITORY)}}
        )
        with client.setup_kernel():
            for number, cell in enumerate(source.cells):
                if cell.cell_type == "code" and _has_picture(client.execute_cell(cell, number)):
                    return time.perf_counter() - began
        raise AssertionError(f"notebook {name} shows no picture")

    return measure


def _has_picture(cell) -> bool:
    return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


def _inject(notebook, values: dict) -> None:
    """A cell after the parameters' own, as papermill does it."""
    (place,) = (number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place + 1, new_code_cell(f"# Parameters\n{lines}"))


def _settings(setting: Setting, name: str, run: str) -> dict:
    """The demo's parameters on the suite's data; the results of other notebooks are those of `_prepare`."""
    beside = setting.folder / "opened"
    values = {"data": setting.data, "run_dir": str(beside / f"{run}_{name}"), "figures_dir": str(beside / "figures")}
    known = NOTEBOOKS[name].model_fields
    if "force" in known:
        values["force"] = True
    if "sweep" in known:
        values["sweep"] = str(beside / "opening.yaml")
    return values | ({"image_size": setting.sizes.image_size} if "image_size" in known else {})


def _prepare(setting: Setting) -> None:
    """A run of notebook 02, and two short trainings, under the names that the notebooks look for beside their own run."""
    folder = setting.new_folder("opened")
    (folder / "opening.yaml").write_text(SWEEP, encoding="utf-8")
    dataset = setting.dataset()
    values = _settings(setting, "02_mean_std", "run") | {"run_dir": str(folder / "mean_std")}
    run = open_run(NOTEBOOKS["02_mean_std"].checked(values), "02_mean_std")
    statistics = channel_statistics([dataset.photograph_path(pet) for pet in dataset.split("train")])
    save_statistics(statistics, folder / "mean_std" / "stats.json")
    run.finish({})
    if "05_comparison" in setting.sizes.notebooks:
        for name in ("03_unet_training", "04_resnet34_unet_training"):
            _train(setting, name, statistics.pixel_mean, statistics.pixel_std)


def _train(setting: Setting, name: str, mean, std) -> None:
    """A finished run of a few photographs, to be compared."""
    model_of = NOTEBOOKS[name]
    values = _settings(setting, name, "run") | {"epochs": 1, "width": 8, "limit_images": 24, "device": setting.device}
    parameters = model_of.checked(values | {"run_dir": str(setting.folder / "opened" / model_of.model)})
    run, fabric = open_run(parameters, name), training.start(parameters)
    few, whole = setting.dataset(parameters.limit_images), setting.dataset()
    caches = [open_cache(few, few.split(split), parameters.image_size, setting.caches) for split in ("train", "valid")]
    train, valid = (build_loader(cache, parameters, mean, std, train=cache is caches[0]) for cache in caches)
    model = build_model(parameters.model, **parameters.model_settings())
    description = describe_model(parameters, mean, std)
    history = training.fit(model, train, valid, parameters, run, fabric, description)
    tested = whole.split("test")
    cache = open_cache(whole, tested, parameters.image_size, setting.caches)
    run.write_table("per_image.csv", evaluate(model, whole, tested, cache, description, fabric, parameters.batch_size))
    run.finish(training.metrics(parameters, model, history, fabric))
