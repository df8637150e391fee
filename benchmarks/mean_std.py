"""Mean and standard deviation of the channels: time and peak memory."""

import numpy as np

from benchmarks.children import answer_of
from benchmarks.rows import Row, build_row, in_rounds, speed_over, target, time_over
from benchmarks.setting import Setting
from benchmarks.timing import alternate

REPORT, DECODE = "the report's way", "decoding alone"
HELD_AT_MOST = 4000  # MB that the report's way may take: beyond, its figures are extrapolated


def mean_std(setting: Setting) -> list[Row]:
    """Time and memory at each count of photographs."""
    images = setting.dataset().root / "images"
    return [row for count in setting.sizes.statistics for row in _at(setting, images, count)]


def _at(setting: Setting, images, count: int) -> list[Row]:
    first = count == setting.sizes.statistics[0]
    rounds = setting.sizes.rounds if first else setting.sizes.slow_rounds
    memory: dict[str, list[float]] = {"ours": [], REPORT: [], DECODE: []}
    results: dict[str, list] = {}

    def measure(way: str, name: str, photographs: int):
        def once() -> float:
            answer = answer_of("mean_std_child", way, photographs, images)
            held = answer["peak"] - answer["before"]
            memory[name].append(answer["before"] + held * count / photographs)
            results[name] = answer["result"]
            return answer["seconds"] * count / photographs

        return once

    run_by_report = count if first else _photographs_that_fit(setting, images, count)
    measures = {
        "ours": measure("ours", "ours", count),
        REPORT: measure("report", REPORT, run_by_report),
        DECODE: measure("decode", DECODE, count),
    }
    taken = alternate(f"mean and std of {count}", measures, rounds, warm_up=first)
    notes = [] if run_by_report == count else [f"the report's way was run on {run_by_report} and its figures are extrapolated"]
    if run_by_report == count:  # the very same result, or the comparison would be of nothing
        assert np.allclose(results["ours"], results[REPORT], rtol=1e-6), "ours and the report's way disagree"
    memory = {name: figures[-rounds:] for name, figures in memory.items()}
    conditions = f"{in_rounds(rounds)}; a process each, without torch; the photographs repeated up to the count"
    common = {"rivals": [REPORT], "limits": [DECODE], "notes": notes}
    return [
        build_row(
            f"mean_std_{count}",
            f"mean and std of {count:,} photographs",
            "s",
            taken,
            conditions=conditions,
            targets=[
                target(f"mean and std of {count:,}: speed over the report's way", speed_over(taken, REPORT), at_least=8),
                target(f"mean and std of {count:,}: time over decoding alone", time_over(taken, DECODE), at_most=1.3),
            ],
            **common,
        ),
        build_row(
            f"mean_std_memory_{count}",
            f"peak memory of the same, {count:,} photographs",
            "MB",
            memory,
            conditions="the whole process, Python and its packages included",
            targets=[target(f"mean and std of {count:,}: peak memory, MB", memory["ours"], at_most=300)],
            **common,
        ),
    ]


def _photographs_that_fit(setting: Setting, images, count: int) -> int:
    """How many the report's way is really run on, so that it does not exhaust this machine's memory."""
    few = setting.sizes.statistics[0]
    answer = answer_of("mean_std_child", "report", few, images)
    each = max(answer["peak"] - answer["before"], 1) / few
    return count if each * count < HELD_AT_MOST else few
