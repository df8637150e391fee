"""environment.yml against pyproject.toml, without a conda channel."""

import tomllib

import pytest
import rattler
import yaml
from packaging.requirements import Requirement

from petseg_lib.profiles import REPOSITORY

# PyPI's name -> conda-forge's, where they differ.
CONDA_NAMES = {
    "torch": "pytorch",
    "opencv-python-headless": "py-opencv",
    "matplotlib": "matplotlib-base",
}
NOT_PYTHON_PACKAGES = {"python", "pip", "git", "make"}

ENVIRONMENT = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
(PIP,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]


def bounds(text: str) -> set[str]:
    return {part.strip() for part in text.split(",") if part.strip()}


def test_the_channel_is_conda_forge_alone():
    assert ENVIRONMENT["name"] == "petseg"
    assert ENVIRONMENT["channels"] == ["conda-forge"]


@pytest.mark.parametrize("line", CONDA)
def test_every_line_is_a_strict_match_spec_with_a_range(line):
    spec = rattler.MatchSpec(line, strict=True)
    assert spec.name is not None
    assert "==" not in line and spec.build is None and spec.channel is None
    assert "pytorch-cuda" not in line
    if spec.name.normalized not in NOT_PYTHON_PACKAGES - {"python"}:
        assert spec.version is not None


def test_the_project_comes_last_and_from_here():
    assert PIP[-1] == "-e ."
    assert "pip" in CONDA


def test_every_dependency_is_there_with_the_same_range():
    in_conda = {(spec := rattler.MatchSpec(line, strict=True)).name.normalized: spec.version for line in CONDA}
    given = {name: bounds(version or "") for name, version in in_conda.items() if name not in NOT_PYTHON_PACKAGES}
    given |= {(requirement := Requirement(line)).name: bounds(str(requirement.specifier)) for line in PIP[:-1]}
    wanted = {
        CONDA_NAMES.get(requirement.name, requirement.name): bounds(str(requirement.specifier))
        for requirement in map(Requirement, PROJECT["dependencies"])
    }
    assert given == wanted
    assert bounds(in_conda["python"]) == bounds(PROJECT["requires-python"]) | {"<3.14"}  # where README wants a C compiler
