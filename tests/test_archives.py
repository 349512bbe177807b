import hashlib
import http.server
import io
import stat
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path
from urllib.request import Request

import numpy as np
import pytest
from image_trees import snapshot as everything

from lib.data import archives
from lib.data.archives import Archive
from lib.data.root import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
FILES = {"set/a/1.jpg": CONTENT, "set/with blank/é.JPG": b"two", "set/table.csv": b"three"}
UNPACKED = {name.replace("set/", "target/", 1): content for name, content in FILES.items()}


def snapshot(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for the hashes that are kept."""
    return {name: content for name, content in everything(folder).items() if name != archives.KEPT}


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


@pytest.fixture
def archive(monkeypatch):
    """Calling it makes `address` that of the set called "set"."""

    def call(address: str, direct: bool = True, checksum: str | None = None, size: float = 1e6) -> None:
        known = Archive("set.tar.gz", "set", "target", address, size, direct, checksum)
        monkeypatch.setitem(archives.ARCHIVES, "set", known)

    return call


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


def pack_zip(files: dict[str, bytes], *members: zipfile.ZipInfo) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        for member in members:
            archive.writestr(member, "/etc")
    return packed.getvalue()


def link(to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo("set/out")
    member.type, member.linkname = kind, to
    return member


def chain() -> list[tarfile.TarInfo]:
    """Links through folders of long names, which lead out where an extractor's check gives up at the longest path."""
    members, deep = [], "set"
    for letter in "abcdefghijklmnop":
        folder, to = tarfile.TarInfo(f"{deep}/{letter * 247}"), tarfile.TarInfo(f"{deep}/{letter}")
        folder.type, to.type, to.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, letter * 247
        members, deep = [*members, folder, to], folder.name
    last = tarfile.TarInfo("set/escape")
    last.type, last.linkname = tarfile.SYMTYPE, "/".join("abcdefghijklmnop") + "/.." * 18
    return [*members, last]


def zip_link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("set/out")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_download_is_unpacked_into_place_and_leaves_nothing_else(server, archive, root, monkeypatch):
    monkeypatch.setattr(Server, "content", tar(FILES))
    archive(server)
    archives.get("set", root)
    assert snapshot(root) == UNPACKED and {path.name for path in root.iterdir()} == {"target", archives.KEPT}


def test_fetch_goes_on_where_it_broke_off(server, root, monkeypatch):
    monkeypatch.setattr(Server, "breaks_off_after", 1800)
    # The last byte that is there is asked for once more.
    for begin, size in ((None, 1800), ("bytes=1799-", 3599)):
        with pytest.raises(OSError, match="broke off"):
            archives.fetch(server, root / "file")
        assert Server.requested[-1] == begin and snapshot(root) == {".file.part": CONTENT[:size]}
    archives.fetch(server, root / "file")
    assert Server.requested[-1] == "bytes=3598-" and snapshot(root) == {"file": CONTENT}


@pytest.mark.parametrize(
    "part, knows_ranges", [(b"x" * 100, False), (CONTENT, True), (CONTENT, False), (CONTENT[:1], True)]
)
def test_fetch_ends_with_the_whole_file_whatever_part_is_there(part, knows_ranges, server, root, monkeypatch):
    monkeypatch.setattr(Server, "knows_ranges", knows_ranges)
    (root / ".file.part").write_bytes(part)
    archives.fetch(server, root / "file")
    assert snapshot(root) == {"file": CONTENT}


def test_part_that_is_longer_than_the_file_is_thrown_away(server, root):
    (root / ".file.part").write_bytes(CONTENT + b"x")
    with pytest.raises(OSError, match="416"):
        archives.fetch(server, root / "file")
    assert not snapshot(root)
    archives.fetch(server, root / "file")
    assert snapshot(root) == {"file": CONTENT}


def test_download_that_breaks_off_is_one_line_and_the_next_one_ends_it(server, archive, root, monkeypatch, refuses):
    monkeypatch.setattr(Server, "content", tar(FILES))
    monkeypatch.setattr(Server, "breaks_off_after", 2000)
    archive(server)
    refuses(DataError, archives.get, "set", root, match="run again", words=["set.tar.gz", server])
    assert list(snapshot(root)) == [".set.tar.gz.part"]
    monkeypatch.setattr(Server, "breaks_off_after", None)
    archives.get("set", root)
    assert Server.requested[-1] == "bytes=1999-" and snapshot(root) == UNPACKED


def test_download_from_nowhere_is_one_line(archive, root, refuses):
    archive("http://127.0.0.1:9/set.tar.gz")
    refuses(DataError, archives.get, "set", root, match="could not be fetched", words=[root])
    assert not snapshot(root)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-4],
        lambda content: b"<html>busy</html>",
        lambda content: b"",
        lambda content: content[:900] + bytes(40) + content[940:],
    ],
    ids=["half", "last bytes cut", "page", "empty", "overwritten"],
)
@pytest.mark.parametrize("pack", [tar, pack_zip])
def test_damaged_archive_leaves_nothing_behind(pack, damage, server, archive, root, monkeypatch, refuses):
    monkeypatch.setattr(Server, "content", damage(pack(FILES)))
    archive(server)
    refuses(DataError, archives.get, "set", root, match="unpack", words=[root / "set.tar.gz"])
    assert not list(root.iterdir())


def test_checksum_is_compared_where_one_is_published(server, archive, root, monkeypatch, refuses):
    monkeypatch.setattr(Server, "content", tar(FILES))
    archive(server, checksum="0" * 32)
    refuses(DataError, archives.get, "set", root, match="checksum", words=[root / "set.tar.gz"])
    assert not snapshot(root)
    archive(server, checksum=hashlib.md5(Server.content).hexdigest())
    archives.get("set", root)
    assert snapshot(root) == UNPACKED


def test_archive_fetched_by_hand_is_unpacked_and_kept(archive, root, refuses):
    archive("https://nowhere.invalid", direct=False)
    words = [root, "with a browser from https://nowhere.invalid", "--download set"]
    refuses(DataError, archives.get, "set", root, words=words)
    assert not snapshot(root)
    for content in (tar(FILES), pack_zip(FILES)):
        (root / "set.tar.gz").write_bytes(content)
        archives.get("set", root)
        assert snapshot(root) == UNPACKED | {"set.tar.gz": content}
        (root / "target").rename(root.parent / f"moved {len(content)}")
        (root / archives.KEPT).unlink()


@pytest.mark.parametrize("checksum, problem", [(None, "unpack"), ("0" * 32, "checksum")])
def test_damaged_archive_fetched_by_hand_is_kept(checksum, problem, archive, root, refuses):
    archive("https://nowhere.invalid", checksum=checksum)
    (root / "set.tar.gz").write_bytes(b"damaged")
    refuses(DataError, archives.get, "set", root, match=problem)
    assert snapshot(root) == {"set.tar.gz": b"damaged"}


def test_what_is_there_is_never_touched(server, archive, root, refuses):
    archive(server)
    (root / "target").mkdir()
    (root / "target/own.txt").write_text("mine")
    refuses(DataError, archives.get, "set", root, match="in the way", words=[root / "target"])
    assert not Server.requested and snapshot(root) == {"target/own.txt": b"mine"}


OUT, LINK = "leads out of its folder", "is a link or a device"
REFUSED = {
    "parent": (tar(FILES | {"set/../../out.txt": b"x"}), OUT),
    "absolute": (tar(FILES | {"/tmp-out/out.txt": b"x"}), OUT),
    "link out": (tar(FILES, link("../../../etc")), LINK),
    "absolute link": (tar(FILES, link("/etc")), LINK),
    "link inside": (tar(FILES, link("a")), LINK),
    "hard link out": (tar(FILES, link("../../etc/passwd", tarfile.LNKTYPE)), LINK),
    "chain of links": (tar({}, *chain()), LINK),
    "device": (tar(FILES, link("", tarfile.CHRTYPE)), LINK),
    "zip parent": (pack_zip(FILES | {"set/../../out.txt": b"x"}), OUT),
    "zip absolute": (pack_zip(FILES | {"/tmp-out/out.txt": b"x"}), OUT),
    "zip backslash": (pack_zip(FILES | {"set\\..\\..\\out.txt": b"x"}), OUT),
    "zip link": (pack_zip(FILES, zip_link()), LINK),
    "other folder": (tar({"other/1.jpg": b"x"}), "has no folder set"),
    "zip other folder": (pack_zip({"other/1.jpg": b"x"}), "has no folder set"),
    "file for a folder": (tar({"set": b"x"}), "has no folder set"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_unsafe_archive_or_one_of_another_set_is_refused_and_leaves_nothing_behind(kind, root, refuses):
    content, problem = REFUSED[kind]
    (root / "file").write_bytes(content)
    before = snapshot(root.parent)
    refuses(DataError, archives.unpack, root / "file", "set", root / "target", match=problem, words=[root / "file"])
    assert snapshot(root.parent) == before and [path.name for path in root.iterdir()] == ["file"]


@pytest.mark.parametrize("pack", [tar, pack_zip])
@pytest.mark.parametrize("room, refused", [(0, False), (-1, True)])
def test_archive_of_more_than_twice_the_size_of_its_set_is_refused(pack, room, refused, archive, root, refuses):
    archive("https://nowhere.invalid", size=(sum(map(len, FILES.values())) + room) / 2)
    (root / "set.tar.gz").write_bytes(content := pack(FILES))
    if refused:
        refuses(DataError, archives.get, "set", root, match="more than 5.01e\\+03 bytes")
        assert snapshot(root) == {"set.tar.gz": content}
    else:
        archives.get("set", root)


def test_an_extractor_that_makes_a_link_is_found_out_before_anything_is_moved(root, monkeypatch, refuses):
    (root / "file").write_bytes(tar(FILES))
    (root / "file").write_bytes(tar({"set": b"x"}))
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda self, member, to: (Path(to) / "set").symlink_to("/etc"))
    refuses(DataError, archives.unpack, root / "file", "set", root / "target", match="'set' is a link")
    assert [path.name for path in root.iterdir()] == ["file"]


def test_first_archive_of_a_set_is_told_by_its_hash_and_another_is_refused(archive, root, refuses, capsys):
    archive("https://nowhere.invalid")
    (root / "set.tar.gz").write_bytes(tar(FILES))
    digest = hashlib.sha256(tar(FILES)).hexdigest()
    archives.get("set", root)
    assert capsys.readouterr().out == (
        f"set: no SHA-256 is published; {digest} is kept in {root / 'archives.json'} to compare with\n"
    )
    (root / "target").rename(root.parent / "first")
    archives.get("set", root)
    assert not capsys.readouterr().out
    (root / "target").rename(root.parent / "second")
    (root / "set.tar.gz").write_bytes(tar(FILES | {"set/more.txt": b"x"}))
    refuses(DataError, archives.get, "set", root, match=f"not {digest} as at first")
    assert not (root / "target").exists()
    (root / "archives.json").write_text("{")
    refuses(DataError, archives.get, "set", root, match="archives.json must hold the SHA-256 of each archive")


@pytest.mark.parametrize(
    "asked, sent, allowed",
    [
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "ftp://a.org/x", False),
        ("https://a.org/x", "https://b.org/x", True),
        ("http://a.org/x", "http://b.org/x", True),
    ],
)
def test_no_redirect_leads_from_https_to_anything_else(asked, sent, allowed):
    follow = partial(archives._Secure().redirect_request, Request(asked), None, 302, "Found", {}, sent)
    if allowed:
        assert follow().full_url == sent
    else:
        with pytest.raises(OSError, match=f"a.org sends to {sent}, which is not https"):
            follow()
