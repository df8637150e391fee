"""The training loop and the run folder, with a network small enough for seconds."""

import copy
import dataclasses
import json
import math
import multiprocessing
import platform
import re
import shutil
import subprocess
import sys
import warnings
import weakref
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock, Timeout
from lightning_fabric.plugins.precision import Precision
from PIL import Image
from safetensors.torch import load_file

from petseg_lib import checkpoints, devices, disk, graphs, normalisation, optimisation, runs, trained_on, training, versions
from petseg_lib.config import (
    ComparisonParameters,
    MeanStdParameters,
    ReadableError,
    ResNet34UNetParameters,
    UNetParameters,
    workspace,
)
from petseg_lib.data import loaders
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import Batch, build_loader, cropped_batch, half_size, halved_batch
from petseg_lib.data.pets import PetDataset, load_pets
from petseg_lib.data.pictures import DatasetError
from petseg_lib.data.statistics import ChannelStatistics, channel_statistics, save_statistics
from petseg_lib.data.synthetic import draw_pets
from petseg_lib.dice import build_loss
from petseg_lib.locks import unlock
from petseg_lib.models import build_model

SMALL = {"image_size": 32, "width": 4, "depth": 2, "batch_size": 4, "epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return load_pets(draw_pets(tmp_path_factory.mktemp("pets") / "drawn", 40))


def train(pets, run_dir: str, stop_after: int = 0, model=None, **settings):
    """A short training; `stop_after` interrupts it as Ctrl-C would, at the end of an epoch."""
    model_of = ResNet34UNetParameters if settings.pop("resnet", False) else UNetParameters
    parameters = model_of.checked(SMALL | {"run_dir": run_dir} | settings)
    run = runs.open_run(parameters, "test")
    fabric = training.start(parameters)
    caches = [open_cache(pets, pets.split(split), parameters.image_size) for split in ("train", "valid")]
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    loaders = [build_loader(cache, parameters, mean, std, train=place == 0) for place, cache in enumerate(caches)]
    model = model or build_model(parameters.model, **parameters.model_settings())
    description = checkpoints.describe_model(parameters, mean, std)
    with pytest.MonkeyPatch.context() as patch:
        if stop_after:
            log = training.log_epoch

            def interrupted(writer, row, *rest):
                log(writer, row, *rest)
                if row["epoch"] == stop_after:
                    raise KeyboardInterrupt

            patch.setattr(training, "log_epoch", interrupted)
        return run, training.fit(model, *loaders, parameters, run, fabric, description)


@pytest.mark.parametrize(
    "settings",
    [
        {"loader_workers": 2},
        {"ema_decay": 0.9, "optimizer": "adam", "schedule": "cosine"},
        {"resnet": True, "accumulate": 2},
        {"optimizer": "muon", "cutmix": 0.5},
        {"resnet": True, "loader_workers": 2, "ema_decay": 0.9},
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(pets, settings):
    whole, history = train(pets, "runs/t/whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/broken", stop_after=1, **settings)
    broken, resumed = train(pets, "runs/t/broken", **settings)
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), history.drop(columns="seconds"))
    assert (broken.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("step", "sentence"), [(2, "it begins anew: there is no checkpoint yet"), (7, "it goes on from its last checkpoint")]
)
def test_an_interrupted_step_leaves_nothing_in_the_model_of_a_notebook(pets, monkeypatch, step, sentence):
    """Its kernel keeps the model, with a step's gradients, and with the weights of the steps before."""
    whole, _ = train(pets, "runs/t/never", optimizer="adam")
    training.start(UNetParameters.checked(SMALL))
    model = build_model("unet", **UNetParameters.checked(SMALL).model_settings())
    update, steps = optimisation._Adam.step, []

    def interrupted(optimizer, *given):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return update(optimizer, *given)

    monkeypatch.setattr(optimisation._Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted: run this again, and {sentence}"):
        train(pets, "runs/t/kernel", model=model, optimizer="adam")
    train(pets, "runs/t/kernel", model=model, optimizer="adam")
    weights = [load_file(folder / "model.safetensors") for folder in (whole.folder, runs.workspace() / "runs/t/kernel")]
    assert all(torch.equal(*pair) for pair in zip(*(each.values() for each in weights), strict=True))


def test_checkpoints_that_take_long_are_written_less_often_but_never_left_out(pets, monkeypatch):
    written, save = [], checkpoints.save_state
    monkeypatch.setattr(
        checkpoints, "save_state", lambda path, state: written.append(state["progress"]["epoch"]) or save(path, state)
    )
    monkeypatch.setattr(checkpoints, "WRITING_SHARE", 1e9)
    each, _ = train(pets, "runs/t/each", epochs=4)
    monkeypatch.setattr(checkpoints, "WRITING_SHARE", 1e-9)
    train(pets, "runs/t/seldom", epochs=4)
    assert written == [1, 2, 3, 4, 4]  # the first checkpoint is due when as much is expected to be written in 1% of the time
    monkeypatch.setattr(checkpoints, "EXPECTED_BYTES_A_SECOND", 1e99)
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/stopped", stop_after=3, epochs=4)
    assert written[5:] == [1, 3]
    stopped, history = train(pets, "runs/t/stopped", epochs=4)
    assert written[7:] == [4] and len(stopped.history) == len(history) == 4
    assert (stopped.folder / "model.safetensors").read_bytes() == (each.folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(checkpoints, "LONGEST_SECONDS", 0)
    for bytes_a_second, run in ((1e-9, "first"), (1e99, "next")):
        monkeypatch.setattr(checkpoints, "EXPECTED_BYTES_A_SECOND", bytes_a_second)
        train(pets, f"runs/t/{run}", epochs=3)
    assert written[8:] == 2 * [1, 2, 3], "however long it takes, there is one every ten minutes"


@pytest.mark.parametrize("file", ["save_model", "save_state"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_which_goes_on_from_the_one_before(pets, monkeypatch, file):
    """Its best epoch is the second, whose weights must not be missed where its state stands."""
    dices, save, calls = [0.1, 0.9, 0.2], getattr(checkpoints, file), []

    def full(*given):
        calls.append(1)
        if len(calls) == 2:
            raise disk.DiskError("no room")
        save(*given)

    def trained(run_dir: str, begun: int = 0):
        with monkeypatch.context() as patch:
            scripted(patch, dices[begun:])
            return train(pets, run_dir, epochs=3)[0]

    monkeypatch.setattr(checkpoints, "WRITING_SHARE", 1e9)
    monkeypatch.setattr(checkpoints, "EXPECTED_BYTES_A_SECOND", 1e99)
    whole = trained("runs/t/room")
    with monkeypatch.context() as patch, pytest.raises(disk.DiskError, match="no room"):
        patch.setattr(checkpoints, file, full)
        trained("runs/t/no_room")
    state = checkpoints.load_state(workspace() / "runs/t/no_room/resume/state.pt")
    broken = trained("runs/t/no_room", begun=state["progress"]["epoch"])
    assert (broken.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_metrics_that_cannot_be_written_cost_no_training(pets, monkeypatch):
    run, history = train(pets, "runs/t/end")

    def full(*given):
        raise disk.DiskError("no room")

    with monkeypatch.context() as patch, pytest.raises(disk.DiskError, match="no room"):
        patch.setattr(runs, "write_json", full)
        run.finish({})
    monkeypatch.setattr(training, "_train_epoch", None)
    again, same = train(pets, "runs/t/end")
    assert not again.complete
    pd.testing.assert_frame_equal(same, history)


def test_after_the_last_epoch_nothing_is_kept_to_go_on_from_and_nothing_is_trained_again(pets):
    settings = {"patience": 1, "epochs": 50, "learning_rate": 1e-9, "ema_decay": 0.9}
    run, history = train(pets, "runs/t/last", **settings)
    assert len(history) < 50
    assert checkpoints.load_state(run.folder / "resume" / "state.pt").keys() == {"progress"}
    weights = (run.folder / "model.safetensors").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_train_epoch", None)
        again, same = train(pets, "runs/t/last", **settings)
    pd.testing.assert_frame_equal(same, history)
    assert not again.complete and (again.folder / "model.safetensors").read_bytes() == weights


def test_the_thread_that_writes_has_nothing_to_compute(pets, monkeypatch):
    """Its threads of OpenMP would stand in the way of the training's."""
    save, contiguous = checkpoints.save_model, []

    def watched(path, weights, description):
        contiguous.extend(weight.is_contiguous() for weight in weights.values())
        save(path, weights, description)

    monkeypatch.setattr(checkpoints, "save_model", watched)
    train(pets, "runs/t/contiguous", epochs=1)
    model = build_model("unet", width=4, depth=2).to(memory_format=torch.channels_last)
    assert not all(weight.is_contiguous() for weight in model.state_dict().values())
    assert contiguous and all(contiguous)


def test_a_run_learns_and_keeps_its_best_epoch(pets):
    run, history = train(pets, "runs/t/learns", epochs=8, learning_rate=0.01)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert list(history.columns) == ["epoch", "learning_rate", "train_loss", "train_dice", "valid_loss", "valid_dice", "seconds"]
    pd.testing.assert_frame_equal(run.history, history)
    assert any((run.folder / "tensorboard").iterdir())


def scripted(monkeypatch, dices: list[float]) -> list[dict[str, torch.Tensor]]:
    """Validation that finds these Dices, whatever the weights; a list to which it adds what it was shown."""
    measure, shown = training._measure, []

    def measured(model, *rest):
        (loss, _), seen = measure(model, *rest)
        shown.append({name: value.clone() for name, value in model.state_dict().items()})
        return (loss, dices[len(shown) - 1]), seen

    monkeypatch.setattr(training, "_measure", measured)
    return shown


@pytest.mark.parametrize(
    ("dices", "best"), [([0.9, 0.1, 0.2], 1), ([0.1, 0.9, 0.2], 2), ([0.1, 0.2, 0.9], 3), ([0.5, 0.5, 0.5], 1), ([0.0] * 3, 1)]
)
def test_the_weights_of_the_best_epoch_are_kept(pets, monkeypatch, dices, best):
    shown = scripted(monkeypatch, dices)
    run, _ = train(pets, "runs/t/best", epochs=3, force=True)
    kept = load_file(run.folder / "model.safetensors")
    same = [all(torch.equal(kept[name], value) for name, value in weights.items()) for weights in shown]
    assert same == [epoch == best for epoch in (1, 2, 3)]


@pytest.mark.parametrize(("patience", "last"), [(0, 3), (1, 2)])
def test_the_weights_of_the_last_epoch_are_kept_where_that_is_asked_for(pets, monkeypatch, patience, last):
    shown = scripted(monkeypatch, [0.9, 0.1, 0.2])
    name = f"runs/t/last{patience}"
    run, history = train(pets, name, epochs=3, kept_weights="last", patience=patience, force=True)
    kept = load_file(run.folder / "model.safetensors")
    same = [all(torch.equal(kept[name], value) for name, value in weights.items()) for weights in shown]
    assert same == [epoch == last for epoch in range(1, last + 1)] and len(history) == last


def test_the_average_of_weights_is_what_is_measured_and_kept(pets, monkeypatch):
    shown, updated = scripted(monkeypatch, [0.5, 0.6, 0.5, 0.6]), []
    update = optimisation.MovingAverage.update

    def watched(average):
        update(average)
        updated[:] = [{name: value.clone() for name, value in average.module.state_dict().items()}]

    monkeypatch.setattr(optimisation.MovingAverage, "update", watched)
    run, _ = train(pets, "runs/t/averaged", ema_decay=0.9, force=True)
    kept = load_file(run.folder / "model.safetensors")
    assert updated[0].keys() == kept.keys() and all(torch.equal(kept[name], value) for name, value in updated[0].items())
    assert all(torch.equal(shown[-1][name], value) for name, value in updated[0].items())
    plain, _ = train(pets, "runs/t/plain")
    raw = load_file(plain.folder / "model.safetensors")
    convolutions = [name for name, value in raw.items() if value.ndim == 4]
    assert convolutions and not any(torch.equal(kept[name], raw[name]) for name in convolutions)


def test_patience_ends_a_run_that_does_not_improve(pets):
    _, history = train(pets, "runs/t/patient", epochs=30, learning_rate=1e-12, schedule="constant", patience=2)
    assert len(history) < 30
    assert len(history) - history["valid_dice"].idxmax() - 1 == 2


def test_patience_is_counted_at_full_size(pets, monkeypatch):
    scripted(monkeypatch, [0.9] + [0.1] * 19)
    settings = {"image_size": 64, "epochs": 20, "half_size_share": 0.5, "patience": 2, "force": True}
    _, history = train(pets, "runs/t/half_patient", **settings)
    assert len(history) == 12


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("cosine", 0.0), ("onecycle", 0.0)])
def test_schedules_end_where_they_should(schedule, last):
    parameters = UNetParameters.checked({"schedule": schedule, "learning_rate": 0.1})
    optimizer = optimisation.build_optimizer(torch.nn.Linear(2, 2), parameters)
    course = optimisation.build_schedule(optimizer, parameters, 50)
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
        assert devices.best_precision(torch.device("cpu")) == expected


def test_only_apples_gpus_have_channels_first():
    formats = [devices.memory_format(torch.device(name)) for name in ("cpu", "cuda", "mps")]
    assert formats == [torch.channels_last, torch.channels_last, torch.contiguous_format]


PAGE_FAULTS = """
import resource, torch
from petseg_lib import devices

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(20_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
devices.open_fabric("cpu")
for _ in range(3):  # small blocks that come to lie between large ones move these, up to six times, until their places are settled
    faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_memory_that_is_freed_is_kept_for_the_next_step():
    result = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, result.stdout.split())
    assert kept < given_back / 20


def test_opening_a_device_prints_nothing_that_looks_like_a_warning():
    code = "from petseg_lib.devices import open_fabric; print(open_fabric('cpu', 'bf16-mixed')._precision.precision)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("bf16-mixed\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Slurm on Windows")
@pytest.mark.parametrize("job", [{"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "unet"}, {}], ids=["in_a_job", "beside_srun"])
def test_a_run_on_a_cluster_is_one_process(tmp_path, monkeypatch, job):
    """Lightning Fabric refuses SLURM_NTASKS, and without it warns where srun could have been used."""
    (tmp_path / "srun").touch(0o755)
    for name, value in ({"PATH": str(tmp_path)} | job).items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert devices.open_fabric("cpu", "bf16-mixed").world_size == 1


def test_the_optimizer_leaves_biases_and_batchnorm_undecayed():
    model = build_model("unet", width=4, depth=2)
    decayed, undecayed = optimisation.build_optimizer(model, UNetParameters(weight_decay=0.01)).param_groups
    assert decayed["weight_decay"] == 0.01 and all(p.ndim > 1 for p in decayed["params"])
    assert undecayed["weight_decay"] == 0 and len(decayed["params"]) + len(undecayed["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "of_pytorch"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_a_fused_step_is_pytorchs_and_copies_no_weights_whose_channels_lie_last(name, of_pytorch, monkeypatch):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 12, 3).to(memory_format=torch.channels_last)
    same = copy.deepcopy(convolution)
    optimizer = optimisation.build_optimizer(convolution, UNetParameters(optimizer=name, weight_decay=0.01))
    decays = [{"params": [same.weight], "weight_decay": 0.01}, {"params": [same.bias], "weight_decay": 0.01 * (name == "adam")}]
    expected = of_pytorch(decays, lr=UNetParameters().learning_rate, fused=True)
    seen, fused = [], {"adam": "_fused_adam_", "adamw": "_fused_adamw_"}[name]
    step = getattr(torch, fused)
    for _ in range(3):
        for weight, other in zip(convolution.parameters(), same.parameters(), strict=True):
            weight.grad = torch.randn_like(weight)
            other.grad = weight.grad.clone()
        with monkeypatch.context() as patch:
            patch.setattr(torch, fused, lambda *given, **options: (seen.extend(given[:4]), step(*given, **options))[1])
            optimizer.step()
        expected.step()
    assert all(torch.equal(*pair) for pair in zip(convolution.parameters(), same.parameters(), strict=True))
    assert seen and all(each.is_contiguous() for column in seen for each in column)
    assert optimizer.state[convolution.weight]["exp_avg"].shape == convolution.weight.shape, "what is saved has its own shape"


def test_muon_steps_a_convolution_along_its_orthogonalised_momentum():
    convolution = torch.nn.Conv2d(8, 12, 3)
    optimizer = optimisation.build_optimizer(convolution, UNetParameters(optimizer="muon", learning_rate=0.1, weight_decay=0.0))
    before, bias = convolution.weight.detach().clone(), convolution.bias.detach().clone()
    torch.manual_seed(0)
    convolution.weight.grad, convolution.bias.grad = torch.randn(12, 8, 3, 3), torch.ones(12)
    left, _, right = torch.linalg.svd(convolution.weight.grad.flatten(1), full_matrices=False)
    optimizer.step()
    step = (before - convolution.weight.detach()).flatten(1)
    torch.testing.assert_close(step.square().mean().sqrt().item(), 0.1 * 0.2, rtol=0.2, atol=0)
    singular = left.T @ step @ right.T / (0.1 * 0.2 * 72**0.5)  # a diagonal matrix where the singular vectors are the gradient's
    assert singular.diagonal().min() > 0.6 and singular.diagonal().max() < 1.3
    assert (singular - singular.diagonal().diag()).abs().max() < 1e-3
    torch.testing.assert_close(convolution.bias, bias - 0.1)  # AdamW's first step is the learning rate


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon of its own")
def test_muon_steps_as_pytorchs_own_does_on_matrices_with_its_polynomials(monkeypatch):
    monkeypatch.setattr(optimisation, "POLYNOMIALS", 5 * ((3.4445, -4.7750, 2.0315),))
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(16, 6, 1, bias=False)
    matrix = torch.nn.Parameter(convolution.weight.detach().flatten(1).clone())
    ours = optimisation.Muon(convolution.parameters(), lr=0.01, weight_decay=0.5, matrix_dtype=torch.bfloat16)  # as theirs
    theirs = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        matrix.grad = torch.randn(6, 16)
        convolution.weight.grad = matrix.grad.clone().view(6, 16, 1, 1)
        ours.step()
        theirs.step()
    torch.testing.assert_close(convolution.weight.flatten(1), matrix, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 144), (64, 32), (9, 9)])
def test_orthogonalised_is_newton_schulz_iterations(shape):
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    singular = torch.logspace(0, -5, min(shape), dtype=torch.float64)  # the smallest are what rounding could spoil
    iterated = singular / (1.01 * singular.norm() + 1e-7)
    for a, b, c in optimisation.POLYNOMIALS:
        iterated = a * iterated + b * iterated**3 + c * iterated**5
    expected = left * iterated @ right
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 0.5)):
        given = optimisation.orthogonalised((left * singular @ right).to(dtype)).double()
        assert (given - expected).norm() <= tolerance * expected.norm()


def test_the_polynomials_take_singular_values_near_to_one():
    values = torch.logspace(-2, 0, 10_000, dtype=torch.float64)
    for a, b, c in optimisation.POLYNOMIALS:
        values = a * values + b * values**3 + c * values**5
    assert (values - 1).abs().max() < 0.271


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(5))
def test_a_matrix_of_one_direction_is_not_blown_up(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.outer(torch.randn(128, generator=generator), torch.randn(300, generator=generator))
    largest = torch.linalg.matrix_norm(optimisation.orthogonalised(matrix.to(dtype)).float(), 2)
    assert 0.7 < largest < 1.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_orthogonalised_does_not_depend_on_how_large_it_is(dtype):
    matrix = torch.randn(3, 80, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = optimisation.orthogonalised(matrix).float()
    for factor in (2.0**-14, 2.0**40):  # powers of two, so that nothing is rounded; not so small that 1e-7 counts
        torch.testing.assert_close(optimisation.orthogonalised(factor * matrix).float(), expected, rtol=0, atol=2e-3)
        torch.testing.assert_close(optimisation.orthogonalised(matrix, factor).float(), factor * expected, rtol=0.02, atol=0)
    assert not optimisation.orthogonalised(0 * matrix).any()


@pytest.mark.parametrize("channels", [6, 96])  # the latter multiplied in bf16
def test_muon_gives_convolutions_of_one_shape_the_updates_they_have_alone(channels):
    generator = torch.Generator().manual_seed(0)
    shapes = 2 * [(channels, channels, 3, 3), (12, channels, 3, 3), (2 * channels, channels, 1, 1)] + [(channels, 12, 3, 3)]
    gradients = [torch.randn(shape, generator=generator).to(memory_format=torch.channels_last) for shape in shapes]
    work = partial(optimisation._orthogonal_updates, rms=0.2, dtype=torch.bfloat16)
    for together, gradient in zip(work(*gradients), gradients, strict=True):
        torch.testing.assert_close(together, *work(gradient), rtol=0, atol=0.02 * gradient.std().item())
        assert together.shape[2:] == (1, 1) or together.stride() == gradient.stride(), "or adding them to the weights is slow"


def test_muon_leaves_out_a_step_whose_scaled_float16_gradients_are_infinite():
    def steps(scaler=None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = build_model("unet", width=4, depth=2)
        optimizer = optimisation.build_optimizer(model, UNetParameters(optimizer="muon", learning_rate=0.01))
        for number in range(2):
            loss = model(images).square().mean()
            (scaler.scale(loss) if scaler else loss).backward()
            if scaler and number:
                model.head.weight.grad[0, 0, 0, 0] = torch.inf
            scaler.step(optimizer) if scaler else optimizer.step()
            if scaler:
                scaler.update()
            optimizer.zero_grad()
            if not scaler:
                break
        return [each.detach() for each in model.parameters()]

    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for scaled, plain in zip(steps(torch.amp.GradScaler("cpu", init_scale=2.0**10)), steps(), strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-5)


def test_muon_leaves_the_first_and_the_last_convolution_to_adamw():
    model = build_model("unet", width=4, depth=2)
    optimizer = optimisation.build_optimizer(model, UNetParameters(optimizer="muon"))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    by_adamw = {name for name, weight in model.named_parameters() if "exp_avg" in optimizer.state[weight]}
    by_muon = {name for name, weight in model.named_parameters() if set(optimizer.state[weight]) == {"step", "momentum"}}
    assert by_adamw | by_muon == dict(model.named_parameters()).keys() and not by_adamw & by_muon
    assert {name for name in by_adamw if model.get_parameter(name).ndim > 1} == {"encoder.stages.0.0.weight", "head.weight"}


def open_small(run_dir: str, **settings) -> runs.Run:
    return runs.open_run(UNetParameters.checked(SMALL | {"run_dir": run_dir} | settings), "test")


def test_a_finished_run_is_not_trained_again_unless_forced(pets):
    run, history = train(pets, "runs/t/done", epochs=1)
    run.finish({"done": True})
    assert run.complete and not (run.folder / "resume").exists()
    weights, record = (run.folder / "model.safetensors").stat().st_mtime_ns, (run.folder / "params.json").read_bytes()
    again, kept = train(pets, "runs/t/done", epochs=1)
    pd.testing.assert_frame_equal(kept, history)
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == weights
    assert again.complete and (run.folder / "params.json").read_bytes() == record
    train(pets, "runs/t/done", epochs=1, force=True)
    assert (run.folder / "model.safetensors").stat().st_mtime_ns > weights and not run.complete


def test_a_run_of_other_parameters_is_refused_with_their_names(pets):
    run, _ = train(pets, "runs/t/other", epochs=1)
    refused = "an interrupted run of other parameters: seed is 5 and was 0, epochs is 2 and was 1; choose another run folder, or train it"
    with pytest.raises(runs.RunError, match=refused):
        open_small("runs/t/other", seed=5)
    run.finish({"done": True})
    with pytest.raises(runs.RunError, match=refused.replace("an interrupted", "a finished")):
        open_small("runs/t/other", seed=5)
    assert run.complete and (run.folder / "model.safetensors").exists()
    open_small("runs/t/other", epochs=1, figures_dir="figures/elsewhere")  # where figures go changes no result
    open_small("runs/t/other", epochs=1, figure_formats=["png"], bad_samples="skip")
    open_small("runs/t/other", epochs=1, loader_workers=3, cuda_graphs=False)  # nor does how it is computed
    record = json.loads((run.folder / "params.json").read_text())
    del record["parameters"]["accumulate"]  # as if the run were older than this parameter
    disk.write_json(run.folder / "params.json", record)
    open_small("runs/t/other", epochs=1)
    with pytest.raises(runs.RunError, match="parameters: accumulate is 2 and was 1; "):
        open_small("runs/t/other", epochs=1, accumulate=2)
    open_small("runs/t/other", seed=5, force=True)
    assert not run.complete and not (run.folder / "model.safetensors").exists()
    record = json.loads((run.folder / "params.json").read_text())["parameters"]
    assert record["seed"] == 5 and "force" not in record
    assert run.provenance.keys() >= versions.made_with().keys()


def test_a_forced_run_that_was_interrupted_goes_on(pets, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/forced", stop_after=1, force=True)
    _, history = train(pets, "runs/t/forced", force=True)
    assert "Going on after epoch 1" in capsys.readouterr().out and len(history) == 2
    run, _ = train(pets, "runs/t/forced", force=True, seed=5)
    assert "Going on" not in capsys.readouterr().out and run.parameters["seed"] == 5, "it was of other parameters"


def test_a_second_process_on_a_folder_is_refused(temporary_workspace):
    code = "from petseg_lib import config, runs; runs.open_run(config.UNetParameters(run_dir='runs/t/one'), 'test')"
    run = runs.open_run(UNetParameters(run_dir="runs/t/one"), "test")
    assert runs.open_run(UNetParameters(run_dir="runs/t/one"), "test") == run  # a cell may run twice
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LockError: another process is working on runs/t/one: wait until it ends" in refused.stderr
    run.finish({})
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
    runs.open_run(UNetParameters(run_dir="runs/t/one"), "test")
    with pytest.raises(Timeout), FileLock(run.folder / ".lock", timeout=0):
        raise AssertionError("a kernel that takes the folder a second time does not hold it")


def test_a_refused_start_leaves_the_folder_as_free_as_it_was(pets):
    """A notebook's kernel lives on after it."""
    run, _ = train(pets, "runs/t/refused", epochs=1)
    others = UNetParameters(run_dir="runs/t/refused"), ComparisonParameters(run_dir="runs/t/refused", data="nowhere")
    for held in (True, False):
        for parameters in others:
            with pytest.raises(ReadableError, match=r"holds an interrupted run of other parameters|nowhere.* does not exist"):
                runs.open_run(parameters, "05_comparison")
            free = nullcontext() if not held else pytest.raises(Timeout)
            with free, FileLock(run.folder / ".lock", timeout=0):
                pass
        unlock(run.folder)


def test_an_interrupt_is_a_sentence_without_a_traceback(pets):
    with pytest.raises(KeyboardInterrupt) as caught:
        train(pets, "runs/t/interrupted", stop_after=1)
    assert caught.value._render_traceback_() == ["Interrupted: run this again, and it goes on from its last checkpoint."]


def test_what_muon_recorded_is_let_go_of_as_well(pets, monkeypatch):
    works = []
    monkeypatch.setattr(training, "released", lambda *given: works.extend(given) or nullcontext())
    train(pets, "runs/t/muon", epochs=1, optimizer="muon")
    assert [getattr(work, "func", work).__name__ for work in works] == ["step", "_orthogonal_updates"]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_one_sentence(monkeypatch, device):
    for backend in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    with pytest.raises(
        ReadableError, match=f"^parameter device is '{device}', but this machine with this PyTorch has cpu alone$"
    ):
        devices.open_fabric(device)


PASCAL = r"Quadro P6 has compute capability 6\.1, and this PyTorch is built for sm_75, sm_86, compute_90"


@pytest.mark.parametrize(
    ("finds", "capability", "trouble"),
    [
        (False, None, "its driver is too old for this PyTorch, or does not start"),
        (True, (6, 1), PASCAL),
        (True, (7, 2), PASCAL.replace(r"6\.1", r"7\.2")),  # of its architecture, but before the oldest of it
        (True, (7, 5), ""),
        (True, (8, 9), ""),
        (True, (8, 0), PASCAL.replace(r"6\.1", r"8\.0")),
        (True, (12, 0), ""),  # compiled anew from the intermediate code of 9.0
    ],
)
def test_a_gpu_that_cannot_compute_is_left_alone_and_refused_where_it_was_asked_for(
    monkeypatch, capsys, finds, capability, trouble
):
    """NVML, which Lightning Fabric has torch ask, counts GPUs that the driver or the wheel is too old or too new for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "finds_cuda", lambda: finds)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Quadro P6")
    monkeypatch.setattr(
        devices, "_fabric", lambda device, precision: SimpleNamespace(device=torch.device(device.replace("auto", "cuda")))
    )
    if not trouble:
        assert [devices.open_fabric(device).device.type for device in ("auto", "cuda")] == ["cuda", "cuda"]
        assert capsys.readouterr().out == ""
        return
    assert devices.open_fabric("auto").device.type == "cpu"
    assert re.fullmatch(rf"The GPU is not used: {trouble}\.\n", capsys.readouterr().out)
    with pytest.raises(ReadableError, match=rf"^parameter device is 'cuda', but {trouble}$"):
        devices.open_fabric("cuda")
    assert devices.open_fabric("cpu").device.type == "cpu"


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_moments_lie_as_the_weights_do_though_they_come_from_a_machine_with_another_order(name):
    """A GPU's fused step refuses moments of another order than the weights', such as those of Apple's GPUs on NVIDIA's."""
    parameters = UNetParameters.checked({"optimizer": name, "width": 4, "depth": 1})

    def stepped(layout):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 1, 1))
        model = model.to(memory_format=layout)
        optimizer = optimisation.build_optimizer(model, parameters)
        model(torch.ones(1, 3, 8, 8)).sum().backward()
        optimizer.step()
        return optimizer

    begun, going_on = stepped(torch.contiguous_format), stepped(torch.channels_last)
    going_on.load_state_dict(begun.state_dict())
    moments = 0
    for (weight, state), before in zip(going_on.state.items(), begun.state.values(), strict=True):
        for key, value in state.items():
            assert torch.equal(value, before[key])
            if value.shape == weight.shape:
                assert value.stride() == weight.stride()
                moments += weight.ndim == 4
    assert moments >= 3


def test_apples_gpus_compute_in_float32_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(
        devices, "_fabric", lambda device, precision: SimpleNamespace(device=torch.device("mps"), precision=precision)
    )
    assert [devices.open_fabric("mps", precision).precision for precision in ("auto", "32-true")] == ["32-true", "32-true"]
    with pytest.raises(ReadableError, match=r"precision is '16-mixed', but on Apple's GPUs it must be 'auto' or '32-true'"):
        devices.open_fabric("mps", "16-mixed")


def test_history_catches_up_with_a_state_that_was_saved_before_it(pets):
    run, history = train(pets, "runs/t/behind")
    (run.folder / "history.csv").write_text("epoch\n1\n")  # as if the power had gone between the two files
    _, resumed = train(pets, "runs/t/behind")
    pd.testing.assert_frame_equal(resumed, history)
    pd.testing.assert_frame_equal(run.history, history)


def test_accumulated_batches_make_the_step_of_one_batch():
    """Of a network without BatchNorm, whose gradient of a mean is the mean of gradients."""
    parameters = UNetParameters(accumulate=2, optimizer="adam", schedule="constant", learning_rate=0.1)
    targets = torch.arange(6.0).view(3, 2, 1, 1, 1).expand(3, 2, 1, 4, 4) > 2
    scored = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    batches = [Batch(torch.ones(2, 3, 4, 4), target.float(), scored, torch.arange(2)) for target in targets]
    fabric, ends = training.start(parameters), []
    for accumulate, given in (
        (2, batches[:2]),
        (1, [together(batches[:2])]),
        (2, batches),
        (3, batches),
        (1, [together(batches)]),
    ):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 1, 1)
        wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
        schedule = optimisation.build_schedule(optimizer, parameters, 9)
        now = parameters.model_copy(update={"accumulate": accumulate})
        step = optimisation.build_step(wrapped, optimizer, training.build_loss("bce"), fabric, now)
        training._train_epoch(step, given, optimizer, schedule, fabric, None, now)
        ends.append((model.weight.detach().clone(), schedule.last_epoch))
    assert torch.allclose(ends[0][0], ends[1][0]) and torch.allclose(ends[3][0], ends[4][0])
    assert [steps for _, steps in ends] == [1, 1, 2, 1, 1]


def test_what_is_not_scored_is_not_in_trainings_dice():
    parameters, model = UNetParameters(), torch.nn.Conv2d(3, 1, 1)
    fabric = training.start(parameters)
    torch.nn.init.constant_(model.bias, 99.0)  # all is pet
    wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
    step = optimisation.build_step(wrapped, optimizer, training.build_loss("bce"), fabric, parameters)
    target, scored = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    target[..., :3], scored[..., 1:] = 1, False
    assert step(torch.rand(1, 3, 4, 4), target, scored)[1].tolist() == [[4, 0, 0]]


def test_a_steps_loss_is_of_what_is_scored_and_its_pet_is_where_a_logit_is_above_zero():
    parameters, model = UNetParameters(precision="32-true"), torch.nn.Conv2d(3, 1, 1)
    fabric = training.start(parameters)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.constant_(model.bias, 0.25)
    wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
    step = optimisation.build_step(wrapped, optimizer, training.build_loss("bce"), fabric, parameters)
    target, scored = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    target[..., 3], scored[..., 3] = 0, False
    loss, counts = step(torch.rand(1, 3, 4, 4), target, scored)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.25))) and counts.tolist() == [[12, 0, 0]]
    assert model.bias.grad.item() == pytest.approx(1 / (1 + math.exp(-0.25)) - 1)


def test_accumulated_batches_leave_the_gradient_of_one_batch():
    """Which Adam's first step hardly tells from twice as large a one."""
    fabric, loss_of, gradients = training.start(UNetParameters(precision="32-true")), training.build_loss("bce"), []
    images, scored = torch.rand(4, 3, 4, 4), torch.ones(4, 1, 4, 4, dtype=torch.bool)
    targets = (torch.rand(4, 1, 4, 4) > 0.5).float()
    for parts in (1, 2):
        torch.manual_seed(0)
        model, parameters = torch.nn.Conv2d(3, 1, 1), UNetParameters(accumulate=parts)
        wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
        step = optimisation.build_step(wrapped, optimizer, loss_of, fabric, parameters)
        for batch in zip(images.chunk(parts), targets.chunk(parts), scored.chunk(parts), strict=True):
            step(*batch, parts)
        gradients.append(model.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def together(batches):
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(pets, monkeypatch):
    losses = iter([1.0] * 7 + [math.nan] * 30)  # 5 steps and 1 of validation an epoch
    monkeypatch.setattr(training, "build_loss", lambda name: lambda logits, target, scored: logits.mean() * 0 + next(losses))
    sentence = (
        r"the loss is not finite in epoch 2 from step 2 of 5 on, at learning rate 0\.\d+, with the images \w+, \w+, \w+, \w+; "
        "the weights from before it are kept"
    )
    with pytest.raises(training.TrainingError, match=sentence):
        train(pets, "runs/t/nan", device="cpu")  # where Python's part is played at each step
    run = runs.Run(runs.workspace() / "runs/t/nan")
    assert list(run.history["epoch"]) == [1]
    assert all(tensor.isfinite().all() for tensor in load_file(run.folder / "model.safetensors").values())


def test_a_validation_loss_that_is_not_finite_is_no_best_epoch(pets, monkeypatch):
    losses = iter([1.0] * 6 + [1.0] * 5 + [math.nan])  # 5 steps and 1 of validation an epoch: the last step broke the weights
    monkeypatch.setattr(training, "build_loss", lambda name: lambda logits, target, scored: logits.mean() * 0 + next(losses))
    with pytest.raises(
        training.TrainingError, match=r"the validation loss is not finite in epoch 2, at learning rate 0\.\d+; the weights"
    ):
        train(pets, "runs/t/nan", device="cpu")
    assert list(runs.Run(runs.workspace() / "runs/t/nan").history["epoch"]) == [1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
        ),
    ],
)
def test_too_little_memory_names_what_to_lower(pets, monkeypatch, error):
    def full(*given):
        raise error

    monkeypatch.setattr(training, "_train_epoch", full)
    sentence = (
        r"does not hold a step of epoch 1: lower batch_size \(4 now\) and raise accumulate \(1 now\) .* image_size \(32 now\)"
    )
    with pytest.raises(training.TrainingError, match=sentence) as caught:
        train(pets, "runs/t/memory")
    assert "begins anew" not in str(caught.value)
    monkeypatch.setattr(training, "_measure", full)  # as in the first epoch at full size
    monkeypatch.setattr(training, "_resume", lambda *given: training.Progress(epoch=1))
    with pytest.raises(
        training.TrainingError,
        match=r"of epoch 2: .* image_size \(32 now\), either of which begins anew \(force = True; --force, FORCE=1\)",
    ):
        train(pets, "runs/t/memory")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("CUDA out of memory")])
def test_an_attempt_that_ended_leaves_its_memory_and_its_workers_to_the_next(pets, monkeypatch, error):
    """A notebook's kernel keeps its last error, and with it all that the functions it went through held."""
    held, processes, others = [], [], multiprocessing.active_children()

    def ends(*given):
        activations = torch.zeros(1)
        held.append(weakref.ref(activations))
        processes.extend(multiprocessing.active_children())
        raise error

    monkeypatch.setattr(training, "_train_epoch", ends)
    with pytest.raises((KeyboardInterrupt, training.TrainingError)) as caught:
        train(pets, "runs/t/ended", loader_workers=2)
    assert caught.value.__context__ is error and held[0]() is None
    assert len(processes) == len(others) + 2 and multiprocessing.active_children() == others


def test_a_gpu_tries_a_step_at_full_size_before_the_epochs_at_half_size(pets, monkeypatch):
    """Which end the training otherwise when most of it is done; and nothing is left of that step."""
    settings = {"half_size_share": 0.5, "image_size": 64, "ema_decay": 0.9}
    plain, _ = train(pets, "runs/t/plain", **settings)
    monkeypatch.setattr(training, "GPUS", ("cpu",))
    tried, _ = train(pets, "runs/t/tried", **settings)
    assert (tried.folder / "model.safetensors").read_bytes() == (plain.folder / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(training, "_one_step_at_full_size", None)
        train(pets, "runs/t/never at full size", **settings | {"half_size_share": 0.9})
    build = build_model("unet", **UNetParameters.checked(SMALL).model_settings())
    forward = type(build).forward

    def full(self, image):
        if image.shape[-1] == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, image)

    monkeypatch.setattr(type(build), "forward", full)
    with pytest.raises(training.TrainingError, match=r"does not hold a step of epoch 2: .* image_size \(64 now\)$"):
        train(pets, "runs/t/small", **settings)
    assert not (runs.workspace() / "runs/t/small/history.csv").exists()


def test_the_step_that_a_gpu_tries_is_no_larger_than_the_steps_of_the_training(pets, monkeypatch):
    """Of fewer photographs than a batch holds."""
    tried, step = [], training._one_step_at_full_size
    monkeypatch.setattr(training, "GPUS", ("cpu",))
    monkeypatch.setattr(training, "_one_step_at_full_size", lambda *given: tried.append(given[3:]) or step(*given))
    train(pets, "runs/t/few", half_size_share=0.5, image_size=64, batch_size=500)
    assert tried == [(18, 64)]


def test_recordings_at_half_size_are_let_go_of_before_the_steps_at_full_size(pets, monkeypatch):
    class Followed(graphs.Recorded):
        def __call__(self, *arguments):
            calls.append(len(arguments[0]))
            return self.work(*arguments)

        def forget(self):
            calls.append("forgotten")

    calls, build_step = [], training.build_step
    monkeypatch.setattr(training, "build_step", lambda *given: Followed(build_step(*given)))
    train(pets, "runs/t/recorded", half_size_share=0.5, image_size=64)
    assert calls == [4, 4, 4, 4, 2, "forgotten"] * 2  # the last time at the end


def test_another_error_of_a_step_is_not_taken_for_too_little_memory(pets, monkeypatch):
    def broken(*given):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(training, "_train_epoch", broken)
    with pytest.raises(RuntimeError, match=r"^size mismatch$"):
        train(pets, "runs/t/broken")


class AppleTensor(torch.Tensor):
    """Refuses float64, as tensors on Apple's GPUs do, until it is copied to the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), settings=None):
        result = super().__torch_function__(function, types, arguments, settings or {})
        if function is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


def test_an_epochs_means_need_no_float64_on_the_device():
    losses, counts = [torch.tensor(3.0), torch.tensor(1.0)], [torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.tensor([[0, 1, 1]])]
    found = training._means(*([each.as_subclass(AppleTensor) for each in given] for given in (losses, counts)))
    assert found == pytest.approx((4 / 3, (2 / 3 + 1 + 0) / 3))


def test_a_run_that_does_not_stand_is_one_sentence():
    with pytest.raises(runs.RunError, match=r"runs/t/nothing has no metrics\.json"):
        _ = runs.find_run("runs/t/nothing", runs.Run(runs.workspace() / "runs/t/x")).metrics


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "there" / "file"
    path.parent.mkdir()
    disk.write_atomically(path, b"old")
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        disk.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX's")
def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_loads(pets):
    """In a process whose files may not pass a size that the weights fit into, and the whole state does not."""
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/full", stop_after=1)
    run = open_small("runs/t/full")
    size, state = ((run.folder / name).stat().st_size for name in ("model.safetensors", "resume/state.pt"))
    weights = (run.folder / "model.safetensors").read_bytes()
    code = (
        "import resource, signal; from pathlib import Path; from petseg_lib import checkpoints; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"folder = Path({str(run.folder)!r}); state = checkpoints.load_state(folder / 'resume' / 'state.pt'); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({(size + state) // 2}, {state})); "
        "checkpoints.save_state(folder / 'resume' / 'state.pt', state)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DiskError: runs/t/full/resume/state.pt needs 0.1 MB, but could not be written (File too large; " in ended.stderr
    assert ended.stderr.strip().endswith("make room and run the same command again; what was written before still stands")
    assert checkpoints.load_state(run.folder / "resume" / "state.pt")["progress"]["epoch"] == 1
    assert (run.folder / "model.safetensors").read_bytes() == weights
    assert checkpoints.load_model(run.folder / "model.safetensors")[1]["model"] == "unet"


def test_the_first_share_of_epochs_is_trained_at_half_size(pets, monkeypatch):
    sizes = []
    measured = training.count
    for module in (optimisation, training):  # trained on, and validated
        monkeypatch.setattr(module, "count", lambda *masks: sizes.append(masks[0].shape[-1]) or measured(*masks))
    train(pets, "runs/t/half", image_size=65, epochs=4, half_size_share=0.5)
    assert [sizes[0], sizes[-1]] == [32, 65]
    per_epoch = len(sizes) // 4
    halved = [size for epoch in range(2) for size in sizes[epoch * per_epoch : (epoch + 1) * per_epoch]]
    assert set(halved) == {32, 65} and set(sizes[2 * per_epoch :]) == {65}  # it is always validated at full size


def test_a_halved_batch_keeps_its_masks_masks():
    image, target = torch.rand(2, 3, 33, 33), (torch.rand(2, 1, 33, 33) > 0.5).float()
    batch = halved_batch(Batch(image, target, torch.rand(2, 1, 33, 33) > 0.1, torch.arange(2)))
    assert {tuple(part.shape[-2:]) for part in batch[:3]} == {(16, 16)}
    assert set(batch.target.unique().tolist()) == {0.0, 1.0} and batch.scored.dtype == torch.bool
    torch.testing.assert_close(batch.image[0, 0, 0, 0], image[0, 0, :2, :2].mean())


def test_a_cropped_batch_is_one_square_of_all_images_with_its_masks():
    ramp = torch.arange(65.0)
    image = torch.stack([ramp.expand(65, 65), ramp.expand(65, 65).T, ramp + ramp[:, None]]).expand(2, 3, 65, 65)
    target, scored = (image[:, :1] >= 33).float(), image[:, 1:2] < 21
    sides, starts, ends = [], set(), set()
    for number in range(200):
        batch = cropped_batch(Batch(image, target, scored, torch.arange(2)), 0, 1, number)
        assert {tuple(part.shape[-2:]) for part in batch[:3]} == {(32, 32)} and batch.scored.dtype == torch.bool
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        first, second = batch.image
        assert torch.equal(first, second)
        (left, right), (top, bottom) = first[0, 0, [0, -1]].tolist(), first[1, [0, -1], 0].tolist()
        assert bottom - top == pytest.approx(right - left, abs=1e-3)
        sides.append(round((right - left) * 32 / 31))
        starts.add((round(left), round(top)))
        ends |= {right, bottom}
        clear = (first[0] - 32.5).abs() > 1e-3  # the nearest pixel is the bilinear place rounded
        assert torch.equal(batch.target[0, 0][clear], (first[0] > 32.5).float()[clear])
        clear = (first[1] - 20.5).abs() > 1e-3
        assert torch.equal(batch.scored[0, 0][clear], (first[1] < 20.5)[clear])
    assert set(sides) == set(range(32, 66)) and len(starts) > 100
    assert any(left != top for left, top in starts) and max(ends) > 63.5  # the last start of a square smaller than the whole
    again = cropped_batch(Batch(image, target, scored, torch.arange(2)), 0, 1, 199)
    assert torch.equal(again.image, batch.image)


@pytest.mark.parametrize(
    ("share", "epochs", "halved"), [(0.28, 25, 7), (0.55, 100, 55), (0.85, 480, 408), (0.5, 3, 2), (0.1, 4, 1), (0, 4, 0)]
)
def test_so_many_epochs_are_at_half_size(share, epochs, halved):
    parameters = UNetParameters.checked({"image_size": 64, "half_size_share": share, "epochs": epochs})
    assert [bool(half_size(parameters, epoch)) for epoch in range(1, epochs + 1)] == [True] * halved + [False] * (epochs - halved)


def test_half_size_epochs_train_on_crops_that_are_a_function_of_seed_and_epoch(pets, monkeypatch):
    drawn = []
    cropped = loaders.cropped_batch
    monkeypatch.setattr(loaders, "cropped_batch", lambda batch, *seed: drawn.append(seed) or cropped(batch, *seed))
    train(pets, "runs/t/crops", image_size=64, epochs=3, half_size_share=0.5, half_size_crop=True, seed=7)
    batches = len(drawn) // 2  # 1.5 of 3 epochs are the first two
    assert batches > 0
    assert drawn == [(7, epoch, number) for epoch in (1, 2) for number in range(batches)]


def test_averaged_weights_move_by_the_decay_and_faster_at_first():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    averaged = optimisation.MovingAverage(model, decay=0.5)
    expected = None
    for step, value in enumerate((4.0, 2.0, 6.0, 1.0, 3.0, 5.0, 7.0, 9.0, 2.0, 8.0, 4.0)):
        with torch.no_grad():
            model[0].weight.fill_(value)
            model[1].num_batches_tracked += 1
        averaged.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert averaged.module[0].weight.item() == pytest.approx(expected, rel=1e-5)
        assert averaged.module[1].num_batches_tracked == step + 1
    again = optimisation.MovingAverage(model, decay=0.5)
    again.load_state_dict(averaged.state_dict())
    averaged.update()
    again.update()
    assert torch.equal(again.module[0].weight, averaged.module[0].weight) and again.n_averaged == 12


def test_another_notebook_does_not_take_a_trainings_folder(pets):
    run = runs.open_run(UNetParameters.checked(SMALL | {"run_dir": "runs/t/taken"}), "03_unet_training")
    (run.folder / "model.safetensors").touch()
    run.finish({"done": True})
    others = {"04_resnet34_unet_training": ResNet34UNetParameters, "05_comparison": ComparisonParameters}
    for name, model in others.items():
        parameters = model(run_dir="runs/t/taken")
        refused = f"runs/t/taken holds a training of notebook 03_unet_training, which {name} would write over: choose another run"
        with pytest.raises(runs.RunError, match=refused):
            runs.open_run(parameters, name)
        with pytest.raises(runs.RunError, match=refused):
            runs.is_finished(run, parameters)
    assert run.complete and (run.folder / "model.safetensors").exists()
    runs.open_run(ResNet34UNetParameters(run_dir="runs/t/taken", force=True), "04_resnet34_unet_training")
    assert run.notebook == "04_resnet34_unet_training" and not (run.folder / "model.safetensors").exists()


def test_an_interrupted_run_goes_on_with_its_own_photographs_alone(pets):
    """A folder that has grown since has more steps an epoch than the schedule was made for, and another mean."""
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/grown", epochs=3, stop_after=1)
    fewer = PetDataset(pets.root, pets.split("train")[:-1] + pets.split("valid"))
    sentence = (
        r"runs/t/grown was begun with other photographs \(\d+ to train, \d+ to validate\) than there are now \(\d+ to train"
    )
    for _ in range(2):  # interrupted, then finished
        with pytest.raises(runs.RunError, match=sentence):
            train(fewer, "runs/t/grown", epochs=3)
        run, history = train(pets, "runs/t/grown", epochs=3)
        assert len(history) == 3
        run.finish({})
    assert len(train(fewer, "runs/t/grown", epochs=2, force=True)[1]) == 2


def test_masks_that_were_mended_are_not_taken_for_those_a_training_was_begun_with(tmp_path, capsys):
    """The names of the photographs are as before, and so is every shape: only the files say it."""
    folder = shutil.copytree(draw_pets(tmp_path / "drawn", 40), tmp_path / "pets")
    drawn = load_pets(folder)
    with pytest.raises(KeyboardInterrupt):
        train(drawn, "runs/t/mended", epochs=3, stop_after=1)
    begun = dict(runs.Run(workspace() / "runs/t/mended").provenance["photographs"])
    mask = drawn.trimap_path(drawn.split("valid")[0])
    before = mask.read_bytes()
    with Image.open(mask) as image:
        trimap = np.array(image)
    trimap[:9] = 1
    Image.fromarray(trimap).save(mask)
    with pytest.raises(runs.RunError, match=r"mended was begun with other photographs or masks to validate, of the same names: "):
        train(drawn, "runs/t/mended", epochs=3)
    mask.write_bytes(before)  # at another time, which is nothing
    run, history = train(drawn, "runs/t/mended", epochs=3)
    run.finish({})
    parameters = UNetParameters.checked(SMALL | {"epochs": 3, "data": str(folder), "run_dir": "runs/t/mended"})
    assert len(history) == 3 and run.provenance["photographs"] == begun and not trained_on.changed_since(run, parameters)
    capsys.readouterr()
    with Image.open(photograph := drawn.photograph_path(drawn.split("train")[0])) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photograph)
    assert trained_on.changed_since(run, parameters)
    assert len(train(drawn, "runs/t/mended", epochs=3)[1]) == 3
    assert "Photographs or masks to train have changed since these weights were trained." in capsys.readouterr().out
    run.record(photographs={name: of[:2] for name, of in begun.items()})  # as versions before wrote it
    assert not trained_on.changed_since(run, parameters)
    shutil.rmtree(folder)
    assert not trained_on.changed_since(run, parameters)


def test_one_folder_of_data_may_be_named_in_several_ways(pets, monkeypatch):
    train(pets, "runs/t/named", data="some/pets")[0].finish({})
    whole = runs.workspace() / "some" / "pets"
    assert train(pets, "runs/t/named", data=str(whole))[0].complete
    with pytest.raises(runs.RunError, match="data is 'other/pets' and was 'some/pets'"):
        train(pets, "runs/t/named", data="other/pets")


def test_a_dataset_that_is_not_there_costs_no_training(pets):
    run, _ = train(pets, "runs/t/safe", epochs=1)
    run.finish({"done": True})
    with pytest.raises(DatasetError, match=r"the data folder .*nowhere does not exist"):
        open_small("runs/t/safe", data="nowhere", force=True)
    with pytest.raises(DatasetError, match=r"parameter train_images is 999, but the train split has \d+"):
        open_small("runs/t/safe", data=str(pets.root), train_images=999, force=True)
    assert run.complete and (run.folder / "model.safetensors").exists()


def test_a_damaged_photograph_costs_no_training_unless_it_is_to_be_left_out(pets, tmp_path):
    root = shutil.copytree(pets.root, tmp_path / "damaged")
    next((root / "images").iterdir()).write_bytes(b"")
    run, _ = train(pets, "runs/t/damaged", epochs=1)
    with pytest.raises(DatasetError, match="1 of 40 pets cannot be used"):
        open_small("runs/t/damaged", data=str(root), force=True)
    assert (run.folder / "model.safetensors").exists()
    open_small("runs/t/damaged", data=str(root), force=True, bad_samples="skip")
    assert not (run.folder / "model.safetensors").exists()


def test_a_finished_run_that_names_no_photographs_is_not_said_to_be_of_those_there_are_now(pets):
    run, _ = train(pets, "runs/t/nameless", epochs=1)
    run.finish({})
    record = run.provenance
    del record["photographs"]  # as an older version left it
    disk.write_json(run.folder / "params.json", record)
    again, _ = train(pets, "runs/t/nameless", epochs=1)
    assert again.complete and again.provenance == record


def test_normalisation_is_that_of_these_photographs_and_stays(pets, tmp_path):
    def own(run_dir: str, **settings) -> tuple:
        parameters = UNetParameters.checked(SMALL | {"run_dir": run_dir, "data": str(pets.root)} | settings)
        return normalisation.mean_and_std(parameters, runs.open_run(parameters, "03_unet_training"), pets)

    def measure(run_dir: str, data: str, split: str) -> ChannelStatistics:
        saved = runs.open_run(MeanStdParameters(run_dir=run_dir, data=data), "02_mean_std")
        stats = channel_statistics([pets.photograph_path(pet) for pet in pets.split(split)])
        save_statistics(stats, saved.folder / "stats.json")
        saved.finish({})
        return stats

    of_train = channel_statistics([pets.photograph_path(pet) for pet in pets.split("train")])
    of_test = measure("runs/t/mean_std", "demo", "test")  # other photographs, as the run says
    mean, std, source = own("runs/t/first")
    assert (mean, std) == (of_train.pixel_mean, of_train.pixel_std) and source.startswith("computed now from the train split")
    assert own("runs/t/chosen", statistics_run="runs/t/mean_std")[0] == of_train.pixel_mean, (
        "a folder beside is meant by its name"
    )
    measure("runs/elsewhere/mean_std", "demo", "test")
    assert own("runs/t/named", statistics_run="runs/elsewhere/mean_std")[0] == of_test.pixel_mean

    stats = measure("runs/t/mean_std", str(pets.root), "test")
    run, _ = train(pets, "runs/t/begun", epochs=1, data=str(pets.root), normalisation="dataset")
    begun = own("runs/t/begun", epochs=1)
    assert begun == (stats.pixel_mean, stats.pixel_std, "from runs/t/mean_std")
    run.finish({})
    measure("runs/t/mean_std", str(pets.root), "valid")
    assert own("runs/t/begun", epochs=1) == begun != own("runs/t/new")


def test_a_colour_that_is_everywhere_the_same_is_not_divided_by(pets, monkeypatch):
    statistics = channel_statistics([pets.photograph_path(pet) for pet in pets.split("train")])
    flat = dataclasses.replace(statistics, pixel_std=(*statistics.pixel_std[:2], 0.0))
    monkeypatch.setattr(normalisation, "channel_statistics", lambda *arguments, **settings: flat)
    parameters = UNetParameters.checked(SMALL | {"run_dir": "runs/t/no_blue", "data": str(pets.root)})
    run = runs.open_run(parameters, "03_unet_training")
    with pytest.raises(ReadableError, match=r"^blue has the same value in every pixel .* set normalisation to imagenet$"):
        normalisation.mean_and_std(parameters, run, pets)


def test_an_interrupt_while_an_epoch_is_copied_leaves_no_mixture(pets, monkeypatch):
    """Of the second epoch's weights some are copied over the first's: the run goes on from its last file, here none."""
    copied, copies = checkpoints.copied, []

    def interrupted(state, into=None):
        if isinstance(state, dict) and "progress" in state:
            copies.append(state)
            if len(copies) == 2:
                copied(dict(list(state["model"].items())[:3]), into["model"])
                raise KeyboardInterrupt
        return copied(state, into)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "copied", interrupted)
        patch.setattr(checkpoints, "EXPECTED_BYTES_A_SECOND", 1)  # so that nothing of the first epoch is written yet
        train(pets, "runs/t/mixed", epochs=4)
    assert len(copies) == 2
    assert not (workspace() / "runs" / "t" / "mixed" / "resume" / "state.pt").exists()
    _, history = train(pets, "runs/t/mixed", epochs=4)
    _, whole = train(pets, "runs/t/whole", epochs=4)
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), whole.drop(columns="seconds"))


def test_the_scale_of_float16_is_gone_on_with(pets, monkeypatch):
    """A stand-in for a GPU's scaler, which a CPU does not need: what it has learnt is kept with an epoch's state."""

    loaded: list[int] = []
    monkeypatch.setattr(Precision, "state_dict", lambda self: {"scale": 7})
    monkeypatch.setattr(Precision, "load_state_dict", lambda self, state: loaded.append(state["scale"]))
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/scale", stop_after=1, precision="32-true")
    assert not loaded
    train(pets, "runs/t/scale", precision="32-true")
    assert loaded == [7]


def test_a_run_that_goes_on_in_other_arithmetic_says_so(pets, monkeypatch, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(pets, "runs/t/arithmetic", stop_after=1, precision="32-true")
    state = checkpoints.load_state(workspace() / "runs/t/arithmetic/resume/state.pt")
    assert state["progress"]["precision"] == "32-true"
    monkeypatch.setattr(Precision, "state_dict", lambda self: {"scale": 7})
    monkeypatch.setattr(Precision, "precision", "16-mixed")
    monkeypatch.setattr(Precision, "load_state_dict", None)  # a scale that was never kept is not loaded
    _, history = train(pets, "runs/t/arithmetic", precision="32-true")
    assert len(history) == 2 and "begun in 32-true and goes on in 16-mixed" in capsys.readouterr().out


@pytest.mark.parametrize("pixels_a_pass", [1, 10**9])
def test_a_loss_is_pooled_over_each_batch_however_many_go_together(pets, monkeypatch, pixels_a_pass):
    """Batches of 3, 3, ... and fewer: Dice in the loss is of a batch, and the mean weighs each by its images. Borders do not count."""
    monkeypatch.setattr(training, "PIXELS_A_PASS", pixels_a_pass)
    parameters = UNetParameters.checked(SMALL | {"loss": "bce_dice", "batch_size": 3, "border_policy": "ignore"})
    fabric = training.start(parameters)
    cache = open_cache(pets, pets.split("train")[:8], parameters.image_size)
    loader = build_loader(cache, parameters, (0.5,) * 3, (0.25,) * 3, train=False)
    model = build_model(parameters.model, **parameters.model_settings())
    loss_of = build_loss("bce_dice")
    (loss, dice), (batch, logits) = training._measure(model, loader, loss_of, fabric)
    losses, scores = [], []
    with torch.no_grad():
        for each in loader:
            predicted = model.eval()(each.image)
            losses += [loss_of(predicted, each.target, each.scored).item()] * len(each.image)
            assert not each.scored.all()
            for mask, target in zip((predicted > 0) & each.scored, each.target.bool(), strict=True):
                scores.append((2 * (mask & target).sum() / (mask.sum() + target.sum())).item())
    assert len(losses) == 8 and loss == pytest.approx(sum(losses) / 8, rel=1e-5)
    assert dice == pytest.approx(sum(scores) / 8, rel=1e-5)
    assert len(batch.image) == len(logits) == 3
