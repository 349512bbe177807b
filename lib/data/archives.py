"""Data sets that come as one archive: fetched with resume, unpacked safely, in place only when whole.

A download that breaks off leaves a hidden ``.part`` file, which the next one goes on with. An archive is
unpacked in a temporary folder of the data root, and its folder moved under the final name at the end. What is
already there under that name is never touched.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from lib.data.sources import DOWNLOAD_TIMEOUT, DataError, command

CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Archive:
    """One archive of a data set; paths are relative to the data root."""

    file: str  # where the archive lies
    inner: str  # the folder in it that is the data set
    target: str  # where that folder belongs
    address: str
    direct: bool = False  # whether `address` gives the file to a program, and not only to a browser
    checksum: str | None = None  # MD5, where one is published
    also: tuple[str, ...] = ()  # files that have to be fetched besides


def get(name: str, archive: Archive, root: Path) -> None:
    """Bring the folder of the data set `name` into the data root.

    An archive that lies in its place, fetched by hand, is unpacked and kept; else it is downloaded where that
    can be done, and removed once it is unpacked. Raises DataError, in one line; where the archive cannot be
    downloaded the line says what to do by hand.
    """
    target, file = root / archive.target, root / archive.file
    if target.exists():
        others = f" ({', '.join(archive.also)}: from {archive.address})" if archive.also else ""
        raise DataError(f"{name}: {target} is in the way; move it elsewhere to get it anew{others}")
    by_hand = file.is_file()
    if not by_hand and not archive.direct:
        raise DataError(
            f"{name}: get {', '.join((file.name, *archive.also))} with a browser from "
            f"{archive.address} (programs are refused) into {file.parent}, then run: "
            f"{command(name, root)}"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not by_hand:
            fetch(archive.address, file)
        _check(file, archive.checksum)
        unpack(file, archive.inner, target)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: {file.name} could not be fetched: {reason}; run again to go on, or put it "
            f"into {file.parent} by hand, from {archive.address}"
        ) from error
    finally:
        if not by_hand:
            file.unlink(missing_ok=True)


def fetch(address: str, path: Path) -> None:
    """Download `address` to `path`, going on with what an earlier try left; a progress bar in a terminal.

    Raises OSError or HTTPException; what came so far is kept.
    """
    part = path.with_name(f".{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    try:
        request = Request(address, headers={"Range": f"bytes={have}-"} if have else {})
        with urlopen(request, timeout=DOWNLOAD_TIMEOUT) as reply:
            if reply.headers.get("Content-Range", "").split("-")[0] != f"bytes {have}":
                have = 0  # the whole file comes, from a server that knows no ranges
            length = reply.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with (
                part.open("ab" if have else "wb") as file,
                tqdm(
                    total=total, initial=have, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None
                ) as bar,
            ):
                while block := reply.read(CHUNK):
                    file.write(block)
                    bar.update(len(block))
    except HTTPError as error:
        if error.code != 416:  # range not satisfiable: nothing is left to come
            raise
        total = int(error.headers.get("Content-Range", "/0").split("/")[-1])
    size = part.stat().st_size
    if total is not None and size > total:
        part.unlink()
        raise OSError(f"what was left of an earlier download is no part of {address}")
    if total is not None and size < total:
        raise OSError(f"the connection broke off after {size:,} of {total:,} bytes")
    os.replace(part, path)


def unpack(file: Path, inner: str, target: Path) -> None:
    """Unpack a tar or zip archive and move its folder `inner` to `target`, which must not exist.

    Nothing is written outside the temporary folder: an archive with an absolute path, a path through ``..``,
    a device or a link that leads out is refused. Raises DataError in one line; then nothing is left behind.
    """
    with _one_line(file), tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as temporary:
        if zipfile.is_zipfile(file):
            _unpack_zip(file, temporary)
        else:
            _unpack_tar(file, temporary)
        if not (Path(temporary) / inner).is_dir():
            raise DataError(f"{file} has no folder {inner}")
        os.replace(Path(temporary) / inner, target)


def _unpack_tar(file: Path, folder: str) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"{file} can be unpacked safely with Python 3.11.4 or newer only")
    with tarfile.open(file) as archive:
        for member in tqdm(archive, desc=f"unpacking {file.name}", unit="file", leave=False, disable=None):
            if PurePosixPath(member.name).is_absolute():
                raise DataError(f"{file} is not safe to unpack: {member.name!r} leads out of its folder")
            archive.extract(member, folder, filter="data")
        while archive.fileobj.read(CHUNK):  # a packed file's checksum stands after the last member
            pass


def _unpack_zip(file: Path, folder: str) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in tqdm(archive.infolist(), desc=f"unpacking {file.name}", unit="file", leave=False, disable=None):
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{file} is not safe to unpack: {member.filename!r} leads out of its folder")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(f"{file} is not safe to unpack: {member.filename!r} is a link")
            archive.extract(member, folder)


@contextmanager
def _one_line(file: Path) -> Iterator[None]:
    """Turns what the archive modules raise, by kind of damage, into a DataError."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file} could not be unpacked: {reason}") from error


def _check(file: Path, checksum: str | None) -> None:
    if checksum is None:
        return
    with file.open("rb") as content:
        if hashlib.file_digest(content, "md5").hexdigest() != checksum:
            raise DataError(f"{file} has the wrong content (checksum); get it anew")
