"""Work that is recorded as a CUDA graph: when it is recorded, and, where there is a GPU, that it stays the same work."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from petseg_lib import graphs, optimisation, training
from petseg_lib.config import ResNet34UNetParameters, UNetParameters
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
    with graphs.released(recorded):
        for size in (8, 8, 3, 8, 3):
            recorded(torch.zeros(size))
    recorded(torch.zeros(8))
    assert done.pop() == ("done", 8), "what was recorded is gone"
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
    assert draws[0] == draws[1] == draws[3] != draws[2] and draws[1][0] != draws[1][1]


def batches(sizes: list[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Image, target and scored on the GPU."""
    draw = torch.Generator().manual_seed(1)
    for size in sizes:
        image = torch.randn(size, 3, 64, 64, generator=draw).cuda().contiguous(memory_format=torch.channels_last)
        target = (image.mean(1, keepdim=True) > 0).float()
        yield image, target, torch.rand(size, 1, 64, 64, generator=draw).cuda() > 0.1


@needs_gpu
@pytest.mark.parametrize("parameters_of", [UNetParameters, ResNet34UNetParameters])
def test_recorded_steps_leave_the_gradients_of_steps_that_python_starts(parameters_of, monkeypatch):
    """From the same weights each time. Batches of another size come between, as an epoch's last one does."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    parameters = parameters_of(precision="32-true", width=8, dropout=0.0)
    fabric = training.start(parameters)
    models, optimizers, ways = [], [], []
    for _ in range(2):
        model = build_model(parameters.model, **parameters.model_settings())
        model = model.to(fabric.device, memory_format=torch.channels_last)
        wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
        ways.append(optimisation.build_step(wrapped, optimizer, training.build_loss(parameters.loss), fabric, parameters))
        models.append(model)
        optimizers.append(optimizer)
    (ours, theirs), step, eager = models, ways[0], ways[1].work
    for batch in batches([4, 4, 4, 3, 4, 3, 4, 3, 4]):
        ours.load_state_dict(theirs.state_dict())
        loss, counts = (each.clone() for each in step(*batch))
        expected_loss, expected_counts = eager(*batch)
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-3)
        assert (counts - expected_counts).abs().sum() <= 0.005 * batch[0].shape[0] * 64 * 64
        of_all = torch.stack([each.grad.norm() for each in theirs.parameters()]).norm()
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert (mine.grad - other.grad).norm() <= 0.02 * other.grad.norm() + 1e-3 * of_all, name
        for (name, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4, msg=name)
        optimizers[1].step()


@needs_gpu
def test_recorded_steps_of_muon_are_those_that_python_starts():
    ends = []
    for cuda_graphs in (True, False):
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 16, 3)]
        model = torch.nn.Sequential(*layers).cuda()
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        parameters = UNetParameters(optimizer="muon", precision="32-true", learning_rate=0.01, cuda_graphs=cuda_graphs)
        optimizer = optimisation.build_optimizer(model, parameters)
        for _ in range(6):
            for weight in model.parameters():
                weight.grad = torch.randn(weight.shape).cuda()
            optimizer.step()
            assert all(weight.grad is not None for weight in model.parameters())
        ends.append({name: weight.detach() - before[name] for name, weight in model.named_parameters()})
    for name, moved in ends[0].items():
        assert (moved - ends[1][name]).norm() < 0.02 * ends[1][name].norm(), name


@needs_gpu
def test_what_needs_python_at_each_step_is_not_recorded():
    model = build_model("unet", width=4, depth=2).cuda()
    for settings in ({"precision": "16-mixed"}, {"accumulate": 2}, {"cuda_graphs": False}):
        parameters = UNetParameters(**settings)
        fabric = training.start(parameters)
        wrapped, optimizer = fabric.setup(model, optimisation.build_optimizer(model, parameters))
        step = optimisation.build_step(wrapped, optimizer, training.build_loss("bce"), fabric, parameters)
        assert not isinstance(step, graphs.Recorded)
