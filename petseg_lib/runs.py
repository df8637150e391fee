"""The run folder: the only thing that passes from one notebook to the next."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from petseg_lib.config import NOTEBOOKS, Parameters, PredictionParameters, ReadableError, TrainingParameters, shown, workspace
from petseg_lib.data.check import usable
from petseg_lib.data.pets import dataset_folder, draw_train, open_dataset
from petseg_lib.disk import write_json, write_table
from petseg_lib.locks import lock, unlock
from petseg_lib.versions import made_with

# They change no result; what a run is trained on, `trained_on.check_photographs` holds together.
OF_NO_RESULT = ("figures_dir", "figure_formats", "loader_workers", "cuda_graphs", "bad_samples")
# What a run makes. The executed notebook is not among it: papermill writes that while the run is under way.
_RESULTS = ("metrics.json", "history.csv", "per_image.csv", "model.safetensors", "stats.json", "resume", "tensorboard")
_OF_THE_MACHINE = ("device", "precision", "images_per_second")
_RESULTS += (_CUTOUTS := ("masks", "cutouts", "cutouts.csv"))


class RunError(ReadableError):
    """A run folder that cannot be used."""


@dataclass(frozen=True)
class Run:
    """One run folder and what stands in it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def complete(self) -> bool:
        """True where metrics.json stands: it is written last."""
        return (self.folder / "metrics.json").is_file()

    @property
    def begun(self) -> bool:
        """True where a training run is finished, or can go on."""
        return (self.complete or (self.folder / "resume").is_dir()) and (self.folder / "params.json").is_file()

    @property
    def provenance(self) -> dict[str, Any]:
        """All of params.json: notebook, parameters, commit, code, python, platform, packages, left_out, normalisation, photographs; nothing where it is missing."""
        return dictionary_in(self.folder / "params.json")

    @property
    def parameters(self) -> dict[str, Any]:
        return self._entry("parameters")

    @property
    def all_parameters(self) -> dict[str, Any]:
        """Its parameters, and those that its version did not know yet (`with_defaults`)."""
        return with_defaults(self.parameters, NOTEBOOKS.get(self.notebook, Parameters))

    @property
    def notebook(self) -> str:
        return self._entry("notebook")

    @property
    def metrics(self) -> dict[str, Any]:
        return self._json("metrics.json")

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch: epoch, learning_rate, train_loss, train_dice, valid_loss, valid_dice, seconds."""
        return pd.read_csv(self._existing("history.csv"))

    @property
    def per_image(self) -> pd.DataFrame:
        """One row a test image, as `evaluation.evaluate` makes it."""
        # Names stay text: 0001 would become a number, and a breed called NA a missing one.
        names = dict.fromkeys(("name", "breed", "species"), str)
        return pd.read_csv(self._existing("per_image.csv"), dtype=names, keep_default_na=False)

    @property
    def has_notebook(self) -> bool:
        """Whether notebook.ipynb shows this run: JupyterLab leaves none, and what lies there may be an earlier run's."""
        return self.complete and self.provenance.get("executed", True) and (self.folder / "notebook.ipynb").is_file()

    def record(self, **entries: Any) -> None:
        """Add entries to params.json."""
        write_json(self.folder / "params.json", self._json("params.json") | entries)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json, which makes the run complete, and drop what only a run under way needs.

        A finished training that is measured again keeps what was measured of the machine that trained it.
        """
        if self.complete:
            metrics = metrics | {name: value for name, value in self.metrics.items() if name in _OF_THE_MACHINE}
        else:
            self.record(executed="PETSEG_EXECUTED" in os.environ)
        write_json(self.folder / "metrics.json", metrics)
        shutil.rmtree(self.folder / "resume", ignore_errors=True)
        unlock(self.folder)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as `name`, a CSV file, whole or not at all."""
        write_table(self.folder / name, table)

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise RunError(f"{shown(self.folder)} has no {name}: the run is missing or did not finish; run its notebook first")
        return path

    def _entry(self, name: str) -> Any:
        entries = self._json("params.json")
        if name not in entries:
            raise RunError(
                f"{shown(self.folder / 'params.json')} is damaged (it has no {name}): run its notebook again into another folder"
            )
        return entries[name]

    def _json(self, name: str) -> dict[str, Any]:
        path = self._existing(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{shown(path)} is damaged ({error}): run its notebook again into another folder") from None


def open_run(parameters: Parameters, notebook: str) -> Run:
    """Make a run folder, lock it for this process until the run is finished, and write params.json.

    A training run that was interrupted is left as it is, to go on from its last epoch; one that is finished as well, to
    be measured again, unless `parameters.force` says otherwise. Whatever else an earlier run left there is removed, so
    that results and parameters always belong together; but for masks and cut-outs where notebook 07 makes others.

    Args:
        parameters: as the notebook checked them; `run_dir` is taken relative to the workspace.
        notebook: the notebook's name, such as "03_unet_training".

    Raises:
        LockError: another process works on the folder.
        RunError: a training run stands there under other parameters or of another notebook, or what stands there is of no run.
        DatasetError: results stand there, and there is no dataset to make them anew from.
    """
    run = Run(workspace() / parameters.run_dir)
    check_place(run, parameters)
    run.folder.mkdir(parents=True, exist_ok=True)
    taken = lock(run.folder)
    try:
        if _stands(run, parameters):
            return run
        check_data(run, parameters)
    except ReadableError:
        if taken:  # a notebook's kernel lives on
            unlock(run.folder)
        raise
    # Someone may have mended masks since: `cutouts.cut_out_all` looks for that, and removes what it wrote itself.
    kept = _CUTOUTS if isinstance(parameters, PredictionParameters) else ()
    for name in (name for name in _RESULTS if name not in kept):
        path = run.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    record = {"notebook": notebook, "parameters": lasting(parameters)} | made_with()
    write_json(run.folder / "params.json", record)
    return run


def check_place(run: Run, parameters: Parameters) -> None:
    """Refuse a run folder in which a run would remove or write over what no run has made, and figures that have no place.

    Raises:
        RunError: it is the workspace or holds it, it lies in the folder of the data, files of a run's names stand there
            without a params.json of a run, or the folder of the figures is a file.
    """
    folder = run.folder.resolve()
    if workspace().resolve().is_relative_to(folder):
        raise RunError(f"the run folder {shown(folder)} is or holds the workspace: choose one of its own, such as runs/own/unet")
    data = dataset_folder(parameters.data).resolve() if parameters.needs_dataset and parameters.data != "demo" else None
    if data and folder.is_relative_to(data):
        raise RunError(f"the run folder {shown(folder)} lies in the data folder {data}, where nothing is written: choose another")
    figures = workspace() / parameters.figures_dir
    if figures.exists() and not figures.is_dir():
        raise RunError(f"parameter figures_dir is {parameters.figures_dir}, which is a file: it must be a folder, or a new name")
    foreign = {name for name in (*_RESULTS, "notebook.ipynb") if (folder / name).exists()}
    if "notebook.ipynb" in foreign and "papermill" in (dictionary_in(folder / "notebook.ipynb").get("metadata") or {}):  # a run's
        foreign -= {"notebook.ipynb", "metrics.json"}
    if foreign and "notebook" not in run.provenance:
        raise RunError(
            f"{shown(folder)} holds {', '.join(sorted(foreign))}, but no params.json of a run: what stands there is not "
            "petseg's and would be removed; choose another run folder"
        )


def dictionary_in(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_data(run: Run, parameters: Parameters) -> None:
    """Refuse to give up what stands in a run folder for a dataset that cannot be used: a wrong name must not cost a training.

    Raises:
        DatasetError: the run is begun or finished, and `data` names no dataset that can be used, of which the notebook has need,
            or one of fewer photographs than `train_images`.
    """
    drawn = parameters.train_images if isinstance(parameters, TrainingParameters) else 0
    if run.begun and parameters.needs_dataset and (drawn or parameters.data != "demo"):
        dataset, _ = usable(open_dataset(parameters.data, parameters.limit_images), parameters.bad_samples)
        draw_train(dataset, drawn, seed=0)


def with_defaults(values: dict[str, Any], model: type[Parameters]) -> dict[str, Any]:
    """Values of a notebook's parameters; one that the version which wrote them did not know yet acted as its default does now."""
    return {name: field.default for name, field in model.model_fields.items()} | values


def lasting(parameters: Parameters) -> dict[str, Any]:
    """The parameters that a run's results depend on, as params.json keeps them."""
    return parameters.model_dump(exclude={"force"})


def is_finished(run: Run, parameters: Parameters) -> bool:
    """Whether a training run stands finished, so that it must not be trained again.

    Raises:
        RunError: it was begun or finished under other parameters, or it is of another notebook.
    """
    return _stands(run, parameters) and run.complete


def check_notebook(run: Run, parameters: Parameters) -> None:
    """Refuse to write over another notebook's training, unless `parameters.force` is set.

    Raises:
        RunError: names both notebooks.
    """
    name = run.provenance.get("notebook", "")
    standing = NOTEBOOKS.get(name)
    forced = isinstance(parameters, TrainingParameters) and parameters.force
    if standing is not None and issubclass(standing, TrainingParameters) and standing is not type(parameters) and not forced:
        given = next(each for each, model in NOTEBOOKS.items() if model is type(parameters))
        raise RunError(
            f"{shown(run.folder)} holds a training of notebook {name}, which {given} would write over: "
            "choose another run folder, or remove that one"
        )


def check_parameters(run: Run, parameters: TrainingParameters) -> None:
    """Refuse to train over a run of other parameters, unless `parameters.force` is set.

    Raises:
        RunError: names each parameter that differs, with both values.
    """
    given = lasting(parameters)
    standing = with_defaults(run.parameters, type(parameters))
    before = _decisive(standing)
    changed = [name for name, value in _decisive(given).items() if value != before[name]]
    if changed and not parameters.force:
        words = ", ".join(f"{name} is {given[name]!r} and was {standing[name]!r}" for name in changed)
        raise RunError(
            f"{shown(run.folder)} holds {'a finished' if run.complete else 'an interrupted'} run of other parameters: {words}; "
            "choose another run folder, or train it again from the start with force = True (--force, FORCE=1)"
        )


def _stands(run: Run, parameters: Parameters) -> bool:
    """Whether a training run of these parameters stands in the folder, finished or interrupted, and shall be kept."""
    if not run.begun:
        return False
    check_notebook(run, parameters)
    if not isinstance(parameters, TrainingParameters):
        return False
    check_parameters(run, parameters)
    # A forced run that was interrupted goes on as well: a batch system may start the same command again.
    return not parameters.force or (not run.complete and _decisive(run.parameters) == _decisive(lasting(parameters)))


def _decisive(parameters: dict[str, Any]) -> dict[str, Any]:
    decisive = {name: value for name, value in parameters.items() if name not in OF_NO_RESULT}
    if decisive["data"] != "demo":  # one folder may be named in several ways
        decisive["data"] = str(dataset_folder(decisive["data"]).resolve())
    return decisive


def find_run(name: str, beside: Run) -> Run:
    """A run by its name, which means the folder beside another run's, or by its path (relative to the workspace)."""
    is_name = Path(name).name == name
    return Run(beside.folder.parent / name if is_name else workspace() / name)
