"""`petseg run` in processes of its own, with stand-in notebooks."""

import argparse
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from stand_ins import write_notebook

from petseg_lib.cli import _parser, main
from petseg_lib.config import NOTEBOOKS, ParameterError
from petseg_lib.data.pictures import DatasetError
from petseg_lib.data.synthetic import draw_pets
from petseg_lib.execute import (
    KERNEL_STARTS,
    NotebookError,
    _last_error,
    _show,
    duration,
    execute,
    resolve,
    run_again,
    run_notebook,
)
from petseg_lib.locks import LockError
from petseg_lib.notebooks import cleaned, refresh_notebooks, unclean_notebooks
from petseg_lib.profiles import load_profile
from petseg_lib.report import write_report
from petseg_lib.runs import RunError, lasting, open_run
from petseg_lib.versions import code

pytestmark = pytest.mark.xdist_group("execute")  # they share one finished run

NAME = "02_mean_std"
RECORD = {"notebook": NAME, "parameters": lasting(NOTEBOOKS[NAME]())}
RUN = 'it\'s a "run" $HOME'


def start(workspace: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "petseg_lib.cli", *arguments]
    given = os.environ | {"PETSEG_WORKSPACE": str(workspace)} | environment
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=workspace)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("PETSEG_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A finished run in a folder with a difficult name, with another `python3` kernel in the way."""
    workspace = tmp_path_factory.mktemp("a good place")
    notebook = write_notebook(workspace / "notebooks", NAME, work="print('kernel', sys.executable, flush=True)")
    kernel = workspace / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/nowhere/python"], "display_name": "wrong", "language": "python"}))
    given = ["-f", "demo", "-p", "data", 'it\'s $HOME "here"', "-p", "limit_images", "3"]
    process = start(workspace, "run", str(notebook), "--out", f"runs/demo/{RUN}", *given, JUPYTER_PATH=str(workspace / "jupyter"))
    output, complaints = process.communicate(timeout=120)
    return workspace / "runs" / "demo" / RUN, process.returncode, output, complaints


def test_a_good_run_is_done(good):
    folder, status, output, complaints = good
    assert (status, complaints) == (0, "")
    lines = output.splitlines()
    assert lines[0].startswith(f"[{RUN}] profile demo has no run of this name")
    assert lines[1] == f"[{RUN}] {NAME} begins"
    assert lines[2] == f"[{RUN}] kernel {sys.executable}"
    assert lines[3].startswith(f"[{RUN}] {NAME} is done after ")
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "notebook.ipynb"]


def test_parameters_arrive_as_they_are(good):
    metrics = json.loads((good[0] / "metrics.json").read_text())
    assert metrics["data"] == 'it\'s $HOME "here"'
    assert metrics["limit_images"] == 3
    assert metrics["run_dir"] == f"runs/demo/{RUN}"
    assert metrics["figures_dir"] == "figures/demo"


def test_a_run_as_papermill_leaves_it_can_be_reported(good, workspace):
    page = write_report(good[0].parent, workspace / "report.html").read_text(encoding="utf-8")
    assert "<title>petseg: demo</title>" in page
    assert f'<a href="#run-1">Stand-in for {NAME} <code>' in page and '<h2 id="run-1">' in page
    assert f"kernel {sys.executable}" in page


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Runs that fail as papermill's own record hides, side by side; metrics of an earlier run must not count."""
    workspace = tmp_path_factory.mktemp("bad")
    ways = {
        "exits": "sys.exit(0)",
        "dies": "import os; os._exit(1)",
    }
    processes = {}
    for way, work in ways.items():
        notebook = write_notebook(workspace / way, NAME, work=work, finish="")
        folder = workspace / "runs" / way
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
        (folder / "params.json").write_text(json.dumps(RECORD))
        processes[way] = start(workspace, "run", str(notebook), "--out", f"runs/{way}")
    ended = {way: process.communicate(timeout=120) for way, process in processes.items()}
    return workspace, {way: (processes[way].returncode, ended[way][1]) for way in ways}


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("exits", "it ended without writing metrics.json"),
        ("dies", "nbclient.exceptions.DeadKernelError: Kernel died"),
    ],
)
def test_a_run_that_did_not_finish_has_failed(bad, way, reason):
    workspace, ended = bad
    status, complaints = ended[way]
    sentence = f"run {way} failed: {reason} (see runs/{way}/notebook.ipynb)\n"
    assert (status, complaints) == (1, f"petseg: {sentence}")
    folder = workspace / "runs" / way
    assert (folder / "error.txt").read_text() == sentence
    assert not (folder / "metrics.json").exists()
    assert nbformat.read(folder / "notebook.ipynb", as_version=4).cells


DIES = 'sys.exit("Address already in use")'
HANGS = """\
with open(sys.argv[sys.argv.index("-f") + 1]) as file:
        iopub_port = json.load(file)["iopub_port"]
    taken = socket.create_server(("127.0.0.1", iopub_port))
"""
KERNEL = """\
import json, os, socket, sys
with open("starts", "a") as starts:
    starts.write("x")
if os.path.getsize("starts") == 1:
    {}
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


@pytest.mark.parametrize("ending", [DIES, HANGS], ids=["dies", "hangs"])
def test_a_kernel_that_does_not_start_is_started_again(workspace, monkeypatch, ending):
    notebook = write_notebook(workspace / "notebooks", NAME)
    (workspace / "ipykernel_launcher.py").write_text(KERNEL.format(ending))
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PYTHONPATH", str(workspace))
    monkeypatch.setattr("petseg_lib.execute.SECONDS_TO_START", 10)
    execute(notebook, workspace / "runs" / "x", {"run_dir": "runs/x"})
    assert (workspace / "starts").read_text() in ("xx", "xxx")  # the third where a good kernel needs over 10 s


def test_why_a_run_ended_is_not_hidden_by_a_file_that_cannot_be_removed(workspace, monkeypatch):
    """On Windows a kernel that still runs holds it."""
    unlink = os.unlink

    def refuse(path, **options):
        if os.path.basename(path) == "stderr":  # noqa: PTH119 (it may be bytes or relative to dir_fd)
            raise PermissionError(13, "in use")
        unlink(path, **options)

    def interrupted(notebook, output, parameters, temporary):
        (temporary / "stderr").touch()
        monkeypatch.setattr(os, "unlink", refuse)
        raise KeyboardInterrupt

    monkeypatch.setattr("petseg_lib.execute._papermill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(write_notebook(workspace, NAME), workspace / "runs" / "x", {})


def test_a_kernel_that_always_dies_at_its_start_is_an_error(workspace, monkeypatch):
    starts = []

    def dead(notebook, output, parameters, temporary):
        starts.append(1)
        (temporary / "stderr").write_text("RuntimeError: Kernel died before replying to kernel_info\n")
        return 1

    monkeypatch.setattr("petseg_lib.execute._papermill", dead)
    with pytest.raises(NotebookError, match="run x failed: RuntimeError: Kernel died before replying"):
        execute(write_notebook(workspace, NAME), workspace / "runs" / "x", {})
    assert len(starts) == KERNEL_STARTS


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_ends_the_kernel_too(workspace):
    work = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    process = start(workspace, "run", str(write_notebook(workspace, NAME, work=work)), "--out", "runs/long")
    process.stdout.readline()
    kernel = int(process.stdout.readline().split()[-1])
    assert alive(kernel)
    process.send_signal(signal.SIGTERM)  # which the command treats as Ctrl-C
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (130, "petseg: interrupted\n")
    deadline = time.monotonic() + 5
    while alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(kernel)
    assert not (workspace / "runs" / "long" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "limit_image", "1"], "unknown parameter 'limit_image': did you mean 'limit_images'?"),
        (["-p", "limit_images", "many"], "parameter limit_images is 'many', but it must be a whole number ("),
        (["-p", "limit_images", "-1"], "parameter limit_images is '-1', but it must be greater than or equal to 0"),
        (["-p", "run_dir", "x"], "run_dir cannot be set"),
        (["-f", "nope"], "no file nope and nothing of this name in profiles/"),
    ],
)
def test_a_wrong_parameter_stops_before_anything_is_touched(workspace, capsys, arguments, sentence):
    notebook = write_notebook(workspace / "notebooks", NAME)
    earlier = workspace / "runs" / "x" / "metrics.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    assert main(["run", str(notebook), "--out", "runs/x", *arguments]) == 2
    complaints = capsys.readouterr().err
    assert complaints.startswith("petseg: ") and sentence in complaints
    assert complaints.count("\n") == 1
    assert [path.name for path in earlier.parent.iterdir()] == ["metrics.json"]


def test_what_is_said_can_go_into_a_file(workspace, capsys):
    said = workspace / "runs" / "x,seed=0" / "said.txt"
    given = ["run", str(write_notebook(workspace / "notebooks", NAME)), "--out", "runs/x,seed=0", "--said", str(said)]
    assert main([*given, "-p", "limit_images", "-1"]) == 2
    assert said.read_text().startswith("petseg: parameter limit_images is '-1'") and said.read_text().count("\n") == 1
    assert main(given) == 0
    assert said.read_text().splitlines()[:2] == [f"[x,seed=0] {NAME} begins", "[x,seed=0] epoch 1"]
    assert capsys.readouterr() == ("", "")
    assert main([*given[:-1], str(workspace)]) == 2
    assert capsys.readouterr().err.startswith(f"petseg: {workspace} cannot be used: ")


@pytest.mark.parametrize("error", [KeyError("a mistake of ours"), OSError("of no file")])
def test_an_error_that_is_not_for_people_keeps_its_traceback(workspace, monkeypatch, error):
    said, shown = workspace / "said.txt", []

    def fails(*given):
        print("epoch 1")
        shown.append(said.read_text())
        raise error

    monkeypatch.setattr("petseg_lib.execute.run_notebook", fails)
    with pytest.raises(type(error)):
        main(["run", NAME, "--out", "runs/x", "--said", str(said)])
    assert shown == ["epoch 1\n"], "whoever watches the file sees a line when it is said"
    assert said.read_text().splitlines()[1].startswith("Traceback") and str(error) in said.read_text()


def test_a_finished_training_is_left_alone_unless_forced(workspace, monkeypatch, capsys):
    name, run, executed = "03_unet_training", workspace / "runs" / "x", []
    run.mkdir(parents=True)
    record = {"notebook": name, "parameters": lasting(NOTEBOOKS[name](run_dir="runs/x"))}
    (run / "params.json").write_text(json.dumps(record))
    (run / "metrics.json").write_text("{}")
    monkeypatch.setattr("petseg_lib.execute.execute", lambda notebook, folder, parameters: executed.append(parameters))
    assert main(["run", name, "--out", "runs/x"]) == 0
    assert capsys.readouterr().out == "[x] is finished already and left alone; --force trains it again\n" and not executed
    assert main(["run", name, "--out", "runs/x", "--force"]) == 0
    assert [parameters["force"] for parameters in executed] == [True]


def test_an_unknown_notebook_names_the_known_ones(workspace, capsys):
    assert main(["run", "99_nothing", "--out", "runs/x"]) == 2
    assert "nothing of this name in notebooks/" in capsys.readouterr().err
    other = workspace / "other.ipynb"
    other.write_text("{}")
    assert main(["run", str(other), "--out", "runs/x"]) == 2
    assert "it must be one of 01_data_exploration, 02_mean_std" in capsys.readouterr().err
    assert not (workspace / "runs").exists()


def test_the_run_folders_name_picks_the_section(workspace):
    demo = load_profile("demo")
    settings = resolve("05_comparison", "runs/demo/comparison", demo, {"limit_images": "4"})
    assert settings["runs"] == ["unet", "resnet34_unet"]
    assert settings["limit_images"] == 4
    assert settings["figures_dir"] == "figures/demo"
    trial = resolve("05_comparison", workspace / "runs" / "trial" / "other", demo, {})
    assert trial == {"data": "demo", "run_dir": "runs/trial/other", "figures_dir": "figures/trial"}


def test_help_is_quick():
    # Not the clock, which other work disturbs, but what is imported.
    heavy = "{'pydantic', 'torch', 'yaml', 'numpy'}"
    code = f"import sys; from petseg_lib import cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", ["", "run", "evaluate", "report", "pets", "data", "notebooks"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*filter(None, [command]), "--help"])
    assert ended.value.code == 0
    assert "usage: petseg" in capsys.readouterr().out


def every_option(parser: argparse.ArgumentParser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from every_option(each)
        else:
            yield action


def test_help_names_the_defaults_that_hold():
    stated = {}
    for option in every_option(_parser()):
        if found := re.search(r"default: ([\w.]+)", option.help or ""):
            stated.setdefault(found[1], set()).add(str(option.default))
    assert stated.pop("chosen") == {"0"} and len(stated) > 5
    assert stated == {value: {value} for value in stated}


def test_durations_read_well():
    assert [duration(s) for s in (0.4, 42, 185, 7800)] == ["0 s", "42 s", "3 min 5 s", "2 h 10 min"]
    assert [duration(s) for s in (59.4, 60, 3599, 3600)] == ["59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min"]


def test_a_bar_that_rewrites_its_line_is_shown_as_it_ends(capsys):
    _show(io.StringIO("begins\n 10%\r 50%\r100%\r\n"), "unet")
    assert capsys.readouterr().out == "[unet] begins\n[unet] 100%\n"


def test_what_an_earlier_failure_left_goes_with_the_next_run(workspace):
    notebook, folder = write_notebook(workspace / "notebooks", NAME), workspace / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "error.txt").write_text("run x failed")
    execute(notebook, folder, {"run_dir": "runs/x"})
    assert (folder / "metrics.json").is_file() and not (folder / "error.txt").exists()


def dirty_notebook(workspace: Path):
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "x"})
    path = new_output("stream", name="stdout", text=f"wrote {workspace}/runs/demo\n")
    kinds = {"text/plain": f"{workspace}\\runs", "text/html": f"<b>{workspace}/runs</b>"}
    result = new_output("execute_result", kinds, execution_count=7)
    cell = new_code_cell("1 + 2", execution_count=7, outputs=[widget, path, result])
    cell.metadata = {"tags": ["kept"], "execution": {"iopub.status.busy": "2026"}, "papermill": {"duration": 1}}
    metadata = {
        "widgets": {"state": {}},
        "papermill": {"input_path": "/x"},
        "kernelspec": {"name": "mine", "display_name": "Mine"},
    }
    return new_notebook(cells=[new_markdown_cell("# Title"), cell, new_code_cell("")], metadata=metadata)


def test_cleaning_leaves_what_people_read(workspace):
    notebook = dirty_notebook(workspace)
    notebook.cells.insert(1, new_code_cell("# not run"))
    clean = cleaned(notebook)
    _, _, cell, empty = clean.cells
    assert cell.metadata == {"tags": ["kept"]}
    assert cell.execution_count == 1 and empty.execution_count is None
    assert [output.output_type for output in cell.outputs] == ["stream", "execute_result"]
    assert cell.outputs[0].text == "wrote runs/demo\n"
    assert cell.outputs[1].execution_count == 1
    assert cell.outputs[1].data == {"text/plain": "runs", "text/html": "<b>runs</b>"}
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert clean.metadata.kernelspec.name == "python3" and "version" not in clean.metadata.language_info
    assert cleaned(clean) == clean
    assert "widgets" in notebook.metadata  # the given one is left alone
    nbformat.validate(clean)


def test_refreshed_notebooks_are_clean(workspace, monkeypatch, capsys):
    path = workspace / "notebooks" / f"{NAME}.ipynb"
    path.parent.mkdir()
    nbformat.write(dirty_notebook(workspace), path)

    def execute(notebook, folder, parameters):
        assert parameters == {}  # an injected cell would be committed
        assert folder == workspace / "runs" / "demo" / "mean_std"
        folder.mkdir(parents=True)
        shutil.copy(notebook, folder / "notebook.ipynb")
        return folder

    monkeypatch.setattr("petseg_lib.notebooks.execute", execute)
    monkeypatch.setattr("petseg_lib.notebooks.NOTEBOOKS", {NAME: NOTEBOOKS[NAME]})
    tables = []
    monkeypatch.setattr("petseg_lib.report.write_tables", tables.append)
    assert unclean_notebooks() == [path.resolve()]
    assert main(["notebooks", "--check"]) == 1
    complaint = f"petseg: {NAME}.ipynb has widget state, paths or timestamps: `make notebooks` cleans it\n"
    assert capsys.readouterr().err == complaint and unclean_notebooks()
    assert main(["notebooks"]) == 0
    assert unclean_notebooks() == [] and tables == [workspace / "runs" / "demo"]
    assert main(["notebooks", "--check"]) == 0 and len(tables) == 1
    assert nbformat.read(path, as_version=4).cells[1].outputs[0].text == "wrote runs/demo\n"


def test_notebooks_are_not_refreshed_over_a_run_under_way(workspace):
    folder = workspace / "runs" / "demo" / "unet"
    (folder / "resume").mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(LockError, match="another process is working on runs/demo/unet"):
        refresh_notebooks()
    assert (folder / "resume").is_dir()


def test_a_reader_that_goes_away_is_no_error_of_ours(workspace):
    command = [sys.executable, "-m", "petseg_lib.cli", "pets", str(workspace / "pets"), "--count", "20"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_reader_that_goes_away_on_windows_is_no_error_of_ours_either(workspace, monkeypatch):
    """There a pipe without a reader is an invalid argument."""
    monkeypatch.setattr("petseg_lib.cli._pets", lambda options: (_ for _ in ()).throw(OSError(errno.EINVAL, "Invalid argument")))
    with pytest.raises(OSError, match="Invalid argument"):
        main(["pets", str(workspace / "pets")])
    monkeypatch.setattr("petseg_lib.cli.sys.platform", "win32")
    monkeypatch.setattr("petseg_lib.cli.os.dup2", lambda *given: None)
    assert main(["pets", str(workspace / "pets")]) == 1


def test_another_pipe_that_breaks_keeps_its_traceback(workspace, monkeypatch):
    monkeypatch.setattr("petseg_lib.cli._pets", lambda options: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
    with pytest.raises(BrokenPipeError):
        main(["pets", str(workspace / "pets")])


def test_refreshed_notebooks_are_those_of_a_first_run_with_the_sweep_that_they_read(workspace, monkeypatch):
    name = "06_ablations"
    path, run, sweep = (
        workspace / "notebooks" / f"{name}.ipynb",
        workspace / "runs/demo/ablations",
        workspace / "runs/sweeps/demo",
    )
    path.parent.mkdir()
    nbformat.write(new_notebook(), path)
    for folder in (run, sweep):
        folder.mkdir(parents=True)
        (folder / "of_before").touch()

    def swept(name):
        assert name == "demo" and not sweep.exists()
        sweep.mkdir()

    def execute(notebook, folder, parameters):
        assert sweep.exists() and folder == run and not folder.exists()
        folder.mkdir()
        nbformat.write(new_notebook(cells=[new_code_cell("new", execution_count=9)]), folder / "notebook.ipynb")

    monkeypatch.setattr("petseg_lib.notebooks.run_sweep", swept)
    monkeypatch.setattr("petseg_lib.notebooks.execute", execute)
    monkeypatch.setattr("petseg_lib.notebooks.NOTEBOOKS", {name: NOTEBOOKS[name]})
    refresh_notebooks()
    assert [cell.execution_count for cell in nbformat.read(path, as_version=4).cells] == [1]


def test_from_python_a_failure_is_an_exception(workspace, monkeypatch):
    monkeypatch.setattr("petseg_lib.execute._papermill", stopped)
    with pytest.raises(NotebookError, match=r"run x failed: no space left on device \(see runs/x/notebook.ipynb\)"):
        execute(write_notebook(workspace, NAME), workspace / "runs" / "x", {})


def stopped(notebook, output, parameters, temporary):
    (temporary / "stderr").write_text("a\n\x1b[31mno space left on device\x1b[0m\n\n")
    return 1


def test_run_notebook_refuses_before_it_starts(workspace):
    with pytest.raises(ParameterError, match="limit_images"):
        run_notebook(write_notebook(workspace, NAME), "runs/x", settings={"limit_images": "x"})


def test_a_notebook_cut_off_does_not_hide_the_error(tmp_path):
    path = tmp_path / "notebook.ipynb"
    for left in ("", '{"cells": [{"cell_ty'):
        path.write_text(left)
        assert _last_error(path, "Traceback\nOSError: No space left on device\n", 1) == "OSError: No space left on device"


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (-9, "", "papermill was ended by a signal (Killed)"),
        (-15, "", "papermill was ended by a signal (Terminated)"),
        (1, "", "papermill ended with exit status 1, without a word"),
        (1, "nbclient.exceptions.DeadKernelError: Kernel died\n", "nbclient.exceptions.DeadKernelError: Kernel died"),
    ],
)
def test_what_the_kernel_says_at_its_start_is_no_reason(tmp_path, status, said, reason):
    log = (
        said + "[IPKernelApp] WARNING | Kernel is running over TCP without encryption. All communication is sent in the clear.\n"
    )
    assert _last_error(tmp_path / "notebook.ipynb", log, status) == reason


def test_a_wrong_data_folder_costs_nothing(workspace):
    run = workspace / "runs" / "kept" / RUN
    run.mkdir(parents=True)
    for name, content in (("params.json", json.dumps(RECORD)), ("metrics.json", "{}"), ("model.safetensors", "weights")):
        (run / name).write_text(content)
    before = {path.name: path.read_text() for path in run.iterdir()}
    with pytest.raises(DatasetError, match=r"the data folder .*nowhere does not exist"):
        run_notebook(NAME, run, None, {"data": "nowhere"}, force=True)
    assert {path.name: path.read_text() for path in run.iterdir()} == before


def test_a_dataset_with_a_missing_photograph_costs_nothing_either(workspace):
    dataset = draw_pets(workspace / "odd", 20)
    next((dataset / "images").iterdir()).unlink()
    run = workspace / "runs" / "kept" / "x"
    run.mkdir(parents=True)
    for name, content in (("params.json", json.dumps(RECORD)), ("metrics.json", "{}"), ("model.safetensors", "weights")):
        (run / name).write_text(content)
    before = {path.name: path.read_text() for path in run.iterdir()}
    with pytest.raises(DatasetError, match="1 of 20 listed photographs are missing"):
        run_notebook(NAME, run, None, {"data": str(dataset)}, force=True)
    assert {path.name: path.read_text() for path in run.iterdir()} == before


@pytest.mark.parametrize("name", ["history.csv", "resume/cv.txt", "masks/rex.png", "metrics.json", "notebook.ipynb"])
@pytest.mark.parametrize("record", [None, "{}", "[1", "[]"])
def test_a_folder_of_ones_own_is_no_run_folder(workspace, name, record):
    own = workspace / "mine" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    if record is not None:
        (workspace / "mine" / "params.json").write_text(record)
    with pytest.raises(RunError, match=f"mine holds {name.split('/')[0]}, but no params\\.json of a run"):
        run_notebook(NAME, workspace / "mine")
    parameters = NOTEBOOKS[NAME](run_dir="mine")
    with pytest.raises(RunError, match=r"no params\.json of a run"):
        open_run(parameters, NAME)
    assert own.read_text() == "mine"


def test_no_run_is_made_in_the_workspace_itself_or_among_the_photographs(workspace):
    dataset = draw_pets(workspace / "pets", 20)
    files = sorted(dataset.rglob("*"))
    for out, data, sentence in (
        ("", "demo", "is or holds the workspace"),
        ("..", "demo", "is or holds the workspace"),
        (dataset, str(dataset), "lies in the data folder"),
        (dataset / "images" / "x", str(dataset), "lies in the data folder"),
    ):
        with pytest.raises(RunError, match=sentence):
            run_notebook(NAME, out, None, {"data": data})
    assert sorted(dataset.rglob("*")) == files


def test_figures_that_have_no_place_are_refused_before_anything_runs(workspace):
    (workspace / "taken").write_text("x")
    with pytest.raises(RunError, match="parameter figures_dir is taken, which is a file: it must be a folder, or a new name"):
        run_notebook(NAME, "runs/x", None, {"figures_dir": "taken"})
    assert not (workspace / "runs").exists()


def test_a_finished_run_says_where_the_library_has_changed_since(workspace, monkeypatch, capsys):
    monkeypatch.setattr("petseg_lib.execute.is_finished", lambda *given: True)
    (workspace / "runs" / "x").mkdir(parents=True)
    for then, words in ((code(), "left alone; --force"), ("0" * 12, "left alone, though petseg_lib changed since; --force")):
        (workspace / "runs" / "x" / "params.json").write_text(json.dumps({"notebook": NAME, "code": then}))
        run_notebook(NAME, "runs/x")
        assert f"[x] is finished already and {words} trains it again" in capsys.readouterr().out
    monkeypatch.setattr("petseg_lib.execute.changed_since", lambda *given: True)
    run_notebook(NAME, "runs/x")
    assert "left alone, though petseg_lib and photographs or masks changed since; --force" in capsys.readouterr().out


def test_data_is_meant_from_where_the_command_is_called(workspace, monkeypatch):
    (workspace / "a" / "pets").mkdir(parents=True)
    monkeypatch.chdir(workspace / "a")
    for data, expected in (("pets", str(workspace / "a" / "pets")), ("elsewhere", "elsewhere"), ("demo", "demo")):
        assert resolve(NAME, "runs/x", None, {"data": data})["data"] == expected


def test_a_run_that_does_not_stand_outside_a_profile_is_named(workspace):
    with pytest.raises(ParameterError, match=r"^runs/own/nope does not exist, and there is no profile own to make it by$"):
        run_again(workspace / "runs" / "own" / "nope")


def test_a_run_that_the_profile_does_not_have_gets_a_word(workspace, monkeypatch, capsys):
    monkeypatch.setattr("petseg_lib.execute.execute", lambda *given: given)
    run_notebook(NAME, "runs/own/x", "demo")
    assert "[x] profile demo has no run of this name (it has data_exploration, mean_std" in capsys.readouterr().out


def test_a_second_process_on_a_folder_touches_nothing(workspace):
    folder = workspace / "runs" / "x"
    folder.mkdir(parents=True)
    first = json.dumps({"metadata": {"papermill": {}}})
    (folder / "notebook.ipynb").write_text(first)
    with FileLock(folder / ".lock"), pytest.raises(LockError, match=r"another process is working on runs/x"):
        run_notebook(NAME, "runs/x")
    assert (folder / "notebook.ipynb").read_text() == first and not (folder / "error.txt").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(workspace, capsys):
    (workspace / "file").write_text("")
    assert main(["run", NAME, "--out", "file/x"]) == 2
    assert capsys.readouterr().err == f"petseg: {workspace / 'file' / 'x'} cannot be used: Not a directory\n"
