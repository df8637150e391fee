"""The cache: right pixels, reopened, made anew when it must be, safe for several at once, and nothing left behind."""

import errno
import os
import pickle
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petseg_lib.data import cache as cache_module
from petseg_lib.data.cache import content_of, open_cache, resize_photograph
from petseg_lib.data.masks import resize_trimap
from petseg_lib.data.pets import load_pets
from petseg_lib.data.pictures import DatasetError, read_photograph, read_trimap


@pytest.fixture
def dataset(tiny_dataset):
    return load_pets(tiny_dataset())


def never(*arguments):
    raise AssertionError("the cache was built once more")


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_rows_are_the_resized_files(dataset):
    pets = dataset.split("test")
    cache = open_cache(dataset, pets, 33)
    assert cache.images.shape == (9, 33, 33, 3) and cache.trimaps.shape == (9, 33, 33)
    assert cache.images.dtype == cache.trimaps.dtype == np.uint8
    assert len(cache) == 9 and cache.names == tuple(pet.name for pet in pets)
    for row, pet in enumerate(pets):
        photograph = resize_photograph(read_photograph(dataset.photograph_path(pet)), 33)
        assert np.array_equal(cache.images[row], photograph)
        assert np.array_equal(cache.trimaps[row], resize_trimap(read_trimap(dataset.trimap_path(pet)), 33))
    for array in (cache.images, cache.trimaps):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_shrinking_averages_areas_and_growing_is_linear():
    checkers = np.indices((80, 60)).sum(0)[..., None].repeat(3, axis=2) % 2 * 200
    assert set(np.unique(resize_photograph(checkers.astype(np.uint8), 20))) == {100}
    stripes = np.tile(np.array([0, 200], dtype=np.uint8)[None, :, None], (10, 40, 3))  # 10 high, 80 wide
    assert set(np.unique(resize_photograph(stripes, 20))) == {100}, "one axis shrinks, the other grows"
    ramp = np.arange(0, 80, 8, dtype=np.uint8)[None, :, None].repeat(10, axis=0).repeat(3, axis=2)
    grown = resize_photograph(ramp, 40)
    assert grown.shape == (40, 40, 3) and np.abs(np.diff(grown[20, :, 0].astype(int))).max() <= 2


def test_it_is_reopened_and_not_built_again(dataset, temporary_workspace, monkeypatch):
    first = open_cache(dataset, dataset.pets, 32)
    assert first.folder.parent == temporary_workspace / "runs" / "cache"
    monkeypatch.setattr(cache_module, "_build", never)
    again = open_cache(dataset, dataset.pets, 32)
    assert again.folder == first.folder and np.array_equal(again.images, first.images)
    assert again.names == first.names


def test_it_is_made_anew_when_anything_changes(dataset, tmp_path):
    pets = dataset.split("test")
    folders = {open_cache(dataset, pets, 32, tmp_path / "cache").folder}
    folders.add(open_cache(dataset, pets, 40, tmp_path / "cache").folder)
    folders.add(open_cache(dataset, pets[1:], 32, tmp_path / "cache").folder)
    folders.add(open_cache(dataset, pets[::-1], 32, tmp_path / "cache").folder)
    photograph = dataset.photograph_path(pets[2])
    Image.new("RGB", Image.open(photograph).size, (1, 2, 3)).save(photograph, format="PNG")
    changed = open_cache(dataset, pets, 32, tmp_path / "cache")
    assert changed.images[2].reshape(-1, 3).tolist() == [[1, 2, 3]] * 1024
    folders.add(changed.folder)
    os.utime(dataset.trimap_path(pets[0]), ns=(1, 1))
    folders.add(open_cache(dataset, pets, 32, tmp_path / "cache").folder)
    assert len(folders) == 6


def test_it_is_made_anew_for_a_file_of_another_size_but_the_same_time_and_for_another_format(dataset, tmp_path, monkeypatch):
    pets = dataset.split("test")
    folders, trimap = {open_cache(dataset, pets, 32, tmp_path).folder}, dataset.trimap_path(pets[0])
    time_ns = trimap.stat().st_mtime_ns
    trimap.write_bytes(trimap.read_bytes() + b"more")
    os.utime(trimap, ns=(time_ns, time_ns))
    folders.add(open_cache(dataset, pets, 32, tmp_path).folder)
    monkeypatch.setattr(cache_module, "FORMAT_VERSION", 99)
    folders.add(open_cache(dataset, pets, 32, tmp_path).folder)
    assert len(folders) == 3


def test_content_is_that_of_the_files_and_not_of_their_times_or_size(dataset, tmp_path):
    pets = dataset.split("test")
    first = open_cache(dataset, pets, 32, tmp_path).content
    os.utime(dataset.photograph_path(pets[0]), ns=(1, 1))
    assert (
        {open_cache(dataset, pets, size, tmp_path).content for size in (32, 48)} == {first, content_of(dataset, pets)} == {first}
    )
    dataset.trimap_path(pets[0]).write_bytes(dataset.trimap_path(pets[0]).read_bytes() + b"more")
    assert open_cache(dataset, pets, 32, tmp_path).content == content_of(dataset, pets) != first
    dataset.trimap_path(pets[0]).unlink()
    with pytest.raises(DatasetError, match=rf"{pets[0].name}.png cannot be read: No such file"):
        content_of(dataset, pets)


def test_nothing_is_written_into_the_data_folder(dataset, temporary_workspace):
    before = files_below(dataset.root)
    cache = open_cache(dataset, dataset.pets, 32)
    assert files_below(dataset.root) == before
    assert sorted((temporary_workspace / "runs" / "cache").iterdir()) == [cache.folder.parent / ".lock", cache.folder]


def test_a_failed_build_leaves_nothing(dataset, tmp_path):
    pet = dataset.pets[5]
    Image.new("L", (3, 3), 1).save(dataset.trimap_path(pet))
    with pytest.raises(DatasetError, match=rf"the trimap of {pet.name} has 3 x 3 px, but its photograph \d+ x \d+"):
        open_cache(dataset, dataset.pets, 32, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_threads_may_build_it_at_once(dataset, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: open_cache(dataset, dataset.pets, 32, tmp_path / "cache"), range(4)))
    assert sorted((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / ".lock", caches[0].folder]
    assert all(np.array_equal(cache.images, caches[0].images) for cache in caches)


def sum_of_cache(root: Path, folder: Path) -> int:
    dataset = load_pets(root)
    return int(open_cache(dataset, dataset.pets, 64, folder).images.sum(dtype=np.int64))


def test_processes_may_build_it_at_once(dataset, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        sums = list(pool.map(sum_of_cache, [dataset.root] * 2, [tmp_path / "cache"] * 2))
    assert sums[0] == sums[1] == sum_of_cache(dataset.root, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("64px-*"))) == 1


def test_a_worker_gets_the_place_and_not_the_pixels(dataset):
    cache = open_cache(dataset, dataset.pets, 64)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 2000 < cache.images.nbytes
    copy = pickle.loads(pickled)
    assert copy.names == cache.names and np.array_equal(copy.trimaps, cache.trimaps)


def test_a_full_disk_is_told_before(dataset, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(DatasetError, match=r"the cache needs 0.0 GB in .*cache, but only 0.0 GB are free"):
        open_cache(dataset, dataset.pets, 32)


def test_the_room_of_photographs_and_trimaps_is_enough_and_a_byte_less_is_not(dataset, monkeypatch):
    needed = len(dataset.pets) * 32 * 32 * 4  # three colours and the trimap
    for free in (needed - 1, needed):
        monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder, free=free: type("Usage", (), {"free": free}))
        with nullcontext() if free == needed else pytest.raises(DatasetError, match="the cache needs"):
            open_cache(dataset, dataset.pets, 32)


def test_who_waited_for_a_build_takes_its_cache(dataset, tmp_path, monkeypatch):
    builds = []
    build = cache_module._build
    monkeypatch.setattr(cache_module, "_build", lambda *arguments: (builds.append(1), build(*arguments)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_cache(dataset, dataset.pets, 32, tmp_path / "cache"), range(4)))
    assert len(builds) == 1


def test_what_a_killed_build_left_goes_with_a_later_one_and_a_build_under_way_stays(dataset, tmp_path):
    """Under way on another machine, which the lock does not keep out."""
    for hours, name in ((25, "left"), (23, "under_way")):
        building = tmp_path / "cache" / f".building-{name}" / "cache"
        building.mkdir(parents=True)
        (building / "images.npy").touch()
        os.utime(building.parent, (time.time() - hours * 3600,) * 2)
    cache = open_cache(dataset, dataset.pets, 32, tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".building-under_way", ".lock", cache.folder.name]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only Linux reserves room")
def test_a_disk_that_others_fill_meanwhile_is_told_in_words(dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DatasetError, match=r"the cache needs 0.0 GB in .*, but only \d"):
        open_cache(dataset, dataset.pets, 32, tmp_path / "cache")
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "not here")))
    assert len(open_cache(dataset, dataset.pets, 32, tmp_path / "cache")) == len(dataset.pets)


def test_a_caches_room_is_taken_before_it_is_filled(dataset, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(os, "posix_fallocate", lambda file, start, size: taken.append((start, size)), raising=False)
    count = len(dataset.pets)
    open_cache(dataset, dataset.pets, 32, tmp_path / "cache")
    assert [start for start, _ in taken] == [0, 0]
    assert [size - 128 for _, size in taken] == [count * 32 * 32 * 3, count * 32 * 32]  # 128: npy's header
