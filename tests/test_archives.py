from __future__ import annotations

import hashlib
import http.server
import io
import stat
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_trees import snapshot

from lib.data import archives
from lib.data.archives import Archive
from lib.data.sources import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
FILES = {"set/a/1.jpg": CONTENT, "set/with blank/é.JPG": b"two", "set/table.csv": b"three"}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; what it does with a range, and where it breaks off, is set by the tests."""

    content = CONTENT
    knows_ranges = True
    breaks_off_after: int | None = None
    requested: list[str | None] = []

    def do_GET(self):
        asked = self.headers.get("Range")
        self.requested.append(asked)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.knows_ranges else 0
        if begin and begin >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
            return
        rest = self.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.breaks_off_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Server, "requested", [])
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/set.tar.gz"
    running.shutdown()
    running.server_close()


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def tar(files: dict[str, bytes], *members: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return packed.getvalue()


def pack_zip(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def archive_at(address: str, checksum: str | None = None) -> Archive:
    return Archive("set.tar.gz", "set", "target", address, direct=True, checksum=checksum)


def unpacked() -> dict[str, bytes]:
    return {name.replace("set/", "target/", 1): content for name, content in FILES.items()}


def test_download_is_unpacked_into_place_and_leaves_nothing_else(server, root, monkeypatch):
    monkeypatch.setattr(Server, "content", tar(FILES))
    archives.get("set", archive_at(server), root)
    assert snapshot(root) == unpacked()


def test_fetch_goes_on_where_it_broke_off(server, root, monkeypatch):
    monkeypatch.setattr(Server, "breaks_off_after", 1800)
    for begin in (None, "bytes=1800-"):
        with pytest.raises(OSError, match="broke off"):
            archives.fetch(server, root / "file")
        assert Server.requested[-1] == begin and not (root / "file").exists()
    archives.fetch(server, root / "file")
    assert Server.requested[-1] == "bytes=3600-"
    assert snapshot(root) == {"file": CONTENT}


def test_fetch_begins_anew_where_the_server_knows_no_ranges(server, root, monkeypatch):
    monkeypatch.setattr(Server, "knows_ranges", False)
    (root / ".file.part").write_bytes(b"x" * 100)
    archives.fetch(server, root / "file")
    assert snapshot(root) == {"file": CONTENT}


def test_fetch_takes_a_part_that_is_already_whole(server, root):
    (root / ".file.part").write_bytes(CONTENT)
    archives.fetch(server, root / "file")
    assert snapshot(root) == {"file": CONTENT}


def test_part_that_is_longer_than_the_file_is_thrown_away(server, root):
    (root / ".file.part").write_bytes(CONTENT + b"x")
    with pytest.raises(OSError, match="no part"):
        archives.fetch(server, root / "file")
    assert not snapshot(root)
    archives.fetch(server, root / "file")
    assert snapshot(root) == {"file": CONTENT}


def test_download_that_breaks_off_is_one_line_and_the_next_one_ends_it(server, root, monkeypatch):
    monkeypatch.setattr(Server, "content", tar(FILES))
    monkeypatch.setattr(Server, "breaks_off_after", 2000)
    with pytest.raises(DataError, match="run again") as error:
        archives.get("set", archive_at(server), root)
    assert "set.tar.gz" in one_line(error) and list(snapshot(root)) == [".set.tar.gz.part"]
    monkeypatch.setattr(Server, "breaks_off_after", None)
    archives.get("set", archive_at(server), root)
    assert Server.requested[-1] == "bytes=2000-" and snapshot(root) == unpacked()


def test_download_from_nowhere_is_one_line(root):
    with pytest.raises(DataError, match="could not be fetched") as error:
        archives.get("set", archive_at("http://127.0.0.1:9/set.tar.gz"), root)
    assert str(root) in one_line(error) and not snapshot(root)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-4],
        lambda content: b"<html>busy</html>",
        lambda content: b"",
        lambda content: content[:900] + bytes(40) + content[940:],
    ],
)
@pytest.mark.parametrize("pack", [tar, pack_zip])
def test_damaged_archive_leaves_nothing_behind(pack, damage, server, root, monkeypatch):
    monkeypatch.setattr(Server, "content", damage(pack(FILES)))
    with pytest.raises(DataError, match="unpack"):
        archives.get("set", archive_at(server), root)
    assert not snapshot(root) and not list(root.iterdir())


def test_checksum_is_compared_where_one_is_published(server, root, monkeypatch):
    monkeypatch.setattr(Server, "content", tar(FILES))
    with pytest.raises(DataError, match="checksum"):
        archives.get("set", archive_at(server, "0" * 32), root)
    assert not snapshot(root)
    archives.get("set", archive_at(server, hashlib.md5(Server.content).hexdigest()), root)
    assert snapshot(root) == unpacked()


def test_archive_fetched_by_hand_is_unpacked_and_kept(root):
    by_hand = replace(archive_at("https://nowhere.invalid"), direct=False)
    with pytest.raises(DataError, match="with a browser from https://nowhere.invalid") as error:
        archives.get("set", by_hand, root)
    assert str(root) in one_line(error) and "--download set" in str(error.value) and not snapshot(root)
    for content in (tar(FILES), pack_zip(FILES)):
        (root / "set.tar.gz").write_bytes(content)
        archives.get("set", by_hand, root)
        assert snapshot(root) == unpacked() | {"set.tar.gz": content}
        (root / "target").rename(root.parent / f"moved {len(content)}")


def test_damaged_archive_fetched_by_hand_is_kept(root):
    (root / "set.tar.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="unpack"):
        archives.get("set", archive_at("https://nowhere.invalid"), root)
    assert snapshot(root) == {"set.tar.gz": b"damaged"}


def test_what_is_there_is_never_touched(server, root):
    (root / "target").mkdir()
    (root / "target/own.txt").write_text("mine")
    with pytest.raises(DataError, match="in the way") as error:
        archives.get("set", archive_at(server), root)
    assert str(root / "target") in one_line(error) and not Server.requested
    assert snapshot(root) == {"target/own.txt": b"mine"}


UNSAFE_TARS = {
    "parent": tar(FILES | {"set/../../out.txt": b"x"}),
    "absolute": tar(FILES | {"/tmp-out/out.txt": b"x"}),
    "link out": tar(FILES, link("set/out", "../../../etc")),
    "absolute link": tar(FILES, link("set/out", "/etc")),
    "hard link out": tar(FILES, link("set/out", "../../etc/passwd", tarfile.LNKTYPE)),
    "device": tar(FILES, link("set/out", "", tarfile.CHRTYPE)),
}
UNSAFE_ZIPS = {
    "zip parent": pack_zip(FILES | {"set/../../out.txt": b"x"}),
    "zip absolute": pack_zip(FILES | {"/tmp-out/out.txt": b"x"}),
    "zip backslash": pack_zip(FILES | {"set\\..\\..\\out.txt": b"x"}),
}


@pytest.mark.parametrize("kind", [*UNSAFE_TARS, *UNSAFE_ZIPS])
def test_archive_that_leads_out_of_its_folder_is_refused(kind, root):
    (root / "file").write_bytes((UNSAFE_TARS | UNSAFE_ZIPS)[kind])
    before = snapshot(root.parent)
    with pytest.raises(DataError) as error:
        archives.unpack(root / "file", "set", root / "target")
    assert str(root / "file") in one_line(error)
    assert snapshot(root.parent) == before and len(list(root.iterdir())) == 1


def test_zip_with_a_link_is_refused(root):
    member = zipfile.ZipInfo("set/out")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(root / "file", "w") as archive:
        archive.writestr(member, "/etc")
    with pytest.raises(DataError, match="link"):
        archives.unpack(root / "file", "set", root / "target")
    assert [path.name for path in root.iterdir()] == ["file"]


def test_archive_without_the_folder_is_refused(root):
    (root / "file").write_bytes(tar({"other/1.jpg": b"x"}))
    with pytest.raises(DataError, match="no folder set"):
        archives.unpack(root / "file", "set", root / "target")
    assert [path.name for path in root.iterdir()] == ["file"]
