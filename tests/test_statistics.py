"""Mean and standard deviation: exact, in any order, and the known facts of the real photographs."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from petseg_lib.data.pets import load_pets
from petseg_lib.data.pictures import DatasetError, read_photograph, read_trimap
from petseg_lib.data.statistics import ChannelStatistics, channel_statistics, load_statistics, save_statistics, trimap_shares


@pytest.fixture
def paths(tiny_dataset):
    dataset = load_pets(tiny_dataset())
    return [dataset.photograph_path(pet) for pet in dataset.pets]


def test_exact_against_float64_over_all_pixels(paths):
    stats = channel_statistics(paths)
    photographs = [read_photograph(path).reshape(-1, 3) / 255 for path in paths]
    pixels = np.concatenate(photographs)
    image_mean = np.mean([photograph.mean(axis=0) for photograph in photographs], axis=0)
    assert (stats.images, stats.pixels) == (len(paths), len(pixels))
    np.testing.assert_allclose(stats.pixel_mean, pixels.mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(stats.pixel_std, pixels.std(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(stats.image_mean, image_mean, rtol=0, atol=1e-12)
    about = np.sqrt(((pixels - image_mean) ** 2).mean(axis=0))
    np.testing.assert_allclose(stats.image_std, about, rtol=0, atol=1e-12)
    assert max(np.abs(np.subtract(stats.pixel_mean, stats.image_mean))) > 1e-5, "the two definitions differ here"


def test_order_does_not_change_a_bit(paths):
    shuffled = [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]
    assert channel_statistics(shuffled) == channel_statistics(paths)


def test_one_colour_has_no_deviation(tmp_path):
    from PIL import Image

    Image.new("RGB", (301, 207), (255, 0, 51)).save(tmp_path / "flat.png")
    stats = channel_statistics([tmp_path / "flat.png"])
    assert stats.pixel_mean == stats.image_mean == (1.0, 0.0, 0.2)
    assert stats.pixel_std == stats.image_std == (0.0, 0.0, 0.0)


def test_no_photograph_and_a_damaged_one(paths):
    with pytest.raises(DatasetError, match="need one photograph or more"):
        channel_statistics([])
    paths[4].write_bytes(b"")
    with pytest.raises(DatasetError, match=paths[4].name):
        channel_statistics(paths)


def test_saved_and_loaded(paths, tmp_path):
    stats = channel_statistics(paths)
    save_statistics(stats, tmp_path / "stats.json")
    assert load_statistics(tmp_path / "stats.json") == stats
    assert [path.name for path in tmp_path.glob("*stats*")] == ["stats.json"]
    save_statistics(replace(stats, images=1), tmp_path / "stats.json")
    assert load_statistics(tmp_path / "stats.json").images == 1


def test_what_cannot_be_loaded(tmp_path):
    path = tmp_path / "stats.json"
    with pytest.raises(DatasetError, match=r"stats.json do not exist: run notebook 02"):
        load_statistics(path)
    path.write_text("{")
    with pytest.raises(DatasetError, match="are not JSON"):
        load_statistics(path)
    names = [field.name for field in fields(ChannelStatistics)]
    for others in (["images"], [*names, "median"]):
        path.write_text(json.dumps(dict.fromkeys(others, 3)))
        with pytest.raises(DatasetError, match="must hold exactly images, pixels, pixel_mean"):
            load_statistics(path)


@pytest.mark.parametrize(
    ("split", "pixel_mean", "pixel_std", "image_mean"),
    [
        ("trainval", (0.4870, 0.4322, 0.3743), (0.2655, 0.2584, 0.2658), (0.4809, 0.4398, 0.3825)),
        ("train", (0.4870, 0.4286, 0.3703), (0.2675, 0.2599, 0.2671), (0.4795, 0.4371, 0.3811)),
    ],
)
def test_the_real_photographs(real_data, split, pixel_mean, pixel_std, image_mean):
    dataset = load_pets(real_data)
    stats = channel_statistics([dataset.photograph_path(pet) for pet in dataset.split(split)])
    # Decoders of JPEG may differ by a level here and there: 1e-4 is half a digit more than the facts are given with.
    np.testing.assert_allclose(stats.pixel_mean, pixel_mean, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stats.pixel_std, pixel_std, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stats.image_mean, image_mean, rtol=0, atol=1e-4)


def test_shares_are_those_of_each_trimap(pets):
    listed = trimap_shares(pets).set_index("name")
    for pet in pets.pets[:5]:
        trimap = read_trimap(pets.trimap_path(pet))
        shares = [(trimap == value).mean() for value in (1, 2, 3)]
        assert listed.loc[pet.name, ["pet", "background", "border"]].tolist() == pytest.approx(shares) and len(set(shares)) == 3
