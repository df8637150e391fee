"""Profiles: YAML files that name runs and their parameters.

A file has `parameters`, which every notebook gets that knows the name, and `runs`: for each run folder its notebook
and what this run alone sets. Where a run's folders lie is derived from the names and never stands in the file.
"""

import difflib
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from petseg_lib.config import NOTEBOOKS, ParameterError, workspace

REPOSITORY = Path(__file__).resolve().parents[1]
DERIVED = ("run_dir", "figures_dir")


@dataclass(frozen=True)
class Profile:
    """A checked profile.

    Attributes:
        name: the file's name without its ending.
        runs: run name -> (notebook name, the parameters that are set for it, checked and of their own types).
        parameters: what is common to all runs, as it stands in the file or was overridden.
    """

    name: str
    runs: dict[str, tuple[str, dict[str, Any]]]
    parameters: dict[str, Any] = field(default_factory=dict)

    def settings(self, notebook: str, run: str) -> dict[str, Any]:
        """What it sets for a run of a notebook: the run's own section where it has one, else the common part."""
        if run not in self.runs:
            return {name: value for name, value in self.parameters.items() if name in NOTEBOOKS[notebook].model_fields}
        expected, settings = self.runs[run]
        if expected != notebook:
            raise ParameterError(f"run {run} of profile {self.name} belongs to notebook {expected}, not to {notebook}")
        return settings


def find_file(name: str | Path, folder: str, suffix: str) -> Path:
    """A notebook or profile: a path, or a name in that folder of the workspace or else of this repository."""
    places = [Path(name), *(root / folder / f"{name}{suffix}" for root in (workspace(), REPOSITORY))]
    for path in places:
        if path.is_file():
            return path.resolve()
    known = sorted(path.stem for path in (REPOSITORY / folder).glob(f"*{suffix}"))
    raise ParameterError(f"no file {name} and nothing of this name in {folder}/, which has {', '.join(known) or 'nothing'}")


def load_profile(path: str | Path, overrides: dict[str, str] | None = None) -> Profile:
    """Read and check a profile.

    Args:
        path: a YAML file, or the name of a profile in `profiles/`.
        overrides: values as text, given to every run whose notebook knows the name.

    Raises:
        ParameterError: the file is no profile, or a name or value in it is wrong.
    """
    path = find_file(path, "profiles", ".yaml")
    content = _read(path)
    common, sections = content.get("parameters") or {}, content.get("runs") or {}
    overrides = overrides or {}
    _check_sections(path, common, sections)
    notebooks = [section["notebook"] for section in sections.values()]
    _check_names(f"profile {path.stem}", common, NOTEBOOKS)
    _check_names("the settings", overrides, notebooks or NOTEBOOKS)
    runs = {}
    for run, section in sections.items():
        notebook = section["notebook"]
        known = NOTEBOOKS[notebook].model_fields
        own = {name: value for name, value in section.items() if name != "notebook"}
        _check_names(f"profile {path.stem}, run {run}", own, [notebook])
        values = {name: value for name, value in (common | own | overrides).items() if name in known}
        values = {"run_dir": f"runs/{path.stem}/{run}", "figures_dir": f"figures/{path.stem}"} | values
        try:
            runs[run] = (notebook, checked(notebook, values))
        except ParameterError as error:
            raise ParameterError(f"profile {path.stem}, run {run}: {error}") from None
    _check_siblings(path, runs)
    return Profile(path.stem, runs, common | overrides)


def checked(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, checked by the notebook's model and of its types; lists may be text like `a, b`."""
    model = NOTEBOOKS[notebook]
    for name, value in values.items():
        known = model.model_fields.get(name)
        if known and typing.get_origin(known.annotation) is list and isinstance(value, str):
            values = values | {name: [item.strip() for item in value.strip("[] ").split(",")]}
    return model.checked(values).model_dump(include=set(values))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content.keys() <= {"parameters", "runs"}:
        raise ParameterError(f"{path} is no profile: it must have `parameters` and `runs`, and nothing else")
    return content


def _check_sections(path: Path, common: Any, sections: Any) -> None:
    if not isinstance(common, dict) or not isinstance(sections, dict):
        raise ParameterError(f"{path}: `parameters` and `runs` must each map names to values")
    for run, section in sections.items():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(run)):
            raise ParameterError(f"{path}: run name {run!r} must be letters, digits, and any of _ . - inside")
        notebook = section.get("notebook") if isinstance(section, dict) else None
        if notebook not in NOTEBOOKS:
            raise ParameterError(f"{path}: run {run} has notebook {notebook!r}, but it must be one of {', '.join(NOTEBOOKS)}")


def _check_names(where: str, values: dict[str, Any], notebooks: Iterable[str]) -> None:
    """Every name must be a parameter of one of these notebooks."""
    known = {name for notebook in notebooks for name in NOTEBOOKS[notebook].model_fields} - set(DERIVED)
    for name in values:
        if name in DERIVED:
            raise ParameterError(f"{where}: {name} follows from the names of profile and run and cannot be set")
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ParameterError(f"{where}: unknown parameter {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))


def _check_siblings(path: Path, runs: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """A misspelt name of another run would otherwise be found only hours later."""
    for run, (_, values) in runs.items():
        for name in [*values.get("runs", []), *([values["statistics_run"]] if "statistics_run" in values else [])]:
            if name not in runs and Path(name).name == name:
                raise ParameterError(f"profile {path.stem}, run {run} names run {name!r}, but there are {', '.join(runs)}")
