"""A finished file comes to its place, on whatever system and file system that is."""

import errno
import os
import time
from pathlib import Path

from petseg_lib.config import ReadableError, shown

WINDOWS = os.name == "nt"
SECONDS_TO_LET_GO = 2
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP)  # what some network, virtual and FUSE file systems answer of a folder


def replace(finished: Path, place: Path) -> None:
    """Rename a finished file to its place, over what stands there, so that it survives a power cut.

    Windows refuses while another program has that file open: a virus scanner or an indexer for a moment, a spreadsheet until
    it is closed.

    Raises:
        ReadableError: on Windows, the file is still not let go after 2 seconds; what stood there still stands.
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
                raise ReadableError(
                    f"{shown(place)} cannot be written, since another program has it open or it is write-protected: "
                    "close it there and run the same command again"
                ) from None
        time.sleep(0.1)
    _flush(place.parent)


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
