"""Tiny notebooks in place of the real ones: they check their parameters, print, and write metrics.json."""

import os
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from petseg_lib.config import NOTEBOOKS

CHECK = """\
import json, sys
from pathlib import Path
from petseg_lib import config
parameters = config.{model}.from_notebook(globals())
"""
WORK = """\
for epoch in range(1, getattr(parameters, "epochs", 1) + 1):
    print(f"epoch {epoch}", flush=True)
"""
FINISH = """\
folder = config.workspace() / parameters.run_dir
(folder / "metrics.json").write_text(json.dumps(parameters.model_dump()))
"""


def pretend(folder: Path, **changes: Any) -> str:
    """A PYTHONPATH under which every Python finds these values where functions of `petseg_lib.gpus` would ask the machine."""
    lines = ["import petseg_lib.gpus", *(f"petseg_lib.gpus.{name} = lambda: {value!r}" for name, value in changes.items())]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def write_notebook(folder: Path, name: str, work: str = WORK, finish: str = FINISH) -> Path:
    """A stand-in for a notebook of that name, with all its parameters, in a folder that is made."""
    model = NOTEBOOKS[name]
    literals = "\n".join(f"{field} = {value!r}" for field, value in model().model_dump().items())
    parameters = new_code_cell(literals)
    parameters.metadata["tags"] = ["parameters"]
    cells = [
        new_markdown_cell(f"# Stand-in for {name}"),
        parameters,
        *(new_code_cell(source) for source in (CHECK.format(model=model.__name__), work, finish) if source),
    ]
    path = folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path
