"""Work that is recorded as a CUDA graph: when it is recorded, and, where there is a GPU, that it stays the same work."""

from contextlib import nullcontext

import pytest
import torch

from petseg_lib import graphs, optimisation, training
from petseg_lib.config import ResNet34UNetParameters, UNetParameters
from petseg_lib.data.loaders import Batch
from petseg_lib.models import build_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")


def test_work_is_done_once_before_it_is_recorded_for_each_shape(monkeypatch):
    done = []

    class Recording:
        pool = None

        def __init__(self, work, arguments, first):
            done.append(("recorded", *arguments[0].shape))

        def replay(self, arguments):
            done.append(("replayed", *arguments[0].shape))

    monkeypatch.setattr(graphs, "_Recording", Recording)
    recorded = graphs.Recorded(lambda tensor: done.append(("done", *tensor.shape)))
    for size in (8, 8, 3, 8, 3):
        recorded(torch.zeros(size))
    assert done == [("done", 8), ("recorded", 8), ("replayed", 8), ("done", 3), ("replayed", 8), ("recorded", 3), ("replayed", 3)]


def test_work_that_cannot_be_recorded_is_one_sentence_that_says_what_to_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *given, **settings: nullcontext())

    def waits(tensor):
        if len(calls) > 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recorded, calls = graphs.Recorded(waits), [1]
    recorded(torch.zeros(1))
    calls.append(2)
    sentence = r"cannot be recorded as a CUDA graph \(operation not permitted when stream is capturing\): set cuda_graphs = False"
    with pytest.raises(graphs.RecordingError, match=sentence):
        recorded(torch.zeros(1))


@needs_gpu
def test_a_replay_takes_new_arguments_and_changes_what_the_work_changes():
    total = torch.zeros(4, device="cuda")

    def work(first, second):
        total.add_(first)
        return first * second, second + 1

    recorded = graphs.Recorded(work)
    for number in range(1, 6):
        product, more = recorded(torch.full((4,), float(number), device="cuda"), torch.full((4,), 2.0, device="cuda"))
        assert product.tolist() == [2.0 * number] * 4 and more.tolist() == [3.0] * 4
    assert total.tolist() == [15.0] * 4


@needs_gpu
def test_recorded_dropout_draws_anew_and_as_the_seed_says():
    recorded = graphs.Recorded(lambda ones: (torch.nn.functional.dropout(ones, 0.5),))
    ones, draws = torch.ones(64, device="cuda"), []
    for seed in (0, 0, 1, 0):
        torch.manual_seed(seed)
        draws.append([recorded(ones)[0].tolist() for _ in range(2)])
    assert draws[1] == draws[3] != draws[2] and draws[1][0] != draws[1][1]


def steps(parameters, recorded: bool, sizes: list[int]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of some steps on batches of those sizes, and the averaged weights after them."""
    fabric = training.start(parameters)
    settings = parameters.model_settings() | {"dropout": 0.0}
    model = build_model(parameters.model, **settings).to(fabric.device, memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
    schedule = optimisation.build_schedule(optimizer, parameters, len(sizes))
    averaged = optimisation.MovingAverage(model, 0.5)
    step = training.build_step(wrapped, optimizer, training.build_loss(parameters.loss), fabric, parameters)
    if not recorded:
        step = step.work
        if parameters.optimizer == "muon":
            optimizer.optimizer._updates = optimizer.optimizer._updates.work
    draw = torch.Generator().manual_seed(1)
    batches = []
    for size in sizes:
        image = torch.randn(size, 3, 64, 64, generator=draw)
        target = (image.mean(1, keepdim=True) > 0).float()
        batches.append(Batch(image, target, torch.ones_like(target, dtype=torch.bool), torch.arange(size)))
    losses, counts, _ = training._train_epoch(step, batches, optimizer, schedule, fabric, averaged, parameters)
    assert [len(each) for each in counts] == sizes
    assert all((each.sum(1) > 0).all() for each in counts)
    return [loss.item() for loss in losses], averaged.module.state_dict()


@needs_gpu
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("parameters_of", [UNetParameters, ResNet34UNetParameters])
def test_recorded_steps_are_those_that_python_starts(parameters_of, optimizer):
    """Batches of another size come between, as an epoch's last one does."""
    parameters = parameters_of(optimizer=optimizer, precision="32-true", width=8, learning_rate=1e-3)
    sizes = [4, 4, 4, 3, 4, 3, 4, 3, 4, 4]
    losses, weights = steps(parameters, True, sizes)
    expected_losses, expected = steps(parameters, False, sizes)
    assert losses == pytest.approx(expected_losses, rel=0.02)
    assert losses[-1] < losses[0]
    for name in (name for name in weights if weights[name].ndim > 1):  # Adam makes a whole step of a bias' gradient near 0
        value = weights[name]
        distance = (value.double() - expected[name].double()).norm() / (expected[name].double().norm() + 1e-3)
        assert distance < 0.05, name


@needs_gpu
def test_what_needs_python_at_each_step_is_not_recorded():
    model = build_model("unet", width=4, depth=2).cuda()
    for settings in ({"precision": "16-mixed"}, {"accumulate": 2}, {"cuda_graphs": False}):
        parameters = UNetParameters(**settings)
        fabric = training.start(parameters)
        wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
        step = training.build_step(wrapped, optimizer, training.build_loss("bce"), fabric, parameters)
        assert not isinstance(step, graphs.Recorded)
