"""Mean and standard deviation of the channels: time and peak memory."""

from pathlib import Path

import numpy as np

from benchmarks.children import answer_of
from benchmarks.rows import Row, build_row, in_rounds, speed_over, target, time_over
from benchmarks.setting import Setting
from benchmarks.timing import Measure, alternate

REPORT, DECODE = "the report's way", "decoding alone"
HELD_AT_MOST = 4000  # MB that the report's way may take: beyond, its figures are extrapolated


def mean_std(setting: Setting) -> list[Row]:
    """Time and memory at each count of photographs."""
    images = setting.dataset().root / "images"
    rows: list[Row] = []
    for count in setting.sizes.statistics:
        rows += _at(setting, images, count, _run_by_report(rows, count))
    return rows


def _at(setting: Setting, images: Path, count: int, run_by_report: int) -> list[Row]:
    first = count == setting.sizes.statistics[0]
    rounds = setting.sizes.rounds if first else setting.sizes.slow_rounds
    ways = {"ours": ("ours", count), REPORT: ("report", run_by_report), DECODE: ("decode", count)}
    answers: dict[str, list[dict]] = {name: [] for name in ways}

    def measure(name: str, way: str, photographs: int) -> Measure:
        def once() -> float:
            answer = answer_of("mean_std_child", way, photographs, images)
            answers[name].append(answer)
            return answer["seconds"] * count / photographs

        return once

    measures = {name: measure(name, *way) for name, way in ways.items()}
    taken = alternate(f"mean and std of {count}", measures, rounds, warm_up=first)
    memory = {
        name: [each["before"] + (each["peak"] - each["before"]) * count / ways[name][1] for each in given[-rounds:]]
        for name, given in answers.items()
    }
    if run_by_report == count:  # the very same result, or the comparison would be of nothing
        assert np.allclose(*(answers[name][-1]["result"] for name in ("ours", REPORT)), rtol=1e-6), "the results differ"
    notes = [] if run_by_report == count else [f"the report's way was run on {run_by_report} and its figures are extrapolated"]
    return _rows(count, rounds, taken, memory, notes)


def _rows(count: int, rounds: int, taken: dict, memory: dict, notes: list[str]) -> list[Row]:
    what = f"mean and std of {count:,} photographs"
    common = {"rivals": [REPORT], "limits": [DECODE], "notes": notes}
    conditions = f"{in_rounds(rounds)}; a process each, without torch; the photographs repeated up to the count"
    targets = [
        target(f"{what}: speed over the report's way", speed_over(taken, REPORT), at_least=8),
        target(f"{what}: time over decoding alone", time_over(taken, DECODE), at_most=1.3),
    ]
    time = build_row(f"mean_std_{count}", what, "s", taken, conditions=conditions, targets=targets, **common)
    conditions = "peak of the whole process, Python and its packages included"
    targets = [target(f"{what}: peak memory, MB", memory["ours"], at_most=300)]
    name, title = f"mean_std_memory_{count}", f"{what}: peak memory"
    return [time | {"count": count}, build_row(name, title, "MB", memory, conditions=conditions, targets=targets, **common)]


def _run_by_report(rows: list[Row], count: int) -> int:
    """How many photographs the report's way is really run on, so that it does not exhaust this machine's memory."""
    if not rows:
        return count
    few, taken = rows[0]["count"], rows[1]["rivals"][REPORT]["median"]
    return count if taken * count / few < HELD_AT_MOST else few
