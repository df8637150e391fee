"""The index, its errors, and the reading of untidy files."""

import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petseg_lib.config import ReadableError
from petseg_lib.data import pets, statistics, synthetic
from petseg_lib.data.pets import dataset_folder, describe, draw_train, load_pets, open_dataset
from petseg_lib.data.pictures import DatasetError, read_photograph, read_trimap
from petseg_lib.words import some


def test_splits_come_from_the_list_files(tiny_dataset):
    dataset = load_pets(tiny_dataset(trainval=23, test=9))
    trainval = dataset.split("trainval")
    assert [pet.name for pet in dataset.split("valid")] == [trainval[line].name for line in (0, 10, 20)]
    assert {split: len(dataset.split(split)) for split in ("train", "valid", "trainval", "test")} == {
        "train": 20,
        "valid": 3,
        "trainval": 23,
        "test": 9,
    }
    assert len({pet.name for pet in dataset.pets}) == 32
    assert "Bengal_1000" not in {pet.name for pet in dataset.pets}, "it stands in no list"


def test_breed_and_species(tiny_dataset):
    by_name = {pet.name: pet for pet in load_pets(tiny_dataset()).pets}
    assert (by_name["american_bulldog_2"].breed, by_name["american_bulldog_2"].species) == ("american_bulldog", "dog")
    assert (by_name["Bengal_1"].breed, by_name["Bengal_1"].species) == ("Bengal", "cat")


def test_both_nestings_give_the_same(tiny_dataset, tmp_path):
    flat = load_pets(tiny_dataset())
    nested = tmp_path / "nested" / "oxford-iiit-pet"
    shutil.copytree(flat.root, nested)
    assert load_pets(tmp_path / "nested").pets == flat.pets == load_pets(nested).pets
    assert load_pets(tmp_path / "nested").photograph_path(flat.pets[0]).is_file()


def test_limit_images_takes_evenly_spaced_of_each_split(tiny_dataset):
    root = tiny_dataset(trainval=23, test=9)
    everything, few = load_pets(root), load_pets(root, limit_images=4)
    train, test = everything.split("train"), everything.split("test")
    assert few.split("train") == tuple(train[index] for index in (0, 5, 10, 15))
    assert few.split("test") == tuple(test[index] for index in (0, 2, 4, 6))
    more = load_pets(root, limit_images=7)
    assert more.split("test") == tuple(test[index] for index in (0, 1, 2, 3, 5, 6, 7)), "to its end"
    assert few.split("valid") == everything.split("valid"), "a split with fewer images is kept whole"
    assert load_pets(root, limit_images=100).pets == everything.pets


def test_missing_folders_are_named(tmp_path, tiny_dataset):
    with pytest.raises(DatasetError, match=r"^the data folder .*nowhere does not exist$"):
        load_pets(tmp_path / "nowhere")
    root = tiny_dataset()
    shutil.rmtree(root / "images")
    (root / "annotations" / "test.txt").unlink()
    with pytest.raises(DatasetError, match=r"not in the Oxford-IIIT layout: it lacks images, annotations/test.txt"):
        load_pets(root)


@pytest.mark.parametrize(("file", "split"), [("trainval.txt", "train"), ("test.txt", "test")])
def test_an_empty_split_is_named(tiny_dataset, file, split):
    root = tiny_dataset()
    (root / "annotations" / file).write_text("# nothing\n")
    with pytest.raises(DatasetError, match=f"the split '{split}' of .* is empty"):
        load_pets(root)


def test_missing_files_give_one_error_with_counts_and_the_first_names(tiny_dataset):
    root = tiny_dataset(trainval=23, test=9)
    for number in range(3, 12):
        next((root / "images").glob(f"*_{number}.jpg")).unlink()
    (root / "annotations" / "trimaps" / "Bengal_1.png").unlink()
    with pytest.raises(DatasetError) as error:
        load_pets(root)
    sentence = str(error.value)
    assert "9 of 32 listed photographs are missing: Abyssinian_3.jpg, Bengal_4.jpg" in sentence
    assert "and 4 more; 1 of 32 listed trimaps are missing: Bengal_1.png" in sentence


def test_five_are_all_named_and_of_more_the_rest_is_counted():
    assert [some(range(count)) for count in (2, 5, 6)] == ["0, 1", "0, 1, 2, 3, 4", "0, 1, 2, 3, 4 and 1 more"]


def test_names_stand_once(tiny_dataset):
    root = tiny_dataset()
    trainval, test = root / "annotations" / "trainval.txt", root / "annotations" / "test.txt"
    original = test.read_text()
    test.write_text(original + "Abyssinian_0 1 1 1\n")
    with pytest.raises(DatasetError, match=r"1 names stand in both trainval.txt and test.txt: Abyssinian_0"):
        load_pets(root)
    test.write_text(original)
    trainval.write_text(trainval.read_text() + "Bengal_1 1 1 1\nAbyssinian_0 1 1 1\n")
    with pytest.raises(DatasetError, match=r"2 names stand more than once in trainval.txt: Abyssinian_0, Bengal_1"):
        load_pets(root)


@pytest.mark.parametrize("line", ["Bengal_1", "Bengal_1 1 3 1", "Bengal_1 1 cat 1"])
def test_a_line_that_cannot_be_read_is_quoted(tiny_dataset, line):
    root = tiny_dataset()
    (root / "annotations" / "test.txt").write_text(line)
    with pytest.raises(DatasetError, match=f"test.txt has the line '{line}', but a line must be NAME CLASS SPECIES"):
        load_pets(root)


@pytest.mark.parametrize("name", ["../x", "..\\x", "x\0"])
def test_a_name_leads_to_no_other_folder_on_any_system(tiny_dataset, name):
    root = tiny_dataset()
    (root / "annotations" / "test.txt").write_text(f"{name} 1 1 1\n")
    with pytest.raises(DatasetError, match=r"test\.txt has the line"):
        load_pets(root)


def test_an_unknown_split_is_refused(tiny_dataset):
    with pytest.raises(DatasetError, match="there is no split 'validation': it must be train, valid, trainval or test"):
        load_pets(tiny_dataset()).split("validation")


def test_a_notebook_shows_the_sentence_alone():
    assert DatasetError("what is wrong")._render_traceback_() == ["DatasetError: what is wrong"]


def test_untidy_photographs_are_read_as_rgb(tiny_dataset):
    dataset = load_pets(tiny_dataset())
    kinds = []
    for pet in dataset.pets[:5]:
        with Image.open(dataset.photograph_path(pet)) as image:
            kinds.append((image.format, image.mode))
        pixels = read_photograph(dataset.photograph_path(pet))
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*read_trimap(dataset.trimap_path(pet)).shape, 3)
    assert kinds == [("GIF", "P"), ("PNG", "RGBA"), ("JPEG", "CMYK"), ("JPEG", "L"), ("JPEG", "RGB")]
    red_pet = read_photograph(dataset.photograph_path(dataset.pets[2]))[15:25, 20:25].mean((0, 1))
    assert red_pet[0] > red_pet[1] + 80, "the CMYK photograph keeps its colours"


def test_a_transparent_palette_is_read_without_a_warning(tmp_path):
    palette = Image.fromarray(np.eye(40, dtype=np.uint8), "P")
    palette.putpalette([9, 9, 9, 200, 30, 30])
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_photograph(tmp_path / "a.png")[:2, 0].tolist() == [[200, 30, 30], [9, 9, 9]]


def test_photographs_are_not_rotated_by_their_tags(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show": the trimaps fit the pixels as stored
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_photograph(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_damaged_files_are_named(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(1, 4, (50, 50), dtype=np.uint8)).save(whole)
    half = tmp_path / "half.png"
    half.write_bytes(whole.read_bytes()[:300])
    for read in (read_photograph, read_trimap):
        with pytest.raises(DatasetError, match=r"half.png is damaged"):
            read(half)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(DatasetError, match=r"text.jpg cannot be opened"):
        read_photograph(tmp_path / "text.jpg")


def test_trimaps_hold_nothing_but_1_2_3(tmp_path):
    Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DatasetError, match=r"mask.png has the values 0, 255, but only 1, 2 and 3 are allowed"):
        read_trimap(tmp_path / "mask.png")
    Image.new("RGB", (4, 4), (1, 1, 1)).save(tmp_path / "colour.png")
    Image.fromarray(np.array([[1, 2], [3, 4]], dtype=np.uint8)).save(tmp_path / "four.png")
    with pytest.raises(DatasetError, match=r"four.png has the values 1, 2, 3, 4, but only 1, 2 and 3 are allowed"):
        read_trimap(tmp_path / "four.png")
    with pytest.raises(DatasetError, match=r"colour.png has 3 channels, but a trimap has one"):
        read_trimap(tmp_path / "colour.png")


def test_a_part_of_the_train_split_is_drawn_by_the_seed_and_holds_every_smaller_part(tiny_dataset):
    dataset = load_pets(tiny_dataset())
    few, more, others = (draw_train(dataset, *given) for given in ((5, 0), (9, 0), (9, 1)))
    assert [len(each.split("train")) for each in (few, more, others)] == [5, 9, 9]
    assert set(few.split("train")) < set(more.split("train")) < set(dataset.split("train"))
    assert set(more.split("train")) != set(others.split("train"))
    assert list(more.pets) == [pet for pet in dataset.pets if pet in more.pets], "the order of the lists stays"
    assert all(more.split(split) == dataset.split(split) for split in ("valid", "test"))
    assert draw_train(dataset, 0, 0) == draw_train(dataset, len(dataset.split("train")), 0) == dataset
    with pytest.raises(DatasetError, match=r"train_images is 999, but the train split has \d+ \(0 = all\)"):
        draw_train(dataset, 999, 0)


def test_describe_has_a_row_a_pet(tiny_dataset):
    dataset = load_pets(tiny_dataset())
    table = describe(dataset)
    assert list(table.columns) == ["name", "breed", "species", "split", "width", "height"]
    assert list(table["name"]) == [pet.name for pet in dataset.pets]
    assert (table.loc[7, "height"], table.loc[7, "width"]) == read_trimap(dataset.trimap_path(dataset.pets[7])).shape


def test_a_relative_folder_is_sought_here_and_then_in_the_workspace(tiny_dataset, temporary_workspace, monkeypatch):
    root = tiny_dataset()
    monkeypatch.chdir(root.parent)
    assert len(open_dataset("pets").pets) == 32
    monkeypatch.chdir(root / "images")
    with pytest.raises(DatasetError, match="does not exist"):
        open_dataset("pets")
    shutil.move(root / "annotations", temporary_workspace / "pets" / "annotations")
    shutil.copytree(root / "images", temporary_workspace / "pets" / "images")
    assert len(open_dataset("pets", limit_images=2).pets) == 6


def test_the_demo_is_drawn_once_even_by_two_at_once(temporary_workspace, monkeypatch):
    monkeypatch.setattr(pets, "DEMO_COUNT", 20)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(open_dataset, ["demo", "demo"])
    monkeypatch.setattr(synthetic, "draw_pets", None)
    assert first == second == open_dataset("demo")
    assert len(first.pets) == 20
    assert [path.name for path in (temporary_workspace / "data").iterdir()] == ["demo"], "nothing is left over"


def test_the_real_photographs(real_data: Path):
    dataset = load_pets(real_data)
    assert (len(dataset.split("trainval")), len(dataset.split("test"))) == (300, 298)
    assert not {pet.name for pet in dataset.split("trainval")} & {pet.name for pet in dataset.split("test")}
    assert (len(dataset.split("train")), len(dataset.split("valid"))) == (270, 30)
    assert {pet.breed: pet.species for pet in dataset.pets} == {
        "Abyssinian": "cat",
        "american_bulldog": "dog",
        "Bengal": "cat",
    }


def test_the_real_trimaps(real_data: Path):
    dataset = load_pets(real_data)
    listed = statistics.trimap_shares(dataset)
    assert len(listed) == 598
    assert np.allclose(listed[["pet", "background", "border"]].sum(axis=1), 1)
    unlisted = [real_data / "annotations" / "trimaps" / f"Abyssinian_{number}.png" for number in (34, 82)]
    extra = [read_trimap(path) for path in unlisted]
    foreground = [*(1 - listed["background"]), *((trimap != 2).mean() for trimap in extra)]
    border = [*listed["border"], *((trimap == 3).mean() for trimap in extra)]
    assert np.mean(foreground) == pytest.approx(0.4054, abs=5e-5)
    assert np.mean(border) == pytest.approx(0.1256, abs=5e-5)


def test_a_breed_in_words_is_the_lists_and_a_number_the_names(tiny_dataset):
    root = tiny_dataset()
    path = root / "annotations" / "test.txt"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    names = [line.split()[0] for line in lines[:3]]
    path.write_text("\n".join([f"{names[0]} 1 1 Siamese", f"{names[1]} 1 1 7", f"{names[2]} 1 1", *lines[3:]]) + "\n")
    breeds = {pet.name: pet.breed for pet in load_pets(root).pets}
    assert [breeds[name] for name in names] == ["Siamese", *(name.rpartition("_")[0] for name in names[1:])]


def test_a_name_without_an_underscore_is_a_breed_where_the_list_names_none(tmp_path):
    (tmp_path / "test.txt").write_text("Rex 1 2 7\n")
    assert pets.read_list(tmp_path / "test.txt", "test") == ([pets.Pet("Rex", "Rex", "dog", "test")], [])


def test_a_list_that_cannot_be_read_is_not_called_another_text(tiny_dataset, monkeypatch):
    root = tiny_dataset()

    def refused(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(DatasetError, match=r"txt cannot be read: Permission denied"):
        load_pets(root)


@pytest.mark.skipif(os.name == "nt", reason="homes of users by ~NAME")
def test_a_home_of_nobody_is_told_in_words():
    with pytest.raises(ReadableError, match="~nosuchuser/pets cannot be found: there is no such user"):
        dataset_folder("~nosuchuser/pets")
