"""The run folder: the only thing that passes from one notebook to the next."""

import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from filelock import FileLock, Timeout

from petseg_lib.config import NOTEBOOKS, Parameters, ReadableError, TrainingParameters, shown, workspace
from petseg_lib.data.pets import dataset_folder, dataset_root
from petseg_lib.disk import replace

PACKAGES = ("torch", "torchvision", "lightning-fabric", "albumentations", "numpy", "opencv-python-headless", "pillow")
NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name)}
OF_NO_RESULT = ("figures_dir", "figure_formats", "loader_workers", "cuda_graphs")  # they change no result
_LOCKS: dict[Path, FileLock] = {}  # of the runs under way in this process
# What a run makes. The executed notebook is not among it: papermill writes that while the run is under way.
_RESULTS = ("metrics.json", "history.csv", "per_image.csv", "model.safetensors", "stats.json", "resume", "tensorboard")


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
        """All of params.json: notebook, parameters, commit, python, platform, packages, left_out, normalisation; nothing where it is missing."""
        return self._json("params.json") if (self.folder / "params.json").is_file() else {}

    @property
    def parameters(self) -> dict[str, Any]:
        return self._json("params.json")["parameters"]

    @property
    def notebook(self) -> str:
        return self._json("params.json")["notebook"]

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
        return pd.read_csv(self._existing("per_image.csv"))

    def record(self, **entries: Any) -> None:
        """Add entries to params.json."""
        write_json(self.folder / "params.json", self._json("params.json") | entries)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json, which makes the run complete, and drop what only a run under way needs."""
        write_json(self.folder / "metrics.json", metrics)
        shutil.rmtree(self.folder / "resume", ignore_errors=True)
        if self.folder in _LOCKS:
            _LOCKS.pop(self.folder).release()

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as `name`, a CSV file, whole or not at all."""
        write_table(self.folder / name, table)

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise RunError(f"{shown(self.folder)} has no {name}: the run is missing or did not finish; run its notebook first")
        return path

    def _json(self, name: str) -> dict[str, Any]:
        return json.loads(self._existing(name).read_text(encoding="utf-8"))


def open_run(parameters: Parameters, notebook: str) -> Run:
    """Make a run folder, lock it for this process until the run is finished, and write params.json.

    A training run that was interrupted is left as it is, to go on from its last epoch; one that is finished as well, to
    be measured again, unless `parameters.force` says otherwise. Whatever else an earlier run left there is removed, so
    that results and parameters always belong together.

    Args:
        parameters: as the notebook checked them; `run_dir` is taken relative to the workspace.
        notebook: the notebook's name, such as "03_unet_training".

    Raises:
        RunError: another process works on the folder, or a training run stands there under other parameters or of another
            notebook.
        DatasetError: results stand there, and there is no dataset to make them anew from.
    """
    run = Run(workspace() / parameters.run_dir)
    run.folder.mkdir(parents=True, exist_ok=True)
    _lock(run)
    if _stands(run, parameters):
        return run
    check_data(run, parameters)
    for name in _RESULTS:
        path = run.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    record = {"notebook": notebook, "parameters": lasting(parameters), "commit": _commit(), "python": platform.python_version()}
    record["platform"] = f"{platform.system()} {platform.machine()}"
    record["packages"] = {name: version(name) for name in PACKAGES}
    write_json(run.folder / "params.json", record)
    return run


def check_data(run: Run, parameters: Parameters) -> None:
    """Refuse to give up what stands in a run folder for a dataset that is not there: a wrong name must not cost a training.

    Raises:
        DatasetError: the run is begun or finished, and `data` names no dataset, of which the notebook has need.
    """
    if run.begun and parameters.needs_dataset and parameters.data != "demo":
        dataset_root(dataset_folder(parameters.data))


def lasting(parameters: Parameters) -> dict[str, Any]:
    """The parameters that a run's results depend on, as params.json keeps them."""
    return parameters.model_dump(exclude={"force"})


def is_finished(run: Run, parameters: Parameters) -> bool:
    """Whether a training run stands finished, so that it must not be trained again.

    Raises:
        RunError: it was begun or finished under other parameters, or it is of another notebook.
    """
    if not run.begun:
        return False
    check_notebook(run, parameters)
    if not isinstance(parameters, TrainingParameters) or parameters.force:
        return False
    check_parameters(run, parameters)
    return run.complete


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
    # A parameter that the run's version did not know yet acted as its default does now.
    standing = {name: field.default for name, field in type(parameters).model_fields.items()} | run.parameters
    changed = [name for name, value in _decisive(given).items() if value != standing[name]]
    if changed and not parameters.force:
        words = ", ".join(f"{name} is {given[name]!r} and was {standing[name]!r}" for name in changed)
        raise RunError(
            f"{shown(run.folder)} holds {'a finished' if run.complete else 'an interrupted'} run of other parameters: {words}; "
            "choose another run folder, or force it to be trained again from the start"
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
    return {name: value for name, value in parameters.items() if name not in OF_NO_RESULT}


def _lock(run: Run) -> None:
    """Of two processes on one folder the second is refused. The system drops the lock with the process that holds it."""
    if run.folder in _LOCKS:
        return
    lock = FileLock(run.folder / ".lock")
    try:
        lock.acquire(blocking=False)
        _LOCKS[run.folder] = lock
    except Timeout:
        raise RunError(
            f"another process is working on {shown(run.folder)}: wait until it ends, or choose another folder"
        ) from None


def find_run(name: str, beside: Run) -> Run:
    """A run by its name, which means the folder beside another run's, or by its path (relative to the workspace)."""
    is_name = Path(name).name == name
    return Run(beside.folder.parent / name if is_name else workspace() / name)


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object], size: int = 0) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to the disk, then renamed.

    Args:
        content: the bytes, or what writes them into an open file.
        size: about how many bytes that will write.

    Raises:
        RunError: the disk is full, or the file would pass a limit on its size; what stood there before still stands.
        ReadableError: on Windows, another program has the file open.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch has an error of its own about a failed write
        if not isinstance(cause, OSError) or cause.errno not in NO_ROOM:
            raise
        needs = (len(content) if isinstance(content, bytes) else size) / 1e6
        free = shutil.disk_usage(path.parent).free
        raise RunError(
            f"{shown(path)} needs {needs:.1f} MB, but could not be written ({cause.strerror}; {free / 1e6:.1f} MB "
            "are free): make room and run the same command again; what was written before still stands"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, atomically, with the same bytes on every system."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _commit() -> str:
    """The project's git commit, with "+" where files differ from it; "unknown" outside a clone or without git."""
    here = Path(__file__).parent
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"
