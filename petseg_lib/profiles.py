"""Profiles and sweeps: YAML files that name runs and their parameters.

A profile has `parameters`, which every notebook gets that knows the name, and `runs`: for each run folder its notebook
and what this run alone sets. A sweep asks one notebook many times: `notebook`, `parameters`, `variants` (names of what
is changed, and to what; a variant may have another notebook), `grid` (parameters with a list of values each, all
combinations of them for every variant, such as seeds) and `questions` (for notebook 06: which variants to compare). It
becomes a profile with a run for each. Where a run's folders lie is derived from the names and never stands in the file.
"""

import difflib
import itertools
import os
import re
import shlex
import typing
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from petseg_lib.config import NOTEBOOKS, ParameterError, workspace
from petseg_lib.disk import expanded

REPOSITORY = Path(__file__).resolve().parents[1]
DERIVED = ("run_dir", "figures_dir")
OF_DATA = {"data", "limit_images", "bad_samples"}  # which notebook 06 hands on to its sweep
SWEEP_KEYS = {"notebook", "parameters", "variants", "grid", "questions"}
PLAIN_NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.,=+-]*[A-Za-z0-9_,=+-])?"  # Windows would leave out a point at the end
PLAIN_NAME_WORDS = "letters, digits and _ . , = + -, with a letter, a digit or _ at its beginning and no point at its end"
QUESTION_KEYS = {"question", "why", "first", "second", "report"}


@dataclass(frozen=True)
class Profile:
    """A checked profile.

    Attributes:
        name: the file's name without its ending; of a sweep, `sweeps/` and that name.
        runs: run name -> (notebook name, the parameters that are set for it, checked and of their own types).
        parameters: what is common to all runs, as it stands in the file or was overridden.
        points: of a sweep: run name -> its variant (where there are any) and its values of the grid.
        questions: of a sweep: name -> question (a sentence), first and second (the variants to compare); why it is asked,
            and report (which of the two the source report chose) may be missing.
    """

    name: str
    runs: dict[str, tuple[str, dict[str, Any]]]
    parameters: dict[str, Any] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: dict[str, dict[str, str]] = field(default_factory=dict)

    def settings(self, notebook: str, run: str) -> dict[str, Any]:
        """What it sets for a run of a notebook: the run's own section where it has one, else the common part."""
        if run not in self.runs:
            return {name: value for name, value in self.parameters.items() if name in NOTEBOOKS[notebook].model_fields}
        expected, settings = self.runs[run]
        if expected != notebook:
            raise ParameterError(f"run {run} of profile {self.name} belongs to notebook {expected}, not to {notebook}")
        return settings


class ProfileMissing(ParameterError):
    """No file of this name, neither a profile nor a notebook."""


def find_file(name: str | Path, folder: str, suffix: str) -> Path:
    """A notebook or profile: a path, or a name in that folder of the workspace or else of this repository."""
    places = [Path(name), *(root / folder / f"{name}{end}" for root in (workspace(), REPOSITORY) for end in (suffix, ""))]
    for path in places:
        if path.is_file():
            return path.resolve()
    known = sorted(path.stem for path in (REPOSITORY / folder).glob(f"*{suffix}"))
    raise ProfileMissing(f"no file {name} and nothing of this name in {folder}/, which has {', '.join(known) or 'nothing'}")


def find_sweep(name: str | Path) -> Path:
    """A sweep: a path, or a name in `profiles/sweeps/`."""
    return find_file(name, "profiles/sweeps", ".yaml")


def settings_from_environment() -> dict[str, str]:
    """What DATA and SET (`NAME=VALUE NAME=VALUE`, with quotes and backslashes as in a shell) say: parameters as text, by name.

    On Windows too a path in SET has forward slashes, for a backslash stands before what is meant as it is; DATA may have any.

    DATA is meant from where the command was called, and made absolute: the jobs run in the workspace.

    Raises:
        ParameterError: SET is not of this form, or DATA is no folder.
    """
    try:
        words = shlex.split(os.environ.get("SET", ""))
    except ValueError as error:
        raise ParameterError(f"SET is not a list of NAME=VALUE: {error}") from None
    if wrong := [word for word in words if "=" not in word]:
        raise ParameterError(f"SET is not a list of NAME=VALUE: {wrong[0]} has no =")
    settings = dict(word.split("=", 1) for word in words)
    if data := os.environ.get("DATA"):
        settings["data"] = data if data == "demo" else str(expanded(data).resolve())
        if not (data == "demo" or Path(settings["data"]).is_dir()):
            raise ParameterError(f"DATA is {data!r}, but there is no such folder")
    return settings


def load_profile(path: str | Path, overrides: dict[str, str] | None = None) -> Profile:
    """Read and check a profile or a sweep.

    Args:
        path: a YAML file, or the name of one in `profiles/` (`demo`, `sweeps/ablations`).
        overrides: values as text, given to every run whose notebook knows the name.

    Raises:
        ParameterError: the file is no profile, a name or value in it is wrong, or `overrides` has a name that the sweep varies.
    """
    path = find_file(path, "profiles", ".yaml")
    content, name, points = _read(path), path.stem, {}
    if content.keys() & (SWEEP_KEYS - {"parameters"}):
        name, points = f"sweeps/{path.stem}", _points(path, content)
        if both := _varied(content) & (overrides or {}).keys():
            raise ParameterError(
                f"{path.stem} varies {', '.join(sorted(both))} itself: no setting can give that to all of its runs"
            )
        content["runs"] = {run: section for run, (section, _) in points.items()}
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
        run_dir = f"runs/{name}/{run}"
        values = {"run_dir": run_dir, "figures_dir": figures_folder(run_dir)} | values
        try:
            runs[run] = (notebook, checked(notebook, values))
        except ParameterError as error:
            raise ParameterError(f"profile {path.stem}, run {run}: {error}") from None
    _check_siblings(path, runs)
    if points:
        _check_different(path, runs)
    of_grid = {run: point for run, (_, point) in points.items()}
    return Profile(name, runs, common | overrides, of_grid, content.get("questions") or {})


def settings_for_sweep(sweep: Path, settings: dict[str, str]) -> dict[str, str]:
    """Which of a profile's settings reach a sweep that one of its notebooks reads.

    The dataset, how much of it, and what the sweep leaves open (a device, say): whatever else it states is part of its questions.
    """
    content = _read(sweep)
    stated = (_varied(content) | (content.get("parameters") or {}).keys()) - OF_DATA
    return {name: value for name, value in settings.items() if name not in stated and (name, value) != ("limit_images", "0")}


def _varied(content: dict[str, Any]) -> set[str]:
    """The parameters in which a sweep's runs differ."""
    return set(content.get("grid") or {}).union(*(changes or {} for changes in (content.get("variants") or {}).values()))


def figures_folder(run_dir: str | Path) -> str:
    """Where a run's figures go: `figures/PROFILE`; those of a sweep's many runs into each run's own folder."""
    folder = Path(run_dir)
    return f"{folder.as_posix()}/figures" if folder.parent.parent.name == "sweeps" else f"figures/{folder.parent.name}"


def profile_of(runs_folder: Path) -> str:
    """The name of the profile or sweep whose runs a folder holds: `demo` of `runs/demo`, `sweeps/demo` of `runs/sweeps/demo`."""
    return f"sweeps/{runs_folder.name}" if runs_folder.parent.name == "sweeps" else runs_folder.name


def checked(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, checked by the notebook's model and of its types; lists may be text like `a, b` or `["a", "b"]`."""
    model = NOTEBOOKS[notebook]
    for name, value in values.items():
        known = model.model_fields.get(name)
        if known and typing.get_origin(known.annotation) is list and isinstance(value, str):
            items = (item.strip(" '\"") for item in value.strip("[] ").split(","))
            values = values | {name: [item for item in items if item]}
    return model.checked(values).model_dump(include=set(values))


class _Loader(yaml.SafeLoader):
    """YAML whose keys are each there once: of two runs of one name the first would be lost without a word."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.composer.ComposerError(None, None, f"{', '.join(twice)} is there twice", node.start_mark)
        return node


def _read(path: Path) -> dict[str, Any]:
    try:
        content = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not (content.keys() <= {"parameters", "runs"} or content.keys() <= SWEEP_KEYS):
        unknown = ", ".join(sorted(map(str, set(content) - SWEEP_KEYS - {"runs"}))) if isinstance(content, dict) else ""
        raise ParameterError(
            f"{path} is no profile: it must have `parameters` and `runs`, or be a sweep of {', '.join(sorted(SWEEP_KEYS))}, "
            "and nothing else" + (f", but it has {unknown}" if unknown else "")
        )
    return content


def _points(path: Path, content: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """A sweep's runs: name -> (its section, as in a profile; its variant and values of the grid)."""
    variants, grid = content.get("variants") or {}, content.get("grid") or {}
    _check_sweep(path, variants, grid, content.get("questions") or {})
    points = {}
    for variant, changes in (variants or {"": {}}).items():
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            words = [variant] * bool(variant) + [f"{name}={value}" for name, value in chosen.items()]
            section = {"notebook": content.get("notebook")} | (changes or {}) | chosen
            points[",".join(words)] = (section, ({"variant": variant} if variant else {}) | chosen)
    return points


def _check_sweep(path: Path, variants: Any, grid: Any, questions: Any) -> None:
    if not all(isinstance(part, dict) for part in (variants, grid, questions)):
        raise ParameterError(f"{path}: `variants`, `grid` and `questions` must each map names to values")
    if not variants and not grid:
        raise ParameterError(f"{path}: a sweep must have `variants` or a `grid`")
    for name, values in grid.items():
        if not isinstance(values, list) or not values or len({str(value) for value in values}) < len(values):
            raise ParameterError(f"{path}: grid has {name}: {values!r}, but it must be a list of different values")
    for variant, changes in variants.items():
        if not isinstance(variant, str) or not isinstance(changes or {}, dict):
            raise ParameterError(f"{path}: variant {variant!r} is {changes!r}, but it must be a name with a map of parameters")
        both = grid.keys() & (changes or {}).keys()
        if both:
            raise ParameterError(f"{path}: variant {variant} sets {', '.join(sorted(both))}, which the grid sets as well")
    for name, question in questions.items():
        if not isinstance(question, dict) or not QUESTION_KEYS - {"why", "report"} <= question.keys() <= QUESTION_KEYS:
            raise ParameterError(f"{path}: question {name} must have question, first and second, and may have why and report")
        if not re.fullmatch(PLAIN_NAME, str(name)):
            raise ParameterError(f"{path}: question name {name!r} must be {PLAIN_NAME_WORDS}")
        if not all(isinstance(question.get(key, ""), str) for key in ("question", "why")):
            raise ParameterError(f"{path}: question {name} must have text as its question and why")
        if question["first"] == question["second"]:
            raise ParameterError(f"{path}: question {name} compares {question['first']} with itself")
        for variant in (question[key] for key in question.keys() & {"first", "second", "report"}):
            if variant not in variants:
                raise ParameterError(f"{path}: question {name} names variant {variant!r}, but there are {', '.join(variants)}")
        if question.get("report", question["first"]) not in (question["first"], question["second"]):
            raise ParameterError(f"{path}: question {name} has report {question['report']!r}, neither its first nor its second")


def _check_sections(path: Path, common: Any, sections: Any) -> None:
    if not isinstance(common, dict) or not isinstance(sections, dict):
        raise ParameterError(f"{path}: `parameters` and `runs` must each map names to values")
    folders = Counter(str(run).casefold() for run in sections)
    if alike := sorted((str(run) for run in sections if folders[str(run).casefold()] > 1), key=str.casefold)[:2]:
        raise ParameterError(f"{path}: runs {' and '.join(alike)} differ in capitals alone, and share a folder on many systems")
    for run, section in sections.items():
        if not re.fullmatch(PLAIN_NAME, str(run)):
            raise ParameterError(f"{path}: run name {run!r} must be {PLAIN_NAME_WORDS}")
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


def _check_different(path: Path, runs: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """No two runs of a sweep that state the same, as with 1e-3 (text, in YAML) and 0.001 in its grid."""
    alike: dict[str, str] = {}
    for run, (notebook, values) in runs.items():
        own = repr((notebook, sorted((name, value) for name, value in values.items() if name not in DERIVED)))
        if own in alike:
            raise ParameterError(f"{path}: {alike[own]} and {run} are the same run, with the same parameters")
        alike[own] = run


def _check_siblings(path: Path, runs: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """A misspelt name of another run would otherwise be found only hours later."""
    for run, (_, values) in runs.items():
        for name in [*values.get("runs", []), *(values[key] for key in ("statistics_run", "model_run") if key in values)]:
            if name not in runs and Path(name).name == name:
                raise ParameterError(f"profile {path.stem}, run {run} names run {name!r}, but there are {', '.join(runs)}")
