"""The benchmark suite, at sizes that prove nothing about speed: every row is measured, and every target judged."""

import json
import math

import pytest

from petseg_lib.profiles import REPOSITORY


@pytest.fixture
def suite(monkeypatch):
    """`python -m benchmarks` without a new process, which would import torch once more."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks import __main__

    return __main__


def test_a_quick_run_measures_every_row_and_judges_every_target(suite, tiny_dataset, tmp_path):
    out = tmp_path / "out"
    assert suite.main(["--quick", "--data", str(tiny_dataset()), "--out", str(out)]) == 0
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {row["subject"] for row in rows.values()} == set(suite.ROWS)
    report = (out / "RESULTS.md").read_text(encoding="utf-8")
    for row in rows.values():
        measured = [row["ours"], *row["rivals"].values(), *row["limits"].values(), *row["beside"].values()]
        ratios = [*row["speed_over"].values(), *row["time_over"].values()]
        for each in (*measured, *ratios):
            assert math.isfinite(each["median"]) and each["median"] > 0, row["name"]
        assert row["quick"] and row["title"] in report
        for target in row["targets"]:
            (line,) = [line for line in report.splitlines() if line.startswith(f"| {target['what']} |")]
            assert line.endswith("| met |" if target["met"] else "| **not met** |")
    assert "nothing about speed" in report and str(tmp_path) not in report


def test_rows_that_are_not_measured_stay(suite, tiny_dataset, tmp_path):
    standing = {"name": "old", "title": "an old row", "subject": "memory", "quick": False, "machine": "another", "data": "others"}
    standing |= {"ours": {"median": 1.0, "low": 1.0, "high": 1.0, "samples": 1}, "unit": "s", "conditions": "", "targets": []}
    standing |= {name: {} for name in ("rivals", "limits", "beside", "speed_over", "time_over")} | {"notes": []}
    (tmp_path / "results.json").write_text(json.dumps({"rows": {"old": standing}}))
    data = str(tiny_dataset())
    assert suite.main(["--quick", "--data", data, "--out", str(tmp_path), "--rows", "cache"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert rows["old"] == standing and rows["cache"]["subject"] == "cache"
    assert "another" in (tmp_path / "RESULTS.md").read_text()
