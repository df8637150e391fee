"""Oxford-IIIT Pet from its home page: downloaded, checked, unpacked and checked again.

Until the dataset stands in its place, everything received is kept in `NAME.part` files, and a later call goes on from there.
"""

import hashlib
import os
import platform
import re
import shutil
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm.std import tqdm

from petseg_lib.data.pets import PetDataset, load_pets
from petseg_lib.data.pictures import DatasetError
from petseg_lib.disk import expanded, remove_left, settle
from petseg_lib.words import some


@dataclass(frozen=True)
class Archive:
    """A .tar.gz file on a server: its address, its size in bytes and its MD5 as 32 hexadecimal digits."""

    url: str
    size: int
    md5: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


HOME = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
# Addresses and MD5 as in torchvision.datasets.OxfordIIITPet; the small one is first, so that trouble shows early.
ARCHIVES = (
    Archive(f"{HOME}/annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
    Archive(f"{HOME}/images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
)
PAIRS = 7349  # 3,680 lines of trainval.txt and 3,669 of test.txt
TRIES = 5
PAUSE = 1.0  # s before the second try; twice as long before each further one
TIMEOUT = 30  # s without a byte
BLOCK = 2**18  # bytes
UNPACKED = 1.25  # what an archive holds, as a multiple of its size: photographs hardly shrink, small files fill whole blocks


def download(folder: str | Path, progress: bool = True, archives: tuple[Archive, ...] = ARCHIVES, pairs: int = PAIRS) -> Path:
    """Oxford-IIIT Pet in a folder: 0.8 GB to download, 1.8 GB of disk until it is unpacked, 1 GB afterwards.

    A folder that holds the dataset is only looked at, without network. Otherwise `images` and `annotations` are put
    there together, once everything is right; other files in the folder are left alone.

    Args:
        folder: is made if missing.
        progress: show bars.
        archives: what to download; together they hold `images` and `annotations`.
        pairs: photographs that the list files must name.

    Returns:
        The folder, as `load_pets` takes it.

    Raises:
        DatasetError: the folder holds a dataset that is not whole or cannot be written, another download fills it, the disk has too little room, the
            server does not give an archive whole, or an archive is not the expected one or would write outside its folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DatasetError(f"unpacking safely needs Python 3.11.4 or later, but this is {platform.python_version()}")
    folder = expanded(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"the data folder {folder} cannot be used: {error}") from error
    if _stands(folder, pairs):
        return folder
    lock = FileLock(folder / ".download.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DatasetError(f"another download into {folder} is under way: wait for it, or end it and start again") from None
    except OSError as error:
        raise DatasetError(f"the data folder {folder} cannot be used: {error}") from error
    try:
        if not _stands(folder, pairs):  # another process may have put it there meanwhile
            _download(folder, archives, pairs, progress)
    finally:
        if os.name == "posix":  # Windows removes it itself, and no file that is open
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
    return folder


def _stands(folder: Path, pairs: int) -> bool:
    """Whether the whole dataset stands in the folder."""
    try:
        there = sorted(path.name for path in folder.iterdir() if path.name in ("images", "annotations", "oxford-iiit-pet"))
    except OSError as error:
        raise DatasetError(f"the data folder {folder} cannot be used: {error}") from error
    if there:
        try:
            _load_whole(folder, pairs)
        except DatasetError as error:
            raise DatasetError(
                f"{folder} already holds {some(there)}, but not the whole dataset ({error}): "
                "move that away or name another folder; nothing was changed"
            ) from error
    return bool(there)


def _download(folder: Path, archives: tuple[Archive, ...], pairs: int, progress: bool) -> None:
    parts = {archive: folder / f"{archive.name}.part" for archive in archives}
    _check_disk(folder, parts)
    for archive, part in parts.items():
        _fetch(archive, part, progress)
        _verify(archive, part)
    _unpack(parts, folder, pairs, progress)
    for part in parts.values():
        part.unlink(missing_ok=True)


def _load_whole(folder: Path, pairs: int) -> PetDataset:
    dataset = load_pets(folder)
    if len(dataset.pets) != pairs:
        raise DatasetError(f"its lists name {len(dataset.pets):,} pairs of photograph and trimap, not {pairs:,}")
    return dataset


def _check_disk(folder: Path, parts: dict[Archive, Path]) -> None:
    needed = sum(archive.size * (1 + UNPACKED) - _size(part) for archive, part in parts.items())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DatasetError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, but the dataset needs {needed / 1e9:.1f} GB there"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(archive: Archive, part: Path, progress: bool) -> None:
    """Download what the .part file still lacks; where the connection breaks, go on after a pause."""
    with tqdm(desc=archive.name, total=archive.size, unit="B", unit_scale=True, disable=not progress) as bar:
        for attempt in range(TRIES):
            if _size(part) >= archive.size:
                return
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            reason: object = "the connection was cut"  # which http.client passes over in silence
            try:
                _receive(archive, part, bar)
            except (OSError, HTTPException) as error:
                if isinstance(error, HTTPError) and error.code < 500:
                    raise DatasetError(
                        f"{archive.url} answers {error.code} {error.reason}; if you have this file from elsewhere, copy it to {part}"
                    ) from error
                reason = getattr(error, "reason", error)
    if _size(part) < archive.size:
        raise DatasetError(
            f"the download of {archive.url} stopped at {_size(part):,} of {archive.size:,} bytes ({reason}): "
            "start it again, and it goes on from there"
        )


def _receive(archive: Archive, part: Path, bar: tqdm) -> None:
    """One request, appended to the .part file as it comes."""
    request = Request(archive.url, headers={"User-Agent": "petseg"})
    if here := _size(part):
        request.add_header("Range", f"bytes={here}-")
    with urlopen(request, timeout=TIMEOUT) as response:
        start, size = _offered(response)
        if size != archive.size:  # found before anything is written: a login page must not replace what is here
            raise DatasetError(f"{archive.url} offers {size:,} bytes, but the archive must have {archive.size:,}")
        with part.open("ab") as file:
            file.truncate(start)  # a server without ranges starts anew
            bar.n = start
            # read1 gives what has come, so that little is lost when the connection breaks.
            while start < size and (block := response.read1(BLOCK)):
                start += file.write(block)
                bar.update(len(block))


def _offered(response: HTTPResponse) -> tuple[int, int]:
    """Where in the file the answer begins, and the size of the whole file: both in bytes; 0 if the server does not say."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        return (int(found[1]), int(found[2])) if found else (0, 0)
    return 0, int(response.headers.get("Content-Length", 0))


def _verify(archive: Archive, part: Path) -> None:
    with part.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if (_size(part), md5) != (archive.size, archive.md5):
        size = _size(part)
        part.unlink()
        raise DatasetError(
            f"{archive.name} has {size:,} bytes and the MD5 {md5}, but must have {archive.size:,} and {archive.md5}: "
            "it was removed; start the download again"
        )


def _unpack(parts: dict[Archive, Path], folder: Path, pairs: int, progress: bool) -> None:
    """Unpack aside, check, and then rename, so that half a dataset never stands in the folder."""
    remove_left(folder, ".unpack-*")
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as aside:
        for archive, part in parts.items():
            try:
                with (
                    part.open("rb") as file,
                    tqdm.wrapattr(file, "read", archive.size, desc=f"unpack {archive.name}", disable=not progress) as watched,
                    tarfile.open(fileobj=watched, mode="r:gz") as tar,
                ):
                    tar.extractall(aside, filter=_safe)
            except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
                raise DatasetError(f"{archive.name} cannot be unpacked, and nothing of it is kept: {error}") from error
        try:
            dataset = _load_whole(Path(aside), pairs)
        except DatasetError as error:
            raise DatasetError(f"the archives do not hold the whole dataset: {error}") from error
        for name in ("images", "annotations"):
            settle(dataset.root / name, folder / name)


def _safe(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
    """A filter for `tarfile`: its own `data` mends an absolute name and follows a link within; here both refuse the archive."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise tarfile.FilterError(f"its member {member.name!r} is neither a file nor a folder below its top, as all must be")
    return tarfile.data_filter(member, target)
