"""A dataset of one's own photographs and masks: what is read, what is written, and what is refused."""

import os
import sys
import unicodedata
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from petseg_lib.cli import main
from petseg_lib.config import ReadableError
from petseg_lib.data.check import check_folder
from petseg_lib.data.own import _name, _trimap_of, from_masks
from petseg_lib.data.pets import load_pets
from petseg_lib.data.pictures import DatasetError, read_photograph, read_trimap

SHAPE = (30, 20)
PET = np.zeros(SHAPE, bool)
PET[5:15, 3:9] = True  # not the same when turned or mirrored


def photograph(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


@pytest.fixture
def mine(tmp_path) -> Path:
    """Six photographs of several kinds with masks of several kinds, a photograph and a mask alone, and a text."""
    for name in ("photographs", "masks"):
        (tmp_path / name).mkdir()
    grey = (PET * 255).astype(np.uint8)
    soft = np.where(PET, 250, 90).astype(np.uint8)
    coloured = np.zeros((*SHAPE, 3), np.uint8)
    coloured[PET] = (0, 0, 128)
    cut = np.dstack([photograph(4), grey])
    palette = Image.fromarray(PET.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 30, 30])
    kinds = {
        "rex": (".jpg", Image.fromarray(grey)),
        "my dog": (".png", Image.fromarray(PET.astype(np.uint8))),
        "Tom": (".JPEG", Image.fromarray(soft)),
        "red_1": (".webp", Image.fromarray(coloured)),
        "cut": (".bmp", Image.fromarray(cut)),
        "indexed": (".jpg", palette),
    }
    for number, (name, (ending, mask)) in enumerate(kinds.items()):
        Image.fromarray(photograph(number)).save(tmp_path / "photographs" / f"{name}{ending}")
        mask.save(tmp_path / "masks" / f"{name.upper() if name == 'Tom' else name}.png")
    Image.fromarray(photograph(8)).save(tmp_path / "photographs" / "alone.png")
    Image.fromarray(grey).save(tmp_path / "masks" / "other.png")
    (tmp_path / "masks" / "notes.txt").write_text("none")
    return tmp_path


def test_photographs_and_masks_of_any_kind_become_a_dataset_that_is_good(mine):
    said = from_masks(mine / "photographs", mine / "masks", mine / "out", test_share=0.34, species="dog", breed="Rex")
    assert said == (
        f"6 photographs in {mine / 'out'}: 4 to train and validate, 2 to test; left out: alone.png (no mask), "
        "other.png (no photograph), notes.txt (no photograph by its name)"
    )
    pets = load_pets(mine / "out")
    assert sorted(pet.name for pet in pets.pets) == ["Tom", "cut", "indexed", "my_dog", "red_1", "rex"]
    assert {(pet.species, pet.breed) for pet in pets.pets} == {("dog", "Rex")}
    assert {split: len(pets.split(split)) for split in ("train", "valid", "test")} == {"train": 3, "valid": 1, "test": 2}
    for pet in pets.pets:
        assert np.array_equal(read_trimap(pets.trimap_path(pet)), np.where(PET, 1, 2)), pet.name
    assert np.abs(read_photograph(mine / "out" / "images" / "my_dog.jpg").astype(int) - photograph(1)).mean() < 6
    copied = mine / "out" / "images" / "rex.jpg"
    assert copied.read_bytes() == (mine / "photographs" / "rex.jpg").read_bytes()
    assert check_folder(mine / "out").problems == () and list(mine.glob(".out*")) == []


@pytest.mark.parametrize(("share", "tested"), [(0.01, 1), (0.5, 3), (0.99, 3)])
def test_each_split_gets_a_photograph_whatever_the_share(mine, share, tested):
    said = from_masks(mine / "photographs", mine / "masks", mine / "out", test_share=share)
    assert f"{6 - tested} to train and validate, {tested} to test" in said
    assert len(load_pets(mine / "out").split("test")) == tested


def test_four_photographs_are_enough(mine):
    for name in ("rex", "cut"):
        (mine / "masks" / f"{name}.png").unlink()
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert [len(load_pets(mine / "out").split(split)) for split in ("train", "valid", "test")] == [2, 1, 1]


def test_a_mask_of_16_bits_is_read_by_all_of_them(mine):
    Image.fromarray(np.where(PET, 60_000, 3_000).astype(np.uint16)).save(mine / "masks" / "rex.png")
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "rex.png") == 1, PET)


def test_the_split_is_a_function_of_the_seed(mine):
    lists = []
    for number, seed in enumerate((0, 0, 1, 2, 3)):
        from_masks(mine / "photographs", mine / "masks", mine / f"out{number}", seed=seed)
        lists.append((mine / f"out{number}" / "annotations" / "test.txt").read_text())
    assert lists[0] == lists[1] and len(set(lists)) > 1


def test_a_mask_that_is_seen_through_marks_where_it_is_most_opaque(mine):
    layer = np.zeros((*SHAPE, 4), np.uint8)
    layer[PET] = (255, 0, 0, 102)  # 40%, as annotation tools draw over the photograph
    draw(mine / "masks" / "rex.png", layer)
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "rex.png") == 1, PET)


def test_a_trimap_among_the_masks_stays_one_and_an_inverted_mask_is_named(mine):
    trimap = np.where(PET, 1, 2).astype(np.uint8)
    trimap[0] = 3
    draw(mine / "masks" / "rex.png", trimap)
    draw(mine / "masks" / "cut.png", np.where(PET, 0, 255).astype(np.uint8))
    said = from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "rex.png"), trimap)
    assert said.endswith("; pet in all four corners, see whether their masks are inverted: cut.bmp")


LARGE = np.zeros((300, 200), bool)
LARGE[50:150, 30:90] = True


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("colour", [(128, 128, 128), (240, 240, 240), (200, 30, 30), (128, 0, 0)])
def test_what_jpeg_makes_of_a_masks_colour_is_no_third_value(tmp_path, colour, quality):
    Image.fromarray(np.where(LARGE[..., None], np.uint8(colour), np.uint8(0))).save(tmp_path / "mask.jpg", quality=quality)
    with Image.open(tmp_path / "mask.jpg") as mask:
        assert ((_trimap_of(mask) == 1) != LARGE).mean() < 0.01  # at the edge


@pytest.mark.parametrize(
    "mask",
    [
        cv2.GaussianBlur(np.where(LARGE, 255, 0).astype(np.uint8), (0, 0), 9),  # an eraser's wide soft edge
        cv2.resize(cv2.resize(np.where(LARGE, 200, 0).astype(np.uint8), (50, 75)), (200, 300), interpolation=cv2.INTER_CUBIC),
        np.where(LARGE, np.where(np.arange(200) == 40, 100, 200), 0).astype(np.uint8),  # a line of a third value
    ],
)
def test_edges_and_lines_of_other_values_are_no_area(mask):
    found = _trimap_of(Image.fromarray(mask)) == 1
    assert np.array_equal(found, mask > mask.max() / 2)


@pytest.mark.parametrize("third", [60, 100, 140])
def test_an_area_of_a_third_value_is_refused_on_either_side_of_one_half(third):
    mask = np.where(LARGE, 200, 0).astype(np.uint8)
    mask[200:240, 100:140] = third
    with pytest.raises(DatasetError, match=f"has areas of the values 0, {third}, 200, but a mask has two"):
        _trimap_of(Image.fromarray(mask))


def labels(first, second, channels: int) -> np.ndarray:
    """Two areas of other labels on nothing."""
    mask = np.zeros((300, 200, channels), np.uint8)
    mask[20:120, 20:120], mask[150:280, 60:180] = first, second
    return mask


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_labels_that_differ_in_colour_alone_are_refused(mode):
    """As the first labels of Pascal VOC's palette, which many tools write, do."""
    mask = Image.fromarray(labels((128, 0, 0), (0, 128, 0), 3)).convert(mode, palette=Image.Palette.ADAPTIVE)
    with pytest.raises(DatasetError, match=r"areas of the colours \(0, 0, 0\), \(0, 128, 0\), \(128, 0, 0\), but a mask has two"):
        _trimap_of(mask)


@pytest.mark.parametrize("second", [(0, 255, 0, 255), (0, 0, 0, 255)])  # black: a background that was painted too
def test_labels_on_nothing_are_refused(second):
    with pytest.raises(DatasetError, match=r"is opaque in areas of the (colours|values) .*, which do not say what is pet"):
        _trimap_of(Image.fromarray(labels((255, 255, 255, 255), second, 4)))


def test_a_photographs_plain_areas_on_nothing_are_no_labels():
    cut = labels((255, 255, 255, 255), (0, 0, 0, 255), 4)
    cut[20:60, 20:120, :3] = np.random.default_rng(0).integers(0, 256, (40, 100, 3))
    assert np.array_equal(_trimap_of(Image.fromarray(cut)) == 1, cut[..., 3] == 255)


@pytest.mark.parametrize("left_open", [np.s_[20:21, 20:120], np.s_[20:23, 20:120], np.s_[0, 0]])
def test_a_label_of_1_beside_255_for_what_is_left_open_is_refused(left_open):
    mask = labels(1, 1, 1)[..., 0]
    mask[left_open] = 255
    with pytest.raises(DatasetError, match="has areas of the values 0, 1, 255, but a mask has two"):
        _trimap_of(Image.fromarray(mask))


def test_a_pet_in_three_corners_is_no_inverted_mask(mine):
    corners = np.ones(SHAPE, np.uint8)
    corners[:10, :10] = 0
    draw(mine / "masks" / "cut.png", corners)
    assert "inverted" not in from_masks(mine / "photographs", mine / "masks", mine / "out")


def test_a_masks_soft_edge_is_no_third_value(mine):
    soft = cv2.GaussianBlur(np.where(PET, 255, 0).astype(np.uint8), (7, 7), 0)
    draw(mine / "masks" / "rex.png", soft)
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "rex.png") == 1, soft > 127)


def test_names_that_no_list_can_hold_are_changed():
    assert [_name(Path(name)) for name in ("my  dog.jpg", "#1.png", "a#b.png", " .jpg")] == ["my_dog", "_1", "a_b", "_"]
    assert _name(PurePosixPath("a\\b.jpg")) == "a_b"  # on Windows it is another folder's


def test_a_telephones_own_format_is_named(mine):
    (mine / "photographs" / "phone.HEIC").write_bytes(b"")
    said = from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert "phone.HEIC (not read: export it as JPEG)" in said


@pytest.mark.parametrize("stored", [False, True])
def test_a_telephones_photograph_is_turned_and_so_is_a_mask_drawn_on_what_is_stored(mine, stored):
    upright, exif = Image.fromarray(photograph(9)), Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(mine / "photographs" / "turned.jpg", exif=exif, quality=100, subsampling=0)
    mask = Image.fromarray((PET * 255).astype(np.uint8))
    (mask.transpose(Image.Transpose.ROTATE_90) if stored else mask).save(mine / "masks" / "turned.png")
    said = from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert "turned upright" not in said, "its size says how its mask was drawn"
    image = mine / "out" / "images" / "turned.jpg"
    assert np.abs(read_photograph(image).astype(int) - photograph(9)).mean() < 6
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "turned.png") == 1, PET)
    assert check_folder(mine / "out").trainable


def test_a_mask_whose_size_does_not_say_how_it_was_drawn_is_named(mine):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(photograph(0)).save(mine / "photographs" / "rex.jpg", exif=exif)
    said = from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert said.endswith("; turned upright, and their masks taken for upright, see whether that is so: rex.jpg")
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "rex.png") == 1, PET)


@pytest.mark.parametrize(("turned", "of_the_photograph"), [(True, 1), (True, 3), (False, 1)])
def test_a_masks_own_orientation_is_followed_where_its_size_allows_it(mine, turned, of_the_photograph):
    exif, own = Image.Exif(), Image.Exif()
    exif[0x0112] = of_the_photograph
    own[0x0112] = 3 if turned else 6  # 6 would swap its sides: whatever had turned the mask already left it there
    Image.fromarray(photograph(0)).save(mine / "photographs" / "rex.jpg", exif=exif)
    mask = Image.fromarray((PET * 255).astype(np.uint8))
    (mask.transpose(Image.Transpose.ROTATE_180) if turned else mask).save(mine / "masks" / "rex.png", exif=own)
    assert "turned upright" not in from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "rex.png") == 1, PET)


@pytest.mark.skipif(sys.platform != "linux", reason="other disks have no such names")
def test_a_name_of_an_old_archive_that_is_no_utf8_is_changed(mine):
    for folder, ending in (("photographs", ".jpg"), ("masks", ".png")):
        (mine / folder / f"rex{ending}").rename(mine / folder / os.fsdecode(f"Bär{ending}".encode("latin-1")))
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert "B_r" in {pet.name for pet in load_pets(mine / "out").pets}


def test_a_comment_that_no_jpeg_can_hold_is_left_out(mine):
    told = PngInfo()
    told.add_text("comment", "x" * 70_000)
    Image.fromarray(photograph(1)).save(mine / "photographs" / "my dog.png", pnginfo=told)
    assert from_masks(mine / "photographs", mine / "masks", mine / "out").startswith("6 photographs")


def test_a_name_is_the_same_whether_its_accents_are_composed_or_not(mine):
    """As an archive made on a Mac holds them."""
    (mine / "photographs" / "rex.jpg").rename(mine / "photographs" / unicodedata.normalize("NFC", "Bär.jpg"))
    (mine / "masks" / "rex.png").rename(mine / "masks" / unicodedata.normalize("NFD", "Bär.png"))
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert unicodedata.normalize("NFC", "Bär") in {pet.name for pet in load_pets(mine / "out").pets}


def test_a_grey_mask_without_transparent_pixels_is_read_by_its_greys_and_no_name_becomes_a_comment(mine):
    grey = (PET * 255).astype(np.uint8)
    Image.fromarray(np.dstack([grey, np.full(SHAPE, 255, np.uint8)]), "LA").save(mine / "masks" / "#1.png")
    Image.fromarray(photograph(9)).save(mine / "photographs" / "#1.jpg")
    from_masks(mine / "photographs", mine / "masks", mine / "out")
    assert "_1" in {pet.name for pet in load_pets(mine / "out").pets}
    assert np.array_equal(read_trimap(mine / "out" / "annotations" / "trimaps" / "_1.png") == 1, PET)


def draw(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("change", "given", "kind", "sentence"),
    [
        (lambda mine: draw(mine / "masks/rex.png", np.zeros(SHAPE, np.uint8)), {}, DatasetError, r"rex\.png is black all over"),
        (
            lambda mine: draw(mine / "masks/rex.png", np.zeros((*SHAPE, 4), np.uint8)), {}, DatasetError,
            r"rex\.png is transparent all over: it marks no pet",
        ),
        (
            lambda mine: draw(mine / "masks/rex.png", np.eye(30, 21, dtype=np.uint8)), {}, DatasetError,
            r"the mask .*rex\.png is 21 x 30 px, but its photograph is 20 x 30",
        ),
        (
            lambda mine: draw(mine / "masks/rex.png", np.where(PET, 1, 2).astype(np.uint8)), {}, DatasetError,
            r"rex\.png has no other values than 1, 2, which do not say what is pet: make that 255 and the rest 0",
        ),
        (
            lambda mine: draw(mine / "masks/rex.png", np.full(SHAPE, 255, np.uint8)), {}, DatasetError,
            r"rex\.png marks every pixel: pet must be brighter than the rest",
        ),
        (
            lambda mine: draw(mine / "masks/rex.png", np.where(PET, np.where(np.arange(20) < 6, 1, 2), 0).astype(np.uint8)), {},
            DatasetError, r"rex\.png has areas of the values 0, 1, 2, but a mask has two: make what is pet 255 and",
        ),
        (
            lambda mine: [(mine / f"masks/{name}.png").write_bytes(b"") for name in ("rex", "red_1")], {}, DatasetError,
            r"2 of 6 pairs cannot be used: the mask .*red_1\.png .*; the mask .*rex\.png ",
        ),
        (
            lambda mine: (mine / "masks/rex.png").write_bytes((mine / "masks/red_1.png").read_bytes()[:-30]), {}, DatasetError,
            r"the mask .*rex\.png is damaged",
        ),
        (lambda mine: (mine / "photographs/rex.jpg").write_bytes(b"x"), {}, DatasetError, r"rex\.jpg cannot be opened: it is no"),
        (lambda mine: draw(mine / "masks/REX.jpg", np.ones(SHAPE, np.uint8)), {}, DatasetError, "several masks have one name.*: rex"),
        (
            lambda mine: [path.unlink() for path in (mine / "masks").glob("[irc]*.png")], {}, DatasetError,
            "2 photographs of .* have a mask of their name in .*, but 4 or more are needed",
        ),
        (
            lambda mine: Image.new("RGB", (65_501, 1)).save(mine / "photographs/my dog.png"), {}, DatasetError,
            r"the photograph .*my dog\.png has 65501 x 1 px, but a side may have 65500: make",
        ),
        (lambda mine: None, {"seed": -1}, ReadableError, "the seed is -1, but it must be 0 or more"),
        (lambda mine: None, {"out": "demo"}, ReadableError, "out is demo, which parameter data takes for the built-in"),
        (lambda mine: (mine / "out").mkdir(), {}, ReadableError, "out is there already"),
        (lambda mine: None, {"test_share": 1.0}, ReadableError, r"the share to test on is 1\.0, but"),
        (lambda mine: None, {"breed": "Maine Coon"}, ReadableError, "breed is 'Maine Coon', but it must be a word"),
        (lambda mine: None, {"masks": "nowhere"}, DatasetError, "nowhere do not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(mine, change, given, kind, sentence):
    change(mine)
    before = sorted(mine.rglob("*"))
    with pytest.raises(kind, match=sentence):
        from_masks(**({"photographs": mine / "photographs", "masks": mine / "masks", "out": mine / "out"} | given))
    assert sorted(mine.rglob("*")) == before


def test_the_command_says_what_it_made(mine, monkeypatch, capsys):
    monkeypatch.chdir(mine)
    assert main(["data", "from-masks", "photographs", "masks", "--out", "out", "--test", "0.5"]) == 0
    assert capsys.readouterr().out.startswith("6 photographs in out: 3 to train and validate, 3 to test; left out: ")
    given = ["--seed", "2", "--species", "dog", "--breed", "Rex"]
    assert main(["data", "from-masks", "photographs", "masks", "--out", "dogs", *given]) == 0
    from_masks("photographs", "masks", "same", seed=2, species="dog", breed="Rex")
    assert load_pets("dogs").pets == load_pets("same").pets
    from_masks("photographs", "masks", "other", species="dog", breed="Rex")
    assert load_pets("other").pets != load_pets("same").pets, "of another seed"
    assert main(["data", "from-masks", "photographs", "masks", "--out", "out"]) == 2
    assert capsys.readouterr().err.startswith("petseg: out is there already")
