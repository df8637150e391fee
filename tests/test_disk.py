"""Files come to their places whatever the system and its file systems do."""

import errno
import os
import shutil
import stat
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from petseg_lib import disk, versions


@pytest.mark.parametrize("times", [3, 10**6])
def test_a_file_that_another_program_holds_on_windows_is_waited_for(tmp_path, monkeypatch, times):
    """As a virus scanner does for a moment, and a spreadsheet until it is closed."""
    path, tries, rename = tmp_path / "history.csv", [], Path.replace
    path.write_bytes(b"old")

    def held(self, target):
        tries.append(1)
        if len(tries) <= times:
            raise PermissionError(13, "Access is denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(PermissionError):
        disk.write_atomically(path, b"new")  # elsewhere it means what it says
    assert len(tries) == 1
    monkeypatch.setattr(disk, "WINDOWS", True)
    monkeypatch.setattr(disk, "SECONDS_TO_LET_GO", 0.5)
    if times == 3:
        disk.write_atomically(path, b"new")
        assert path.read_bytes() == b"new" and list(tmp_path.glob("*history*")) == [path]
    else:
        with pytest.raises(disk.DiskError, match=r"history\.csv cannot be written, since another program has it open .* again$"):
            disk.write_atomically(path, b"new")
        assert path.read_bytes() == b"old" and list(tmp_path.glob("*history*")) == [path]


def test_a_folder_in_which_windows_has_a_file_open_is_waited_for_unless_another_process_was_first(tmp_path, monkeypatch):
    """As a virus scanner has those of pets just drawn."""
    finished, place, tries, rename = tmp_path / "finished", tmp_path / "place", [], Path.replace

    def held(self, target):
        tries.append(1)
        if len(tries) <= 3 or Path(target).is_dir():
            raise PermissionError(13, "Access is denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(disk, "WINDOWS", True)
    for content, patience in (("first", 30), ("second", 0.2)):
        monkeypatch.setattr(disk, "SECONDS_TO_LET_GO", patience)
        finished.mkdir()
        (finished / "file").write_text(content)
        disk.settle(finished, place)
        shutil.rmtree(finished, ignore_errors=True)
    assert (place / "file").read_text() == "first" and len(tries) > 5


@pytest.mark.skipif(os.name != "posix", reason="Windows flushes no folder")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_flushes_no_folder_is_good_enough(tmp_path, monkeypatch, number):
    flush = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error") if number == errno.EIO else nullcontext():
        disk.write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


# What a run was made with


def git(folder, *command):
    environment = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *environment, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_code_changes_with_any_line_of_the_library_but_not_with_how_lines_end(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "versions.py"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.py").write_bytes(b"1\n2\n")
    first = versions.made_with()["code"]
    (tmp_path / "models" / "a.py").write_bytes(b"1\r\n2\r\n")
    assert versions.code() == first, "a clone on Windows"
    (tmp_path / "models" / "a.py").write_bytes(b"1\n3\n")
    assert versions.code() != first
    (tmp_path / "models" / "a.py").rename(tmp_path / "models" / "b.py")
    assert len({versions.code(), first}) == 2


@pytest.mark.parametrize(("place", "own"), [("petseg_lib", True), ("site-packages/petseg_lib", False)])
def test_the_commit_is_the_projects_own(tmp_path, monkeypatch, place, own):
    """Installed into a folder within another project's clone, it has none."""
    package = tmp_path / place
    package.mkdir(parents=True)
    (tmp_path / "file").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    monkeypatch.setattr(versions, "__file__", str(package / "versions.py"))
    assert versions.made_with()["commit"] == (git(tmp_path, "rev-parse", "--short=12", "HEAD") if own else "unknown")
    (tmp_path / "file").write_text("2")
    assert versions.made_with()["commit"].endswith("+") is own
