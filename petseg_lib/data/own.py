"""A dataset of one's own photographs and masks, in the layout of Oxford-IIIT Pet."""

import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from petseg_lib.config import ReadableError
from petseg_lib.data.masks import BACKGROUND, BORDER, PET
from petseg_lib.data.pets import SPECIES
from petseg_lib.data.pictures import (
    UPRIGHT,
    DatasetError,
    decoded_rgb,
    file_bytes,
    load,
    named,
    opened,
    orientation,
    passed_over,
    photographs_in,
    some,
)
from petseg_lib.disk import expanded, replace
from petseg_lib.words import writable

SHARE_OF_AN_AREA = 0.01  # of the mask, from which on a third value is no edge
FEW_VALUES = 4  # in all: none of them is what JPEG or a soft edge leaves
FEW_COLOURS = 16  # of what is opaque: it is painted, and no cut-out of a photograph
FEWEST = 4  # of which one is tested on, one validates, and two are trained on
JPEG = {"quality": 95, "subsampling": 0, "comment": b""}  # that of a GIF or PNG may be too long for a JPEG
LONGEST_SIDE = 65_500  # px, of a JPEG that libjpeg writes


def from_masks(
    photographs: str | Path,
    masks: str | Path,
    out: str | Path,
    test_share: float = 0.3,
    seed: int = 0,
    species: Literal["cat", "dog"] = "cat",
    breed: str = "pet",
) -> str:
    """Write a dataset from photographs and from masks of the same names, whatever their endings.

    Writes `images/NAME.jpg`, upright (a JPEG that is so already is copied), `annotations/trimaps/NAME.png` (1 pet,
    2 background; a mask has no border), and `annotations/trainval.txt` and `test.txt`. Spaces, `#`,
    backslashes and what is no UTF-8 in names become `_`.

    Args:
        photographs: folder, read as `pictures.photographs_in` reads it.
        masks: folder. Pet is what is more than half as opaque as the mask's most opaque pixel, in a picture that has
            transparent ones; else what is brighter than half of the mask's brightest value, in any channel (so masks of 0 and
            1 and of 0 and 255 both do). Trimaps of 1, 2 and 3 are taken as they are.
        out: made; it must not be there yet.
        test_share: of the photographs, for the split `test`, above 0 and below 1. Of the rest, one in ten validates.
        seed: of the drawing of the split, 0 or more.
        species, breed: of all pets, for the tables.

    Returns:
        What was written, and what was left out, in words.

    Raises:
        ReadableError: an argument is wrong. DatasetError: too few photographs have a mask, or a file cannot be used; nothing
            is left behind.
    """
    out = expanded(out)
    if str(out) == "demo":
        raise ReadableError("out is demo, which parameter data takes for the built-in synthetic pets: name another")
    if seed < 0:
        raise ReadableError(f"the seed is {seed}, but it must be 0 or more")
    if out.exists():
        raise ReadableError(f"{out} is there already: name a folder that is not, since nothing is written over")
    if not 0 < test_share < 1:
        raise ReadableError(f"the share to test on is {test_share}, but it must be above 0 and below 1")
    if not breed or len(breed.split()) != 1 or breed.isdigit():
        raise ReadableError(f"breed is {breed!r}, but it must be a word without spaces, such as Maine_Coon")
    pairs, left_out = _pairs(photographs_in(photographs), photographs_in(masks))
    if len(pairs) < FEWEST:
        raise DatasetError(
            f"{len(pairs)} photographs of {photographs} have a mask of their name in {masks}, but {FEWEST} or more are needed"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        made = Path(temporary) / out.name
        for folder in ("images", "annotations/trimaps"):
            (made / folder).mkdir(parents=True)
        turned, inverted, reasons = [], [], []
        for name, (photograph, mask) in pairs.items():
            try:
                doubts = _write_pair(photograph, mask, made / "images" / f"{name}.jpg", made / f"annotations/trimaps/{name}.png")
            except DatasetError as error:
                reasons.append(error)
                continue
            turned += [photograph.name] * doubts.turned
            inverted += [photograph.name] * doubts.inverted
        if reasons:
            raise DatasetError(f"{len(reasons)} of {len(pairs)} pairs cannot be used: {some(reasons, '; ')}")
        names = np.random.default_rng(seed).permutation(sorted(pairs)).tolist()
        tested = min(max(1, round(test_share * len(names))), len(names) - 3)
        number = next(number for number, each in SPECIES.items() if each == species)
        for split, those in (("test", names[:tested]), ("trainval", names[tested:])):
            lines = "".join(f"{name} 1 {number} {breed}\n" for name in sorted(those))
            (made / "annotations" / f"{split}.txt").write_text(lines, encoding="utf-8")
        replace(made, out)
    words = f"{len(pairs)} photographs in {out}: {len(pairs) - tested} to train and validate, {tested} to test"
    left_out += [*passed_over(photographs), *passed_over(masks)]
    words += f"; left out: {some(left_out)}" if left_out else ""
    words += f"; turned upright, and their masks taken for upright, see whether that is so: {some(turned)}" if turned else ""
    words += f"; pet in all four corners, see whether their masks are inverted: {some(inverted)}" if inverted else ""
    return words


def _pairs(photographs: list[Path], masks: list[Path]) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Photograph and mask by the name that they get, and in words the files without a partner."""
    by_kind = []
    for kind, paths in (("photographs", photographs), ("masks", masks)):
        found = Counter(_name(path).casefold() for path in paths)
        if twice := [name for name, count in found.items() if count > 1]:
            raise DatasetError(f"several {kind} have one name, apart from endings, spaces and capitals: {some(twice)}")
        by_kind.append({_name(path).casefold(): path for path in paths})
    of_photographs, of_masks = by_kind
    both = of_photographs.keys() & of_masks.keys()
    pairs = {_name(of_photographs[key]): (of_photographs[key], of_masks[key]) for key in sorted(both)}
    alone = [(path.name, "mask") for key, path in of_photographs.items() if key not in both]
    alone += [(path.name, "photograph") for key, path in of_masks.items() if key not in both]
    return pairs, [f"{name} (no {partner})" for name, partner in alone]


def _name(path: Path) -> str:
    """A name that a list can hold: no spaces, no `#` at its beginning, where it makes a comment of the line, and no backslash.

    Composed, as most systems write accents; archives and disks of a Mac hold them beside their letters.
    """
    return unicodedata.normalize("NFC", re.sub(r"[#\\]", "_", "_".join(writable(path.stem).split()) or "_"))


class _Doubts(NamedTuple):
    """What to look at in a pair: the photograph was turned, and its mask has a size that does not say whether it needed that as
    well; the mask may be inverted."""

    turned: bool
    inverted: bool


def _write_pair(photograph: Path, mask: Path, image_path: Path, trimap_path: Path) -> _Doubts:
    with named(f"the photograph {photograph}"):
        content = file_bytes(photograph)
        picture = opened(content)
        stored = decoded_rgb(picture)
        turn = UPRIGHT.get(orientation(picture))
        image = stored if turn is None else stored.transpose(turn)
        copied = turn is None and picture.format == "JPEG"
        if not copied and max(image.size) > LONGEST_SIDE:
            raise DatasetError(f"has {image.width} x {image.height} px, but a side may have {LONGEST_SIDE}: make it smaller")
    with named(f"the mask {mask}"):
        drawn = opened(file_bytes(mask))
        trimap = _trimap_of(drawn)
        own = UPRIGHT.get(orientation(drawn))
        turned = trimap if own is None else np.asarray(Image.fromarray(trimap).transpose(own))
        if own is not None and turned.shape[::-1] == image.size:  # else the tag was left by what had turned the mask already
            trimap = turned
        else:
            own = None
        size = trimap.shape[::-1]
        if size != image.size and size == stored.size:  # drawn on the photograph as it is stored
            trimap = np.asarray(Image.fromarray(trimap).transpose(turn))
        elif size != image.size:
            raise DatasetError(f"is {size[0]} x {size[1]} px, but its photograph is {image.width} x {image.height}")
    if copied:
        shutil.copyfile(photograph, image_path)
    else:
        image.save(image_path, **JPEG)
    Image.fromarray(trimap).save(trimap_path)
    corners = trimap[[0, 0, -1, -1], [0, -1, 0, -1]]
    return _Doubts(turn is not None and own is None and stored.size == image.size, bool((corners == PET).all()))


def _trimap_of(mask: Image.Image) -> np.ndarray:
    """(H, W) uint8 of PET, BACKGROUND and, of a mask that is a trimap already, BORDER."""
    load(mask)
    if mask.mode in ("LA", "PA", "RGBA") or "transparency" in mask.info:
        layer = np.asarray(mask.convert("RGBA"))
        opaque = layer[..., 3]
        if opaque.min() < 255:
            trimap = _marked(opaque, opaque, "transparent", "more opaque")
            _check_paint(layer[..., :3], opaque == opaque.max())
            return trimap
    plain = mask.mode in ("1", "L", "I", "F") or mask.mode.startswith("I;")
    values = np.asarray(mask if plain else mask.convert("RGB"))
    brightest = values.max(axis=2) if values.ndim == 3 else values
    there = np.unique(brightest).tolist()
    if there == [PET, BACKGROUND, BORDER]:
        return brightest.astype(np.uint8)
    if max(there) > 1 and set(there) <= {PET, BACKGROUND, BORDER}:
        raise DatasetError(f"has no other values than {some(there)}, which do not say what is pet: make that 255 and the rest 0")
    return _marked(brightest, values, "black", "brighter")


def _marked(values: np.ndarray, colours: np.ndarray, nothing: str, more: str) -> np.ndarray:
    """The trimap of a mask: pet where its values (H, W) are above half of the largest one.

    Args:
        colours: what the values were taken from, (H, W) or (H, W, 3) uint8: labels may differ in colour alone.
    """
    pet = values > values.max() / 2
    if not pet.any():
        raise DatasetError(f"is {nothing} all over: it marks no pet")
    if pet.all():
        raise DatasetError(f"marks every pixel: pet must be {more} than the rest")
    packed = _packed(colours)
    parts = [np.unique(packed[where], return_counts=True) for where in (~pet, pet)]
    low, high = (_unpacked(there[counts.argmax()], colours) for there, counts in parts)
    few = sum(len(there) for there, _ in parts) <= FEW_VALUES
    span = np.abs(high - low).max()
    others = []
    for shade in _plain_areas(packed, np.True_):
        shade = _unpacked(shade, colours)
        to_low, to_high = np.abs(shade - low).max(), np.abs(shade - high).max()
        # JPEG makes other shades of a plain area, but near to it, and many. The 1 beside 0 and 255 is a label.
        if min(to_low, to_high) > span / 32 or (few and 0 < to_low < to_high):
            others.append(shade)
    if others:
        kind, levels = _words([low, *others, high])
        raise DatasetError(f"has areas of the {kind} {levels}, but a mask has two: make what is pet 255 and the rest 0")
    return np.where(pet, np.uint8(PET), np.uint8(BACKGROUND))


def _check_paint(colours: np.ndarray, opaque: np.ndarray) -> None:
    """Refuse a layer (H, W, 3) uint8 that is painted in several colours where it is opaque; a cut-out has the photograph's."""
    packed = _packed(colours)
    if len(np.unique(packed[opaque])) > FEW_COLOURS:
        return
    shades = [_unpacked(shade, colours) for shade in _plain_areas(packed, opaque[1:-1, 1:-1])]
    if any(np.abs(shade - shades[0]).max() > 255 / 32 for shade in shades):
        kind, levels = _words(shades)
        raise DatasetError(f"is opaque in areas of the {kind} {levels}, which do not say what is pet: make the rest transparent")


def _plain_areas(packed: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The values of which there are plain areas large enough to be meant: shades of a soft edge do not go on to all sides."""
    inner = packed[1:-1, 1:-1]
    plain = np.broadcast_to(where, inner.shape).copy()
    for other in (packed[:-2, 1:-1], packed[2:, 1:-1], packed[1:-1, :-2], packed[1:-1, 2:]):
        plain &= inner == other
    shades, counts = np.unique(inner[plain], return_counts=True)
    return shades[counts > SHARE_OF_AN_AREA * packed.size]


def _packed(colours: np.ndarray) -> np.ndarray:
    """One number for each colour (H, W, 3) uint8; greys (H, W) as they are."""
    if colours.ndim == 2:
        return colours
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _unpacked(number: np.generic, colours: np.ndarray) -> np.ndarray:
    """What `_packed` made a number of, one value a channel."""
    channels = [number] if colours.ndim == 2 else [int(number) >> shift & 255 for shift in (16, 8, 0)]
    return np.array(channels, dtype=np.float64)


def _words(shades: list[np.ndarray]) -> tuple[str, str]:
    """Greys as `values`, one number each, and else `colours`, three each."""
    if all(len(set(shade)) == 1 for shade in shades):
        return "values", some(f"{level:g}" for level in sorted(shade[0] for shade in shades))
    return "colours", some(f"({', '.join(f'{level:g}' for level in shade)})" for shade in sorted(map(tuple, shades)))
