"""Archives: fetched, compared, unpacked where they belong, and what is refused leaves nothing behind."""

import hashlib
import http.server
import io
import shutil
import stat
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.request import Request

import numpy as np
import pytest
from image_trees import snapshot as everything
from image_trees import write_birds, write_celeba, write_domains

from lib.data import archives
from lib.data.__main__ import main
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
        asked, size = self.headers.get("Range"), len(self.content)
        self.requested.append(asked)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.knows_ranges else 0
        self.send_response(200 if not begin else 206 if begin < size else 416)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}" if begin < size else f"bytes */{size}")
        self.send_header("Content-Length", str(max(size - begin, 0)))
        self.end_headers()
        self.wfile.write(self.content[begin:][: self.breaks_off_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Server, "content", tar(FILES))
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

    def call(address: str = "https://nowhere.invalid", checksum: str | None = None, size: float = 1e6) -> None:
        known = Archive("set.tar.gz", "set", "target", address, size, "nowhere" not in address, checksum)
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


ZIP_LINK = zipfile.ZipInfo("set/out")
ZIP_LINK.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize("pack", [tar, pack_zip])
def test_archive_is_unpacked_into_place_downloaded_or_fetched_by_hand(
    pack, server, archive, root, monkeypatch, refuses
):
    monkeypatch.setattr(Server, "content", pack(FILES))
    archive(server, checksum="0" * 32)
    refuses(DataError, archives.get, "set", root, match="checksum", words=["set.tar.gz"])
    assert not list(root.iterdir())
    archive(server, checksum=hashlib.md5(Server.content).hexdigest(), size=sum(map(len, FILES.values())) / 2)
    archives.get("set", root)
    assert snapshot(root) == UNPACKED and {path.name for path in root.iterdir()} == {"target", archives.KEPT}
    shutil.rmtree(root / "target")
    (root / "set.tar.gz").write_bytes(Server.content)
    archives.get("set", root)
    assert snapshot(root) == UNPACKED | {"set.tar.gz": Server.content}, "is kept"


def test_download_that_breaks_off_is_one_line_and_the_next_one_goes_on(server, archive, root, monkeypatch, refuses):
    archive(server)
    monkeypatch.setattr(Server, "breaks_off_after", 2000)
    for asked, size in ((None, 2000), ("bytes=1999-", 3999)):  # the last byte that is there comes once more
        problem = f"after {size:,} of {len(Server.content):,} bytes; run again to go on"
        refuses(DataError, archives.get, "set", root, words=[problem, "set.tar.gz", server, root])
        assert Server.requested[-1] == asked and snapshot(root) == {".set.tar.gz.part": Server.content[:size]}
    archives.get("set", root)
    assert Server.requested[-1] == "bytes=3998-" and snapshot(root) == UNPACKED


@pytest.mark.parametrize(
    "part, knows_ranges", [(b"x" * 100, False), (CONTENT, True), (CONTENT, False), (CONTENT[:1], True), (b"", True)]
)
def test_fetch_ends_with_the_whole_file_whatever_part_is_there(part, knows_ranges, server, root, monkeypatch):
    monkeypatch.setattr(Server, "content", CONTENT)
    monkeypatch.setattr(Server, "knows_ranges", knows_ranges)
    (root / ".file.part").write_bytes(part)
    archives.fetch(server, root / "file")
    assert snapshot(root) == {"file": CONTENT}


def test_part_that_is_longer_than_the_file_is_thrown_away_and_a_download_from_nowhere_is_one_line(
    server, archive, root, refuses
):
    archive(server)
    (root / ".set.tar.gz.part").write_bytes(Server.content + b"x")
    refuses(DataError, archives.get, "set", root, match="no part of", words=[server])
    assert not list(root.iterdir())
    archive("http://127.0.0.1:9/set.tar.gz")
    refuses(DataError, archives.get, "set", root, match="could not be fetched", words=[root])
    assert not list(root.iterdir())


DAMAGES = {
    "last bytes cut": lambda content: content[:-4],
    "page": lambda content: b"<html>busy</html>",
    "overwritten": lambda content: content[:900] + bytes(40) + content[940:],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pack", [tar, pack_zip])
def test_damaged_archive_leaves_nothing_behind_or_is_kept_where_it_was_fetched_by_hand(
    pack, damage, server, archive, root, monkeypatch, refuses
):
    monkeypatch.setattr(Server, "content", DAMAGES[damage](pack(FILES)))
    archive(server)
    refuses(DataError, archives.get, "set", root, match="unpack", words=["set.tar.gz"])
    assert not list(root.iterdir())
    (root / "set.tar.gz").write_bytes(Server.content)
    refuses(DataError, archives.get, "set", root, match="unpack", words=[root / "set.tar.gz"])
    assert snapshot(root) == {"set.tar.gz": Server.content}


@pytest.mark.parametrize("name", archives.ARCHIVES)
def test_official_archive_fetched_by_hand_is_unpacked_into_the_folder_that_is_read(name, tmp_path, monkeypatch, capsys):
    known, root, command = archives.ARCHIVES[name], tmp_path / "root", ["--root", str(tmp_path / "root"), "--download"]
    {"waterbirds": write_birds, "celeba": write_celeba}.get(name, partial(write_domains, benchmark=name))(tmp_path)
    content, folder = everything(tmp_path / known.target), tmp_path / known.target
    folder.rename(folder.with_name(known.inner))
    kind = "zip" if known.file.endswith("zip") else "gztar"
    (root / known.file).parent.mkdir(parents=True)
    shutil.copy(shutil.make_archive(tmp_path / "packed", kind, folder.parent, known.inner), root / known.file)
    for file in known.also:
        shutil.copy(folder.with_name(file), (root / known.file).with_name(file))
    if known.checksum:
        assert main([*command, name]) == 1 and "checksum" in capsys.readouterr().err
        monkeypatch.setitem(archives.ARCHIVES, name, replace(known, checksum=None))
    assert main([*command, name]) == 0
    assert everything(root / known.target) == content and f"{name:16} reduced" in capsys.readouterr().out
    assert main([*command, name]) == 1 and "is in the way" in capsys.readouterr().err


def test_archive_that_has_to_be_fetched_by_hand_is_asked_for(archive, root, refuses):
    archive()
    words = [root, "with a browser from https://nowhere.invalid", "--download set"]
    refuses(DataError, archives.get, "set", root, words=words)
    assert not list(root.iterdir())


def test_what_is_there_is_never_touched_and_an_unpublished_set_is_not_looked_for(server, archive, root, refuses):
    archive(server)
    (root / "target").mkdir()
    (root / "target/own.txt").write_text("mine")
    refuses(DataError, archives.get, "set", root, match="in the way", words=[root / "target"])
    refuses(DataError, archives.get, "birds_on_scenes", root, match="copy its folder .* not published")
    assert everything(root) == {"target/own.txt": b"mine"}


OUT, LINK = "leads out of its folder", "is a link or a device"
REFUSED = {
    "parent": (tar(FILES | {"set/../../out.txt": b"x"}), OUT),
    "absolute": (tar(FILES | {"/tmp-out/out.txt": b"x"}), OUT),
    "link out": (tar(FILES, link("../../../etc")), LINK),
    "hard link out": (tar(FILES, link("../../etc/passwd", tarfile.LNKTYPE)), LINK),
    "device": (tar(FILES, link("", tarfile.CHRTYPE)), LINK),
    "zip backslash": (pack_zip(FILES | {"set\\..\\..\\out.txt": b"x"}), OUT),
    "zip link": (pack_zip(FILES, ZIP_LINK), LINK),
    "file for a folder": (tar({"set": b"x"}), "has no folder set"),
    "other folder": (tar({"other/1.jpg": b"x"}), "has no folder set"),
    "one byte too many": (tar({"set/a": bytes(2001)}), "more than 2e\\+03 bytes"),
    "zip one byte too many": (pack_zip({"set/a": bytes(2000), "set/b": b"x"}), "more than 2e\\+03 bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_unsafe_archive_or_one_of_another_set_is_refused_and_leaves_nothing_behind(kind, archive, root, refuses):
    content, problem = REFUSED[kind]
    archive(size=1000 if "byte" in kind else 1e6)
    (root / "set.tar.gz").write_bytes(content)
    before = everything(root.parent)
    refuses(DataError, archives.get, "set", root, match=problem, words=[root / "set.tar.gz"])
    assert everything(root.parent) == before and [path.name for path in root.iterdir()] == ["set.tar.gz"]


def test_first_archive_of_a_set_is_told_by_its_hash_and_another_is_refused(archive, root, refuses, capsys):
    archive()
    (root / "set.tar.gz").write_bytes(tar(FILES))
    digest = hashlib.sha256(tar(FILES)).hexdigest()
    archives.get("set", root)
    kept = root / "archives.json"
    assert capsys.readouterr().out == f"set: no SHA-256 is published; {digest} is kept in {kept} to compare with\n"
    (root / "target").rename(root.parent / "first")
    archives.get("set", root)
    assert not capsys.readouterr().out
    (root / "target").rename(root.parent / "second")
    (root / "set.tar.gz").write_bytes(tar(FILES | {"set/more.txt": b"x"}))
    refuses(DataError, archives.get, "set", root, match=f"not {digest} as at first")
    for damaged in ("{", "[]", "3"):
        kept.write_text(damaged)
        refuses(DataError, archives.get, "set", root, match="archives.json must hold the SHA-256 of each archive")
    assert not (root / "target").exists()


@pytest.mark.parametrize("asked, sent", [("https", "http"), ("https", "ftp"), ("https", "https"), ("http", "http")])
def test_no_redirect_leads_from_https_to_anything_else(asked, sent):
    follow = partial(archives._Secure().redirect_request, Request(f"{asked}://a.org/x"), None, 302, "Found", {})
    if sent in ("http", "ftp") and asked == "https":
        with pytest.raises(OSError, match=f"a.org sends to {sent}://b.org/x, which is not https"):
            follow(f"{sent}://b.org/x")
    else:
        assert follow(f"{sent}://b.org/x").full_url == f"{sent}://b.org/x"
