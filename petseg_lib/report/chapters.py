"""Each finished run's executed notebook as a chapter: headings that can be linked to, and prose that is told once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from petseg_lib.notebooks import METADATA, cleaned, is_widget
from petseg_lib.runs import Run

_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_HEADING = re.compile(r"## (.+)")
_LINK = re.compile(r"\[([^\]]+)\]\(([\w.-]+)\.ipynb\)")


class Section(NamedTuple):
    """A second-level heading: where it stands in the page, and its words."""

    anchor: str
    title: str


@dataclass(frozen=True)
class Chapter:
    """A finished run in the report.

    Attributes:
        anchor: of its heading in the page.
        run: the run folder.
        source: name of the notebook that made it, without ending.
        title: the notebook's own.
        ended: when the notebook ended; None where it does not say.
        seconds: that the notebook took; None where it does not say.
        sections: its second-level headings.
        notebook: cleaned; a heading is a cell of its own, with its `anchor` in the metadata, and a cell of text that an
            earlier chapter has word for word names that chapter's run and anchor there (`told_by`, `told_at`).
    """

    anchor: str
    run: Run
    source: str
    title: str
    ended: datetime | None
    seconds: float | None
    sections: list[Section]
    notebook: NotebookNode


def read_chapters(runs_folder: Path) -> list[Chapter]:
    """The finished runs of a folder of run folders, in the order of their notebooks, but for those that `without_notebook` names."""
    runs = [run for run in map(Run, sorted(runs_folder.glob("*/"))) if run.has_notebook]
    executed = [(run, nbformat.read(run.folder / "notebook.ipynb", as_version=4)) for run in runs]
    executed.sort(key=lambda pair: _source(pair[1]))
    anchors: dict[str, str] = {}
    for number, (_, notebook) in enumerate(executed, start=1):
        anchors.setdefault(_source(notebook), f"run-{number}")
    told: dict[str, tuple[str, str]] = {}
    return [_chapter(f"run-{number}", *pair, anchors, told) for number, pair in enumerate(executed, start=1)]


def without_notebook(runs_folder: Path) -> list[str]:
    """The finished runs of which there is no executed notebook to show, since they ran in JupyterLab."""
    return [run.name for run in map(Run, sorted(runs_folder.glob("*/"))) if run.complete and not run.has_notebook]


def _source(notebook: NotebookNode) -> str:
    return PureWindowsPath(notebook.metadata.papermill.input_path).stem  # which takes the separators of every system


def _chapter(
    anchor: str, run: Run, executed: NotebookNode, anchors: Mapping[str, str], told: dict[str, tuple[str, str]]
) -> Chapter:
    """One run's chapter.

    Args:
        anchors: where the chapter of each notebook begins.
        told: each text of the chapters before, with its run and anchor; this chapter's are added.
    """
    title, sections, cells = run.name, [], []
    for cell, original in zip(cleaned(executed).cells, executed.cells, strict=True):
        for part in _parts(cell.source) if cell.cell_type == "markdown" else [cell]:
            if not isinstance(part, str):
                part.metadata.alt = sections[-1].title if sections else title
                part.metadata.widget = any(map(is_widget, original.get("outputs", [])))
                cells.append(part)
            elif heading := _HEADING.fullmatch(part):
                sections.append(Section(f"{anchor}-{len(sections) + 1}", _plain(heading[1])))
                cells.append(new_markdown_cell(f"#{part}", metadata={"anchor": sections[-1].anchor}))
            elif heading := _TITLE.fullmatch(part):
                title = _plain(heading[1])
            else:
                by, at = told.setdefault(part, (run.name, sections[-1].anchor if sections else anchor))
                metadata = {} if by == run.name else {"told_by": by, "told_at": at}
                cells.append(new_markdown_cell(_LINK.sub(lambda link: _linked(link, anchors), part), metadata=metadata))
    record = executed.metadata.papermill
    ended = datetime.fromisoformat(record.end_time) if record.get("end_time") else None
    notebook = new_notebook(cells=cells, metadata=METADATA)
    return Chapter(anchor, run, _source(executed), title, ended, record.get("duration"), sections, notebook)


def _parts(markdown: str) -> list[str]:
    """The text cut before and after each first- and second-level heading that stands outside a block of code."""
    parts, fence = [""], None
    for line in markdown.splitlines():
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in (mark, None):
            fence = None if fence else mark
        if not fence and (_HEADING.fullmatch(line) or _TITLE.fullmatch(line)):
            parts += [line, ""]
        else:
            parts[-1] += f"{line}\n"
    return [part.strip("\n") for part in parts if part.strip()]


def _plain(heading: str) -> str:
    return heading.strip().replace("`", "")


def _linked(link: re.Match, anchors: Mapping[str, str]) -> str:
    """A link to a notebook leads to its chapter; where there is none, only the words are left."""
    words, notebook = link.groups()
    return f"[{words}](#{anchors[notebook]})" if notebook in anchors else words
