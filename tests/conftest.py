"""What several tests share: a temporary workspace, a small untidy dataset, and the real photographs where there are any."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from petseg_lib.data.pets import PetDataset, load_pets
from petseg_lib.data.synthetic import draw_pets

REPOSITORY = Path(__file__).resolve().parents[1]
BREEDS = {"Abyssinian": 1, "Bengal": 1, "american_bulldog": 2}


@pytest.fixture(autouse=True)
def temporary_workspace(tmp_path, monkeypatch) -> Path:
    """Tests never touch a user's runs."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.setenv("PETSEG_WORKSPACE", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The tests' networks are tiny: threads of torch would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real photographs: the folder PETSEG_REAL_DATA, or the one beside the repository."""
    beside = REPOSITORY.parent / "shared" / "data" / "oxford-iiit-pet-3breeds"
    folder = Path(os.environ.get("PETSEG_REAL_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("no real photographs here: set PETSEG_REAL_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def pets(tmp_path_factory) -> PetDataset:
    """Twenty synthetic pets, to read alone."""
    return load_pets(draw_pets(tmp_path_factory.mktemp("pets") / "drawn", 20))


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def tiny_dataset(tmp_path) -> Callable[..., Path]:
    """`tiny_dataset(trainval=23, test=9, folder="pets")` writes a dataset in the Oxford-IIIT layout; returns its folder.

    As untidy as the real one: the first four photographs are a palette GIF, a PNG with alpha, a CMYK and a grey JPEG,
    all named .jpg; a hidden file lies beside the trimaps, and one photograph stands in no list.
    """

    def write(trainval: int = 23, test: int = 9, folder: str = "pets") -> Path:
        return write_dataset(tmp_path / folder, trainval, test)

    return write


def write_dataset(root: Path, trainval: int, test: int) -> Path:
    names = [f"{list(BREEDS)[number % 3]}_{number}" for number in range(trainval + test)]
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate([*names, "Bengal_1000"]):
        _write_pair(root, name, number, rng)
    (root / "annotations" / "trimaps" / "._Bengal_1.png").write_bytes(b"not a picture")
    for file, listed in (("trainval.txt", names[:trainval]), ("test.txt", names[trainval:])):
        lines = [f"{name} 1 {BREEDS[name.rpartition('_')[0]]} 1" for name in listed]
        (root / "annotations" / file).write_text("#Image CLASS-ID SPECIES BREED\n" + "\n".join(lines) + "\n\n")
    return root


def _write_pair(root: Path, name: str, number: int, rng: np.random.Generator) -> None:
    """A red pet on a grey-blue ground, with noise, and its trimap with a border."""
    height, width = 40 + 3 * (number % 5), 36 + 5 * (number % 4)
    distance = np.hypot(*(np.mgrid[:height, :width] - np.array([height / 2, width / 2]).reshape(2, 1, 1)))
    trimap = np.select([distance < 10, distance < 13], [1, 3], 2).astype(np.uint8)
    colours = np.array([[0, 0, 0], [200, 60, 40], [90, 100, 140], [150, 80, 90]])
    pixels = (colours[trimap] + rng.integers(-30, 31, (height, width, 3))).astype(np.uint8)
    formats = {0: ("P", "GIF"), 1: ("RGBA", "PNG"), 2: ("CMYK", "JPEG"), 3: ("L", "JPEG")}
    mode, kind = formats.get(number, ("RGB", "JPEG"))
    Image.fromarray(pixels).convert(mode).save(root / "images" / f"{name}.jpg", format=kind)
    Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
