"""The download, against a server in this process that breaks off, lies and hands out hostile archives."""

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from petseg_lib.data import download as module
from petseg_lib.data.download import ARCHIVES, Archive, download
from petseg_lib.data.pets import load_pets
from petseg_lib.data.pictures import DatasetError

PAIRS = 16
NAMES = ("annotations", "images")


class Server(ThreadingHTTPServer):
    """Serves `files`; keeps the path and the Range of every request, and how many bytes of each file it sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.sent: dict[str, int] = {}
        self.cuts: list[int] = []  # bytes after which each of the next answers breaks off
        self.always_cut: int | None = None
        self.ranges = True
        self.busy = 0  # so many answers are 503
        self.garbled = 0  # and so many no HTTP
        self.silent = 0.0  # s for which no answer comes

    def archive(self, name: str, content: bytes) -> Archive:
        self.files[name] = content
        return Archive(f"http://127.0.0.1:{self.server_port}/{name}", len(content), hashlib.md5(content).hexdigest())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name, asked = self.server, self.path[1:], self.headers["Range"]
        server.requests.append((name, asked))
        if server.silent:
            return time.sleep(server.silent)
        if server.garbled:
            server.garbled -= 1
            return self.wfile.write(b"welcome to this hotel\r\n\r\n")
        if server.busy:
            server.busy -= 1
            return self.send_error(503)
        if name not in server.files:
            return self.send_error(404)
        content = server.files[name]
        start = int(asked[len("bytes=") : -1]) if asked and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else server.always_cut
        body = content[start:] if cut is None else content[start : start + cut]
        server.sent[name] = server.sent.get(name, 0) + len(body)
        self.wfile.write(body)

    def log_message(self, *args):
        """Keep the tests' output quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def source(tiny_dataset) -> Path:
    return tiny_dataset(trainval=12, test=4, folder="source")


@pytest.fixture
def archives(server, source) -> tuple[Archive, ...]:
    return tuple(server.archive(f"{name}.tar.gz", packed(source / name)) for name in NAMES)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "oxford"


def packed(folder: Path, *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, folder.name)
        for member in more:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def tree(root: Path) -> dict[str, bytes | str]:
    """Everything below a folder: contents of files, targets of links; without the .part files."""
    kept = [path for path in root.rglob("*") if path.suffix != ".part"]
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in kept
    }


def part(folder: Path, archive: Archive) -> Path:
    return folder / f"{archive.name}.part"


def message(folder: Path, archives: tuple[Archive, ...], pairs: int = PAIRS) -> str:
    with pytest.raises(DatasetError) as caught:
        download(folder, progress=False, archives=archives, pairs=pairs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_full_download_and_a_second_call_without_network(server, archives, folder, source, capsys):
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert download(folder, archives=archives, pairs=PAIRS) == folder
    assert "unpack images.tar.gz: 100%" in capsys.readouterr().err, "there are bars"
    assert tree(folder) == tree(source) | {"notes.txt": b"mine"}
    assert list(folder.glob("*.part")) == []
    assert server.requests == [("annotations.tar.gz", None), ("images.tar.gz", None)]
    folder.rename(source.parent / "oxford-iiit-pet")
    for complete in (source.parent / "oxford-iiit-pet", source.parent):
        assert download(str(complete), progress=False, archives=archives, pairs=PAIRS) == complete
    assert len(server.requests) == 2 and capsys.readouterr().err == ""


def test_what_a_killed_unpacking_left_goes_with_a_later_one(server, archives, folder):
    left = folder / ".unpack-left"
    (left / "images").mkdir(parents=True)
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    assert not left.exists()


def test_the_real_archives_are_those_of_torchvision():
    from torchvision.datasets import OxfordIIITPet

    assert {(archive.url, archive.md5) for archive in ARCHIVES} == set(OxfordIIITPet._RESOURCES)
    assert [archive.size for archive in ARCHIVES] == [19_173_078, 791_918_971]
    assert module.PAIRS == 3680 + 3669  # in the lists of the first


def test_a_broken_connection_is_taken_up_where_it_was(server, archives, folder):
    half = archives[0].size // 2
    server.cuts, server.busy = [half, 10], 1
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    ranges = [asked for name, asked in server.requests if name == "annotations.tar.gz"]
    assert ranges == [None, None, f"bytes={half}-", f"bytes={half + 10}-"]
    assert server.sent == {archive.name: archive.size for archive in archives}, "no byte is sent twice"


def test_a_server_that_always_breaks_off(server, archives, folder):
    server.always_cut = 100
    text = message(folder, archives)
    size = archives[0].size
    assert f"stopped at 500 of {size:,} bytes (the connection was cut): start it again, and it goes on from there" in text
    assert part(folder, archives[0]).read_bytes() == server.files["annotations.tar.gz"][:500]
    server.always_cut = None
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    assert server.requests[5] == ("annotations.tar.gz", "bytes=500-")
    assert server.sent["annotations.tar.gz"] == size
    assert len(load_pets(folder).pets) == PAIRS


def test_each_pause_before_another_try_is_twice_as_long(server, archives, folder, monkeypatch):
    server.busy, pauses = 9, []
    monkeypatch.setattr(module, "PAUSE", 1.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.append))
    assert "bytes (Service Unavailable): start it again" in message(folder, archives)
    assert pauses == [1, 2, 4, 8] and len(server.requests) == 5


def test_an_answer_that_is_no_http_is_asked_for_again(server, archives, folder, source):
    server.garbled = 2
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    assert len(server.requests) == 4 and tree(folder) == tree(source)


def test_a_server_that_is_silent_is_not_waited_for_for_ever(server, archives, folder, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    server.silent = 2.0
    assert "bytes (timed out): start it again" in message(folder, archives)


def test_no_server_at_all(archives, folder, server):
    server.shutdown()
    server.server_close()
    assert "stopped at 0 of" in message(folder, archives)


def test_an_interrupt_keeps_what_came(server, archives, folder, monkeypatch, capsys):
    class Interrupted(module.tqdm):
        def update(self, count=1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "tqdm", Interrupted)
        patch.setattr(module, "BLOCK", 1000)
        with pytest.raises(KeyboardInterrupt):
            download(folder, progress=False, archives=archives, pairs=PAIRS)
    here = part(folder, archives[0]).stat().st_size
    assert 0 < here <= 1000
    download(folder, archives=archives, pairs=PAIRS)
    assert server.requests[1] == ("annotations.tar.gz", f"bytes={here}-")
    assert "\rannotations.tar.gz: 100%" in capsys.readouterr().err, "the bar begins with what is here"


def test_a_server_without_ranges_starts_anew(server, archives, folder, source):
    server.ranges, server.cuts = False, [200]
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    assert server.requests[1] == ("annotations.tar.gz", "bytes=200-")
    assert server.sent["annotations.tar.gz"] == 200 + archives[0].size
    assert tree(folder) == tree(source)


def test_wrong_bytes_are_removed(server, archives, folder):
    good = server.files["images.tar.gz"]
    server.files["images.tar.gz"] = bad = good[:-1] + bytes([good[-1] ^ 1])
    text = message(folder, archives)
    assert hashlib.md5(bad).hexdigest() in text and archives[1].md5 in text and "start the download again" in text
    assert [path.name for path in folder.iterdir()] == ["annotations.tar.gz.part"], "the good one is kept"
    server.files["images.tar.gz"] = good
    part(folder, archives[1]).write_bytes(good + b"!")
    assert f"images.tar.gz has {len(good) + 1:,} bytes" in message(folder, archives)
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    assert len(load_pets(folder).pets) == PAIRS


@pytest.mark.parametrize("begun", [0, 50])
def test_a_file_of_another_size_leaves_what_is_here(server, archives, folder, begun):
    folder.mkdir(parents=True)
    here = part(folder, archives[0])
    here.write_bytes(server.files["annotations.tar.gz"][:begun])
    server.files["annotations.tar.gz"] = b"<html>please log in</html>" * 10
    assert f"annotations.tar.gz offers 260 bytes, but the archive must have {archives[0].size:,}" in message(folder, archives)
    assert here.stat().st_size == begun and len(server.requests) == 1


def test_a_file_that_is_gone(server, archives, folder):
    del server.files["annotations.tar.gz"]
    text = message(folder, archives)
    assert f"{archives[0].url} answers 404 Not Found" in text and f"copy it to {part(folder, archives[0])}" in text
    assert len(server.requests) == 1, "asking again is no use"


def evil(kind: str, outside: Path) -> tarfile.TarInfo:
    names = {"parent": "../x", "deep": "images/../../../x", "absolute": f"{outside}/x", "backslash": "..\\x"}
    member = tarfile.TarInfo(names.get(kind, "annotations/x"))
    types = {"symlink": tarfile.SYMTYPE, "inner": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}
    member.type = types.get(kind, tarfile.REGTYPE)
    member.linkname = {"symlink": str(outside), "hardlink": "annotations/test.txt", "inner": "test.txt"}.get(kind, "")
    member.size = 5 if member.isreg() else 0
    return member


@pytest.mark.parametrize("kind", ["parent", "deep", "absolute", "backslash", "symlink", "inner", "hardlink", "fifo"])
def test_hostile_archives_are_refused_whole(server, archives, folder, source, tmp_path, kind):
    folder.mkdir(parents=True)
    member = evil(kind, tmp_path)
    hostile = server.archive("annotations.tar.gz", packed(source / "annotations", member))
    before = tree(tmp_path)
    text = message(folder, (archives[1], hostile))
    assert text.startswith("annotations.tar.gz cannot be unpacked, and nothing of it is kept") and repr(member.name) in text
    assert tree(tmp_path) == before


def test_archives_that_lack_something_are_not_put_in_place(server, archives, folder, source):
    assert "not hold the whole dataset: its lists name 16 pairs of photograph and trimap, not 17" in message(folder, archives, 17)
    (source / "images" / "Bengal_1.jpg").unlink()
    lacking = (archives[0], server.archive("images.tar.gz", packed(source / "images")))
    part(folder, archives[1]).unlink()
    assert "1 of 16 listed photographs are missing: Bengal_1.jpg" in message(folder, lacking)
    no_archive = (server.archive("annotations.tar.gz", b"no archive"), lacking[1])
    part(folder, archives[0]).unlink()
    assert message(folder, no_archive).startswith("annotations.tar.gz cannot be unpacked")
    assert tree(folder) == {}


@pytest.mark.parametrize("missing", ["images", "annotations/test.txt", "annotations/trimaps/Bengal_1.png"])
def test_an_incomplete_folder_is_left_as_it_is(server, archives, folder, source, missing):
    shutil.copytree(source, folder)
    shutil.rmtree(folder / missing) if missing == "images" else (folder / missing).unlink()
    before = tree(folder)
    text = message(folder, archives)
    assert "but not the whole dataset" in text and Path(missing).name in text and "move that away or name another folder" in text
    assert tree(folder) == before and server.requests == []


def test_too_little_disk(folder, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10**9))
    assert message(folder, ARCHIVES) == f"the disk of {folder} has 1.0 GB free, but the dataset needs 1.8 GB there"
    assert list(folder.iterdir()) == []
    part(folder, ARCHIVES[1]).touch()
    os.truncate(part(folder, ARCHIVES[1]), 700_000_000)
    assert message(folder, ARCHIVES).endswith("needs 1.1 GB there"), "beside what was downloaded before"


def test_a_disk_that_is_full_before_all_is_unpacked(server, archives, folder, monkeypatch):
    def full(self, path, **_):
        (Path(path) / "annotations").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    sentence = "annotations.tar.gz cannot be unpacked, and nothing of it is kept: [Errno 28] No space left on device"
    assert message(folder, archives) == sentence and tree(folder) == {}
    monkeypatch.undo()
    assert [part(folder, archive).stat().st_size for archive in archives] == [archive.size for archive in archives]


def test_it_is_unpacked_on_the_disk_where_it_will_stand(server, archives, folder, source, monkeypatch):
    """Nothing can be renamed from that of /tmp to another one."""
    monkeypatch.setattr(tempfile, "tempdir", str(source / "nowhere"))
    download(folder, progress=False, archives=archives, pairs=PAIRS)
    assert tree(folder) == tree(source)


def test_a_python_that_cannot_unpack_safely_downloads_nothing(server, archives, folder, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    assert message(folder, archives).startswith("unpacking safely needs Python 3.11.4 or later, but this is 3.")
    assert server.requests == [] and not folder.exists()


def test_a_folder_in_a_home(server, archives, source, monkeypatch):
    monkeypatch.chdir(source.parent)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(source.parent))
    assert download("~/source", progress=False, archives=archives, pairs=PAIRS) == source and server.requests == []


def test_a_file_in_the_place_of_the_folder(tmp_path, archives):
    (tmp_path / "file").write_text("mine")
    assert message(tmp_path / "file", archives).startswith(f"the data folder {tmp_path / 'file'} cannot be used: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_second_download_into_a_folder_is_refused(server, archives, folder):
    folder.mkdir(parents=True)
    with (
        FileLock(folder / ".download.lock"),
        pytest.raises(DatasetError, match=r"another download into .* is under way: wait for it"),
    ):
        download(folder, progress=False, archives=archives)
    assert not list(folder.glob("*.part"))


def test_what_another_process_has_just_put_there_is_not_downloaded_again(server, archives, folder, source, monkeypatch):
    acquire = FileLock.acquire

    def late(self, **given):
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return acquire(self, **given)

    monkeypatch.setattr(FileLock, "acquire", late)
    assert download(folder, progress=False, archives=archives, pairs=PAIRS) == folder and server.requests == []


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_a_folder_that_cannot_be_written_is_told_in_words(server, archives, folder, source, monkeypatch):
    def refused(self, **_):
        raise PermissionError(13, "Permission denied")

    folder.mkdir(parents=True)
    monkeypatch.setattr(FileLock, "acquire", refused)
    with pytest.raises(DatasetError, match=r"the data folder .* cannot be used: .*Permission denied"):
        download(folder, progress=False, archives=archives)
    assert download(source, progress=False, archives=archives, pairs=PAIRS) == source, "a dataset that stands is only looked at"
