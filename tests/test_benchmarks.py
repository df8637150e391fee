"""The benchmark suite, at sizes that prove nothing about speed: every row is measured, and every target judged."""

import copy
import io
import json
import math
from contextlib import redirect_stdout
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import patch

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from small_model import DESCRIPTION, SETTINGS
from torch import nn

from petseg_lib import devices
from petseg_lib.checkpoints import save_model
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


def test_a_row_says_how_much_faster_and_over_what_and_whether_that_is_met(suite):
    rows = import_module("benchmarks.rows")
    taken = {"ours": [2.0, 4.0, 3.0], "rival": [6.0, 8.0, 3.0], "limit": [1.0, 4.0, 2.0], "aside": [7.0, 7.0, 7.0]}
    row = rows.build_row("name", "title", "s", taken, rivals=["rival"], limits=["limit"])
    assert row["ours"] == {"median": 3.0, "low": 2.5, "high": 3.5, "samples": 3}
    assert row["speed_over"]["rival"]["median"] == 2.0  # 3, 2 and 1 times as fast, round by round
    assert row["time_over"]["limit"]["median"] == 1.5  # 2, 1 and 1.5 times the time
    assert row["beside"] == {"aside": {"median": 7.0, "low": 7.0, "high": 7.0, "samples": 3}}
    rates = rows.build_row("name", "title", "images/s", taken, rivals=["rival"], limits=["limit"], higher_is_better=True)
    assert rates["speed_over"]["rival"]["median"] == 0.5 and rates["time_over"]["limit"]["median"] == pytest.approx(2 / 3)
    fast, slow = rows.target("speed", [2.0, 3.0, 9.0], at_least=3), rows.target("speed", [2.0, 2.9, 9.0], at_least=3)
    assert (fast["value"], fast["met"], fast["bound"]) == (3.0, True, "at least 3") and not slow["met"]
    assert rows.target("share", 0.02, at_most=0.02)["met"] and not rows.target("share", 0.021, at_most=0.02)["met"]


def test_rivals_take_turns_and_the_warm_up_does_not_count(suite, capsys):
    timing, order = import_module("benchmarks.timing"), []

    def measure(name: str, figures: list[float]):
        def take() -> float:
            order.append(name)
            return figures.pop(0)

        return take

    measures = {"ours": measure("ours", [9.0, 1.0, 2.0]), "rival": measure("rival", [8.0, 3.0, 4.0])}
    assert timing.alternate("race", measures, 2) == {"ours": [1.0, 2.0], "rival": [3.0, 4.0]}
    assert order == ["ours", "rival", "rival", "ours", "ours", "rival"]
    assert "race, warm-up: ours 9" in capsys.readouterr().out
    assert timing.alternate("race", {"ours": measure("ours", [5.0])}, 1, warm_up=False) == {"ours": [5.0]}


def test_a_rivals_turn_has_memory_as_usual_and_ours_has_it_kept(suite, monkeypatch):
    timing, done = import_module("benchmarks.timing"), []
    monkeypatch.setattr(devices, "set_malloc", lambda *setting: done.append(setting))
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: done.append("kept"))
    assert timing.as_usual(lambda: done.append("measured") or 2.0)() == 2.0
    assert done == [(devices.MMAP_MAX, 65536), (-3, 32 * 2**20), "measured", "kept"]


def test_the_reports_way_is_as_it_is_described(suite, tmp_path):
    """Adam at 1e-4 with weight decay 2e-4; cross-entropy on what has passed a sigmoid already, and Dice; PyTorch's convolutions."""
    report_way = import_module("benchmarks.report_way")
    torch.manual_seed(0)
    network = build_model("unet", width=4, depth=2, dropout=0.0)
    training = report_way.ReportTraining(copy.deepcopy(network), "cpu", tmp_path)
    assert not any(isinstance(layer, convolutions.Conv3x3 | convolutions.UpConv2x2) for layer in training.model.modules())
    image, target = torch.randn(2, 3, 32, 32), (torch.rand(2, 1, 32, 32) > 0.5).float()
    with torch.no_grad():
        probability = training.model.train()(image)
    dice = (2 * (probability * target).sum() + 1e-6) / (probability.sum() + target.sum() + 1e-6)
    expected = torch.log1p(probability.exp()).sub(probability * target).mean() + 1 - dice
    before = {name: weight.clone() for name, weight in training.model.named_parameters()}
    training.model.load_state_dict(nn.Sequential(copy.deepcopy(network), nn.Sigmoid()).state_dict())  # BatchNorm's statistics too
    loss, measured = training.step(image, target)
    assert loss == pytest.approx(expected.item(), rel=1e-5) and measured == pytest.approx(dice.item(), rel=1e-5)
    (group,) = training.optimizer.param_groups
    assert (type(training.optimizer), group["lr"], group["weight_decay"]) == (torch.optim.Adam, 1e-4, 2e-4)
    moved = max((weight - before[name]).abs().max().item() for name, weight in training.model.named_parameters())
    assert moved == pytest.approx(1e-4, rel=0.05)  # Adam's first step is the learning rate


def test_the_eager_rival_predicts_with_pytorchs_convolutions(suite, tmp_path):
    prediction_child = import_module("benchmarks.prediction_child")
    path = tmp_path / "model.safetensors"
    save_model(path, build_model("unet", **SETTINGS).state_dict(), DESCRIPTION)
    model, _ = prediction_child.load_eager(str(path), "cpu")
    assert not any(isinstance(layer, convolutions.Conv3x3 | convolutions.UpConv2x2) for layer in model.modules())


def test_steps_alone_are_those_of_all_images_of_an_epoch(suite, monkeypatch):
    """Of 270 photographs the 34th batch of 8 has six: an epoch is 33.75 full batches."""
    epochs = import_module("benchmarks.epochs")
    ours = object.__new__(epochs.OurEpochs)
    sampler = SimpleNamespace(of_epoch=lambda _: [[0] * 8] * 33 + [[0] * 6])
    batches = [SimpleNamespace(image=[0] * 8)] * 34

    class Loader(list):
        pass

    loader = Loader(batches)
    loader.sampler = sampler
    ours.loaders, ours.model, ours.parameters = {"train": loader}, None, None
    ours.setting = SimpleNamespace(device="cpu")
    monkeypatch.setattr(epochs, "our_step", lambda *_: lambda: None)
    monkeypatch.setattr(epochs, "timed", lambda work, device, per: per)
    assert ours.steps_alone(8) == pytest.approx(8 / 33.75)
