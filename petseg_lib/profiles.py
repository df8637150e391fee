"""Profiles and sweeps: YAML files that name runs and their parameters.

A profile has `parameters`, which every notebook gets that knows the name, and `runs`: for each run folder its notebook
and what this run alone sets. A sweep asks one notebook many times: `notebook`, `parameters`, `variants` (names of what
is changed, and to what; a variant may have another notebook), `grid` (parameters with a list of values each, all
combinations of them for every variant, such as seeds) and `questions` (for notebook 06: which variants to compare). It
becomes a profile with a run for each. Where a run's folders lie is derived from the names and never stands in the file.
"""

import itertools
import os
import shlex
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from petseg_lib.config import NOTEBOOKS, ParameterError, workspace
from petseg_lib.disk import expanded
from petseg_lib.profile_rules import check_different, check_names, check_sections, check_siblings, check_sweep

REPOSITORY = Path(__file__).resolve().parents[1]
OF_DATA = {"data", "limit_images", "bad_samples"}  # which notebook 06 hands on to its sweep
SWEEP_KEYS = {"notebook", "parameters", "variants", "grid", "questions"}


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
    check_sections(path, common, sections)
    notebooks = [section["notebook"] for section in sections.values()]
    check_names(f"profile {path.stem}", common, NOTEBOOKS)
    check_names("the settings", overrides, notebooks or NOTEBOOKS)
    runs = {}
    for run, section in sections.items():
        notebook = section["notebook"]
        known = NOTEBOOKS[notebook].model_fields
        own = {name: value for name, value in section.items() if name != "notebook"}
        check_names(f"profile {path.stem}, run {run}", own, [notebook])
        values = {name: value for name, value in (common | own | overrides).items() if name in known}
        run_dir = f"runs/{name}/{run}"
        values = {"run_dir": run_dir, "figures_dir": figures_folder(run_dir)} | values
        try:
            runs[run] = (notebook, checked(notebook, values))
        except ParameterError as error:
            raise ParameterError(f"profile {path.stem}, run {run}: {error}") from None
    check_siblings(path, runs)
    if points:
        check_different(path, runs)
    of_grid = {run: point for run, (_, point) in points.items()}
    return Profile(name, runs, common | overrides, of_grid, content.get("questions") or {})


def settings_for_sweep(sweep: Path, settings: dict[str, str]) -> dict[str, str]:
    """Which of a profile's settings reach a sweep that one of its notebooks reads.

    The dataset, how much of it, and what the sweep leaves open (a device, say): whatever else it states is part of its questions.
    `demo`, which notebook 06 hands on where it is told of no dataset, is none where the sweep names its own.
    """
    content = _read(sweep)
    common = content.get("parameters") or {}
    stated = (_varied(content) | common.keys()) - OF_DATA
    not_given = [("limit_images", "0"), *([("data", "demo")] if "data" in common else [])]
    return {name: value for name, value in settings.items() if name not in stated and (name, value) not in not_given}


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
            values = values | {name: _listed(name, value)}
    return model.checked(values).model_dump(include=set(values))


def _listed(name: str, text: str) -> list[str]:
    """The items of a list given as text: a list of YAML or JSON, in which an item in quotes may have a comma, or `a, b`."""
    if not text.strip().startswith("["):
        return [item for item in (item.strip(" '\"") for item in text.split(",")) if item]
    try:
        return [str(item) for item in yaml.BaseLoader(text).get_single_data()]  # in which `no` and 01 stay text
    except yaml.YAMLError:
        raise ParameterError(f"parameter {name} is {text}, which is no list: it must be as in [a, b]") from None


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
    check_sweep(path, variants, grid, content.get("questions") or {})
    points = {}
    for variant, changes in (variants or {"": {}}).items():
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            words = [variant] * bool(variant) + [f"{name}={value}" for name, value in chosen.items()]
            section = {"notebook": content.get("notebook")} | (changes or {}) | chosen
            points[",".join(words)] = (section, ({"variant": variant} if variant else {}) | chosen)
    return points
