"""What can be wrong with a dataset, and what was found: as a table, and as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

from petseg_lib.data.pictures import DatasetError
from petseg_lib.words import in_words

STOPS = "training stops"
UNUSABLE = "training stops; left out under bad_samples: skip"
CONVERTED, IGNORED, USED = "converted", "ignored", "used as it is"
LEVELS = {STOPS: "stops", UNUSABLE: "unusable", CONVERTED: "note", IGNORED: "note", USED: "note"}

ROWS_ALIKE = 10
PROBLEM_WIDTH = 80  # characters


@dataclass(frozen=True)
class Problem:
    """One row of the table.

    Attributes:
        file: relative to the folder that holds `images`, with forward slashes.
        problem: what is wrong, a sentence whose subject is the file.
        consequence: what training will do about it.
    """

    file: str
    problem: str
    consequence: str

    @property
    def level(self) -> Literal["stops", "unusable", "note"]:
        """`stops`: no training on this folder; `unusable`: not with this pair of files; `note`: training goes on."""
        return LEVELS[self.consequence]


@dataclass(frozen=True)
class Check:
    """What was found in a folder.

    Attributes:
        pets: how many each split lists.
        problems: what stops training first, then unusable pairs, then notes.
    """

    pets: dict[str, int]
    problems: tuple[Problem, ...]

    @property
    def trainable(self) -> bool:
        """Whether training can start with every listed pair."""
        return all(problem.level == "note" for problem in self.problems)

    def table(self) -> str:
        """The problems as aligned text, where many files with the same problem share a row, and a line that sums up."""
        alike: dict[tuple[str, str], list[str]] = {}
        for problem in self.problems:
            alike.setdefault((problem.problem, problem.consequence), []).append(problem.file)
        rows = [("file", "problem", "what will happen")] if alike else []
        for (sentence, consequence), files in alike.items():
            more = [f"and {len(files) - ROWS_ALIKE} more files"] if len(files) > ROWS_ALIKE else []
            first, *rest = wrap(sentence, PROBLEM_WIDTH)
            for file in (*files[:ROWS_ALIKE], *more):
                rows += [(file, first, consequence), *(("", part, "") for part in rest)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        listed = ", ".join(f"{count} {split}" for split, count in self.pets.items())
        stopping = sum(problem.level != "note" for problem in self.problems)
        stop = f"{in_words(stopping, 'problem')} {'stops' if stopping == 1 else 'stop'} training"
        verdict = "training can start" if self.trainable else stop
        notes = in_words(len(self.problems) - stopping, "note")
        return "\n".join([*lines, f"{sum(self.pets.values())} pets ({listed}): {verdict}; {notes}"])

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: `trainable`, `pets` and `problems`, each with file, problem, consequence and level."""
        rows = [asdict(problem) | {"level": problem.level} for problem in self.problems]
        return {"trainable": self.trainable, "pets": self.pets, "problems": rows}


def write_json(check: Check, path: str | Path) -> None:
    """`check.as_dict()` as a file.

    Raises:
        DatasetError: the file cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(check.as_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror}") from error
