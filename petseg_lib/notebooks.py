"""The committed notebooks with clean outputs: no widgets, no paths of this machine, no dates."""

import copy
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from petseg_lib.config import NOTEBOOKS, workspace
from petseg_lib.execute import execute, find_notebook
from petseg_lib.locks import check_free
from petseg_lib.sweeps import run_sweep

WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_METADATA = {"tags"}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """A copy without widgets, paths of this machine, or when and where it ran; execution counts run from 1."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    count = 0
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({name: cell.metadata[name] for name in CELL_METADATA & cell.metadata.keys()})
        if cell.cell_type == "code":
            ran = cell.execution_count is not None
            count += ran
            cell.execution_count = count if ran else None
            cell.outputs = [_clean_output(output, cell.execution_count) for output in cell.outputs if not is_widget(output)]
    return notebook


def is_widget(output: NotebookNode) -> bool:
    """Whether an output is an interactive widget, which no file keeps."""
    return WIDGET in output.get("data", {})


def _clean_output(output: NotebookNode, count: int | None) -> NotebookNode:
    """The output with paths relative to the workspace."""
    prefixes = (f"{workspace()}/", f"{workspace()}\\")
    if output.output_type == "execute_result":
        output.execution_count = count
    fields = output if output.output_type == "stream" else output.get("data", {})
    for kind, text in fields.items():
        if isinstance(text, str) and (kind == "text" or kind.startswith("text/")):
            for prefix in prefixes:
                text = text.replace(prefix, "")
            fields[kind] = text
    return output


def refresh_notebooks() -> None:
    """Run the notebooks as they stand, one after the other, and write them back with their cleaned outputs.

    The parameters are those of the notebooks' own cells, so nothing is injected. A sweep that a notebook reads is run
    before it, as `make run` does: with other threads its results would be others.
    """
    given = [model() for model in NOTEBOOKS.values()]
    folders = [workspace() / each.run_dir for each in given]
    folders += [workspace() / "runs" / "sweeps" / each.sweep for each in given if hasattr(each, "sweep")]
    for lock in (lock for folder in folders for lock in folder.rglob(".lock")):  # before any is removed
        check_free(lock.parent)
    for name, model in NOTEBOOKS.items():
        path, folder = find_notebook(name), workspace() / model().run_dir
        shutil.rmtree(folder, ignore_errors=True)  # the outputs shall be those of a first run
        if "sweep" in model.model_fields:
            shutil.rmtree(workspace() / "runs" / "sweeps" / model().sweep, ignore_errors=True)
            run_sweep(model().sweep)
        execute(path, folder, {})
        nbformat.write(cleaned(nbformat.read(folder / "notebook.ipynb", as_version=4)), path)


def unclean_notebooks() -> list[Path]:
    """The committed notebooks that hold more than `refresh_notebooks` would leave."""
    paths = [find_notebook(name) for name in NOTEBOOKS]
    read = {path: nbformat.read(path, as_version=4) for path in paths}
    return [path for path, notebook in read.items() if cleaned(notebook) != notebook]
