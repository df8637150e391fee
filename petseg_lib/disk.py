"""Files where a command means them, and written whole or not at all, on whatever system and file system that is."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from petseg_lib.config import ReadableError, shown, workspace

WINDOWS = os.name == "nt"
SECONDS_TO_LET_GO = 2
SECONDS_AT_WORK = 24 * 3600  # on what is written aside, at the very most
NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name)}
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP)  # what some network, virtual and FUSE file systems answer of a folder


def from_here(path: str | Path) -> Path:
    """A path as a command means it: from the current folder where it is there, else from the workspace. Need not exist."""
    path = expanded(path)
    return path if path.exists() else workspace() / path


def expanded(path: str | Path) -> Path:
    """A path whose ~ is a home folder.

    Raises:
        ReadableError: it is that of a user who is not known here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ReadableError(f"{path} cannot be found: there is no such user") from None


def remove_left(folder: Path, pattern: str) -> None:
    """Remove the half-made folders that processes which were killed have left.

    Only after a day: the lock of some network file systems holds on one machine alone, and another one may be at work.
    """
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # the other one has just finished
            if left.stat().st_mtime < time.time() - SECONDS_AT_WORK:
                shutil.rmtree(left, ignore_errors=True)


class DiskError(ReadableError):
    """A file that cannot be written; what stood in its place still stands."""


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object], size: int = 0) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to the disk, then renamed.

    Args:
        content: the bytes, or what writes them into an open file.
        size: about how many bytes that will write.

    Raises:
        DiskError: the disk is full, or the file would pass a limit on its size; what stood there before still stands.
        DiskError: on Windows, another program has the file open.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch has an error of its own about a failed write
        if not isinstance(cause, OSError) or cause.errno not in NO_ROOM:
            raise
        needs = (len(content) if isinstance(content, bytes) else size) / 1e6
        free = shutil.disk_usage(path.parent).free
        raise DiskError(
            f"{shown(path)} needs {needs:.1f} MB, but could not be written ({cause.strerror}; {free / 1e6:.1f} MB "
            "are free): make room and run the same command again; what was written before still stands"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, atomically, with the same bytes on every system."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def replace(finished: Path, place: Path) -> None:
    """Rename a finished file to its place, over what stands there, or a folder to where nothing is, so that it survives a power cut.

    Windows refuses while another program has that file, or one in that folder, open: a virus scanner or an indexer for a
    moment, a spreadsheet until it is closed.

    Raises:
        DiskError: on Windows, the file is still not let go after 2 seconds; what stood there still stands.
    """
    until = time.monotonic() + SECONDS_TO_LET_GO
    while True:
        try:
            finished.replace(place)
            break
        except PermissionError:
            if not WINDOWS:
                raise
            if time.monotonic() > until:
                raise DiskError(
                    f"{shown(place)} cannot be written, since another program has it open or it is write-protected: "
                    "close it there and run the same command again"
                ) from None
        time.sleep(0.1)
    _flush(place.parent)


def settle(finished: Path, folder: Path) -> None:
    """Rename a finished folder to its place, unless another process was first: then its folder stands."""
    try:
        replace(finished, folder)
    except (OSError, DiskError):
        if not folder.is_dir():
            raise


def _flush(folder: Path) -> None:
    """A rename survives a power cut only once its folder is flushed too; Windows has no way to ask for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in CANNOT_FLUSH:
                raise
        finally:
            os.close(descriptor)
