"""results.json as RESULTS.md: every target beside what was measured, then a table a subject."""

from typing import Any

HEAD = """\
# How fast it is

Written by `make bench`, which measures ours and its rivals in turn within one run. Figures are medians, with quartiles in brackets where
there is more than one round; `x` is a ratio taken round by round. "The report's way" is what the source report did, written afresh from its description.
"""
SUBJECTS = {
    "mean_std": "Mean and standard deviation",
    "feeding": "Feeding an epoch",
    "step": "A training step",
    "epoch": "A whole training epoch",
    "checkpoint": "Checkpointing",
    "evaluation": "Evaluation",
    "prediction": "Prediction",
    "profile": "The profile report at the size of the whole dataset",
    "import": "Importing",
    "open": "Opening the notebooks",
    "memory": "Memory over a long training",
    "cache": "The cache",
    "scale": "Very many photographs",
    "choices": "What each choice for speed is worth",
    "kept_memory": "Memory kept between steps",
}


def write_up(results: dict[str, Any]) -> str:
    """The whole of RESULTS.md."""
    rows = list(results["rows"].values())
    parts = [HEAD, *_circumstances(rows), "## Targets\n", _targets(rows)]
    for subject, title in SUBJECTS.items():
        chosen = [row for row in rows if row["subject"].split("_")[0] == subject.split("_")[0]]
        if chosen:
            parts += [f"## {title}\n", _table(chosen), _remarks(chosen)]
    return "\n".join(parts).rstrip() + "\n"


def _circumstances(rows: list[dict]) -> list[str]:
    """Machine and data; of each row, where they are not the same for all."""
    lines = []
    for name, words in (("machine", "Machine"), ("data", "Photographs")):
        by_value: dict[str, list[str]] = {}
        for row in rows:
            by_value.setdefault(row[name], []).append(row["name"])
        for value, names in by_value.items():
            lines.append(f"- {words}{f' of {chr(44).join(names)}' if len(by_value) > 1 else ''}: {value}")
    quick = [row["name"] for row in rows if row["quick"]]
    if quick:
        lines.append("- **A quick run at the sizes of a test: its figures say nothing about speed.**")
    return [*lines, ""]


def _targets(rows: list[dict]) -> str:
    lines = ["| target | bound | measured | |", "|---|---|---|---|"]
    for row in rows:
        for each in row["targets"]:
            lines.append(
                f"| {each['what']} | {each['bound']} | {number(each['value'])} | {'met' if each['met'] else '**not met**'} |"
            )
    return "\n".join([*lines, ""])


def _table(rows: list[dict]) -> str:
    lines = ["| | ours | rivals | limit |", "|---|---|---|---|"]
    for row in rows:
        unit = row["unit"]
        rivals = [
            f"{name}: {_spread(value, unit)}, ours {_ratio(row['speed_over'][name])} as fast"
            for name, value in row["rivals"].items()
        ]
        limits = [
            f"{name}: {_spread(value, unit)}, ours takes {_ratio(row['time_over'][name])}"
            for name, value in row["limits"].items()
        ]
        if unit == "MB":  # less is better, and nothing is fast
            rivals = [f"{name}: {_spread(value, unit)}" for name, value in row["rivals"].items()]
            limits = [f"{name}: {_spread(value, unit)}" for name, value in row["limits"].items()]
        rivals += [f"({name}: {_spread(value, unit)})" for name, value in row["beside"].items()]
        lines.append(f"| {row['title']} | {_spread(row['ours'], unit)} | {'<br>'.join(rivals)} | {'<br>'.join(limits)} |")
    return "\n".join([*lines, ""])


def _remarks(rows: list[dict]) -> str:
    """How each row was measured, alike rows together."""
    remarks: dict[str, list[str]] = {}
    for row in rows:
        remarks.setdefault("; ".join(filter(None, [row["conditions"], *row["notes"]])), []).append(row["title"])
    if len(remarks) == 1:
        return f"{next(iter(remarks))}.\n"
    return "\n".join(f"- {', '.join(titles)}: {words}." for words, titles in remarks.items()) + "\n"


def _spread(value: dict, unit: str) -> str:
    middle = f"{number(value['median'])} {unit}"
    return f"{middle} [{number(value['low'])}, {number(value['high'])}]" if value["samples"] > 1 else middle


def _ratio(value: dict) -> str:
    return f"{number(value['median'])} x"


def number(value: float) -> str:
    """Three figures, without an exponent; whole numbers beyond a thousand."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}" if abs(value) >= 0.01 else f"{value:.2g}"
