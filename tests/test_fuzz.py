"""Damaged files and arbitrary values end as a good result or as one readable sentence, and in no other way."""

import io
import warnings
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from petseg_lib.config import NOTEBOOKS, ParameterError, Parameters
from petseg_lib.data.check import check_folder
from petseg_lib.data.masks import BORDER_POLICIES, PET, target_and_scored
from petseg_lib.data.pets import PetDataset, load_pets
from petseg_lib.data.pictures import DatasetError, read_photograph, read_trimap
from petseg_lib.evaluation import counts_by_policy

MUTANTS_A_SEED_FILE = 100
SETTINGS = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@cache
def seed_files() -> dict[str, bytes]:
    """Small good files of each kind that the dataset holds, with and without metadata."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    photograph = Image.fromarray(smooth)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "Camera", 72.0
    trimap = Image.fromarray(np.kron(rng.integers(1, 4, (6, 8)), np.ones((8, 8))).astype(np.uint8))
    return {
        "plain.jpg": encoded(photograph, "JPEG"),
        "progressive.jpg": encoded(photograph, "JPEG", progressive=True, exif=exif, dpi=(72, 72)),
        "cmyk.jpg": encoded(photograph.convert("CMYK"), "JPEG"),
        "colour.png": encoded(photograph.convert("RGBA"), "PNG", exif=exif),
        "palette.png": encoded(photograph.quantize(16), "PNG", transparency=bytes(range(16))),
        "palette.gif": encoded(photograph.quantize(16), "GIF"),
        "trimap.png": encoded(trimap, "PNG"),
    }


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Once or twice: flipped bytes, a cut, an insertion or a zeroed block, some of them in the header."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        reach = len(data) if rng.random() < 0.7 else min(len(data), 64)
        place = int(rng.integers(0, max(1, reach)))
        length = int(rng.integers(1, 32))
        match rng.integers(0, 4):
            case 0:
                for index in rng.integers(0, max(1, reach), length % 3 + 1):
                    data[index : index + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del data[max(place, len(data) - int(rng.integers(1, len(data) + 1))) :]
            case 2:
                data[place:place] = rng.bytes(length)
            case 3:
                data[place : place + length] = bytes(len(data[place : place + length]))
    return with_good_checksums(bytes(data)) if rng.random() < 0.7 else bytes(data)


def with_good_checksums(data: bytes) -> bytes:
    """The chunks of a PNG with checksums that fit: otherwise these stop most mutants before they do harm."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    chunks, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        chunks.append(data[place : place + 4] + body + zlib.crc32(body).to_bytes(4))
        place += 12 + length
    return b"".join([*chunks, data[place:]])


def outcome(read, path: Path) -> str:
    """`read` or `refused`; every other end is an error of the test."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            result = read(path)
        except DatasetError as error:
            result = None
            assert path.name in str(error) and "\n" not in str(error) and "BytesIO" not in str(error), str(error)
    assert not complaints, [str(complaint.message) for complaint in complaints]
    if result is None:
        return "refused"
    assert result.dtype == np.uint8 and result.size > 0
    if read is read_photograph:
        assert result.ndim == 3 and result.shape[2] == 3
    else:
        assert result.ndim == 2 and result.min() >= 1 and result.max() <= 3
    return "read"


@pytest.mark.parametrize("name", list(seed_files()))
def test_damaged_pictures_are_read_or_refused(tmp_path, name):
    rng = np.random.default_rng(sum(name.encode()))
    ends = Counter()
    path = tmp_path / name
    for _ in range(MUTANTS_A_SEED_FILE):
        path.write_bytes(mutated(seed_files()[name], rng))
        ends[outcome(read_trimap if name == "trimap.png" else read_photograph, path)] += 1
    print(name, dict(ends))
    assert ends["refused"] > 30, "the mutations do harm"
    assert ends["read"] > 0, "but not always"


def test_the_checker_reports_what_the_readers_refuse(tiny_dataset):
    root = tiny_dataset(trainval=120, test=60)
    rng = np.random.default_rng(5)
    dataset = load_pets(root)
    kinds = list(seed_files())
    for number, pet in enumerate(dataset.pets):
        dataset.photograph_path(pet).write_bytes(mutated(seed_files()[kinds[number % 6]], rng))
        dataset.trimap_path(pet).write_bytes(mutated(seed_files()["trimap.png"], rng))
    reported = {problem.file for problem in check_folder(root).problems if problem.level == "unusable"}
    ends = {
        pet: [outcome(read_photograph, dataset.photograph_path(pet)), outcome(read_trimap, dataset.trimap_path(pet))]
        for pet in dataset.pets
    }
    refused = {f"images/{pet.name}.jpg" for pet, (photograph, _) in ends.items() if photograph == "refused"}
    refused |= {f"annotations/trimaps/{pet.name}.png" for pet, (_, trimap) in ends.items() if trimap == "refused"}
    assert len(refused) > 180
    assert refused <= reported
    both_read = {pet.name for pet, end in ends.items() if end == ["read", "read"]}
    assert all(Path(file).stem in both_read for file in reported - refused), "else only sizes that do not fit"


def test_damaged_lists_are_read_or_refused(tiny_dataset):
    root = tiny_dataset()
    path = root / "annotations" / "test.txt"
    good = path.read_bytes()
    rng = np.random.default_rng(3)
    ends = Counter()
    for _ in range(200):
        path.write_bytes(mutated(good, rng))
        ends[index_or_refusal(root)] += 1
        path.write_bytes(good)
    print("lists", dict(ends))
    assert ends["read"] and ends["refused"]


def index_or_refusal(root: Path) -> str:
    """`read` or `refused`; every other end is an error of the test."""
    try:
        dataset = load_pets(root)
    except DatasetError as error:
        assert len(str(error)) < 2000
        return "refused"
    assert isinstance(dataset, PetDataset) and all(dataset.split(split) for split in ("train", "valid", "test"))
    return "read"


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Path:
    """A dataset of whose list files hypothesis writes one."""
    root = tmp_path_factory.mktemp("layout")
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    (root / "annotations" / "trainval.txt").write_text("a_1 1 1 1\na_2 1 1 1\n")
    for name in ("a_1", "a_2", "b_1"):
        Image.new("RGB", (4, 4)).save(root / "images" / f"{name}.jpg")
        Image.new("L", (4, 4), 1).save(root / "annotations" / "trimaps" / f"{name}.png")
    return root


WORDS = st.sampled_from(["b_1", "a_1", "#", "1", "2", "3", "..", "../b_1", "\0", "\ufeff", "\u2028"]) | st.text(max_size=8)
TEXTS = st.text() | st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=5).map("\n".join)


@SETTINGS
@given(TEXTS.map(str.encode) | st.binary())
def test_any_list_ends_as_pets_or_as_a_sentence(layout, content):
    (layout / "annotations" / "test.txt").write_bytes(content)
    end = index_or_refusal(layout)
    stopped = any(problem.level == "stops" for problem in check_folder(layout).problems)
    assert stopped == (end == "refused")


TRIMAPS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(1, 3))


@SETTINGS
@given(TRIMAPS)
def test_border_policies_divide_every_trimap(trimap):
    targets = {}
    for policy in BORDER_POLICIES:
        target, scored = target_and_scored(trimap, policy)
        assert (target.dtype, scored.dtype, target.shape, scored.shape) == (np.uint8, bool, trimap.shape, trimap.shape)
        assert set(np.unique(target)) <= {0, 1}
        assert scored.all() or policy == "ignore"
        assert not target[~scored].any()
        targets[policy] = target
    assert (targets["background"] + targets["edge"] == targets["pet"]).all(), "pet is its inside and its border"
    assert (targets["ignore"] == targets["background"]).all()
    assert ((targets["background"] == 1) == (trimap == PET)).all()


@SETTINGS
@given(TRIMAPS, st.integers(0, 2**32 - 1))
def test_counts_agree_with_plain_counting(trimap, seed):
    prediction = np.random.default_rng(seed).random(trimap.shape) < 0.5
    counts = counts_by_policy(prediction, trimap)
    for policy in BORDER_POLICIES:
        target, scored = target_and_scored(trimap, policy)
        pairs = Counter(zip(prediction[scored].tolist(), target[scored].tolist(), strict=True))
        assert [counts[f"{policy}_{kind}"] for kind in ("tp", "fp", "fn")] == [pairs[True, 1], pairs[True, 0], pairs[False, 1]]


ALLOWED = [
    word
    for model in NOTEBOOKS.values()
    for field in model.model_fields.values()
    for word in get_args(field.annotation)
    if isinstance(word, str)
]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
VALUES = (
    PLAIN | st.sampled_from(ALLOWED) | st.lists(PLAIN | st.just("png"), max_size=3) | st.dictionaries(st.text(max_size=3), PLAIN)
)


@pytest.mark.parametrize("model", NOTEBOOKS.values(), ids=NOTEBOOKS)
@settings(SETTINGS, max_examples=150)
@given(st.data())
def test_any_value_is_a_model_or_a_sentence_with_its_name(model, data):
    name = data.draw(st.sampled_from([*model.model_fields, "no_parameter"]))
    value = data.draw(VALUES)
    try:
        checked = model.checked({name: value})
    except ParameterError as error:
        assert name in str(error)
    else:
        assert isinstance(checked, Parameters) and name in model.model_fields
        assert model.checked(checked.model_dump()) == checked, "what was taken once is taken again"
