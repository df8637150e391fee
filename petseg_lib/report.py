"""The executed notebooks as one HTML page, and the committed notebooks with clean outputs."""

import copy
import shutil
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from petseg_lib.config import NOTEBOOKS, ParameterError, shown, workspace
from petseg_lib.execute import execute, find_notebook

WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_METADATA = {"tags"}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

# The page must open without a network: no scripts from elsewhere, so the notebooks' formulas are plain text.
TEMPLATE = """\
{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
body.jp-Notebook { max-width: 62rem; margin: 0 auto; padding: 2rem 1.5rem; }
.jp-RenderedHTMLCommon { font-size: 1rem; line-height: 1.55; }
.jp-OutputArea-output img, .jp-RenderedImage img { max-width: 100%; height: auto; }
.jp-OutputArea-output { overflow-x: auto; }
hr { margin: 3rem 0 1rem; }
</style>
{%- endblock -%}
"""


def write_report(runs_folder: str | Path, out_html: str | Path) -> Path:
    """Merge the executed notebooks of finished runs into one HTML page that needs no other file.

    Args:
        runs_folder: folder of run folders, e.g. `runs/demo`.
        out_html: the file to write.

    Returns:
        The page's path.

    Raises:
        ParameterError: no run in the folder is finished.
    """
    runs_folder, out_html = Path(runs_folder), Path(out_html)
    parts = [
        (folder.name, nbformat.read(folder / "notebook.ipynb", as_version=4))
        for folder in sorted(runs_folder.glob("*/"))
        if (folder / "metrics.json").is_file() and (folder / "notebook.ipynb").is_file()
    ]
    if not parts:
        raise ParameterError(f"no finished run in {shown(runs_folder)}: there is nothing to report")
    parts.sort(key=lambda part: Path(part[1].metadata.papermill.input_path).name)
    exporter = HTMLExporter(
        raw_template=TEMPLATE,
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
    )
    title = f"petseg: {runs_folder.name}"
    page, _ = exporter.from_notebook_node(_merged(title, parts), resources={"metadata": {"name": title}})
    # A reader never meets half a page.
    temporary = out_html.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(out_html)


def _merged(title: str, parts: list[tuple[str, NotebookNode]]) -> NotebookNode:
    named = [(f"run-{number}", run, part) for number, (run, part) in enumerate(parts, start=1)]
    contents = "\n".join(f"- [{_heading(part) or run}](#{anchor}) (run `{run}`)" for anchor, run, part in named)
    cells = [new_markdown_cell(f"# {title}\n\n{contents}")]
    for anchor, _, part in named:
        cells.append(new_markdown_cell(f'<hr><a id="{anchor}"></a>'))
        cells.extend(cleaned(part).cells)
    for index, cell in enumerate(cells):
        cell.id = f"cell-{index}"  # two runs of one notebook have the same ones
    return new_notebook(cells=cells, metadata=METADATA)


def _heading(notebook: NotebookNode) -> str:
    """The text of a notebook's first `# ` line, as plain as a link's text must be."""
    lines = (line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return (
        next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "").replace("[", "").replace("]", "")
    )


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
            cell.outputs = [_clean_output(output, cell.execution_count) for output in cell.outputs if not _is_widget(output)]
    return notebook


def _is_widget(output: NotebookNode) -> bool:
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

    The parameters are those of the notebooks' own cells, so nothing is injected.
    """
    for name, model in NOTEBOOKS.items():
        path, folder = find_notebook(name), workspace() / model().run_dir
        shutil.rmtree(folder, ignore_errors=True)  # the outputs shall be those of a first run
        execute(path, folder, {})
        nbformat.write(cleaned(nbformat.read(folder / "notebook.ipynb", as_version=4)), path)


def unclean_notebooks() -> list[Path]:
    """The committed notebooks that hold more than `refresh_notebooks` would leave."""
    paths = [find_notebook(name) for name in NOTEBOOKS]
    read = {path: nbformat.read(path, as_version=4) for path in paths}
    return [path for path, notebook in read.items() if cleaned(notebook) != notebook]
