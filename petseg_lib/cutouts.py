"""Pets cut out of any photographs: no trimap is needed, and none is looked for."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from petseg_lib.checkpoints import load_run
from petseg_lib.config import ReadableError
from petseg_lib.data.pictures import DatasetError, found, photographs_in, read_upright
from petseg_lib.devices import open_fabric
from petseg_lib.disk import expanded, write_table
from petseg_lib.evaluation import probabilities
from petseg_lib.inference import for_inference
from petseg_lib.words import some, writable

FOLDERS, TABLE = ("masks", "cutouts"), "cutouts.csv"
COLUMNS = ["name", "width", "height", "share", "unsure"]
NEXT = 600 * 10**9  # ns, from a mask to its cut-out, which is written right after it, at the very most
UNSURE = (0.1, 0.9)  # probabilities between which a network has not made up its mind


class Cutout(NamedTuple):
    """A photograph, and what a network makes of it.

    name: of the files that `cut_out_all` writes. photograph: (H, W, 3) uint8, upright. probability: (H, W) in [0, 1].
    """

    name: str
    photograph: np.ndarray
    probability: np.ndarray

    @property
    def unsure(self) -> np.ndarray:
        """(H, W) bool: where the network has not made up its mind."""
        return (self.probability > UNSURE[0]) & (self.probability < UNSURE[1])


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each file, the same for the same files: that without its suffix, or with it where another file has the same.

    Names that differ in nothing but capitals count as the same, as they do on the disks of Windows and macOS; where two files
    differ in nothing else, the second name ends in `_2`.
    """
    paths = [Path(writable(path.name)) for path in paths]
    known = Counter(each.casefold() for path in paths for each in {path.stem, path.name})
    names, taken = [], set()
    for path in paths:
        name = path.stem if known[path.stem.casefold()] == 1 else path.name
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        names.append(next(each for each in candidates if each.casefold() not in taken))
        taken.add(names[-1].casefold())
    return names


def cut_out(photograph: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """(H, W, 4) uint8: the photograph, opaque where the probability is above the threshold; black and transparent elsewhere."""
    pet = (probability > threshold).astype(np.uint8)
    return np.dstack([photograph * pet[..., None], 255 * pet])  # an editor could bring back what is only transparent


def cutouts(
    model: nn.Module,
    description: dict[str, Any],
    photographs: Mapping[str, Path],
    fabric: Fabric,
    left_out: dict[str, str] | None = None,
) -> Iterator[Cutout]:
    """Each photograph in turn, one in memory at a time.

    Args:
        description: `checkpoints.describe_model` of the model.
        photographs: by the names of `names_of` all of them, of which these may be a few.
        left_out: gets the name and the reason of each photograph that cannot be used; None = raise.

    Raises:
        DatasetError: a photograph cannot be used.
    """
    model = for_inference(model, fabric)
    for name, path in photographs.items():
        try:
            photograph = read_upright(path)
        except DatasetError as error:
            if left_out is None:
                raise
            left_out[name] = str(error)
            continue
        yield Cutout(name, photograph, probabilities(model, photograph, description, fabric))


def cut_out_all(
    model: nn.Module,
    description: dict[str, Any],
    paths: Sequence[Path],
    folder: Path,
    fabric: Fabric,
    threshold: float = 0.5,
    bad_samples: Literal["stop", "skip"] = "stop",
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Write `masks/NAME.png` (0 and 255) and `cutouts/NAME.png` (the pet on nothing) of each photograph, and cutouts.csv.

    Returns:
        A row a photograph: name, width and height (px), share (of the photograph that is pet, 0 to 1), unsure (share of its
        pixels whose probability is between 0.1 and 0.9); and what was left out, with the reasons.

    Raises:
        DatasetError: a photograph cannot be used, under `stop`; or none can.
        ReadableError: what stands in the folder is not of an earlier call, or is what is to be read.
    """
    if paths[0].resolve().parent in [(folder / kind).resolve() for kind in FOLDERS]:
        raise ReadableError(f"{paths[0].parent} is where {folder} gets its results: name another one")
    left_out: dict[str, str] = {}
    rows = []
    _clear(folder)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    try:
        photographs = dict(zip(names_of(paths), paths, strict=True))
        for each in cutouts(model, description, photographs, fabric, None if bad_samples == "stop" else left_out):
            cut = cut_out(each.photograph, each.probability, threshold)
            files = [folder / kind / f"{each.name}.png" for kind in FOLDERS]
            try:
                for file, picture in zip(files, (cut[..., 3], cut), strict=True):
                    Image.fromarray(picture).save(file)
            except BaseException:  # half a pair would be taken for someone's own by the next call
                for file in files:
                    file.unlink(missing_ok=True)
                raise
            height, width = each.probability.shape
            rows.append((each.name, width, height, (cut[..., 3] > 0).mean(), each.unsure.mean()))
    finally:  # an interrupted call's table says which files are its own
        table = pd.DataFrame(rows, columns=COLUMNS)
        write_table(folder / TABLE, table)
    if not rows:
        raise DatasetError(f"no photograph can be used: {some(left_out.values())}")
    return table, left_out


def _clear(folder: Path) -> None:
    """Remove the files that an earlier call's table names, unless someone has worked on them since.

    Raises:
        ReadableError: masks or cut-outs stand there that no table of an earlier call accounts for, that are newer than it, or
            where only one of a pair is older.
    """
    path, own = folder / TABLE, set()
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(",".join(COLUMNS)):
        names = pd.read_csv(path, dtype=str, keep_default_na=False)["name"]
        written = path.stat().st_mtime_ns  # after all of them
        own = {path}
        for name in names:
            files = [folder / kind / Path(f"{name}.png").name for kind in FOLDERS]
            times = {file: file.stat().st_mtime_ns for file in files if file.is_file()}
            times = {file: at for file, at in times.items() if at <= written}
            # A mask that was drawn before, and then copied or moved here, may have kept its time.
            own |= {file for file, at in times.items() if max(times.values()) - at <= NEXT}
    standing = {path, *(file for kind in FOLDERS for file in (folder / kind).glob("[!.]*"))} - own
    if foreign := [file for file in sorted(standing) if file.exists()]:
        raise ReadableError(
            f"{folder} holds {some(file.relative_to(folder).as_posix() for file in foreign)}, which `petseg predict` did not "
            "write, or which changed since, and nothing is written over: name another folder"
        )
    for file in own:
        file.unlink(missing_ok=True)


def cut_out_folder(run_dir: str, photographs: str, out: str, threshold: float = 0.5) -> tuple[pd.DataFrame, dict[str, str]]:
    """What the command `petseg predict` does: a training run's network over a folder, or one file.

    Raises:
        RunError: the run has no usable model.
        DatasetError: there is no photograph that can be used.
        ReadableError: the threshold is not between 0 and 1, or `out` lies in the folder of the photographs.
    """
    if not 0 < threshold < 1:
        raise ReadableError(f"threshold is {threshold}, but it must be above 0 and below 1")
    place, folder = found(photographs), expanded(out).resolve()
    paths = photographs_in(photographs)
    if folder == paths[0].resolve().parent or (place.is_dir() and folder.is_relative_to(place.resolve())):
        raise ReadableError(f"{out} lies in the folder of the photographs, where nothing is written: name another one")
    _, model, description = load_run(run_dir)
    return cut_out_all(model, description, paths, folder, open_fabric(), threshold, "skip")
