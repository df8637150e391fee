"""The executed notebooks as one HTML page that needs no other file, no script and no network."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, CSSHTMLHeaderPreprocessor

from petseg_lib.config import ParameterError, shown
from petseg_lib.disk import write_atomically
from petseg_lib.profiles import load_profile, profile_of
from petseg_lib.report.chapters import Chapter, read_chapters, without_notebook
from petseg_lib.report.provenance import facts, moment, settings
from petseg_lib.report.tables import measured_runs, summary
from petseg_lib.runs import Run

# After the names of runs.
NO_NOTEBOOK = (
    "finished, but with no executed notebook, as after a run in JupyterLab; petseg run makes one (of a training with --force)"
)
_CODE_STYLE = "friendly"  # of pygments


def write_report(runs_folder: str | Path, out_html: str | Path) -> Path:
    """Merge the executed notebooks of finished runs into one HTML page that needs no other file.

    Args:
        runs_folder: folder of run folders, e.g. `runs/demo`.
        out_html: the file to write, whole or not at all.

    Returns:
        The page's path.

    Raises:
        ParameterError: no run in the folder is finished, or none has an executed notebook.
    """
    runs_folder, out_html = Path(runs_folder), Path(out_html)
    chapters = read_chapters(runs_folder)
    if not chapters:
        if names := without_notebook(runs_folder):
            raise ParameterError(f"nothing to report in {shown(runs_folder)}: {', '.join(names)}, {NO_NOTEBOOK}")
        raise ParameterError(f"no finished run in {shown(runs_folder)}: there is nothing to report")
    cells = _exporter()
    exported = [cells.from_notebook_node(chapter.notebook) for chapter in chapters]
    code_style = exported[0][1]["inlining"]["css"][0]
    measured = measured_runs(runs_folder)
    page = _page_template().render(
        title=f"petseg: {runs_folder.name}",
        styles=[code_style, _file("page.css")],
        command=f"petseg report {shown(runs_folder)}",
        ended=max((chapter.ended for chapter in chapters if chapter.ended), default=None),
        missing=missing_runs(runs_folder),
        without_notebook=without_notebook(runs_folder),
        no_notebook=NO_NOTEBOOK,
        summary=summary(measured) if measured else None,
        anchors={chapter.run.name: chapter.anchor for chapter in chapters},
        chapters=[_described(chapter, html) for chapter, (html, _) in zip(chapters, exported, strict=True)],
    )
    write_atomically(out_html, page.encode())
    return out_html


def missing_runs(runs_folder: Path) -> list[str]:
    """The runs of the folder's profile (`sweeps/NAME` of a sweep's) that are not finished; none where there is no such profile."""
    try:
        runs = load_profile(profile_of(runs_folder)).runs
    except ParameterError:
        return []
    return [run for run in runs if not Run(runs_folder / run).complete]


def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(
        raw_template=_file("cells.html.j2"),
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,  # the same headings stand in several notebooks
        embed_images=True,
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)  # a printed line is an output of its own
    exporter.register_preprocessor(CSSHTMLHeaderPreprocessor(style=_CODE_STYLE), enabled=True)
    return exporter


def _page_template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["moment"] = moment
    return environment.from_string(_file("page.html.j2"))


def _file(name: str) -> str:
    return files("petseg_lib.report").joinpath(name).read_text(encoding="utf-8")


def _described(chapter: Chapter, html: str) -> dict[str, Any]:
    """What the page's template is told of a chapter."""
    return {
        "anchor": chapter.anchor,
        "title": chapter.title,
        "run": chapter.run.name,
        "sections": chapter.sections,
        "facts": facts(chapter),
        "settings": settings(chapter),
        "html": html,
    }
