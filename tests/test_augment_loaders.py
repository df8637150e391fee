"""Augmentation keeps image and trimap together; batches are whole, right, and the same for the same seed."""

import os
import signal
import sys
import warnings
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from petseg_lib.config import ParameterError, UNetParameters
from petseg_lib.data import loaders
from petseg_lib.data.augment import build_augmentation, cutmix, reseed
from petseg_lib.data.cache import open_cache
from petseg_lib.data.loaders import build_loader, normalise, set_epoch
from petseg_lib.data.pets import load_pets

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
STRONG = {"affine_probability": 1.0, "shift": 0.2, "rotate": 40.0, "scale_min": 0.6, "scale_max": 1.6}
STILL = {"flip_probability": 0.0, "affine_probability": 0.0, "colour": 0.0}


def parameters(**changes) -> UNetParameters:
    return UNetParameters(**{"image_size": 32, "batch_size": 4} | changes)


@pytest.fixture
def dataset(tiny_dataset):
    return load_pets(tiny_dataset())


@pytest.fixture
def cache(dataset):
    return open_cache(dataset, dataset.split("train"), 32)


def draws(loader, epoch: int) -> dict[int, bytes]:
    """The pixels and targets that each row of the cache became in an epoch."""
    set_epoch(loader, epoch)
    return {
        int(row): image.numpy().tobytes() + target.numpy().tobytes()
        for batch in loader
        for row, image, target in zip(batch.index, batch.image, batch.target, strict=True)
    }


def order(loader, epoch: int) -> list[int]:
    set_epoch(loader, epoch)
    return torch.cat([batch.index for batch in loader]).tolist()


def telling_picture() -> tuple[np.ndarray, np.ndarray]:
    """A picture whose trimap can be read from its pixels: 200 where there is a pet, 100 where not, 0 never."""
    trimap = np.full((96, 96), 2, dtype=np.uint8)
    trimap[20:50, 30:75] = 1
    trimap[60:85, 15:40] = 1
    return np.where(trimap == 1, 200, 100).astype(np.uint8)[..., None].repeat(3, axis=2), trimap


def test_image_and_trimap_move_alike():
    image, trimap = telling_picture()
    augmentation = build_augmentation(parameters(colour=0.0, **STRONG), 0)
    for draw in range(30):
        reseed(augmentation, draw)
        changed = augmentation(image=image, mask=trimap)
        pixels, mask = changed["image"][..., 0], changed["mask"]
        assert changed["image"].dtype == mask.dtype == np.uint8 and set(np.unique(mask)) <= {1, 2}
        assert not np.array_equal(mask, trimap)
        # Linear against nearest interpolation may disagree on the outlines, but on nothing else.
        assert ((pixels > 150) == (mask == 1)).mean() > 0.99
        assert (mask[pixels < 50] == 2).all(), "what comes in from outside is background"


def test_a_border_stays_a_border():
    trimap = np.random.default_rng(0).choice(np.array([1, 3], dtype=np.uint8), (64, 64))
    augmentation = build_augmentation(parameters(**STRONG | {"shift": 0.0, "scale_min": 1.0, "rotate": 0.0}), 0)
    for _ in range(20):
        changed = augmentation(image=np.zeros((64, 64, 3), dtype=np.uint8), mask=trimap)
        assert set(np.unique(changed["mask"])) == {1, 3}, "zooming in makes no class 2 between 1 and 3"


def test_the_changes_stay_within_their_ranges():
    image, trimap = telling_picture()
    shifts = {"shift": 0.25, "rotate": 0.0, "scale_min": 1.0, "scale_max": 1.0, "flip_probability": 0.0, "colour": 0.0}
    augmentation = build_augmentation(parameters(**STRONG | shifts), 0)
    centre = np.argwhere(trimap == 1).mean(axis=0)
    moved = []
    trimap[:24] = trimap[-24:] = trimap[:, :24] = trimap[:, -24:] = 2  # so that nothing leaves the frame
    centre = np.argwhere(trimap == 1).mean(axis=0)
    for _ in range(100):
        moved.append(np.argwhere(augmentation(image=image, mask=trimap)["mask"] == 1).mean(axis=0) - centre)
    assert np.abs(moved).max() <= 0.25 * 96 + 1 and np.abs(moved).max() > 0.2 * 96


def test_flip_and_affine_are_drawn_apart():
    """Reseeded for each image, changes with streams of their own would all do the same, or nothing."""
    image = np.tile(np.arange(96, dtype=np.uint8)[None, :, None], (96, 1, 3))
    once = parameters(flip_probability=0.5, affine_probability=0.5, colour=0.0)
    augmentation = build_augmentation(once, 0)
    seen = []
    for draw in range(400):
        reseed(augmentation, 0, 0, draw)
        changed = augmentation(image=image, mask=image[..., 0])["image"][..., 0]
        flipped = changed[48, 30] > changed[48, 65]
        moved = not np.array_equal(changed[:, ::-1] if flipped else changed, image[..., 0])
        seen.append((bool(flipped), moved))
    shares = [seen.count(both) / 400 for both in ((False, False), (False, True), (True, False), (True, True))]
    assert min(shares) > 0.18 and max(shares) < 0.32, shares


@pytest.mark.parametrize("changes", [{}, STILL, STRONG, {"colour": 1.0, "scale_max": 4.0, "rotate": 180.0}])
def test_no_argument_is_misspelt(changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation = build_augmentation(parameters(**changes), 0)
        image, trimap = telling_picture()
        changed = augmentation(image=image, mask=trimap)
    assert changed["image"].shape == (96, 96, 3)


def test_cutmix_takes_rectangles_of_the_next_image_and_its_trimap():
    number = np.arange(8, dtype=np.uint8)
    images, trimaps = (np.tile(number.reshape(-1, *(1,) * len(shape)), (1, *shape)) for shape in ((32, 32, 3), (32, 32)))
    shares = []
    for seed in range(200):
        mixed, mixed_trimaps = images.copy(), trimaps.copy()
        cutmix(mixed, mixed_trimaps, 0.5, 7, seed)
        assert (mixed == mixed_trimaps[..., None]).all()
        for position in range(8):
            taken = mixed_trimaps[position] != position
            assert set(mixed_trimaps[position][taken].tolist()) <= {(position + 1) % 8}
            rows, columns = (np.flatnonzero(taken.any(axis)) for axis in (1, 0))
            if taken.any():  # a rectangle without gaps
                assert taken.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            shares.append(taken.mean())
    assert np.mean(np.array(shares) > 0) == pytest.approx(0.5, abs=0.05)
    assert 0.25 < np.mean([share for share in shares if share > 0]) < 0.4  # half of the area on average, less what lies outside


def test_cutmix_asks_for_another_image_in_the_batch():
    with pytest.raises(ParameterError, match=r"cutmix is 0\.5, but it needs a batch_size of 2 or more"):
        UNetParameters.checked({"cutmix": 0.5, "batch_size": 1})


def test_cutmix_is_for_training_and_drawn_anew_each_epoch(cache):
    mixed, plain = (build_loader(cache, parameters(**STILL, cutmix=share), MEAN, STD, train=True) for share in (1.0, 0.0))
    assert draws(mixed, 1) != draws(plain, 1)
    assert draws(mixed, 1) == draws(mixed, 1) != draws(mixed, 2)
    measured, still = (build_loader(cache, parameters(**STILL, cutmix=share), MEAN, STD, train=False) for share in (1.0, 0.0))
    assert draws(measured, 1) == draws(still, 1)


def test_cutmix_is_drawn_anew_for_each_batch(cache):
    mixed, plain = (build_loader(cache, parameters(**STILL, cutmix=share), MEAN, STD, train=True) for share in (1.0, 0.0))
    taken = [(batch.image[0] != still.image[0]).any(dim=0).numpy() for batch, still in zip(mixed, plain, strict=True)]
    assert len({tuple(places.any(axis=1)) for places in taken}) == len(taken) > 1


def test_without_changes_nothing_changes():
    image, trimap = telling_picture()
    augmentation = build_augmentation(parameters(**STILL), 0)
    changed = augmentation(image=image, mask=trimap)
    assert np.array_equal(changed["image"], image) and np.array_equal(changed["mask"], trimap)


def test_every_epoch_draws_anew_and_a_seed_draws_the_same(cache):
    loader = build_loader(cache, parameters(), MEAN, STD, train=True, workers=2)
    first, second = draws(loader, 0), draws(loader, 1)
    assert sorted(first) == sorted(second) == list(range(20))
    repeated = [row for row in first if first[row] == second[row]]
    assert not repeated
    assert len(set(first.values())) == 20
    again = build_loader(cache, parameters(), MEAN, STD, train=True, workers=2)
    assert draws(again, 1) == second, "one seed, one epoch: the same draws, whatever came before"
    other = draws(build_loader(cache, parameters(seed=1), MEAN, STD, train=True, workers=0), 0)
    assert not [row for row in other if other[row] == first[row]], "another seed, other draws"


def test_the_draws_do_not_depend_on_workers_or_batches(cache):
    with_none = build_loader(cache, parameters(), MEAN, STD, train=True, workers=0)
    with_two = build_loader(cache, parameters(), MEAN, STD, train=True, workers=2)
    assert draws(with_none, 3) == draws(with_two, 3)
    assert order(with_none, 3) == order(with_two, 3) != order(with_none, 4)
    assert draws(build_loader(cache, parameters(batch_size=7), MEAN, STD, train=True), 3) == draws(with_none, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_pass_may_go_over_several_epochs(cache, workers):
    loader = build_loader(cache, parameters(), MEAN, STD, train=True, workers=workers)
    set_epoch(loader, 3, last=5)
    batches = [(batch.index.tolist(), batch.image) for batch in loader]
    expected = []
    for epoch in (3, 4, 5):
        set_epoch(loader, epoch)
        expected += [(batch.index.tolist(), batch.image) for batch in loader]
    assert [rows for rows, _ in batches] == [rows for rows, _ in expected] and len(batches) == 3 * len(loader)
    assert all(torch.equal(image, other) for (_, image), (_, other) in zip(batches, expected, strict=True))


def test_workers_that_an_interrupt_ended_are_started_anew(cache):
    """A notebook's kernel and its worker processes are interrupted together."""
    loader = build_loader(cache, parameters(), MEAN, STD, train=True, workers=2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and hand that down
    try:
        batches = iter(loader)
        next(batches)
    finally:
        signal.signal(signal.SIGINT, before)
    for worker in batches._workers:
        os.kill(worker.pid, signal.SIGINT)
        worker.join(60)
        assert worker.exitcode is not None
    assert len(order(loader, 1)) == 20


def test_workers_suit_the_device_and_the_memory_that_they_share(monkeypatch):
    monkeypatch.setattr(loaders, "usable_cores", lambda: 6)
    monkeypatch.setattr(loaders.sys, "platform", "linux")
    free = 2**30
    monkeypatch.setattr(loaders.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(loaders, "finds_cuda", lambda: False)
    assert loaders.worker_count(parameters(batch_size=8)) == 0
    assert loaders.worker_count(parameters(loader_workers=3, batch_size=8)) == 3
    monkeypatch.setattr(loaders, "finds_cuda", lambda: True)
    monkeypatch.setattr(loaders, "SHARED_MEMORY", Path())
    monkeypatch.delenv(loaders.RUNS_AT_ONCE, raising=False)
    assert loaders.worker_count(parameters(batch_size=8)) == 6
    assert loaders.worker_count(parameters(device="cpu", batch_size=8)) == 0
    free = 64 * 2**20  # a container's usual room: not enough for even one worker's batches of 8 images of 512 px
    assert loaders.worker_count(parameters(image_size=512, batch_size=8)) == 0
    assert loaders.worker_count(parameters(image_size=256, batch_size=8)) == 2
    monkeypatch.setenv(loaders.RUNS_AT_ONCE, "2")  # the other has the other half of the cores, and of the memory
    assert (loaders.worker_count(parameters(batch_size=8)), loaders.worker_count(parameters(image_size=256, batch_size=8))) == (
        3,
        1,
    )
    monkeypatch.setattr(loaders.sys, "platform", "win32")
    assert loaders.worker_count(parameters(batch_size=8)) == 0


def test_a_run_on_the_cpu_opens_no_gpu(cache, monkeypatch):
    """To pin batches makes a context there, and fails where the GPU is another's."""
    monkeypatch.setattr(loaders, "finds_cuda", lambda: True)
    pinned = {
        device: build_loader(cache, parameters(device=device), MEAN, STD, train=False).pin_memory for device in ("cpu", "auto")
    }
    assert pinned == {"cpu": False, "auto": True}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python's own way is right")
def test_workers_are_forked_on_linux_whatever_python_does_by_itself(cache):
    loader = build_loader(cache, parameters(), MEAN, STD, train=True, workers=2)
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert build_loader(cache, parameters(), MEAN, STD, train=True, workers=0).multiprocessing_context is None


def test_workers_may_be_spawned(cache):
    """As on Windows and macOS, where a worker starts from nothing but what is pickled."""
    loader = build_loader(cache, parameters(), MEAN, STD, train=True, workers=1)
    loader.multiprocessing_context = get_context("spawn")
    assert draws(loader, 2) == draws(build_loader(cache, parameters(), MEAN, STD, train=True, workers=0), 2)


def test_loading_leaves_the_global_generators_alone(cache):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    np_before = np.random.get_state()[1].copy()  # noqa: NPY002
    for _ in build_loader(cache, parameters(), MEAN, STD, train=True):
        pass
    assert torch.equal(torch.get_rng_state(), before), "dropout would differ in a resumed run"
    assert np.array_equal(np.random.get_state()[1], np_before)  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 2])
def test_measuring_sees_every_image_once_in_order_and_unchanged(cache, workers):
    loader = build_loader(cache, parameters(batch_size=3), MEAN, STD, train=False, workers=workers)
    batches = list(loader)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(20))
    assert len(loader) == len(batches) == 7
    pixels = torch.cat([batch.image for batch in batches]).permute(0, 2, 3, 1).numpy()
    expected = (cache.images / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_shapes_and_types(cache):
    batch = next(iter(build_loader(cache, parameters(border_policy="ignore"), MEAN, STD, train=True)))
    assert batch.image.shape == (4, 3, 32, 32) and batch.image.dtype == torch.float32
    assert batch.target.shape == (4, 1, 32, 32) and batch.target.dtype == torch.float32
    assert batch.scored.shape == (4, 1, 32, 32) and batch.scored.dtype == torch.bool
    assert batch.index.shape == (4,) and batch.index.dtype == torch.int64
    assert set(batch.target.unique().tolist()) == {0.0, 1.0} and not batch.scored.all()
    assert not batch.target[~batch.scored].any()


def test_targets_follow_the_policy(cache):
    for policy, values in (("pet", (1, 3)), ("background", (1,)), ("edge", (3,)), ("ignore", (1,))):
        loader = build_loader(cache, parameters(border_policy=policy), MEAN, STD, train=False)
        target = torch.cat([batch.target for batch in loader])[:, 0].numpy()
        assert np.array_equal(target == 1, np.isin(cache.trimaps, values))


def test_normalised_by_their_own_statistics_batches_have_mean_0_and_std_1(cache):
    pixels = cache.images.reshape(-1, 3) / 255
    mean, std = tuple(pixels.mean(axis=0)), tuple(pixels.std(axis=0))
    images = torch.cat([batch.image for batch in build_loader(cache, parameters(), mean, std, train=False)])
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    assert torch.equal(images, normalise(cache.images, mean, std))


@pytest.mark.parametrize(("images", "batch_size", "sizes"), [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1] * 3)])
def test_training_leaves_out_only_a_last_batch_of_one(dataset, images, batch_size, sizes):
    cache = open_cache(dataset, dataset.split("train")[:images], 32)
    loader = build_loader(cache, parameters(batch_size=batch_size), MEAN, STD, train=True)
    assert [len(batch.index) for batch in loader] == sizes and len(loader) == len(sizes)
    rows = [order(loader, epoch) for epoch in range(2)]
    assert all(len(set(found)) == len(found) for found in rows)
    whole = build_loader(cache, parameters(batch_size=batch_size), MEAN, STD, train=False)
    assert order(whole, 0) == list(range(images)), "measuring leaves out nothing"


def test_fabric_does_not_change_the_epoch(cache):
    """Fabric calls `set_epoch` of samplers with its own count; a resumed run needs ours."""
    from lightning_fabric import Fabric

    plain = build_loader(cache, parameters(), MEAN, STD, train=True)
    wrapped = Fabric(accelerator="cpu", devices=1).setup_dataloaders(build_loader(cache, parameters(), MEAN, STD, train=True))
    list(wrapped)
    assert order(wrapped, 5) == order(plain, 5) and draws(wrapped, 5) == draws(plain, 5)
