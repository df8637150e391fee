"""Sweeps: what a file becomes, how Snakemake runs it with stand-in notebooks, and what is said of it."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from stand_ins import pretend, write_notebook

from petseg_lib import cli, execute, gpus, sweeps
from petseg_lib.config import NOTEBOOKS, ParameterError, UNetParameters
from petseg_lib.gpus import one_gpu, usable_cores, visible_gpus
from petseg_lib.profiles import REPOSITORY, find_sweep, load_profile, settings_for_sweep
from petseg_lib.runs import Run, RunError, lasting

SWEEP = """
notebook: 03_unet_training
parameters: {image_size: 32, epochs: 4}
variants:
  base: {}
  short: {epochs: 2}
  resnet: {notebook: 04_resnet34_unet_training, stem_stride: 1}
grid: {seed: [0, 1], learning_rate: [1.0e-3, 1.0e-4]}
questions:
  epochs: {question: "Is half enough?", first: base, second: short, report: base}
"""
# Real notebooks leave params.json; with it a stand-in's run counts as finished.
RECORD = """\
(config.workspace() / parameters.run_dir / "params.json").write_text(
    json.dumps({"notebook": "03_unet_training", "parameters": parameters.model_dump(exclude={"force"})}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workspace with stand-ins, in which `write` puts a sweep."""
    monkeypatch.setenv("PETSEG_WORKSPACE", str(tmp_path))
    for name in ("DATA", "SET", "FORCE", "SWEEP", "PROFILE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("03_unet_training", "04_resnet34_unet_training"):
        write_notebook(tmp_path / "notebooks", name, work=RECORD)
    return tmp_path


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / "profiles" / "sweeps" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def petseg_sweep(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "petseg_lib.cli", "sweep", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


def test_a_sweep_is_a_run_for_each_variant_and_combination(folder):
    sweep = load_profile(write(folder, SWEEP))
    assert sweep.name == "sweeps/mine"
    assert len(sweep.runs) == 3 * 4
    notebook, values = sweep.runs["short,seed=1,learning_rate=0.0001"]
    assert notebook == "03_unet_training"
    assert (values["epochs"], values["seed"], values["learning_rate"], values["image_size"]) == (2, 1, 1e-4, 32)
    assert values["run_dir"] == "runs/sweeps/mine/short,seed=1,learning_rate=0.0001"
    assert values["figures_dir"] == f"{values['run_dir']}/figures"
    assert sweep.points["short,seed=1,learning_rate=0.0001"] == {"variant": "short", "seed": 1, "learning_rate": 1e-4}
    assert sweep.runs["resnet,seed=0,learning_rate=0.001"][0] == "04_resnet34_unet_training"
    assert sweep.questions["epochs"]["report"] == "base"
    assert load_profile(find_sweep("mine")) == sweep


def test_a_profile_says_how_many_runs_of_its_sweep_are_done(folder):
    """They speak into files, and may take hours."""
    write(folder, SWEEP.replace("learning_rate: [1.0e-3, 1.0e-4]", "seed: [0]").replace("seed: [0, 1], ", ""))
    write_notebook(folder / "notebooks", "06_ablations")
    (folder / "profiles" / "asking.yaml").write_text("runs: {ablations: {notebook: 06_ablations, sweep: mine}}")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "workflow" / "Snakefile"), "--cores", "2"]
    command += ["--quiet", "rules", "reason", "host"]
    given = os.environ | {"PROFILE": "asking"}
    result = subprocess.run(command, check=True, env=given, capture_output=True, text=True, cwd=folder, timeout=300)
    assert result.stdout.startswith("3 runs of a sweep to do; what each says stands in its said.txt")
    assert "3 of 6 steps (50%) done" in result.stderr.splitlines(), "three runs of the sweep, 06, the report, all"


def test_a_grid_alone_is_a_sweep(folder):
    sweep = load_profile(write(folder, "notebook: 03_unet_training\ngrid: {width: [4, 8]}"))
    assert list(sweep.runs) == ["width=4", "width=8"]
    assert sweep.points == {"width=4": {"width": 4}, "width=8": {"width": 8}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[0, 1]", "[0, 0]"), "grid has seed: [0, 0], but it must be a list of different values"),
        (("[0, 1]", "3"), "grid has seed: 3, but it must be a list of different values"),
        (("[0, 1]", "[0, -1]"), "run base,seed=-1,learning_rate=0.001: parameter seed is -1"),
        (("{epochs: 2}", "{epohcs: 2}"), "unknown parameter 'epohcs': did you mean 'epochs'?"),
        (("{epochs: 2}", "{seed: 2}"), "variant short sets seed, which the grid sets as well"),
        (("second: short", "second: shrt"), "question epochs names variant 'shrt', but there are base, short, resnet"),
        (("report: base", "report: resnet"), "question epochs has report 'resnet', neither its first nor its second"),
        (("1.0e-4]", "1e-3]"), "base,seed=0,learning_rate=0.001 and base,seed=0,learning_rate=1e-3 are the same run"),
        (("{epochs: 2}", "3"), "variant 'short' is 3, but it must be a name with a map of parameters"),
        (("  short: {", "  1: {"), "variant 1 is {'epochs': 2}, but it must be a name with a map of parameters"),
        (("first: base,", "first: short,"), "question epochs compares short with itself"),
        (('"Is half enough?"', "3"), "question epochs must have text as its question and why"),
        (
            ("  epochs: {question", "  lr/wd: {question"),
            "question name 'lr/wd' must be letters, digits and _ . , = + -, with a letter",
        ),
        (("first: base, ", ""), "question epochs must have question, first and second, and may have why and report"),
        (("notebook: 03_unet_training", "notebook: 03_unet"), "has notebook '03_unet', but it must be one of"),
        (("grid:", "gird:"), "is no profile: it must have `parameters` and `runs`, or be a sweep of grid, notebook"),
        (("  resnet: {", "  a/b: {"), "run name 'a/b,seed=0,learning_rate=0.001' must be letters"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_sentence(folder, change, message):
    with pytest.raises(ParameterError) as caught:
        load_profile(write(folder, SWEEP.replace(*change, 1)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_questions_compare_variants(folder):
    text = SWEEP.replace(SWEEP[SWEEP.index("variants:") : SWEEP.index("grid:")], "")
    with pytest.raises(ParameterError, match="question epochs compares variants, and there are no `variants`"):
        load_profile(write(folder, text))


def test_questions_that_no_notebook_can_answer_are_named_before_anything_runs(folder, capsys):
    write(
        folder, SMALL + 'variants: {base: {}, short: {epochs: 2}}\nquestions: {a: {question: "?", first: base, second: short}}\n'
    )
    assert sweeps.run_sweep("mine", dry_run=True) == 0
    assert "cannot be asked" not in capsys.readouterr().err
    write(folder, SWEEP)
    assert sweeps.run_sweep("mine", dry_run=True) == 0
    said = capsys.readouterr()
    assert "cannot be asked: its runs differ in learning_rate, seed, variant, but it must have variants" in said.err
    assert "sweeps/mine: 12 runs" in said.out


def test_a_file_in_the_place_of_a_sweeps_folder_is_named(folder, capsys):
    write(folder, SMALL)
    (folder / "runs" / "sweeps").mkdir(parents=True)
    (folder / "runs" / "sweeps" / "mine").write_text("x")
    assert cli.main(["sweep", "mine"]) == 2
    assert capsys.readouterr().err.strip().endswith("mine cannot be used: File exists")


def test_a_sweep_without_variants_and_grid_is_refused(folder):
    with pytest.raises(ParameterError, match="a sweep must have `variants` or a `grid`"):
        load_profile(write(folder, "notebook: 03_unet_training"))


SMALL = """
notebook: 03_unet_training
parameters: {epochs: 3}
grid: {seed: [0, 1, 2]}
"""
FAILING = (
    RECORD + "\nif parameters.seed == 1 and not (config.workspace() / 'mended').exists():\n    raise ValueError('no luck')\n"
)


def test_a_sweep_runs_side_by_side_and_again_only_what_failed_or_changed(folder):
    write_notebook(folder / "notebooks", "03_unet_training", work=FAILING)
    path = write(folder, SMALL)
    first = petseg_sweep("mine")
    assert first.returncode == 1
    assert first.stdout.splitlines()[0].startswith("sweeps/mine: 3 runs, 0 of them finished, 3 to do;")
    failure = "run seed=1 failed: ValueError: no luck (see runs/sweeps/mine/seed=1/notebook.ipynb)"
    assert first.stderr.splitlines() == ["1 of 4 steps (25%) done", "2 of 4 steps (50%) done", f"petseg: {failure}"]
    assert first.stdout.splitlines()[-1].startswith("3 runs: 2 done, 1 failed;")
    runs = folder / "runs" / "sweeps" / "mine"
    table = pd.read_csv(runs / "summary.csv").set_index("run")
    assert table["state"].to_dict() == {"seed=0": "done", "seed=1": "failed", "seed=2": "done"}
    assert table.loc["seed=1", "error"] == failure
    assert (table.loc[["seed=0", "seed=2"], ["seconds", "memory_mb"]] > 0).all(axis=None)
    assert "no luck" in (runs / "seed=1" / "notebook.ipynb").read_text()
    kept = {run: (runs / run / "metrics.json").stat().st_mtime_ns for run in ("seed=0", "seed=2")}

    (folder / "mended").touch()
    second = petseg_sweep("mine")
    assert (second.returncode, second.stderr) == (0, "1 of 2 steps (50%) done\n2 of 2 steps (100%) done\n")
    assert "3 runs, 2 of them finished, 1 to do" in second.stdout and "3 runs: 3 done;" in second.stdout
    assert kept == {run: (runs / run / "metrics.json").stat().st_mtime_ns for run in kept}

    path.write_text(SMALL.replace("[0, 1, 2]", "[0, 1, 2, 3]").replace("epochs: 3", "epochs: 3, width: 8"))
    third = petseg_sweep("mine")
    assert third.returncode == 0, third.stderr
    assert "4 to do (3 of these stand under other parameters and are trained again)" in third.stdout
    for seed in range(4):
        assert json.loads((runs / f"seed={seed}" / "metrics.json").read_text())["width"] == 8
    again = petseg_sweep("mine", "--dry-run")
    assert "4 runs, 4 of them finished, 0 to do" in again.stdout and "notebook" not in again.stdout


def test_a_run_of_a_sweep_that_lies_elsewhere_can_be_made_alone(folder):
    path = folder / "elsewhere.yaml"
    path.write_text(SMALL)
    run = sweeps.folder_of(load_profile(path), "seed=1")
    execute.run_again(run, {"epochs": "2"}, path)
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["seed"], metrics["run_dir"]) == (2, 1, "runs/sweeps/elsewhere/seed=1")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.skipif(usable_cores() < 2, reason="on a single core the run that waits may be the only one")
def test_a_sweep_that_was_killed_goes_on_by_the_same_command(folder):
    """Snakemake's order is its own: the run that comes first finishes, and the others wait for the file `go`."""
    work = """\
import time
print("under way", flush=True)
try:
    (config.workspace() / "first").open("x").close()
except FileExistsError:
    while not (config.workspace() / "go").exists():
        time.sleep(0.05)
"""
    write_notebook(folder / "notebooks", "03_unet_training", work=work + RECORD)
    write(folder, SMALL)
    runs = [folder / "runs" / "sweeps" / "mine" / f"seed={seed}" for seed in range(3)]
    command = [sys.executable, "-m", "petseg_lib.cli", "sweep", "mine"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not any((run / "metrics.json").exists() for run in runs) or not all("under way" in _said(run) for run in runs):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # Snakemake and its jobs too, as a power cut would
        process.wait()
    (done,) = (run / "metrics.json" for run in runs if (run / "metrics.json").exists())
    kept = done.stat().st_mtime_ns
    (folder / "go").touch()
    again = petseg_sweep("mine")
    assert again.returncode == 0, again.stderr
    assert "3 runs, 1 of them finished, 2 to do" in again.stdout
    assert done.stat().st_mtime_ns == kept


def _said(run: Path) -> str:
    return (run / "said.txt").read_text() if (run / "said.txt").exists() else ""


def finish(folder: Path, sweep, run: str, seconds: float) -> None:
    """What a finished run of a sweep leaves."""
    run_dir = sweeps.folder_of(sweep, run)
    run_dir.mkdir(parents=True)
    notebook, values = sweep.runs[run]
    parameters = lasting(NOTEBOOKS[notebook].checked(values))
    (run_dir / "params.json").write_text(json.dumps({"notebook": notebook, "parameters": parameters}))
    (run_dir / "metrics.json").write_text('{"dice_image_native": 0.5, "gflop": 1.0, "training_seconds": 6.5}')
    (run_dir / "benchmark.tsv").write_text(f"s\tmax_rss\n{seconds}\t321\n")


def test_the_estimate_comes_from_finished_runs_and_grows_with_work(folder):
    sweep = load_profile(write(folder, SWEEP))
    assert "their time is not known" in sweeps.plan(sweep, 2)
    finish(folder, sweep, "base,seed=0,learning_rate=0.001", 60.0)
    lines = sweeps.plan(sweep, 2, each=True).splitlines()
    assert lines[0].startswith("sweeps/mine: 12 runs, 1 of them finished, 11 to do; 2 at a time, about ")
    assert "  base,seed=1,learning_rate=0.001: about 1 min 0 s" in lines
    assert "  short,seed=1,learning_rate=0.001: about 30 s" in lines  # half the epochs
    assert "  resnet,seed=0,learning_rate=0.001" in lines  # of this notebook no run is finished
    assert "about 3 min 56 s" in lines[0]  # (3 x 60 + 4 x 30) / 7 a run, 11 runs, 2 at a time
    assert "base,seed=0,learning_rate=0.001:" not in "\n".join(lines)


def test_the_estimate_is_of_the_nearest_run_of_the_same_data(folder):
    sweep = load_profile(
        write(folder, "notebook: 03_unet_training\nparameters: {epochs: 4, width: 8, image_size: 64}\ngrid: {seed: [0, 1, 2]}")
    )
    others = {
        "small": ({"width": 4, "image_size": 64, "epochs": 4}, 10.0),
        "nearest": ({"width": 16, "image_size": 32, "epochs": 8}, 60.0),
        "far": ({"width": 8, "image_size": 64, "epochs": 40}, 9.0),
        "of_other_data": ({"data": "/elsewhere", "width": 8, "image_size": 64, "epochs": 4}, 1.0),
        "of_few": ({"train_images": 4, "width": 8, "image_size": 64, "epochs": 4}, 1.0),
        "of_the_first": ({"limit_images": 4, "width": 8, "image_size": 64, "epochs": 4}, 1.0),
    }
    for name, (values, seconds) in others.items():
        text = f"notebook: 03_unet_training\nparameters: {json.dumps(values)}\ngrid: {{seed: [0]}}"
        finish(folder, load_profile(write(folder, text, name)), "seed=0", seconds)
    # 4 x 64² x 8² of work, for 8 x 32² x 16² in 60 s
    assert "3 to do; 2 at a time, about 45 s" in sweeps.plan(sweep, 2)
    assert "3 to do; 50 at a time, about 30 s" in sweeps.plan(sweep, 50), "no more at a time than there are"
    assert "those finished again" not in sweeps.plan(sweep, 2, force=True)
    finish(folder, sweep, "seed=0", 60.0)
    assert "1 of them finished, 3 to do, those finished again (FORCE)" in sweeps.plan(sweep, 2, force=True)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("benchmark.tsv", ""),
        ("benchmark.tsv", "\n"),
        ("benchmark.tsv", "s\tmax_rss\n"),
        ("params.json", "{"),
        ("params.json", "{}"),
        ("params.json", '{"notebook": "03_unet_training", "parameters": {}}'),
    ],
)
def test_a_damaged_run_elsewhere_is_no_reason_to_plan_nothing(folder, file, content):
    sweep = load_profile(write(folder, SWEEP))
    other = load_profile(write(folder, SWEEP, "other"))
    finish(folder, other, "base,seed=0,learning_rate=0.001", 60.0)
    (sweeps.folder_of(other, "base,seed=0,learning_rate=0.001") / file).write_text(content)
    assert "their time is not known" in sweeps.plan(sweep, 2)
    table = sweeps.summary(other).set_index("run")
    assert len(table) == 12 and not (table["state"] == "failed").any()


def test_the_estimate_is_the_middle_of_finished_runs_that_are_as_near(folder):
    sweep = load_profile(write(folder, SMALL))
    for run, seconds in (("seed=0", 10.0), ("seed=1", 90.0), ("seed=2", 20.0)):
        finish(folder, sweep, run, seconds)
    assert "  seed=0: about 20 s" in sweeps.plan(sweep, 1, each=True, force=True).splitlines()
    for run in ("seed=0", "seed=2"):
        (sweeps.folder_of(sweep, run) / "metrics.json").unlink()
    assert "  seed=0: about 1 min 30 s" in sweeps.plan(sweep, 1, each=True).splitlines(), "of those that ended alone"


def test_the_estimate_counts_what_came_before_an_interrupt_and_epochs_at_half_size(folder):
    sweep = load_profile(write(folder, SMALL))
    finish(folder, sweep, "seed=0", 3.0)
    (sweeps.folder_of(sweep, "seed=0") / "metrics.json").write_text('{"training_seconds": 80.0}')
    half = load_profile(write(folder, SMALL.replace("grid:", "variants: {small: {half_size_share: 0.5}}\ngrid:"), "half"))
    lines = sweeps.plan(half, 1, each=True).splitlines()
    assert "  small,seed=1: about 50 s" in lines  # half of the epochs take a quarter of their time
    (sweeps.folder_of(sweep, "seed=0") / "metrics.json").write_text("{")
    assert "  small,seed=1: about 2 s" in sweeps.plan(half, 1, each=True).splitlines()


@pytest.mark.parametrize(
    ("file", "text", "state", "error"),
    [
        ("error.txt", "Traceback\nValueError: no luck\n", "failed", "ValueError: no luck"),
        ("said.txt", "epoch 1\npetseg: no such dataset\n", "failed", "no such dataset"),
        ("said.txt", "epoch 1\npetseg: interrupted\n", "not finished", ""),
        ("said.txt", "epoch 1\n", "not finished", ""),
    ],
)
def test_a_run_failed_where_it_left_an_error_and_not_where_it_was_stopped(folder, file, text, state, error):
    sweep = load_profile(write(folder, SMALL))
    path = sweeps.folder_of(sweep, "seed=1") / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert sweeps.summary(sweep).set_index("run").loc["seed=1", ["state", "error"]].tolist() == [state, error]


def test_the_end_of_a_sweep_adds_up_its_time_and_says_the_most_memory(folder, capsys):
    sweep = load_profile(write(folder, SMALL))
    for run, seconds, memory in (("seed=0", 60.0, 200), ("seed=2", 30.0, 1500)):
        finish(folder, sweep, run, seconds)
        (sweeps.folder_of(sweep, run) / "benchmark.tsv").write_text(f"s\tmax_rss\n{seconds}\t{memory}\n")
    sweeps.write_summary(sweep)
    words = "3 runs: 2 done, 1 not finished (the same command goes on); 1 min 30 s of jobs, at most 1,500 MB each (runs/sweeps/mine/summary.csv)"
    assert capsys.readouterr().out.splitlines() == [words]


@pytest.mark.parametrize(
    ("ids", "threads", "given", "at_once"),
    [(["4", "7"], 0, "4", 2), (["4", "7"], 1, "1", 2), ([], 0, "1", 8), ([], 3, "3", 2)],
)
def test_snakemake_is_told_of_threads_gpus_and_force(folder, monkeypatch, capsys, ids, threads, given, at_once):
    write(folder, SMALL)
    called = []
    monkeypatch.setattr(sweeps, "_wait", lambda command, environment: called.append((" ".join(command), environment)) or 0)
    monkeypatch.setattr(sweeps, "visible_gpus", lambda: ids)
    monkeypatch.setattr(sweeps, "computes_on_gpu", lambda: bool(ids))
    monkeypatch.setattr(sweeps, "usable_cores", lambda: 8)
    for force in ("", "1"):
        monkeypatch.setenv("FORCE", force)
        assert sweeps.run_sweep("mine", threads) == 0
        assert f"; {at_once} at a time" in capsys.readouterr().out
        command, environment = called.pop()
        assert (environment["THREADS"], environment["CUDA_VISIBLE_DEVICES"]) == (given, ",".join(ids))
        assert " --cores 8 --keep-going " in command
        assert ("--resources gpu=2" in command, "--forcerun notebook" in command) == (bool(ids), bool(force))
    assert cli.main(["sweep", "mine", "--threads", "5", "--", "--jobs", "1"]) == 0
    command, environment = called.pop()
    assert environment["THREADS"] == "5" and command.endswith(" --jobs 1")


def test_a_sweep_of_notebook_02_has_a_summary_without_border_policy(folder):
    sweep = load_profile(write(folder, "notebook: 02_mean_std\ngrid: {statistics_split: [train, test]}"))
    finish(folder, sweep, "statistics_split=test", 2.0)
    table = sweeps.summary(sweep)
    assert sorted(table["state"]) == ["done", "not finished"] and "border_policy" not in table


def test_the_summary_says_what_stands_under_other_parameters_and_each_ones_border_policy(folder):
    sweep = load_profile(write(folder, SWEEP.replace("{epochs: 2}", "{border_policy: background}")))
    finish(folder, load_profile(write(folder, SWEEP.replace("epochs: 4", "epochs: 5"))), "base,seed=0,learning_rate=0.001", 7.0)
    finish(folder, sweep, "base,seed=1,learning_rate=0.001", 7.0)
    finish(folder, sweep, "short,seed=1,learning_rate=0.001", 7.0)
    table = sweeps.summary(sweep).set_index("run")
    changed = table.loc["base,seed=0,learning_rate=0.001"]
    assert changed["state"] == "of other parameters" and pd.isna(changed["dice_image_native"])
    done = table[table["state"] == "done"]
    assert done["border_policy"].tolist() == ["pet", "background"] and done["dice_image_native"].tolist() == [0.5, 0.5]
    assert table["state"].value_counts().to_dict() == {"not finished": 9, "done": 2, "of other parameters": 1}


def test_the_summary_names_variant_grid_dice_time_and_memory(folder):
    sweep = load_profile(write(folder, SWEEP))
    finish(folder, sweep, "short,seed=1,learning_rate=0.001", 7.0)
    row = sweeps.summary(sweep).set_index("run").loc["short,seed=1,learning_rate=0.001"]
    assert row[["variant", "seed", "learning_rate", "state"]].tolist() == ["short", 1, 0.001, "done"]
    assert row[["dice_image_native", "training_seconds", "seconds", "memory_mb"]].tolist() == [0.5, 6.5, 7.0, 321]
    assert "gflop" not in row


def test_where_memory_is_not_measured_it_is_not_said(folder, capsys):
    """On macOS Snakemake measures a job's time alone."""
    sweep = load_profile(write(folder, SWEEP))
    run = "short,seed=1,learning_rate=0.001"
    finish(folder, sweep, run, 7.0)
    (sweeps.folder_of(sweep, run) / "benchmark.tsv").write_text("s\tmax_rss\n7.0\tNA\n")
    sweeps.write_summary(sweep)
    said = capsys.readouterr().out
    assert "; 7 s of jobs (" in said and "MB each" not in said and "nan" not in said


def test_a_thousand_runs_are_planned_in_under_twenty_seconds(folder):
    grid = f"seed: {list(range(50))}, width: {list(range(4, 24))}"
    write(folder, f"notebook: 03_unet_training\ngrid: {{{grid}}}")
    began = os.times()
    result = petseg_sweep("mine", "--dry-run")
    ended = os.times()
    assert result.returncode == 0 and "1000 runs, 0 of them finished, 1000 to do" in result.stdout
    assert "notebook     1000" in result.stdout
    # CPU seconds: the tests share the cores.
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 20


def test_runs_side_by_side_see_one_gpu_each_and_the_next_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, MIG-a/1")

    def take() -> str:
        with one_gpu(tmp_path) as gpu:
            return gpu["CUDA_VISIBLE_DEVICES"]

    with ThreadPoolExecutor(1) as pool, one_gpu(tmp_path) as first:
        with one_gpu(tmp_path) as second, one_gpu(tmp_path / "another machine") as elsewhere:
            assert [each["CUDA_VISIBLE_DEVICES"] for each in (first, second, elsewhere)] == ["2", "MIG-a/1", "2"]
            assert first[gpus.RUNS_AT_ONCE] == "2"
            waiting = pool.submit(take)
            time.sleep(0.5)
            assert not waiting.done()
        assert waiting.result(timeout=10) == "MIG-a/1"


def test_a_gpu_without_an_id_has_one_run_at_a_time_too(folder, monkeypatch, capsys):
    """Apple's."""
    monkeypatch.setattr(sweeps, "visible_gpus", list)
    monkeypatch.setattr(sweeps, "computes_on_gpu", lambda: True)
    monkeypatch.setattr(sweeps, "usable_cores", lambda: 10)
    called = []
    monkeypatch.setattr(sweeps, "_wait", lambda *given: called.append(given) or 0)
    write(folder, SMALL)
    assert sweeps.run_sweep("mine") == 0
    ((command, environment),) = called
    assert command[command.index("--resources") + 1] == "gpu=1" and environment["THREADS"] == "10"
    assert "1 at a time" in capsys.readouterr().out


def test_no_run_waits_for_the_gpus_of_another_machine_or_job(tmp_path, monkeypatch):
    """Though both write into one folder of a network file system."""
    monkeypatch.setattr(gpus, "count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with ExitStack() as runs:

        def take() -> str:
            return runs.enter_context(one_gpu(tmp_path))["CUDA_VISIBLE_DEVICES"]

        taken = [take()]
        monkeypatch.setattr(gpus.platform, "node", lambda: "another/machine")
        taken.append(take())
        for job in ("1", "2"):
            monkeypatch.setenv("SLURM_JOB_ID", job)
            taken.append(take())
        assert taken == ["0"] * 4 and take() == "1"


def test_no_run_is_given_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    """It would train on the CPU without a word: CUDA leaves such an id out."""
    monkeypatch.setattr(gpus, "count_gpus", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert visible_gpus() == ["0"]
    with one_gpu(tmp_path) as environment:
        assert environment == {}


@pytest.mark.parametrize(("name", "waits"), [("02_mean_std", False), ("03_unet_training", True)])
def test_a_notebook_that_computes_on_no_gpu_waits_for_none(tmp_path, monkeypatch, name, waits):
    monkeypatch.setattr(gpus, "count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(execute, "workspace", lambda: tmp_path)
    taken = []

    def waiting(locks):
        taken.append(sorted(locks))
        raise InterruptedError

    monkeypatch.setattr(gpus, "_first_free", waiting)
    with pytest.raises(InterruptedError if waits else execute.NotebookError):
        execute.execute(tmp_path / f"{name}.ipynb", tmp_path / "run", {})  # which is not there
    assert taken == [["0", "1"]] * waits


@pytest.mark.parametrize("named", ["", "3"])
def test_a_run_that_was_given_one_gpu_or_none_keeps_it(tmp_path, monkeypatch, named):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with one_gpu(tmp_path) as environment:
        assert environment == {}
    assert not list(tmp_path.glob(".gpu*"))


@pytest.mark.parametrize("named", ["5,6", None])
def test_each_job_of_a_sweep_sees_its_own_gpu(folder, monkeypatch, named):
    """With as many jobs as GPUs, no two that overlap have the same one: in `petseg sweep`, and where Snakemake is called without it."""
    monkeypatch.setenv("PYTHONPATH", pretend(folder, count_gpus=2))
    seen = "import os, time\nprint('GPU', os.environ['CUDA_VISIBLE_DEVICES'], time.time())\ntime.sleep(1)\nprint('END', time.time())\n"
    write_notebook(folder / "notebooks", "03_unet_training", work=RECORD + seen)
    write(folder, SMALL)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        result = petseg_sweep("mine")
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        monkeypatch.setenv("SWEEP", "mine")
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "workflow" / "Snakefile"), "--cores", "2"]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    spans = []
    for seed in range(3):
        said = (folder / "runs" / "sweeps" / "mine" / f"seed={seed}" / "said.txt").read_text()
        words = [line.split()[1:] for line in said.splitlines() if " GPU " in line or " END " in line]
        spans.append((words[0][1], float(words[0][2]), float(words[1][1])))
    assert {gpu for gpu, _, _ in spans} <= set((named or "0,1").split(","))
    for index, (gpu, begin, end) in enumerate(spans):
        for other, other_begin, other_end in spans[:index]:
            assert gpu != other or end <= other_begin or other_end <= begin


def test_changed_is_what_stands_under_other_parameters(folder):
    sweep = load_profile(write(folder, SWEEP))
    run = "base,seed=0,learning_rate=0.001"
    finish(folder, sweep, run, 1.0)
    parameters = UNetParameters.checked(sweep.runs[run][1])
    standing = sweeps.Run(sweeps.folder_of(sweep, run))
    assert not sweeps.is_changed(standing, parameters)
    assert sweeps.is_changed(standing, parameters.model_copy(update={"epochs": 5}))


def test_no_setting_replaces_what_a_sweep_varies(folder):
    path = write(folder, SWEEP)
    with pytest.raises(ParameterError, match="mine varies epochs, seed itself: no setting can give that to all of its runs"):
        load_profile(path, {"seed": "3", "epochs": "1", "image_size": "64"})
    assert load_profile(path, {"image_size": "64"}).runs["base,seed=0,learning_rate=0.001"][1]["image_size"] == 64


def test_a_sweep_that_a_notebook_reads_keeps_what_it_states(folder):
    given = {"data": "pets", "limit_images": "4", "seed": "3", "epochs": "1", "image_size": "64", "device": "cpu"}
    path = write(folder, SWEEP)
    assert settings_for_sweep(path, given) == {"data": "pets", "limit_images": "4", "device": "cpu"}
    assert settings_for_sweep(path, given | {"limit_images": "0"}) == {"data": "pets", "device": "cpu"}, (
        "notebook 06 hands on no 0"
    )


def test_a_sweep_that_names_its_data_keeps_it_where_notebook_06_is_told_of_none(folder):
    path = write(folder, SWEEP.replace("epochs: 4}", "epochs: 4, data: pets}"))
    assert settings_for_sweep(path, {"data": "demo"}) == {}
    assert settings_for_sweep(path, {"data": "others"}) == {"data": "others"}
    assert settings_for_sweep(write(folder, SWEEP), {"data": "demo"}) == {"data": "demo"}


def test_what_is_missing_is_trained_and_what_is_changed_refused(folder):
    small = SMALL.replace("[0, 1, 2]", "[0, 1]")
    path = write(folder, small)
    runs = {seed: Run(sweeps.folder_of(load_profile(path), f"seed={seed}")) for seed in (0, 1)}

    def trained() -> dict[int, int]:
        sweeps.train_missing(load_profile(path, {"limit_images": "8"}), path, {"limit_images": "8"})
        assert all(run.metrics["limit_images"] == 8 for run in runs.values())
        return {seed: (run.folder / "metrics.json").stat().st_mtime_ns for seed, run in runs.items()}

    first = trained()
    record = json.loads((runs[1].folder / "params.json").read_text())
    record["parameters"]["device"] = "cpu"  # which the sweep leaves open
    (runs[1].folder / "params.json").write_text(json.dumps(record))
    assert trained() == first
    (runs[1].folder / "metrics.json").unlink()
    (runs[1].folder / "resume").mkdir()  # as an interrupt leaves it
    second = trained()
    assert second[0] == first[0] and second[1] != first[1] and runs[1].metrics["device"] == "cpu"
    write(folder, small.replace("epochs: 3", "epochs: 2"))
    with pytest.raises(RunError, match=r"seed=0 holds a finished run of other parameters: epochs is 2 and was 3"):
        trained()
    assert {seed: (run.folder / "metrics.json").stat().st_mtime_ns for seed, run in runs.items()} == second


def test_a_plan_under_force_trains_what_is_finished(folder):
    sweep = load_profile(write(folder, SMALL))
    sweeps.train_missing(sweep, find_sweep("mine"), {})
    assert sweeps.plan(sweep, 1).startswith("sweeps/mine: 3 runs, 3 of them finished, 0 to do")
    assert "3 of them finished, 3 to do, those finished again (FORCE); 1 at a time" in sweeps.plan(sweep, 1, force=True)


def test_a_run_of_a_sweep_is_found_by_its_folder(folder):
    write(folder, SMALL)
    run = folder / "runs" / "sweeps" / "mine" / "seed=1"
    execute.run_again(run)
    assert Run(run).metrics["seed"] == 1


def test_ids_are_taken_as_cuda_takes_them(monkeypatch):
    monkeypatch.setattr(gpus, "count_gpus", lambda: 2)
    known = {"-1": [], "2,-1,3": ["2"], "": [], "0,1,2": ["0", "1"], "GPU-8f,GPU-9a,GPU-away": ["GPU-8f", "GPU-9a"]}
    known["MIG-a,MIG-b,MIG-c"] = ["MIG-a", "MIG-b", "MIG-c"]  # of which CUDA counts one
    for value, ids in known.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus() == ids
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]
