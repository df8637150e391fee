"""One process at a time on a run folder. The system drops a lock with the process that holds it."""

from pathlib import Path

from filelock import FileLock, Timeout

from petseg_lib.config import ReadableError, shown

_HELD: dict[Path, FileLock] = {}  # of the runs under way in this process


class LockError(ReadableError):
    """A run folder on which another process works."""


def lock(folder: Path) -> bool:
    """Lock a folder for this process until `unlock`; True where it was not this process's before.

    Raises:
        LockError: another process holds it.
    """
    if folder in _HELD:
        return False
    _HELD[folder] = _acquired(folder)
    return True


def unlock(folder: Path) -> None:
    """Let a folder go, if this process holds it."""
    if folder in _HELD:
        _HELD.pop(folder).release()


def check_free(folder: Path) -> None:
    """Refuse a folder on which another process works, and take no lock.

    Raises:
        LockError: another process holds it.
    """
    if (folder / ".lock").is_file():
        _acquired(folder).release()


def _acquired(folder: Path) -> FileLock:
    held = FileLock(folder / ".lock")
    try:
        held.acquire(blocking=False)
        return held
    except Timeout:
        raise LockError(
            f"another process is working on {shown(folder)}: wait until it ends (of a notebook, its kernel), or choose "
            "another folder"
        ) from None
