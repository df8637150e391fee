"""Photographs and trimaps as files: whatever is wrong with one ends in a sentence."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from petseg_lib.config import ReadableError
from petseg_lib.disk import from_here
from petseg_lib.words import some

ORIENTATION_TAG = 0x0112
UPRIGHT = {  # what turns a photograph of each EXIF orientation upright (CIPA DC-008, Exif 2.32, table 6)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNREAD = dict.fromkeys((".heic", ".heif"), "not read: export it as JPEG")
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".avif",
    ".jp2",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".tga",
    ".mpo",
)
_warnings_lock = threading.Lock()


class DatasetError(ReadableError):
    """A dataset that cannot be used."""


class PassingError(DatasetError):
    """A file that could not be read this time, for a reason outside of it: it may be another time."""


def found(place: str | Path) -> Path:
    """Where photographs lie.

    Args:
        place: absolute, or relative to the current folder or else to the workspace.

    Raises:
        DatasetError: there is no such place.
    """
    path = from_here(place)
    if not path.exists():
        raise DatasetError(f"the photographs {place} do not exist")
    return path


def photographs_in(place: str | Path, limit: int = 0) -> list[Path]:
    """The photographs of a folder, by name, folders in it left out; or the one file that is named.

    Args:
        place: as `found` takes it.
        limit: how many at most, evenly spaced; 0 = all.

    Raises:
        DatasetError: there is no such place, or no photograph in it.
    """
    path = found(place)
    if path.is_file():
        return [path]
    files = sorted(
        file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )
    if not files:
        raise DatasetError(f"{place} has no photograph: files named {', '.join(SUFFIXES)} are looked for")
    chosen = np.linspace(0, len(files) - 1, min(limit or len(files), len(files))).round().astype(int)
    return [files[number] for number in chosen]


def passed_over(place: str | Path) -> list[str]:
    """The names of a folder's files that `photographs_in` takes for no photographs, and why."""
    path = found(place)
    files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")] if path.is_dir() else []
    others = sorted(file for file in files if file.suffix.lower() not in SUFFIXES)
    return [f"{file.name} ({UNREAD.get(file.suffix.lower(), 'no photograph by its name')})" for file in others]


def read_photograph(path: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8, otherwise as `open_rgb`."""
    return np.asarray(open_rgb(path))


def open_rgb(path: Path) -> Image.Image:
    """A photograph of any format and mode as an RGB picture in memory, pixels as stored (no rotation by EXIF, but a TIFF's,
    which Pillow follows).

    Raises:
        DatasetError: the file is missing or damaged, or a grey picture of more than 8 bits a pixel.
    """
    with named(f"the photograph {path}"):
        return decoded_rgb(opened(file_bytes(path)))


def read_upright(path: Path) -> np.ndarray:
    """A photograph as people see it, (H, W, 3) uint8, turned as its EXIF orientation says, which telephones rely on.

    Raises:
        DatasetError: as of `open_rgb`.
    """
    with named(f"the photograph {path}"):
        picture = opened(file_bytes(path))
        rgb = decoded_rgb(picture)
        turn = UPRIGHT.get(orientation(picture))
        return np.asarray(rgb if turn is None else rgb.transpose(turn))


def read_trimap(path: Path) -> np.ndarray:
    """A trimap as (H, W) uint8: 1 pet, 2 background, 3 border.

    Raises:
        DatasetError: the file is missing or damaged, or holds other values.
    """
    with named(f"the trimap {path}"):
        return decoded_trimap(opened(file_bytes(path)))


# The steps of the functions above. The errors of these say what is wrong, and leave it to the caller to name the file.


def file_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError("is missing") from error
    except OSError as error:
        raise PassingError(f"cannot be opened: {reason(error)}") from error
    if not content:
        raise DatasetError("cannot be opened: it is empty (0 bytes)")
    return content


def opened(source: Path | bytes) -> Image.Image:
    """A picture, from a file or its bytes, of which no more than the header is read yet."""
    try:
        with _without_warnings():
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError as error:
        raise DatasetError("cannot be opened: it is no picture, or damaged in its first bytes") from error
    except Exception as error:  # whatever a header of random bytes makes Pillow raise
        raise DatasetError(f"cannot be opened: {reason(error)}") from error


def decoded_rgb(image: Image.Image) -> Image.Image:
    load(image)
    if image.mode[0] in "IF":  # Pillow would cut their values off at 255
        raise DatasetError(f"has more than 8 bits a pixel (mode {image.mode}): save it with 8")
    image.info.pop("transparency", None)  # it does not change the pixels, and Pillow would warn of some kinds
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def decoded_trimap(image: Image.Image) -> np.ndarray:
    load(image)
    trimap = np.asarray(image)
    if trimap.ndim != 2:
        raise DatasetError(f"has {trimap.shape[-1]} channels, but a trimap has one")
    if trimap.dtype == bool:
        trimap = trimap.astype(np.uint8)
    if trimap.min() < 1 or trimap.max() > 3 or trimap.dtype.kind == "f":
        found = np.unique(trimap).tolist()
        mask = ": it is a mask, not a trimap (README, Your own data)" if found[-1] == 255 or found == [0, 1] else ""
        raise DatasetError(f"has the values {some(found)}, but only 1, 2 and 3 are allowed{mask}")
    return trimap.astype(np.uint8)


def orientation(image: Image.Image) -> int:
    """How its EXIF tag wants a photograph turned or mirrored: 2 to 8, of which 5 and more swap its sides; 1 = as it is.

    To be asked once the pixels are decoded: a PNG keeps the tag behind them, and Pillow would tell of no damage later.
    """
    try:
        with _without_warnings():
            value = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged EXIF data says nothing, and the pixels are good without it
        return 1
    return value if value in range(2, 9) else 1


def load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError as error:
        raise PassingError(f"does not fit into memory: {image.width} x {image.height} px") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and others for damaged data
        raise DatasetError(f"is damaged: {reason(error)}") from error


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def named(file: str) -> Iterator[None]:
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{file} {error}") from error.__cause__


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of untidy headers that do no harm. Filters belong to the process: one thread at a time may set them."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
