"""The benchmark suite, at sizes that prove nothing about speed: every row is measured, and every target judged."""

import copy
import io
import json
import math
from contextlib import redirect_stdout
from importlib import import_module
from unittest.mock import patch

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from petseg_lib.data.pets import load_pets
from petseg_lib.models import build_model, convolutions
from petseg_lib.profiles import REPOSITORY

PICTURE = """\
import io
from IPython.display import Image, display
from PIL import Image as Pictures
file = io.BytesIO()
Pictures.new("RGB", (4, 4)).save(file, "png")
display(Image(data=file.getvalue()))
"""


@pytest.fixture
def suite(monkeypatch):
    """`python -m benchmarks` without a new process, which would import torch once more."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    return import_module("benchmarks.__main__")


@pytest.fixture
def light(suite, monkeypatch, tmp_path):
    """No new processes either, but for a notebook's kernel, and in that one no torch."""
    parameters = new_code_cell("data = run_dir = ''")
    parameters.metadata["tags"] = ["parameters"]
    notebook = new_notebook(cells=[parameters, new_code_cell("assert run_dir"), new_code_cell(PICTURE)])
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    monkeypatch.setattr("benchmarks.opening.find_notebook", lambda name: tmp_path / "notebook.ipynb")
    monkeypatch.setattr("benchmarks.children.run_python", run_here)


def run_here(option: str, what: str, *arguments: object) -> str:
    """What `python -c` and `python -m` would print."""
    with redirect_stdout(io.StringIO()) as printed:
        if option == "-c":
            exec(what, {})
        else:
            import_module(what).main(*map(str, arguments))
    return printed.getvalue()


def test_a_quick_run_measures_every_row_and_judges_every_target(suite, light, tiny_dataset, tmp_path):
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


def test_rivals_have_pytorchs_convolutions(suite, monkeypatch):
    plain_networks = import_module("benchmarks.plain_networks")
    monkeypatch.setattr(convolutions, "_capabilities", lambda: {"avx2": True})
    torch.manual_seed(0)
    ours = build_model("resnet34_unet", width=64, variant="report").eval()
    plain = plain_networks.with_pytorchs_convolutions(copy.deepcopy(ours))
    assert not any(isinstance(layer, convolutions.Conv3x3 | convolutions.UpConv2x2) for layer in plain.modules())
    assert list(plain.state_dict()) == list(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), patch.object(convolutions, "convolve", wraps=convolutions.convolve) as called:
        expected = plain(x)
        assert not called.called
        torch.testing.assert_close(ours(x), expected, rtol=1e-3, atol=1e-3 * expected.std().item())
        assert called.called


def test_rows_that_are_not_measured_stay(suite, tiny_dataset, tmp_path):
    standing = {"name": "old", "title": "an old row", "subject": "memory", "quick": False, "machine": "another", "data": "others"}
    standing |= {"ours": {"median": 1.0, "low": 1.0, "high": 1.0, "samples": 1}, "unit": "s", "conditions": "", "targets": []}
    standing |= {name: {} for name in ("rivals", "limits", "beside", "speed_over", "time_over")} | {"notes": []}
    (tmp_path / "results.json").write_text(json.dumps({"rows": {"old": standing}}))
    assert suite.main(["--quick", "--data", str(tiny_dataset()), "--out", str(tmp_path), "--rows", "cache"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert rows["old"] == standing and rows["cache"]["subject"] == "cache"
    assert "another" in (tmp_path / "RESULTS.md").read_text()


def test_a_process_of_its_own_answers_without_torch(suite, tiny_dataset):
    children = import_module("benchmarks.children")
    images = tiny_dataset() / "images"
    answers = {way: children.answer_of("mean_std_child", way, 40, images) for way in ("ours", "report", "decode")}
    assert answers["ours"]["result"][0] == pytest.approx(answers["report"]["result"][0])
    assert answers["ours"]["result"][1] == pytest.approx(answers["report"]["result"][1])
    assert all(0 < answer["seconds"] < 60 and answer["before"] <= answer["peak"] < 200 for answer in answers.values())


def test_a_folder_is_repeated_up_to_the_size_of_a_whole_dataset(suite, tiny_dataset, tmp_path):
    repeated, data = import_module("benchmarks.repeated"), tiny_dataset()
    few = load_pets(data)
    repeated.repeat(data, tmp_path / "many", 90)
    many = load_pets(tmp_path / "many")
    assert len(many.pets) == len({pet.name for pet in many.pets}) == 90 > len(few.pets)
    assert len(many.split("test")) == round(90 * len(few.split("test")) / len(few.pets))
    first, last = few.split("trainval")[0], many.split("trainval")[-1]
    assert last.breed in {pet.breed for pet in few.pets}
    assert many.photograph_path(many.split("trainval")[0]).read_bytes() == few.photograph_path(first).read_bytes()
    assert many.trimap_path(last).is_file()


def test_where_files_cannot_be_linked_they_are_copied(suite, tiny_dataset, tmp_path, monkeypatch):
    repeated = import_module("benchmarks.repeated")

    def refused(*given):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(repeated.os, "link", refused)
    repeated.repeat(tiny_dataset(), tmp_path / "many", 40)
    assert len(load_pets(tmp_path / "many").pets) == 40
