"""The training loop and the run folder, with a network small enough for seconds."""

import json

import pandas as pd
import pytest
import torch

from petseg_lib import checkpoints, runs, training
from petseg_lib.config import ResNet34UNetParameters, UNetParameters
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import build_loader
from petseg_lib.data.pets import load_pets
from petseg_lib.data.synthetic import draw_pets
from petseg_lib.models import build_model

SMALL = {"image_size": 32, "width": 4, "depth": 2, "batch_size": 4, "epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return load_pets(draw_pets(tmp_path_factory.mktemp("pets") / "drawn", 40))


def train(pets, run_dir: str, stop_after: int = 0, **settings):
    """A short training; `stop_after` interrupts it as Ctrl-C would, at the end of an epoch."""
    model_of = ResNet34UNetParameters if settings.pop("resnet", False) else UNetParameters
    parameters = model_of.checked(SMALL | {"run_dir": run_dir} | settings)
    run = runs.open_run(parameters, "test")
    fabric = training.start(parameters)
    caches = [open_cache(pets, pets.split(split), parameters.image_size) for split in ("train", "valid")]
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    loaders = [build_loader(cache, parameters, mean, std, train=place == 0) for place, cache in enumerate(caches)]
    model = build_model(parameters.model, **parameters.model_settings())
    description = checkpoints.describe_model(parameters, mean, std)
    with pytest.MonkeyPatch.context() as patch:
        if stop_after:
            log = training._log

            def interrupted(writer, row, *rest):
                log(writer, row, *rest)
                if row["epoch"] == stop_after:
                    raise KeyboardInterrupt

            patch.setattr(training, "_log", interrupted)
        return run, training.fit(model, *loaders, parameters, run, fabric, description)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9, "optimizer": "adam", "schedule": "cosine"}, {"resnet": True}])
def test_an_interrupted_run_ends_as_one_that_was_not(pets, settings):
    whole, history = train(pets, "runs/t/whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/broken", stop_after=1, **settings)
    broken, resumed = train(pets, "runs/t/broken", **settings)
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), history.drop(columns="seconds"))
    assert (broken.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_run_learns_and_keeps_its_best_epoch(pets):
    run, history = train(pets, "runs/t/learns", epochs=8, learning_rate=0.01)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert list(history.columns) == ["epoch", "learning_rate", "train_loss", "train_dice", "valid_loss", "valid_dice", "seconds"]
    pd.testing.assert_frame_equal(run.history, history)
    assert any((run.folder / "tensorboard").iterdir())


def test_patience_ends_a_run_that_does_not_improve(pets):
    _, history = train(pets, "runs/t/patient", epochs=30, learning_rate=1e-12, schedule="constant", patience=2)
    assert len(history) < 30
    assert len(history) - history["valid_dice"].idxmax() - 1 == 2


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("cosine", 0.0), ("onecycle", 0.0)])
def test_schedules_end_where_they_should(schedule, last):
    parameters = UNetParameters.checked({"schedule": schedule, "learning_rate": 0.1})
    optimizer = training.build_optimizer(torch.nn.Linear(2, 2), parameters)
    course = training.build_schedule(optimizer, parameters, 50)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    assert max(rates) == pytest.approx(0.1, rel=1e-2)
    assert rates[-1] == pytest.approx(0.1 * last, abs=1e-3)


def test_bf16_is_chosen_only_where_the_processor_has_it(monkeypatch):
    for capability, expected in (({"avx512_bf16": True}, "bf16-mixed"), ({"amx_bf16": True}, "bf16-mixed"), ({}, "32-true")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capability: found, raising=False)
        assert training.best_precision(torch.device("cpu")) == expected


def test_the_optimizer_leaves_biases_and_batchnorm_undecayed():
    model = build_model("unet", width=4, depth=2)
    decayed, undecayed = training.build_optimizer(model, UNetParameters(weight_decay=0.01)).param_groups
    assert decayed["weight_decay"] == 0.01 and all(p.ndim > 1 for p in decayed["params"])
    assert undecayed["weight_decay"] == 0 and len(decayed["params"]) + len(undecayed["params"]) == len(list(model.parameters()))


def test_opening_a_run_under_other_parameters_removes_old_results(pets):
    run, _ = train(pets, "runs/t/again", epochs=1)
    run.finish({"done": True})
    assert run.complete and not (run.folder / "resume").exists()
    runs.open_run(UNetParameters.checked(SMALL | {"run_dir": "runs/t/again", "seed": 5}), "test")
    assert not run.complete and not (run.folder / "model.safetensors").exists()
    assert json.loads((run.folder / "params.json").read_text())["parameters"]["seed"] == 5


def test_a_run_that_does_not_stand_is_one_sentence():
    with pytest.raises(runs.RunError, match=r"runs/t/nothing has no metrics\.json"):
        _ = runs.find_run("runs/t/nothing", runs.Run(runs.workspace() / "runs/t/x")).metrics


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "there" / "file"
    path.parent.mkdir()
    runs.write_atomically(path, b"old")
    monkeypatch.setattr(runs.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        runs.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
