"""The checker names each fault of a dataset in a row of its own, and says whether training can start."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from petseg_lib.cli import main
from petseg_lib.data import twins
from petseg_lib.data.check import check_folder, usable
from petseg_lib.data.pets import LINE_RULE, Pet, load_pets
from petseg_lib.data.pictures import DatasetError, open_rgb
from petseg_lib.data.problems import CONVERTED, IGNORED, STOPS, UNUSABLE, USED
from petseg_lib.data.synthetic import draw_pets

TIDY = "Bengal_7"  # line 7 of trainval.txt, in train; it has 51 x 46 px
PHOTOGRAPH, MASK = f"images/{TIDY}.jpg", f"annotations/trimaps/{TIDY}.png"
UNTIDY_FROM_THE_START = [
    ("images/Abyssinian_0.jpg", "is a GIF named .jpg and has a palette", CONVERTED),
    ("images/Bengal_1.jpg", "is a PNG named .jpg and has an alpha channel", CONVERTED),
    ("images/american_bulldog_2.jpg", "has CMYK colours", CONVERTED),
    ("images/Abyssinian_3.jpg", "has grey levels alone", CONVERTED),
    ("images", "holds 1 files that stand in no list: Bengal_1000.jpg", IGNORED),
    ("annotations/trimaps", "holds 1 hidden files: ._Bengal_1.png", IGNORED),
    ("annotations/trimaps", "holds 1 files that stand in no list: Bengal_1000.png", IGNORED),
]


def rows(root: Path) -> list[tuple[str, str, str]]:
    return [(problem.file, problem.problem, problem.consequence) for problem in check_folder(root).problems]


def added(root: Path) -> list[tuple[str, str, str]]:
    """The rows that the tiny dataset does not have from the start."""
    return [row for row in rows(root) if row not in UNTIDY_FROM_THE_START]


def save_photograph(root: Path, orientation: int = 1, size: tuple[int, int] = (51, 46), **options) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / PHOTOGRAPH, exif=exif, **options)


def save_mask(root: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(root / MASK)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def test_names_that_a_pipe_cannot_encode_are_shown_escaped(tiny_dataset):
    """As those in Cyrillic letters on a Windows whose pipes are in cp1252."""
    root = tiny_dataset(folder="питомцы")
    (root / "images" / "Bengal_7.jpg").rename(root / "images" / "Бенгал_7.jpg")
    command = [sys.executable, "-m", "petseg_lib.cli", "data", "check", str(root)]
    result = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (1, b"")
    assert b"\\u0411\\u0435\\u043d\\u0433\\u0430\\u043b_7.jpg" in result.stdout


def append(root: Path, file: str, text: str) -> None:
    path = root / "annotations" / file
    path.write_text(path.read_text() + text)


def test_the_tiny_dataset_is_untidy_but_good(tiny_dataset):
    check = check_folder(tiny_dataset())
    assert [(row.file, row.problem, row.consequence) for row in check.problems] == UNTIDY_FROM_THE_START
    assert {row.level for row in check.problems} == {"note"}
    assert check.trainable
    assert check.pets == {"train": 20, "valid": 3, "test": 9}


FAULTS = {
    "missing photograph": (lambda root: (root / PHOTOGRAPH).unlink(), (PHOTOGRAPH, "is missing", STOPS)),
    "missing trimap": (lambda root: (root / MASK).unlink(), (MASK, "is missing", STOPS)),
    "empty photograph": (
        lambda root: cut(root / PHOTOGRAPH, 0),
        (PHOTOGRAPH, "cannot be opened: it is empty (0 bytes)", UNUSABLE),
    ),
    "empty trimap": (lambda root: cut(root / MASK, 0), (MASK, "cannot be opened: it is empty (0 bytes)", UNUSABLE)),
    "text for a photograph": (
        lambda root: (root / PHOTOGRAPH).write_text("<html>404 Not Found</html>"),
        (PHOTOGRAPH, "cannot be opened: it is no picture, or damaged in its first bytes", UNUSABLE),
    ),
    "BMP": (lambda root: save_photograph(root, format="BMP"), (PHOTOGRAPH, "is a BMP named .jpg", CONVERTED)),
    "EXIF orientation": (
        lambda root: save_photograph(root, orientation=6),
        (PHOTOGRAPH, "has the EXIF orientation 6, which is not followed", USED),
    ),
    "mirrored by EXIF": (
        lambda root: save_photograph(root, orientation=2),
        (PHOTOGRAPH, "has the EXIF orientation 2, which is not followed", USED),
    ),
    "mask of the rotated photograph": (
        lambda root: save_photograph(root, orientation=6, size=(46, 51)),
        (PHOTOGRAPH, "has 46 x 51 px as stored, but its mask follows the EXIF rotation: 51 x 46", UNUSABLE),
    ),
    "transposed without a reason": (
        lambda root: save_photograph(root, orientation=3, size=(46, 51)),
        (MASK, "has 51 x 46 px, but its photograph 46 x 51", UNUSABLE),
    ),
    "mask of another size": (
        lambda root: save_mask(root, np.ones((40, 30))),
        (MASK, "has 30 x 40 px, but its photograph 51 x 46", UNUSABLE),
    ),
    "values from 0": (
        lambda root: save_mask(root, np.arange(46 * 51).reshape(46, 51) % 3),
        (MASK, "has the values 0, 1, 2, but only 1, 2 and 3 are allowed", UNUSABLE),
    ),
    "0/255 mask": (
        lambda root: save_mask(root, np.eye(46, 51) * 255),
        (
            MASK,
            "has the values 0, 255, but only 1, 2 and 3 are allowed: it is a mask, not a trimap (README, Your own data)",
            UNUSABLE,
        ),
    ),
    "1-bit mask": (
        lambda root: Image.fromarray(np.eye(46, 51, dtype=bool)).save(root / MASK),
        (
            MASK,
            "has the values 0, 1, but only 1, 2 and 3 are allowed: it is a mask, not a trimap (README, Your own data)",
            UNUSABLE,
        ),
    ),
    "colour mask": (
        lambda root: save_mask(root, np.ones((46, 51, 3))),
        (MASK, "has 3 channels, but a trimap has one", UNUSABLE),
    ),
    "no pet": (lambda root: save_mask(root, np.full((46, 51), 2)), (MASK, "has no pet pixel", USED)),
    "unreadable lines": (
        lambda root: append(root, "test.txt", "Bengal_1\n../secret 1 1 1\n"),
        ("annotations/test.txt", f"has 2 lines that cannot be read, 'Bengal_1', '../secret 1 1 1': {LINE_RULE}", STOPS),
    ),
    "name twice": (
        lambda root: append(root, "trainval.txt", f"{TIDY} 1 1 1\n"),
        ("annotations", f"1 names stand more than once in trainval.txt: {TIDY}", STOPS),
    ),
    "name in two lists": (
        lambda root: append(root, "test.txt", f"{TIDY} 1 1 1\n"),
        ("annotations", f"1 names stand in both trainval.txt and test.txt: {TIDY}", STOPS),
    ),
    "hidden file": (
        lambda root: (root / "images" / "._x.jpg").write_bytes(b""),
        ("images", "holds 1 hidden files: ._x.jpg", IGNORED),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_row(tiny_dataset, fault):
    make, row = FAULTS[fault]
    root = tiny_dataset()
    make(root)
    assert added(root) == [row]
    assert check_folder(root).trainable == (row[2] not in (STOPS, UNUSABLE))
    if row[2] == STOPS:
        with pytest.raises(DatasetError):
            load_pets(root)
    else:
        _, bad = usable(load_pets(root), "skip")
        assert bad == ({TIDY: f"{row[0]} {row[1]}"} if row[2] == UNUSABLE else {})


@pytest.mark.parametrize("file", [PHOTOGRAPH, MASK])
def test_truncated_files(tiny_dataset, file):
    root = tiny_dataset()
    cut(root / file, (root / file).stat().st_size - 40)
    [(named, problem, consequence)] = added(root)
    assert (named, consequence) == (file, UNUSABLE)
    assert problem.startswith("is damaged: ")


def test_the_same_photograph_twice_and_across_splits(tiny_dataset):
    root = tiny_dataset()
    images = root / "images"
    with Image.open(images / "Abyssinian_6.jpg") as image:
        size = image.size
        image.save(images / "Abyssinian_6.jpg", format="PNG")  # the same pixels in other bytes
        image.save(images / "Abyssinian_18.jpg", format="BMP")
        image.save(images / "Abyssinian_24.jpg", format="PNG")
    for number in (18, 24):
        Image.new("L", size, 1).save(root / "annotations" / "trimaps" / f"Abyssinian_{number}.png")
    assert [row for row in added(root) if row[2] != CONVERTED] == [
        ("images/Abyssinian_18.jpg", "is the same photograph as Abyssinian_6.jpg", USED),
        (
            "images/Abyssinian_24.jpg",
            "is the same photograph as Abyssinian_6.jpg, and leaks: this one is in test, that one in train",
            USED,
        ),
    ]


def test_the_same_picture_in_another_size_and_quality_and_across_splits(tiny_dataset):
    root = tiny_dataset()
    patches = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for number, size in ((6, (200, 150)), (18, (403, 300)), (24, (97, 75))):
        picture = Image.fromarray(patches).resize((200, 150), Image.Resampling.BICUBIC).resize(size)
        picture.save(root / "images" / f"Abyssinian_{number}.jpg", "JPEG", quality=95 if number == 6 else 40)
        Image.new("L", size, 1).save(root / "annotations" / "trimaps" / f"Abyssinian_{number}.png")
    assert added(root) == [
        ("images/Abyssinian_18.jpg", "looks like Abyssinian_6.jpg in another size or quality", USED),
        (
            "images/Abyssinian_24.jpg",
            "looks like Abyssinian_6.jpg in another size or quality, and leaks: this one is in test, that one in train",
            USED,
        ),
    ]


@pytest.mark.parametrize("rows", [1, 4, 256])
def test_thumbnails_are_compared_with_all_before_them(monkeypatch, rows):
    monkeypatch.setattr(twins, "ROWS", rows)
    draw = np.random.default_rng(0)
    pets = [Pet(f"Bengal_{number}", "Bengal", "cat", "train") for number in range(9)]
    looks = [twins.Looks(bytes([number]), draw.normal(size=256).astype(np.float32)) for number in range(9)]
    for copy, original in ((3, 1), (8, 1), (5, 4)):
        looks[copy] = twins.Looks(bytes([copy]), looks[original].thumbnail + draw.normal(0, 0.05, 256).astype(np.float32))
    looks = [each and twins.Looks(each.digest, each.thumbnail / np.linalg.norm(each.thumbnail)) for each in looks]
    looks[7] = None
    found = [(problem.file, problem.problem.split()[2]) for problem in twins.repeated(pets, looks)]
    assert found == [(f"images/Bengal_{copy}.jpg", f"Bengal_{original}.jpg") for copy, original in ((3, 1), (5, 4), (8, 1))]


def test_the_same_bytes_in_another_shape_are_another_photograph(tiny_dataset):
    root = tiny_dataset()
    for name, size in (("Bengal_4", (40, 50)), ("american_bulldog_5", (50, 40))):
        Image.new("RGB", size).save(root / "images" / f"{name}.jpg")
        Image.new("L", size, 1).save(root / "annotations" / "trimaps" / f"{name}.png")
    assert added(root) == []


def test_what_stops_training_comes_first_and_a_name_of_two_lists_is_of_the_first(tiny_dataset):
    root = tiny_dataset()
    save_mask(root, np.zeros((46, 51)))
    append(root, "test.txt", "Bengal_4 1 1 1\n")
    check = check_folder(root)
    assert [row.consequence for row in check.problems[:3]] == [STOPS, UNUSABLE, CONVERTED]
    assert check.pets == {"train": 20, "valid": 3, "test": 9}


def test_an_empty_or_unreadable_list(tiny_dataset):
    root = tiny_dataset()
    (root / "annotations" / "test.txt").write_bytes(b"\xff\xfe\x00")
    listed, empty = (row for row in added(root) if row[2] == STOPS)
    assert listed[:2] == (
        "annotations/test.txt",
        "is no text in UTF-8: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    )
    assert empty[:2] == ("annotations", "the split 'test' is empty: every split needs one image or more")
    with pytest.raises(DatasetError, match=r"test.txt is no text in UTF-8"):
        load_pets(root)


def test_a_byte_order_mark_does_no_harm(tiny_dataset):
    root = tiny_dataset()
    path = root / "annotations" / "test.txt"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert added(root) == []


def test_a_folder_that_is_no_dataset(tmp_path):
    assert rows(tmp_path / "nowhere") == [(".", f"the data folder {tmp_path / 'nowhere'} does not exist", STOPS)]
    [(_, sentence, _)] = rows(tmp_path)
    assert sentence.endswith("it lacks images, annotations, annotations/trimaps, annotations/trainval.txt, annotations/test.txt")
    for empty in ("images", "annotations/trimaps"):
        (tmp_path / empty).mkdir(parents=True)
    for name in ("trainval.txt", "test.txt"):
        (tmp_path / "annotations" / name).touch()
    empty = "is empty: every split needs one image or more"
    assert rows(tmp_path) == [("annotations", f"the split {name!r} {empty}", STOPS) for name in ("train", "valid", "test")]


def test_all_bad_samples_are_named_at_once(tiny_dataset):
    root = tiny_dataset()
    dataset = load_pets(root)
    cut(root / PHOTOGRAPH, 0)
    save_mask(root, np.zeros((46, 51)))
    (root / "images" / "Bengal_4.jpg").write_bytes(b"no picture")
    left, reasons = usable(dataset, "skip")
    assert {pet.name for pet in dataset.pets} - {pet.name for pet in left.pets} == {"Bengal_4", TIDY}
    assert reasons == {
        "Bengal_4": "images/Bengal_4.jpg cannot be opened: it is no picture, or damaged in its first bytes",
        TIDY: f"{PHOTOGRAPH} cannot be opened: it is empty (0 bytes); {MASK} has the values 0, but only 1, 2 and 3 are allowed",
    }


def test_synthetic_pets_have_no_problem(temporary_workspace, capsys):
    draw_pets(temporary_workspace / "drawn", 20)
    assert rows(temporary_workspace / "drawn") == []
    assert main(["data", "check", "drawn"]) == 0
    assert capsys.readouterr().out == "20 pets (9 train, 1 valid, 10 test): training can start; 0 notes\n"


def test_the_command_prints_a_table_and_writes_json(tiny_dataset, tmp_path, capsys):
    root = tiny_dataset()
    for number in range(4, 20):
        cut(next((root / "images").glob(f"*_{number}.jpg")), 0)
    assert main(["data", "check", str(root), "--json", str(tmp_path / "check.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "file" and lines[1].startswith("images/Bengal_4.jpg ")
    assert lines[11].startswith("and 6 more files ")
    assert len({line.index(word) for line, word in zip(lines, ("what will", *[UNUSABLE] * 11), strict=False)}) == 1, "aligned"
    assert lines[-1] == "32 pets (20 train, 3 valid, 9 test): 16 problems stop training; 7 notes"
    written = json.loads((tmp_path / "check.json").read_text())
    assert (written["trainable"], written["pets"]) == (False, {"train": 20, "valid": 3, "test": 9})
    assert len(written["problems"]) == 23
    assert written["problems"][0] == {
        "file": "images/Bengal_4.jpg",
        "problem": "cannot be opened: it is empty (0 bytes)",
        "consequence": UNUSABLE,
        "level": "unusable",
    }


def test_the_command_ends_in_one_sentence(tiny_dataset, tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().out
    assert main(["data", "check", str(tiny_dataset()), "--json", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"petseg: {tmp_path} cannot be written: ")


def test_the_command_downloads(monkeypatch, capsys):
    module = types.ModuleType("petseg_lib.data.download")
    module.download = lambda folder: Path(folder) / "oxford-iiit-pet"
    monkeypatch.setitem(sys.modules, "petseg_lib.data.download", module)
    assert main(["data", "download", "here"]) == 0
    assert capsys.readouterr().out == f"{Path('here') / 'oxford-iiit-pet'}\n"


def test_the_real_photographs(real_data, capsys):
    assert main(["data", "check", str(real_data)]) == 0
    table = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[-1]) for row in table[1:4]] == [
        ("images/Abyssinian_5.jpg", CONVERTED),
        ("images", IGNORED),
        ("annotations/trimaps", IGNORED),
    ]
    assert "is a PNG named .jpg and has an alpha channel" in table[1]
    assert table[-1] == ["598 pets (270 train, 30 valid, 298 test): training can start; 9 notes"]


def test_the_real_photographs_that_come_twice(real_data):
    found = [problem for problem in check_folder(real_data).problems if "looks like" in problem.problem]
    pairs = {(problem.file.split("_")[1][:-4], problem.problem.split("_")[1].split(".")[0]) for problem in found}
    assert pairs == {("87", "5"), ("63", "40"), ("99", "151"), ("56", "24"), ("177", "11"), ("172", "122")}
    assert all("Abyssinian" in problem.file for problem in found)
    dataset = load_pets(real_data)
    thumbnails = np.stack([twins.looks_of(open_rgb(dataset.photograph_path(pet))).thumbnail for pet in dataset.pets])
    correlations = np.sort((thumbnails @ thumbnails.T)[np.triu_indices(len(thumbnails), 1)])
    assert len(correlations) == 178_503 and correlations[-6] > 0.98 and correlations[-7] < 0.87
    assert sorted(problem.problem.split(", and leaks: ")[1] for problem in found if "leaks" in problem.problem) == [
        "this one is in test, that one in train",
        "this one is in valid, that one in train",
    ]


def test_the_real_photographs_that_no_list_names(real_data, tmp_path):
    (tmp_path / "annotations" / "trimaps").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    names = ["Abyssinian_1", "Abyssinian_34", "Abyssinian_82", "Abyssinian_5"]
    for name in names:
        for file in (f"images/{name}.jpg", f"annotations/trimaps/{name}.png"):
            shutil.copyfile(real_data / file, tmp_path / file)
    for list_file, listed in (("trainval.txt", names[:2]), ("test.txt", names[2:])):
        (tmp_path / "annotations" / list_file).write_text("".join(f"{name} 1 1 1\n" for name in listed))
    assert rows(tmp_path) == [
        ("images/Abyssinian_34.jpg", "is a GIF named .jpg and has a palette", CONVERTED),
        ("images/Abyssinian_5.jpg", "is a PNG named .jpg and has an alpha channel", CONVERTED),
        ("annotations/trimaps/Abyssinian_34.png", "has no pet pixel", USED),
    ]


def test_bad_samples_stop_or_are_left_out_and_are_looked_for_once(tiny_dataset, capsys, monkeypatch):
    root = tiny_dataset()
    cut(root / PHOTOGRAPH, 300)
    (root / "annotations" / "trimaps" / "Bengal_4.png").write_bytes(b"")
    dataset = load_pets(root)
    with pytest.raises(
        DatasetError, match=r"2 of 32 pets cannot be used: .*Bengal_4\.png .*Bengal_7\.jpg .* bad_samples to skip"
    ):
        usable(dataset, "stop")
    monkeypatch.setattr("petseg_lib.data.check._read_pairs", lambda *given: pytest.fail("the files were read again"))
    left, reasons = usable(dataset, "skip")
    assert sorted(reasons) == ["Bengal_4", TIDY]
    assert {pet.name for pet in dataset.pets} - {pet.name for pet in left.pets} == set(reasons)
    assert capsys.readouterr().out.startswith("left out 2 of 32 pets: annotations/trimaps/Bengal_4.png cannot be opened")


def test_a_split_of_which_nothing_is_left_is_refused(tiny_dataset):
    root = tiny_dataset(trainval=11, test=1)
    (root / "annotations" / "trimaps" / "american_bulldog_11.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="nothing is left of the split 'test'"):
        usable(load_pets(root), "skip")


@contextmanager
def not_readable_now(monkeypatch):
    """The photograph of TIDY is there, and may not be read for the moment."""
    read = Path.read_bytes

    def refused(path):
        if path.name == f"{TIDY}.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        yield


def test_a_file_that_only_could_not_be_read_now_is_read_again(tiny_dataset, monkeypatch):
    root = tiny_dataset()
    dataset = load_pets(root)
    with not_readable_now(monkeypatch):
        _, reasons = usable(dataset, "skip")
    assert reasons == {TIDY: f"{PHOTOGRAPH} cannot be opened: Permission denied"}
    assert usable(dataset, "stop") == (dataset, {})


def test_a_pair_of_which_one_file_is_damaged_and_the_other_not_readable_now_is_read_again(tiny_dataset, monkeypatch):
    root = tiny_dataset()
    (root / MASK).write_bytes(b"no picture")
    dataset = load_pets(root)
    with not_readable_now(monkeypatch):
        assert "Permission denied" in usable(dataset, "skip")[1][TIDY]
    assert "Permission denied" not in usable(dataset, "skip")[1][TIDY]


def test_a_file_that_changes_after_a_check_is_read_again(tiny_dataset):
    root = tiny_dataset()
    dataset = load_pets(root)
    assert usable(dataset, "stop") == (dataset, {})
    save_mask(root, np.zeros((46, 51)))
    assert list(usable(dataset, "skip")[1]) == [TIDY]


def test_a_photograph_that_did_not_fit_into_memory_is_read_again(tiny_dataset, monkeypatch):
    dataset = load_pets(tiny_dataset())
    load = ImageFile.ImageFile.load

    def too_much(picture):
        if (picture.format, picture.size) == ("JPEG", (51, 46)):
            raise MemoryError
        return load(picture)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", too_much)
        _, reasons = usable(dataset, "skip")
    assert reasons[TIDY] == f"{PHOTOGRAPH} does not fit into memory: 51 x 46 px"
    assert usable(dataset, "stop") == (dataset, {})


def test_half_a_memory_of_a_check_is_none(tiny_dataset, temporary_workspace):
    dataset = load_pets(tiny_dataset())
    usable(dataset, "stop")
    (remembered,) = (temporary_workspace / "runs" / "cache").glob("checked-*.json")
    remembered.write_text("")
    assert usable(dataset, "stop") == (dataset, {})
    assert remembered.read_text() == "{}\n"


def test_a_name_in_other_letters_is_missing(tiny_dataset, monkeypatch):
    """On a disk without upper and lower case the file can be opened, but training looks for the name itself."""
    root = tiny_dataset()
    (root / PHOTOGRAPH).rename(root / "images" / f"{TIDY}.JPG")
    with Image.open(root / "images" / f"{TIDY}.JPG") as image:
        image.convert("L").save(root / "images" / f"{TIDY}.JPG", format="JPEG")  # a note on the file hides nothing
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path if path.exists() else path.with_suffix(path.suffix.upper())))
    assert (PHOTOGRAPH, "is missing under exactly this name", STOPS) in added(root)
    with pytest.raises(DatasetError, match=rf"missing: {TIDY}\.jpg"):
        load_pets(root)


@pytest.mark.parametrize(("mode", "format_"), [("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF")])
def test_more_than_8_bits_a_pixel_are_no_white_picture(tiny_dataset, mode, format_):
    root = tiny_dataset()
    with Image.open(root / PHOTOGRAPH) as image:
        size = image.size
    Image.new(mode, size, 300).save(root / PHOTOGRAPH, format=format_)
    assert added(root) == [(PHOTOGRAPH, f"has more than 8 bits a pixel (mode {mode}): save it with 8", UNUSABLE)]
