"""One notebook: check its parameters, run papermill in a process of its own, and prove that it finished.

A run is done when papermill's exit status is 0 and metrics.json stands in the run folder. What the executed notebook
says of itself is not asked: after a killed kernel it claims that every cell completed.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from petseg_lib.config import NOTEBOOKS, ParameterError, shown, workspace
from petseg_lib.disk import replace
from petseg_lib.gpus import LIGHT, one_gpu
from petseg_lib.locks import check_free
from petseg_lib.profiles import Profile, ProfileMissing, checked, figures_folder, find_file, load_profile, profile_of
from petseg_lib.runs import Run, check_data, check_place, is_finished
from petseg_lib.trained_on import changed_since
from petseg_lib.versions import code

SECONDS_TO_STOP = 15  # papermill asks its kernel to end, which may be busy
# A kernel whose ports another process took before it did dies at once, or, as ipykernel 7 does without its iopub or
# heartbeat port, stays and never answers.
KERNEL_STARTS = 3
SECONDS_TO_START = 60
NO_KERNEL = re.compile(r"RuntimeError: Kernel (died before replying|didn't respond)")


class NotebookError(RuntimeError):
    """A notebook that did not finish; the message is one sentence for people."""


def find_notebook(notebook: str | Path) -> Path:
    """The file of a notebook, given by path or by name, e.g. `03_unet_training`."""
    path = find_file(notebook, "notebooks", ".ipynb")
    if path.stem not in NOTEBOOKS:
        raise ParameterError(f"notebook {path.name} is unknown: it must be one of {', '.join(NOTEBOOKS)}")
    return path


def resolve(notebook: str, out: str | Path, profile: Profile | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a run of this notebook gets, checked.

    Args:
        notebook: its name.
        out: run folder, relative to the workspace or absolute; its last part names the profile's section.
        profile: where values come from that `settings` does not name.
        settings: values (text is fine) of single parameters.
    """
    folder = workspace() / out
    if settings.get("run_dir"):
        raise ParameterError("parameter run_dir cannot be set: the run folder says where the run lies")
    data = settings.get("data") or "demo"
    if data != "demo" and Path(data).exists():  # meant from here, where another command for the same run need not be called
        settings = settings | {"data": str(Path(data).resolve())}
    given = profile.settings(notebook, folder.name) if profile else {}
    # Figures go beside those of the runs next to this one, so that a trial run leaves a profile's own figures alone.
    derived = {"run_dir": shown(folder), "figures_dir": figures_folder(shown(folder))}
    return checked(notebook, given | derived | settings)


def run_notebook(
    notebook: str | Path,
    out: str | Path,
    profile: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Run a notebook into a run folder, showing its printed lines as they come.

    Args:
        notebook: path or name.
        out: run folder, relative to the workspace or absolute.
        profile: path or name of a profile.
        settings: values of single parameters, over the profile's.
        force: train again what stands finished, or under other parameters.

    Returns:
        The run folder, which now has metrics.json and notebook.ipynb.

    Raises:
        ParameterError: a name or value is wrong; nothing was touched.
        RunError: a training run of other parameters stands there; nothing was touched.
        LockError: another process works there; nothing was touched.
        DatasetError: results stand there, and there is no dataset to make them anew from; nothing was touched.
        NotebookError: the notebook did not finish; the message says why and where it lies.
    """
    path = find_notebook(notebook)
    loaded = load_profile(profile) if profile else None
    trains = "force" in NOTEBOOKS[path.stem].model_fields
    parameters = resolve(path.stem, out, loaded, (settings or {}) | ({"force": True} if force and trains else {}))
    run = Run(workspace() / out)
    checked_parameters = NOTEBOOKS[path.stem].checked(parameters)
    check_place(run, checked_parameters)
    if is_finished(run, checked_parameters):
        changed = ["petseg_lib"] if run.provenance.get("code") not in (None, code()) else []
        changed += ["photographs or masks"] if changed_since(run, checked_parameters) else []
        since = f", though {' and '.join(changed)} changed since" if changed else ""
        say(run.name, f"is finished already and left alone{since}; --force trains it again")
        return run.folder
    if loaded and run.name not in loaded.runs:
        say(
            run.name,
            f"profile {loaded.name} has no run of this name (it has {', '.join(loaded.runs)}): its common parameters alone",
        )
    check_free(run.folder)
    check_data(run, checked_parameters)
    return execute(path, run.folder, parameters)


def run_again(folder: Path, settings: dict[str, Any] | None = None, file: str | Path | None = None) -> Path:
    """Run the notebook that a profile or sweep names for a run folder, under its parameters, changed as `settings` say.

    Args:
        folder: `runs/PROFILE/RUN` or `runs/sweeps/SWEEP/RUN`.
        settings: values of single parameters, over the file's.
        file: the profile or sweep; the one of the folder's name if None.
    """
    file = file or profile_of(folder.parent)
    try:
        profile = load_profile(file)
    except ProfileMissing:
        raise ParameterError(f"{shown(folder)} does not exist, and there is no profile {file} to make it by") from None
    if folder.name not in profile.runs:
        raise ParameterError(f"{shown(folder)} does not exist, and profile {profile.name} has only {', '.join(profile.runs)}")
    notebook, _ = profile.runs[folder.name]
    return run_notebook(notebook, folder, file, settings)


def execute(notebook: Path, folder: Path, parameters: dict[str, Any]) -> Path:
    """Run a notebook with parameters that are known to be right, or as it stands where there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("metrics.json", "error.txt", "notebook.ipynb"):
        (folder / stale).unlink(missing_ok=True)
    running, executed = folder / "notebook.running.ipynb", folder / "notebook.ipynb"
    say(folder.name, f"{notebook.stem} begins")
    start = time.monotonic()
    for _ in range(KERNEL_STARTS):
        # On Windows a kernel that outlives papermill for a moment holds `stderr`: why the run ended matters more than that.
        with tempfile.TemporaryDirectory(prefix="petseg-", ignore_cleanup_errors=True) as temporary:
            status = _papermill(notebook, running, parameters, Path(temporary))
            complaints = (Path(temporary) / "stderr").read_text(encoding="utf-8", errors="replace")
        if not NO_KERNEL.search(complaints):
            break
    if running.exists():
        replace(running, executed)
    if status != 0 or not (folder / "metrics.json").is_file():
        reason = _last_error(executed, complaints, status) if status else "it ended without writing metrics.json"
        message = f"run {folder.name} failed: {reason} (see {shown(executed)})"
        (folder / "error.txt").write_text(message + "\n", encoding="utf-8")
        raise NotebookError(message)
    say(folder.name, f"{notebook.stem} is done after {duration(time.monotonic() - start)}")
    return folder


def say(run: str, line: str) -> None:
    """One line for whoever watches. Whole lines at once, so that runs side by side do not mix theirs."""
    sys.stdout.write(f"[{run}] {line}\n")
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds in words: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _papermill(notebook: Path, output: Path, parameters: dict[str, Any], temporary: Path) -> int:
    """Run papermill and show the notebook's output; its own words go to the file `stderr`. Returns its exit status."""
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        str(output),
        "--kernel",
        "python3",
        "--language",
        "python",
    ]
    command += ["--start-timeout", str(SECONDS_TO_START), "--no-progress-bar", "--log-level", "WARNING"]
    command += ["--stdout-file", "-", "--stderr-file", "-"]
    if parameters:
        # JSON is YAML, and a file needs no quoting.
        (temporary / "parameters.yaml").write_text(json.dumps(parameters), encoding="utf-8")
        command += ["--parameters_file", str(temporary / "parameters.yaml")]
    own_gpu = nullcontext({}) if notebook.stem in LIGHT else one_gpu(workspace() / "runs")
    with (temporary / "stderr").open("wb") as complaints, own_gpu as gpu:
        process = subprocess.Popen(
            command,
            env=_environment(temporary) | gpu,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        try:
            _show(io.TextIOWrapper(process.stdout, "utf-8", "replace", newline="\n"), output.parent.name)
            return process.wait()
        finally:
            _stop(process)


def _environment(temporary: Path) -> dict[str, str]:
    """The environment of a run: its kernel is this very Python, whatever kernels else are installed."""
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    folder = temporary / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    paths = [str(temporary), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return os.environ | {"JUPYTER_PATH": os.pathsep.join(paths), "PETSEG_WORKSPACE": str(workspace()), "PETSEG_EXECUTED": "1"}


def _show(stream: TextIO, run: str) -> None:
    for line in stream:
        # A progress bar rewrites its line with carriage returns: the last state is enough.
        say(run, line.rstrip("\r\n").rpartition("\r")[2])


def _stop(process: subprocess.Popen) -> None:
    """End papermill if it still runs, as after Ctrl-C: it ends its kernel, and one that lost papermill ends itself."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_error(executed: Path, complaints: str, status: int) -> str:
    """The last line of the notebook's error; where no cell has one, the signal that ended papermill, or the last line of its own."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.is_file() else []
    except ValueError:  # papermill was ended while it wrote, or the disk is full
        cells = []
    outputs = [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "error"]
    text = "\n".join(line for output in outputs for line in output["traceback"])
    if not text and status < 0:
        return f"papermill was ended by a signal ({signal.strsignal(-status)})"
    # The kernel's own log goes there as well, and says that it begins.
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text or complaints).splitlines()]
    lines = [line for line in lines if line and not line.startswith("[IPKernelApp]")]
    return lines[-1] if lines else f"papermill ended with exit status {status}, without a word"
