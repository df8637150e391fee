"""Synthetic pets: a small dataset in the Oxford-IIIT layout, drawn rather than photographed, and free of any licence.

Every picture is a function of (seed, index) alone, so that the same call draws the same bytes.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from loky import ProcessPoolExecutor
from PIL import Image

from petseg_lib.config import ReadableError
from petseg_lib.data.masks import BACKGROUND, BORDER, PET
from petseg_lib.data.synthetic_coat import COATS
from petseg_lib.data.synthetic_paint import Painter, rgb
from petseg_lib.data.synthetic_pet import POSES, Pose, draw_pet, portrait
from petseg_lib.data.synthetic_scene import paint_garden, paint_room
from petseg_lib.data.synthetic_shapes import Blob, Frame
from petseg_lib.data.synthetic_things import Scene, paint_distractors
from petseg_lib.gpus import usable_cores

SMALLEST_COUNT = 20
MOST_WORKERS = 60  # that Windows can wait for
PETS_A_WORKER = 30  # starting a process costs about as much as a few pets
SIDES = ((300, 400), (400, 300), (320, 320), (260, 340), (360, 270), (240, 320), (380, 300), (300, 220), (400, 400), (280, 380))
HEADER = "#Image CLASS-ID SPECIES BREED ID\n#ID: class, SPECIES: 1:Cat 2:Dog, BREED ID: within the species\n#Synthetic pets, total: {}\n"


HAZE = rgb((0.84, 0.83, 0.82))  # what the background fades towards


def draw_pets(folder: str | Path, count: int = 240, seed: int = 0, workers: int | None = None) -> Path:
    """Draw a dataset of synthetic pets in the Oxford-IIIT layout.

    Writes `images/NAME.jpg` (RGB, 220 to 400 px a side), `annotations/trimaps/NAME.png` (1 pet, 2 background, 3 border)
    and `annotations/list.txt`, `trainval.txt`, `test.txt`. Half of the pets are in each split, with the breeds in turn.

    Args:
        folder: made if it is missing; it must be empty.
        count: pets, 20 or more.
        seed: 0 or more; the same seed and count draw the same bytes.
        workers: processes that draw; none gives one a core, where there is enough to draw.

    Returns:
        The folder.

    Raises:
        ReadableError: (a ValueError) for a count below 20, a negative seed, or a folder that holds something already.
    """
    folder = Path(folder)
    if count < SMALLEST_COUNT:
        raise ReadableError(f"count is {count}, but a synthetic dataset needs {SMALLEST_COUNT} pets or more")
    if seed < 0:
        raise ReadableError(f"seed is {seed}, but it must be 0 or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ReadableError(f"{folder} is not an empty folder: synthetic pets are drawn only into a new or an empty one")
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    if workers is None:
        workers = min(usable_cores(), count // PETS_A_WORKER, MOST_WORKERS)
    write = partial(_write_pet, folder, seed)
    if workers < 2:
        for index in range(count):
            write(index)
    else:
        # loky's processes do not run the caller's script once more, as Python's own would on Windows and macOS
        with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            list(pool.map(write, range(count), chunksize=8))
    _write_lists(folder / "annotations", count)
    return folder


def pet_name(index: int) -> str:
    """The name of the pet of an index: its breed and a number that counts within the breed from 1."""
    return f"{COATS[index % len(COATS)].breed}_{index // len(COATS) + 1}"


def _write_lists(annotations: Path, count: int) -> None:
    """The three list files, sorted by breed as in the real dataset."""
    lines = {}
    for index in range(count):
        k = index % len(COATS)
        species = COATS[k].species
        within = sum(coat.species == species for coat in COATS[: k + 1])
        lines[index] = f"{pet_name(index)} {k + 1} {1 if species == 'cat' else 2} {within}\n"
    by_breed = sorted(lines, key=lambda index: (index % len(COATS), index))
    splits = {"trainval.txt": [i for i in by_breed if i < count // 2], "test.txt": [i for i in by_breed if i >= count // 2]}
    (annotations / "list.txt").write_text(HEADER.format(count) + "".join(lines[i] for i in by_breed), newline="\n")
    for name, indices in splits.items():
        (annotations / name).write_text("".join(lines[i] for i in indices), newline="\n")


def _write_pet(folder: Path, seed: int, index: int) -> None:
    image, trimap = draw_picture(index, seed)
    name = pet_name(index)
    Image.fromarray(image).save(folder / "images" / f"{name}.jpg", quality=92)
    Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")


def draw_picture(index: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One pet: the photograph (H, W, 3) uint8 RGB and its trimap (H, W) uint8 with values 1, 2, 3."""
    rng = np.random.default_rng((seed, index))
    coat = COATS[index % len(COATS)]
    pose = POSES[rng.integers(len(POSES))]
    height, width = SIDES[rng.integers(len(SIDES))]
    side = float(rng.choice((-1, 1)))
    painter = Painter(height, width, rng, light=(-0.6 * side, -0.8))
    frame = _place(painter, pose, rng)
    indoors = rng.random() < 0.5
    scene = Scene(painter, min(frame.y / height, 0.97), coat)
    (paint_room if indoors else paint_garden)(scene)
    paint_distractors(scene, indoors)
    painter.image += 0.14 * (HAZE - painter.image)  # distance makes things paler and softer
    blur = rng.uniform(0.8, 2.0)
    painter.image = np.stack([cv2.GaussianBlur(plane, (0, 0), blur) for plane in painter.image])
    if pose.draw is not portrait:
        middle = (pose.left + pose.right) / 2
        painter.part(
            frame,
            [Blob(middle, -0.02, (pose.right - pose.left) * 0.5, 0.26)],
            (0.08, 0.06, 0.1),
            opacity=0.45,
            soft=0.35 * frame.scale,
        )
    draw_pet(painter, frame, coat, pose, rng)
    return _finish(painter, rng), _trimap(painter.pet)


def _place(painter: Painter, pose: Pose, rng: np.random.Generator) -> Frame:
    """Where the pet stands: mostly well inside the picture, sometimes partly out of it."""
    wide, tall = pose.right - pose.left, pose.bottom - pose.top
    scale = min(painter.width / wide, painter.height / tall) * rng.uniform(0.8, 1.0)
    if rng.random() < 0.25:
        scale *= rng.uniform(1.15, 1.4)
    flip = float(rng.choice((-1, 1)))
    x = painter.width / 2 - flip * scale * (pose.left + pose.right) / 2 + rng.normal(0, 0.04) * painter.width
    y = (painter.height - scale * tall) * rng.uniform(0.5, 0.95) - scale * pose.top
    return Frame(x, y, scale, flip)


def _finish(painter: Painter, rng: np.random.Generator) -> np.ndarray:
    """The last touches: warm or cool light from a side, a vignette, a little paper grain."""
    height, width = painter.height, painter.width
    x, y = painter.columns / width - 0.5, painter.rows / height - 0.5
    lamp = 1 + 0.16 * (x * painter.light[0] + y * painter.light[1])
    vignette = 1 - 0.5 * np.clip(np.hypot(x, y) - 0.35, 0, 1)
    tint = rgb((1, 0.99, 0.97)) + rgb((0.03, 0.0, -0.04)) * rng.normal(0, 0.7)
    grain = 1 + 0.015 * rng.standard_normal((height, width), np.float32)
    image = painter.image * (lamp * vignette * grain * rng.uniform(0.9, 1.05)) * tint
    return np.ascontiguousarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _trimap(pet: np.ndarray) -> np.ndarray:
    """Pet, background and a band around the contour, which lies mostly inside, as people draw it."""
    inside = (pet > 0.5).astype(np.uint8)
    width = 0.017 * sum(pet.shape) / 2
    near_in = cv2.distanceTransform(inside, cv2.DIST_L2, 5) <= width * 1.1
    near_out = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5) <= width * 0.7
    trimap = np.where(inside, PET, BACKGROUND).astype(np.uint8)
    trimap[(inside == 1) & near_in | (inside == 0) & near_out] = BORDER
    return trimap
