"""What a run was made from and with, as its folder says."""

from datetime import datetime
from typing import Any, NamedTuple

from petseg_lib.config import NOTEBOOKS
from petseg_lib.execute import duration
from petseg_lib.report.chapters import Chapter

PLACES = ("data", "run_dir", "figures_dir")  # parameters too long for a column


class Setting(NamedTuple):
    """A parameter of a run; `default` tells whether it has its notebook's own value."""

    name: str
    value: str
    default: bool
    meaning: str


def facts(chapter: Chapter) -> dict[str, str]:
    """Notebook, times, places, machine, commit, code and package versions, by name; what the folder does not say is left out."""
    made, metrics = chapter.run.provenance, chapter.run.metrics
    packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
    found = {
        "notebook": chapter.source,
        "finished": chapter.ended and moment(chapter.ended),
        "took": chapter.seconds and duration(chapter.seconds),
        **{name: made.get("parameters", {}).get(name) for name in PLACES},
        "commit": made.get("commit"),
        "code": made.get("code"),
        "device": metrics.get("device") and ", ".join(filter(None, [metrics["device"], metrics.get("precision")])),
        "platform": made.get("platform"),
        "Python": made.get("python"),
        "packages": packages,
        "photographs left out": ", ".join(made.get("left_out") or {}),
    }
    return {name: value for name, value in found.items() if value}


def settings(chapter: Chapter) -> list[Setting]:
    """Every parameter of the run but its places, which stand among the facts."""
    known = NOTEBOOKS[chapter.source].model_fields if chapter.source in NOTEBOOKS else {}
    given = chapter.run.provenance.get("parameters", {})
    return [
        Setting(
            name,
            _written(value),
            name in known and value == known[name].default,
            known[name].description if name in known else "",
        )
        for name, value in given.items()
        if name not in PLACES
    ]


def moment(time: datetime) -> str:
    """A point of time for people, in its own time zone: `24 November 2026, 20:42 UTC`."""
    return f"{time.day} {time:%B %Y, %H:%M %Z}"


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value) if value != "" else "(empty)"
