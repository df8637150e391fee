"""A sweep's plan, its jobs' share of the machine, and what came of it. Snakemake runs it (workflow/Snakefile)."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from petseg_lib.config import NOTEBOOKS, ParameterError, Parameters, TrainingParameters, shown, workspace
from petseg_lib.disk import write_table
from petseg_lib.execute import duration, run_again
from petseg_lib.gpus import computes_on_gpu, usable_cores, visible_gpus
from petseg_lib.profiles import REPOSITORY, Profile, find_sweep, load_profile, settings_from_environment
from petseg_lib.runs import Run, RunError, dictionary_in, is_finished
from petseg_lib.words import in_words

STATES = ("done", "failed", "not finished", "of other parameters")


def load_sweep(file: str | Path, overrides: dict[str, str] | None = None, asked: bool = False) -> Profile:
    """Read and check a sweep, as `load_profile`.

    Args:
        file: a path, or a name in `profiles/sweeps/`.
        asked: it shall answer questions, as notebook 06 has it do.

    Raises:
        ParameterError: it cannot be read, it is a profile, or it is `asked` and cannot answer.
    """
    path = find_sweep(file)
    sweep = load_profile(path, overrides)
    if not sweep.points:
        raise ParameterError(f"{path} is a profile and no sweep: it has neither `variants` nor a `grid`")
    if asked and not sweep.questions:
        raise ParameterError(f"{sweep.name} cannot be asked: it has no `questions`")
    varied = {name for point in sweep.points.values() for name in point}
    if asked and varied != {"variant", "seed"}:
        raise ParameterError(
            f"{sweep.name} cannot be asked: its runs differ in {', '.join(sorted(varied))}, "
            "but it must have variants and a grid of `seed` alone"
        )
    return sweep


def is_changed(run: Run, parameters: TrainingParameters) -> bool:
    """Whether a training run stands, finished or begun, under other parameters."""
    try:
        is_finished(run, parameters)
    except RunError:
        return True
    return False


def as_stated(run: Run, notebook: str, settings: dict[str, Any]) -> Parameters:
    """A run's parameters as its sweep states them; what the sweep leaves open (a device, say) as the run has it."""
    try:
        return NOTEBOOKS[notebook].checked(left_open(run, notebook, settings) | settings)
    except ParameterError:  # what the run has and what the sweep states do not go together
        return NOTEBOOKS[notebook].checked(settings)


def left_open(run: Run, notebook: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Of a run that stands, the parameters of which its sweep says nothing."""
    standing = run.parameters if run.begun and run.notebook == notebook else {}
    return {name: value for name, value in standing.items() if name in NOTEBOOKS[notebook].model_fields.keys() - settings.keys()}


def train_missing(sweep: Profile, file: Path, settings: dict[str, str]) -> None:
    """Train the runs of a sweep that are missing, one after the other.

    Args:
        sweep: as `load_sweep` read it from `file` with `settings`.

    Raises:
        RunError: a run stands under other parameters; `petseg sweep` trains such runs again.
    """
    runs = {name: Run(folder_of(sweep, name)) for name in sweep.runs}
    missing = [name for name, run in runs.items() if not is_finished(run, as_stated(run, *sweep.runs[name]))]
    for number, name in enumerate(missing, 1):
        print(f"Run {number} of {len(missing)} that are missing: {name}", flush=True)
        run_again(runs[name].folder, left_open(runs[name], *sweep.runs[name]) | settings, file)


def folder_of(sweep: Profile, run: str) -> Path:
    """A run's folder."""
    return workspace() / "runs" / sweep.name / run


def plan(sweep: Profile, at_once: int, each: bool = False, force: bool = False) -> str:
    """What there is to do, in words, with an estimate of the time where finished runs allow one.

    Args:
        sweep: as `load_profile` expanded it.
        at_once: runs side by side.
        each: name every run that is to do, with its own estimate.
        force: finished runs are trained again.
    """
    parameters = {run: NOTEBOOKS[notebook].checked(values) for run, (notebook, values) in sweep.runs.items()}
    runs = {run: Run(folder_of(sweep, run)) for run in sweep.runs}
    changed = [run for run in sweep.runs if is_changed(runs[run], parameters[run])]
    complete = [run for run in sweep.runs if runs[run].complete and run not in changed]
    to_do = list(sweep.runs) if force else [run for run in sweep.runs if run not in complete]
    words = f"{sweep.name}: {in_words(len(sweep.runs), 'run')}, {len(complete)} of them finished, {len(to_do)} to do"
    if force and complete:
        words += ", those finished again (FORCE)"
    if changed:
        words += f" ({len(changed)} of these stand under other parameters and are trained again)"
    if not to_do:
        return words
    finished = _finished_runs()
    estimates = {run: _estimate(sweep.runs[run][0], parameters[run], finished) for run in to_do}
    known = [seconds for seconds in estimates.values() if seconds is not None]
    if known:
        total = float(np.mean(known)) * len(to_do) / min(at_once, len(to_do))
        words += f"; {at_once} at a time, about {duration(total)} (from the finished runs that are most like them)"
    else:
        words += f"; {at_once} at a time. No finished run is like them: their time is not known"
    if each:
        times = {run: "" if seconds is None else f": about {duration(seconds)}" for run, seconds in estimates.items()}
        words = "\n".join([words, *(f"  {run}{times[run]}" for run in to_do)])
    return words


def _finished_runs() -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    """Of every finished training run that Snakemake timed: work and seconds, by what they must share with a new one."""
    found: dict[tuple, list[tuple[float, float]]] = {}
    for timed in sorted((workspace() / "runs").rglob("benchmark.tsv")):
        run = Run(timed.parent)
        parameters, measured = run.provenance.get("parameters", {}), _measured(run)  # nothing of a run that is damaged
        if run.complete and measured and parameters.keys() >= _OF_WORK:
            kind = _kind(run.provenance["notebook"], parameters)
            trained = dictionary_in(run.folder / "metrics.json").get("training_seconds", 0.0)  # more, where the last job went on
            found.setdefault(kind, []).append((_work(parameters), float(max(measured["s"], trained))))
    return {kind: tuple(np.array(pairs).T) for kind, pairs in found.items()}


_OF_WORK = {"data", "limit_images", "epochs", "image_size", "width"}


def _kind(notebook: str, parameters: dict[str, Any]) -> tuple:
    return notebook, parameters["data"], parameters["limit_images"], parameters.get("train_images", 0)


def _work(parameters: dict[str, Any]) -> float:
    """What a training run's time is taken to grow with: epochs, pixels, and weights of a convolution."""
    epochs = parameters["epochs"] * (1 - 0.75 * parameters.get("half_size_share", 0.0))  # a quarter of the pixels in those
    return float(epochs * parameters["image_size"] ** 2 * parameters["width"] ** 2)


def _estimate(notebook: str, parameters: TrainingParameters, finished: dict[tuple, tuple]) -> float | None:
    """Seconds, from the finished runs of its kind that are nearest in work; None without any."""
    wanted = parameters.model_dump()
    if "epochs" not in wanted or _kind(notebook, wanted) not in finished:
        return None
    work, seconds = finished[_kind(notebook, wanted)]
    distance = np.abs(np.log(work / _work(wanted)))
    nearest = distance == distance.min()
    return float(np.median(seconds[nearest] * _work(wanted) / work[nearest]))


def summary(sweep: Profile) -> pd.DataFrame:
    """One row a run: run, its variant and values of the grid, notebook, state, Dice, training_seconds, seconds, memory_mb, error.

    state is `done`, `failed`, `not finished`, or `of other parameters` where what stands in the folder is not what the sweep
    asks for; the Dice columns are those of metrics.json, under the border policy that the run was trained with, which stands
    beside them (notebook 02 has neither); seconds and memory are Snakemake's own measurements of the run's last job, which of a
    run that went on after an interrupt is not all of it: training_seconds counts every epoch.
    """
    rows = []
    for name, (notebook, settings) in sweep.runs.items():
        run = Run(folder_of(sweep, name))
        parameters = NOTEBOOKS[notebook].checked(settings)
        done = run.complete and not is_changed(run, parameters)
        error = "" if done else _last_words(run)
        state = "done" if done else "failed" if error else "of other parameters" if run.complete else "not finished"
        row = {"run": name} | sweep.points[name] | {"notebook": notebook, "state": state}
        if done:
            row |= parameters.model_dump(include={"border_policy"})
            row |= {key: value for key, value in run.metrics.items() if key.startswith(("dice_", "training_seconds"))}
        if measured := _measured(run):
            row |= {"seconds": measured["s"], "memory_mb": measured["max_rss"]}  # no memory on macOS
        rows.append(row | {"error": error})
    return pd.DataFrame(rows)


def _measured(run: Run) -> dict[str, float]:
    """What Snakemake measured of a run's job: s, max_rss (MB) and others; nothing where it wrote nothing."""
    try:
        table = pd.read_csv(run.folder / "benchmark.tsv", sep="\t")
    except (FileNotFoundError, pd.errors.EmptyDataError):  # empty after a power cut
        return {}
    return {} if table.empty else table.iloc[-1].to_dict()


def _last_words(run: Run) -> str:
    """Why a run failed: the last line of its notebook's error, or what the command said that refused to run it."""
    for name in ("error.txt", "said.txt"):
        path = run.folder / name
        lines = path.read_text(encoding="utf-8").strip().splitlines() if path.is_file() else []
        if lines and (name == "error.txt" or lines[-1].startswith("petseg: ")) and lines[-1] != "petseg: interrupted":
            return lines[-1].removeprefix("petseg: ")
    return ""


def write_summary(sweep: Profile) -> None:
    """Write `summary.csv` into the sweep's folder, and say what came of it and why each failed run failed."""
    table = summary(sweep)
    path = workspace() / "runs" / sweep.name / "summary.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    for error in table["error"][table["error"] != ""]:
        print(f"petseg: {error}", file=sys.stderr)
    states = table["state"].value_counts()
    words = ", ".join(f"{states[state]} {state}" for state in STATES if state in states)
    words += " (the same command goes on)" if "not finished" in states else ""
    if "seconds" in table:
        words += f"; {duration(table['seconds'].sum())} of jobs"
        words += f", at most {table['memory_mb'].max():,.0f} MB each" if table["memory_mb"].notna().any() else ""
    print(f"{in_words(len(table), 'run')}: {words} ({shown(path)})", flush=True)


def run_sweep(file: str, threads: int = 0, dry_run: bool = False, snakemake: Sequence[str] = ()) -> int:
    """Say the plan and hand it to Snakemake; returns its exit status.

    DATA, SET and FORCE are read from the environment, as for `make run`.

    Args:
        file: a sweep, by path or by name in `profiles/sweeps/`.
        threads: CPU threads of a run; 0 = one, or the cores' share of each GPU where there are GPUs.
        dry_run: only say the plan.
        snakemake: further options of Snakemake.
    """
    path = find_sweep(file)
    sweep = load_sweep(path, settings_from_environment())
    if sweep.questions:
        try:
            load_sweep(path, asked=True)
        except ParameterError as error:  # its runs can be trained, and who waits for notebook 06 shall know before
            print(f"petseg: {error}", file=sys.stderr)
    gpus = visible_gpus()
    count = len(gpus) or int(computes_on_gpu())  # Apple's has no id
    cores = usable_cores()
    threads = threads or max(1, cores // count if count else 1)
    at_once = max(1, min(cores // threads, count or cores))
    environment = os.environ | {"SWEEP": str(path), "THREADS": str(threads)}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "workflow" / "Snakefile")]
    # Each run folder has its own lock, which goes with its process; Snakemake's would outlive a power cut.
    command += ["--cores", str(cores), "--keep-going", "--rerun-incomplete", "--nolock", "--retries", "1"]
    command += ["--quiet", "rules", "reason", "host"]
    if count:
        command += ["--resources", f"gpu={count}"]
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if os.environ.get("FORCE"):
        command += ["--forcerun", "notebook"]
    if not dry_run:
        (workspace() / "runs" / sweep.name).mkdir(parents=True, exist_ok=True)  # a file of that name is said to be one
    print(plan(sweep, at_once, each=dry_run, force=bool(os.environ.get("FORCE"))), flush=True)
    status = _wait([*command, *(["--dry-run"] if dry_run else []), *snakemake], environment)
    return 1 if status else 0


def _wait(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; Ctrl-C and SIGTERM are its own to answer: its jobs end first."""
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
