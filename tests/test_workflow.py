"""The Snakefile and the Makefile, with stand-in notebooks in a temporary workspace."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_ins import pretend, write_notebook

from petseg_lib.config import NOTEBOOKS, UNetParameters
from petseg_lib.profiles import REPOSITORY, load_profile
from petseg_lib.runs import lasting

pytestmark = pytest.mark.xdist_group("workflow")  # they share what few jobs made

SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "workflow" / "Snakefile")]
QUIET = ["--keep-going", "--rerun-incomplete", "--quiet", "rules", "reason", "host"]
PROFILE = """
parameters: {epochs: 1}
runs:
  mean_std: {notebook: 02_mean_std}
  unet: {notebook: 03_unet_training}
"""


OF_THE_CALLER = ("PROFILE", "SWEEP", "DATA", "SET", "FORCE", "THREADS", "CUDA_VISIBLE_DEVICES")


def snakemake(workspace: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    given = {name: value for name, value in os.environ.items() if name not in OF_THE_CALLER}
    given |= {"PETSEG_WORKSPACE": str(workspace)} | environment
    command = [*SNAKEMAKE, "--cores", "2", *options]
    return subprocess.run(command, check=False, env=given, capture_output=True, text=True, cwd=workspace, timeout=300)


def planned(workspace: Path, *options: str, **environment: str) -> list[str]:
    """The runs that would be made, in order."""
    result = snakemake(workspace, "--dry-run", "--rerun-triggers", "mtime", "params", "input", *options, **environment)
    assert result.returncode == 0, result.stderr
    lines = (line.strip() for line in (result.stdout + result.stderr).splitlines())
    return [Path(line.removeprefix("output: ")).parent.name for line in lines if line.startswith("output: ")]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with all stand-ins and a small profile."""
    folder = tmp_path_factory.mktemp("it's a workspace")
    for name in NOTEBOOKS:
        write_notebook(folder / "notebooks", name)
    (folder / "profiles").mkdir()
    (folder / "profiles" / "small.yaml").write_text(PROFILE)
    return folder


DIFFICULT = 'it\'s "my" $(touch owned) `touch owned`; {data} {{wildcards}} %s %(x)s \n new * ? #é'


@pytest.fixture(scope="module")
def settings(workspace):
    """Of a folder whose name would do harm if a shell, Snakemake or Python's formatting took it for more than a name."""
    (workspace / DIFFICULT).mkdir()
    return {"PROFILE": "small", "SET": "epochs=2", "DATA": DIFFICULT}


@pytest.fixture(scope="module")
def finished(workspace, settings):
    """What was said while the small profile was made, and when it was asked for again."""
    first = snakemake(workspace, *QUIET, **settings)
    return first, snakemake(workspace, *QUIET, **settings)


def test_a_value_is_a_value_whatever_it_looks_like(workspace, finished):
    for run in ("mean_std", "unet"):
        metrics = json.loads((workspace / "runs" / "small" / run / "metrics.json").read_text())
        assert metrics["data"] == str(workspace / DIFFICULT)
    assert not list(workspace.rglob("owned"))


def test_a_first_run_makes_all_and_says_where_to_look(workspace, finished):
    first, _ = finished
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    said = [line for line in first.stdout.splitlines() if "done after" not in line]
    assert said == [
        "[mean_std] 02_mean_std begins",
        "[mean_std] epoch 1",
        "[unet] 03_unet_training begins",
        "[unet] epoch 1",
        "[unet] epoch 2",
        "runs/small/report.html",
        "Done, 2 runs of profile small.",
        "Look at runs/small/report.html (the notebooks), runs/small/ (the runs), figures/small/ (the figures).",
    ]
    for name in ("unet/metrics.json", "unet/notebook.ipynb", "unet/benchmark.tsv", "report.html"):
        assert (workspace / "runs" / "small" / name).is_file()


def test_a_second_run_finds_all_done(finished):
    _, second = finished
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines()[0] == "Done, 2 runs of profile small."
    assert "begins" not in second.stdout


def test_only_what_a_change_touches_is_made_again(workspace, finished):
    small = {"PROFILE": "small", "DATA": DIFFICULT}
    assert planned(workspace, SET="epochs=2", **small) == []
    assert planned(workspace, SET="epochs=3", **small) == ["unet", "small"]
    (workspace / "else where").mkdir()
    assert planned(workspace, SET="epochs=2", PROFILE="small", DATA="else where") == ["mean_std", "unet", "small"]
    runs = workspace / "runs" / "small"
    (runs / "unet").rename(runs / "aside")
    assert planned(workspace, SET="epochs=2", **small) == ["unet", "small"]  # though report.html still stands
    (runs / "aside").rename(runs / "unet")
    notebook = workspace / "notebooks" / "03_unet_training.ipynb"
    notebook.write_text(notebook.read_text() + "\n")
    assert planned(workspace, SET="epochs=2", **small) == ["unet", "small"]


def test_a_finished_training_is_no_job_unless_forced(workspace, finished):
    """Stand-ins write no params.json; with one, the run is as a real one."""
    small = {"PROFILE": "small", "DATA": DIFFICULT}
    given = {"epochs": "2", "data": str(workspace / DIFFICULT)}
    _, parameters = load_profile(workspace / "profiles" / "small.yaml", given).runs["unet"]
    record = workspace / "runs" / "small" / "unet" / "params.json"
    record.write_text(json.dumps({"parameters": lasting(UNetParameters.checked(parameters))}))
    (workspace / "notebooks" / "03_unet_training.ipynb").touch()
    assert planned(workspace, SET="epochs=2", **small) == []
    assert planned(workspace, "--forcerun", "notebook", SET="epochs=2", FORCE="1", **small) == ["mean_std", "unet", "small"]
    refused = snakemake(workspace, SET="epochs=3", **small)
    assert refused.returncode != 0
    assert "petseg: runs/small/unet holds a finished run of other parameters: epochs is 3 and was 2;" in refused.stderr
    record.unlink()


def test_training_waits_for_statistics_and_comparison_for_training(workspace):
    order = planned(workspace, PROFILE="demo")
    of_sweep = list(load_profile("sweeps/demo").runs)
    own = ["data_exploration", "mean_std", "unet", "resnet34_unet", "comparison", "ablations", "predict", "demo"]
    assert sorted(order) == sorted([*own, *of_sweep])
    for early, late in [("mean_std", "unet"), ("mean_std", "resnet34_unet"), ("unet", "comparison"), ("unet", "predict")]:
        assert order.index(early) < order.index(late)
    assert order.index("resnet34_unet") < order.index("comparison") < order.index("demo")
    assert max(map(order.index, of_sweep)) < order.index("ablations") < order.index("demo")


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_every_job_says_what_it_needs(workspace, tmp_path, gpus):
    path = pretend(tmp_path, count_gpus=gpus, computes_on_gpu=gpus > 0)
    result = snakemake(workspace, "--dry-run", "--cores", "4", PROFILE="demo", PYTHONPATH=path)
    said = result.stdout + result.stderr
    of_sweep = len(load_profile("sweeps/demo").runs)
    assert said.count("gpu=1") == 4 + of_sweep and said.count("gpu=0") == 4
    assert said.count("mem_mb=") == said.count("runtime=") == 8 + of_sweep
    # On a CPU those of the sweep run side by side, and both trainings of the profile too; all cores go to the comparison and
    # to the cut-outs. On GPUs no more of either run than there are GPUs.
    threads = {0: (2, 2), 1: (0, 4 + of_sweep), 2: (2 + of_sweep, 2)}
    assert (said.count("threads: 2"), said.count("threads: 4")) == threads[gpus]


@pytest.mark.parametrize(("limit", "of_two"), [((), True), (("--resources", "gpu=2"), False)])
def test_threads_of_a_run_make_no_more_runs_than_gpus(workspace, tmp_path, limit, of_two):
    """THREADS of one would put four runs on two GPUs, where Snakemake was not told how many there are."""
    path = pretend(tmp_path, count_gpus=2, computes_on_gpu=True)
    result = snakemake(workspace, "--dry-run", "--cores", "4", *limit, SWEEP="demo", THREADS="1", PYTHONPATH=path)
    said = result.stdout + result.stderr
    assert said.count("gpu=1") == (runs := len(load_profile("sweeps/demo").runs))
    assert said.count("threads: 2") == runs * of_two


ELSEWHERE = """
from pathlib import Path

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False)


class Executor(RemoteExecutor):
    def run_job(self, job):
        print(*job.output, job.threads, flush=True)
        for path in (*job.output, job.benchmark):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text("{}")
        self.report_job_submission(SubmittedJobInfo(job))

    async def check_active_jobs(self, jobs):
        for job in jobs:
            self.report_job_success(job)
        for never in ():
            yield never

    def cancel_jobs(self, jobs):
        pass
"""


@pytest.mark.parametrize(("threads", "expected"), [("", 8), ("3", 3)])
def test_on_a_cluster_no_number_of_cores_is_needed(workspace, tmp_path, threads, expected):
    """As with `--executor slurm --jobs 2`: the stand-in writes down what it is given instead of submitting it."""
    plugin = tmp_path / "snakemake_executor_plugin_elsewhere" / "__init__.py"
    plugin.parent.mkdir()
    plugin.write_text(ELSEWHERE)
    (tmp_path / "small.yaml").write_text(PROFILE)
    shutil.copytree(workspace / "notebooks", tmp_path / "notebooks")
    given = {"PROFILE": "small.yaml", "THREADS": threads, "PYTHONPATH": pretend(tmp_path)}
    command = [*SNAKEMAKE, "--executor", "elsewhere", "--jobs", "2", "runs/small/unet/metrics.json", *QUIET]
    environment = os.environ | {"PETSEG_WORKSPACE": str(tmp_path), "DATA": "", "SET": "", "FORCE": ""} | given
    result = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["runs/small/mean_std/metrics.json 1", f"runs/small/unet/metrics.json {expected}"]


def test_every_command_is_a_program_and_words_that_any_shell_takes(workspace, tmp_path):
    """cmd.exe knows no printf, and ends a redirection's file name at a comma."""
    result = snakemake(workspace, "--dry-run", "--printshellcmds", PROFILE="demo", PYTHONPATH=pretend(tmp_path))
    said = "Shell command: "
    lines = (line.strip() for line in (result.stdout + result.stderr).splitlines())
    commands = [line.removeprefix(said) for line in lines if line.startswith(said)]
    assert len(commands) == len(load_profile("demo").runs) + len(load_profile("sweeps/demo").runs) + 2
    for command in commands:
        outside = re.sub(r"'[^']*'", "", command)
        assert not re.search(r"[|<>&;$`*?\n]", outside), command


def test_a_failure_ends_with_the_run_and_its_error(workspace):
    folder = workspace / "elsewhere"
    shutil.copytree(workspace / "notebooks", folder / "notebooks")
    (folder / "broken.yaml").write_text(PROFILE)
    write_notebook(folder / "notebooks", "02_mean_std", work="raise ValueError('too few pets')")
    result = snakemake(folder, *QUIET, PROFILE="broken.yaml")
    assert result.returncode == 1
    sentence = "petseg: run mean_std failed: ValueError: too few pets (see runs/broken/mean_std/notebook.ipynb)"
    assert set(result.stderr.splitlines()) == {sentence}
    assert "[unet]" not in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_termination_lets_the_job_under_way_finish_and_begins_no_other(workspace):
    folder = workspace / "terminated"
    shutil.copytree(workspace / "notebooks", folder / "notebooks")
    (folder / "small.yaml").write_text(PROFILE)
    wait = "import time\nwhile not (config.workspace() / 'go').exists():\n    time.sleep(0.05)"
    write_notebook(folder / "notebooks", "02_mean_std", work=f"print('under way', flush=True)\n{wait}")
    given = os.environ | {"PETSEG_WORKSPACE": str(folder), "PROFILE": "small.yaml", "DATA": "", "SET": "", "FORCE": ""}
    command = [*SNAKEMAKE, "--cores", "1", *QUIET]
    with subprocess.Popen(command, env=given, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        while "under way" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # Snakemake takes note of it while the job goes on
        (folder / "go").touch()
        rest, _ = process.communicate(timeout=60)
    assert "02_mean_std is done" in rest and "03_unet_training begins" not in rest
    again = snakemake(folder, *QUIET, PROFILE="small.yaml")
    assert again.returncode == 0
    assert "02_mean_std begins" not in again.stdout and "03_unet_training is done" in again.stdout


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"SET": "epohcs=1"}, "petseg: the settings: unknown parameter 'epohcs': did you mean 'epochs'?"),
        ({"SET": "data='x"}, "petseg: SET is not a list of NAME=VALUE: No closing quotation"),
        ({"SET": "epochs"}, "petseg: SET is not a list of NAME=VALUE: epochs has no ="),
        ({"DATA": "nowhere"}, "petseg: DATA is 'nowhere', but there is no such folder"),
        ({"PROFILE": "nope"}, "petseg: no file nope and nothing of this name in profiles/"),
        ({"PROFILE": "", "SWEEP": "profiles/small.yaml"}, "is a profile and no sweep: it has neither `variants` nor a `grid`"),
        ({"PROFILE": "asking.yaml"}, "petseg: sweeps/unasked cannot be asked: it has no `questions`"),
    ],
)
def test_a_wrong_setting_stops_at_once(workspace, settings, sentence):
    (workspace / "unasked.yaml").write_text("notebook: 03_unet_training\nvariants: {base: }\ngrid: {seed: [0]}\n")
    (workspace / "asking.yaml").write_text("runs: {ablations: {notebook: 06_ablations, sweep: unasked.yaml}}\n")
    result = snakemake(workspace, *QUIET, **settings)
    assert result.returncode != 0
    assert result.stderr.startswith("petseg: ") and sentence in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_hands_settings_on_untouched(tmp_path):
    (tmp_path / "Makefile").write_text(f"include {REPOSITORY / 'Makefile'}\nshow:\n\t@printenv PROFILE DATA SET\n")
    given = ["PROFILE=sample", 'DATA=it\'s "my" data; ls', "SET=epochs=1 limit_images=4"]
    # The make that runs the tests hands its own settings down, and a make under another one says so.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(["make", "show", *given], cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["sample", 'it\'s "my" data; ls', "epochs=1 limit_images=4"]


def test_ci_runs_the_tests_and_nothing_else():
    lines = (REPOSITORY / ".ci" / "run").read_text().split("\n")
    assert lines == ["#!/usr/bin/env bash", "set -euo pipefail", "make test", ""]
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
