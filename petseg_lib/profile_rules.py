"""What a profile or sweep must keep, each in a sentence (`ParameterError`) that names the file."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from petseg_lib.config import NOTEBOOKS, ParameterError

DERIVED = ("run_dir", "figures_dir")
PLAIN_NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.,=+-]*[A-Za-z0-9_,=+-])?"  # Windows would leave out a point at the end
PLAIN_NAME_WORDS = "letters, digits and _ . , = + -, with a letter, a digit or _ at its beginning and no point at its end"
QUESTION_KEYS = {"question", "why", "first", "second", "report"}


def check_sweep(path: Path, variants: Any, grid: Any, questions: Any) -> None:
    """A sweep's variants, grid and questions as they stand in its file."""
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
            if not variants:
                raise ParameterError(
                    f"{path}: question {name} compares variants, and there are no `variants`: give what differs a name there"
                )
            if variant not in variants:
                raise ParameterError(f"{path}: question {name} names variant {variant!r}, but there are {', '.join(variants)}")
        if question.get("report", question["first"]) not in (question["first"], question["second"]):
            raise ParameterError(f"{path}: question {name} has report {question['report']!r}, neither its first nor its second")


def check_sections(path: Path, common: Any, sections: Any) -> None:
    """A profile's common parameters and the section of each run, by run."""
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


def check_names(where: str, values: dict[str, Any], notebooks: Iterable[str]) -> None:
    """Every name must be a parameter of one of these notebooks."""
    known = {name for notebook in notebooks for name in NOTEBOOKS[notebook].model_fields} - set(DERIVED)
    for name in values:
        if name in DERIVED:
            raise ParameterError(f"{where}: {name} follows from the names of profile and run and cannot be set")
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ParameterError(f"{where}: unknown parameter {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))


def check_different(path: Path, runs: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """No two runs of a sweep that state the same, as with 1e-3 (text, in YAML) and 0.001 in its grid."""
    alike: dict[str, str] = {}
    for run, (notebook, values) in runs.items():
        own = repr((notebook, sorted((name, value) for name, value in values.items() if name not in DERIVED)))
        if own in alike:
            raise ParameterError(f"{path}: {alike[own]} and {run} are the same run, with the same parameters")
        alike[own] = run


def check_siblings(path: Path, runs: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """A misspelt name of another run would otherwise be found only hours later."""
    for run, (_, values) in runs.items():
        for name in [*values.get("runs", []), *(values[key] for key in ("statistics_run", "model_run") if key in values)]:
            if name not in runs and Path(name).name == name:
                raise ParameterError(f"profile {path.stem}, run {run} names run {name!r}, but there are {', '.join(runs)}")
