"""The run folder: the only thing that passes from one notebook to the next."""

import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from petseg_lib.config import Parameters, ReadableError, shown, workspace

PACKAGES = ("torch", "torchvision", "lightning-fabric", "albumentations", "numpy", "opencv-python-headless", "pillow")
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
    def parameters(self) -> dict[str, Any]:
        return self._json("params.json")["parameters"]

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

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json, which makes the run complete, and drop what only an interrupted run would need."""
        shutil.rmtree(self.folder / "resume", ignore_errors=True)
        write_json(self.folder / "metrics.json", metrics)

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise RunError(f"{shown(self.folder)} has no {name}: the run is missing or did not finish; run its notebook first")
        return path

    def _json(self, name: str) -> dict[str, Any]:
        return json.loads(self._existing(name).read_text(encoding="utf-8"))


def open_run(parameters: Parameters, notebook: str) -> Run:
    """Make a run folder and write params.json.

    A run that was interrupted under the same parameters is left as it is, to go on from its last epoch. Whatever else an
    earlier run left there is removed, so that results and parameters always belong together.

    Args:
        parameters: as the notebook checked them; `run_dir` is taken relative to the workspace.
        notebook: the notebook's name, such as "03_unet_training".
    """
    run = Run(workspace() / parameters.run_dir)
    run.folder.mkdir(parents=True, exist_ok=True)
    values = parameters.model_dump()
    interrupted = (run.folder / "resume").is_dir() and not run.complete
    if not (interrupted and (run.folder / "params.json").is_file() and run.parameters == values):
        for name in _RESULTS:
            path = run.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    record = {"notebook": notebook, "parameters": values, "commit": _commit(), "python": platform.python_version()}
    record["platform"] = f"{platform.system()} {platform.machine()}"
    record["packages"] = {name: version(name) for name in PACKAGES}
    write_json(run.folder / "params.json", record)
    return run


def find_run(name: str, beside: Run) -> Run:
    """A run by its name, which means the folder beside another run's, or by its path (relative to the workspace)."""
    is_name = Path(name).name == name
    return Run(beside.folder.parent / name if is_name else workspace() / name)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to the disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
