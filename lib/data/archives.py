"""Data sets that come as one archive: fetched, unpacked safely, in place only when whole.

The SHA-256 of an archive is published for none of them: that of the first one is kept in ``archives.json`` of the data
root, said, and compared with every later one. An archive is unpacked in a temporary folder of the data root, and its
folder moved under the final name at the end. What is already there under that name is never touched.
"""

import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from lib.data.groups import CELEBA_CHECKSUMS
from lib.data.root import BIRDS, TIMEOUT, DataError, Root, command, data_root, how
from lib.files import replacing

KEPT = "archives.json"


@dataclass(frozen=True)
class Archive:
    """One archive of a data set; paths are relative to the data root."""

    file: str  # where the archive lies
    inner: str  # the folder in it that is the data set
    target: str  # where that folder belongs
    address: str
    size: float  # bytes, unpacked, about; an archive with more than twice that is refused
    direct: bool = False  # whether `address` gives the file to a program, and not only to a browser
    checksum: str | None = None  # MD5, where one is published
    also: tuple[str, ...] = ()  # files that have to be fetched besides


DRIVE = "https://drive.google.com/uc?id="  # with the file numbers of DomainBed's download script
STANFORD, CELEBA = "https://nlp.stanford.edu/data/dro/", "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
HOME, FACES = "OfficeHomeDataset_10072016", "img_align_celeba"
TABLES = ("list_attr_celeba.txt", "list_eval_partition.txt")
MD5 = CELEBA_CHECKSUMS[f"{FACES}.zip"]
ARCHIVES = {
    "waterbirds": Archive(f"{BIRDS}.tar.gz", BIRDS, BIRDS, f"{STANFORD}{BIRDS}.tar.gz", 0.6e9, direct=True),
    "celeba": Archive(f"celeba/{FACES}.zip", FACES, f"celeba/{FACES}", CELEBA, 1.5e9, checksum=MD5, also=TABLES),
    "pacs": Archive("PACS.zip", "kfold", "PACS", f"{DRIVE}1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd", 0.2e9),
    "vlcs": Archive("VLCS.tar.gz", "VLCS", "VLCS", f"{DRIVE}1skwblH1_okBwxWxmRsp9_qi15hyPpxg8", 4e9),
    "office_home": Archive("office_home.zip", HOME, "office_home", f"{DRIVE}1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC", 1.2e9),
}


def get(name: str, root: Root = None) -> None:
    """Bring the folder of the data set `name` into the data root.

    An archive that lies in its place, fetched by hand, is unpacked and kept; else it is downloaded where that can be
    done, and removed once it is unpacked. Raises DataError, in one line, which says what to do by hand; then nothing is
    left behind but what came of a download that broke off.
    """
    if name not in ARCHIVES:
        raise DataError(f"{name}: {how([name], root)}")
    archive, root = ARCHIVES[name], data_root(root)
    target, file, kept = root / archive.target, root / archive.file, root / KEPT
    others = f" ({', '.join(archive.also)}: from {archive.address})" if archive.also else ""
    if target.exists():
        raise DataError(f"{name}: {target} is in the way; move it elsewhere to get it anew{others}")
    by_hand = file.is_file()
    if not by_hand and not archive.direct:
        raise DataError(
            f"{name}: get {', '.join((file.name, *archive.also))} with a browser from {archive.address} "
            f"(programs are refused) into {file.parent}, then run: {command([name], root)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(kept.read_text()) if kept.exists() else {}
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as temporary:
            if not by_hand:
                fetch(archive.address, file)
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if known.get(name, digest) != digest or not check_integrity(file, archive.checksum):
                first = f", not {known[name]} as at first" if name in known else ""
                raise DataError(f"{file} has the wrong content (checksum {digest}{first}); get it anew")
            unpack(file, Path(temporary), 2 * archive.size)
            if not (Path(temporary) / archive.inner).is_dir():
                raise DataError(f"{file} has no folder {archive.inner}")
            os.replace(Path(temporary) / archive.inner, target)
        if name not in known:
            print(f"{name}: no SHA-256 is published; {digest} is kept in {kept} to compare with")
            with replacing(kept) as new:
                new.write(json.dumps(known | {name: digest}, indent=1).encode())
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{kept} must hold the SHA-256 of each archive; correct or remove it") from error
    except (OSError, HTTPException) as error:  # URLError is an OSError
        problem = f"{name}: {file.name} could not be fetched: {' '.join(str(error).split())}; run again to go on, or "
        raise DataError(f"{problem}put it into {file.parent} by hand, from {archive.address}") from error
    finally:
        if not by_hand:
            file.unlink(missing_ok=True)


class _Secure(HTTPRedirectHandler):
    """Follows no redirect from https to anything else."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise OSError(f"{req.host} sends to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(address: str, path: Path) -> None:
    """Download `address` to `path`, going on with what an earlier try left beside it; a progress bar in a terminal.

    Raises OSError or HTTPException; what came so far is kept.
    """
    part = path.with_name(f".{path.name}.part")
    # The last byte comes once more, so that a part that is already whole is no special case.
    begin = max(part.stat().st_size - 1, 0) if part.exists() else 0
    request = Request(address, headers={"Range": f"bytes={begin}-"} if begin else {})
    try:
        with build_opener(_Secure).open(request, timeout=TIMEOUT) as reply, part.open("ab") as file:
            if not reply.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                begin = 0  # the whole file comes, from a server that knows no ranges
            file.truncate(begin)
            length = begin + int(reply.headers.get("Content-Length", 0))
            with tqdm.wrapattr(
                file, "write", length or None, desc=path.name, initial=begin, leave=False, disable=None
            ) as counted:
                shutil.copyfileobj(reply, counted)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise OSError(f"what was left of an earlier download is no part of {address}") from error
        raise
    if (size := part.stat().st_size) < length:
        raise OSError(f"the connection broke off after {size:,} of {length:,} bytes")
    os.replace(part, path)


def unpack(file: Path, folder: Path, limit: float) -> None:
    """Unpack a tar or zip archive into `folder`, an empty one.

    Nothing is written outside: an archive that holds anything but files and folders (links, devices), an absolute path,
    one through ``..``, or more than `limit` bytes is refused. Raises DataError in one line.
    """
    try:
        is_zip, room = zipfile.is_zipfile(file), limit
        archive: Any = zipfile.ZipFile(file) if is_zip else tarfile.open(file)
        with archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # modes and owners are not taken over
            members = archive.infolist() if is_zip else archive
            for member in tqdm(members, f"unpacking {file.name}", leave=False, disable=None):
                path = PurePosixPath(member.filename.replace("\\", "/") if is_zip else member.name)
                plain = not stat.S_ISLNK(member.external_attr >> 16) if is_zip else member.isreg() or member.isdir()
                room -= member.file_size if is_zip else member.size
                problem = "" if plain else f"{str(path)!r} is a link or a device"
                if path.is_absolute() or ".." in path.parts:
                    problem = f"{str(path)!r} leads out of its folder"
                problem = f"it holds more than {limit:.3g} bytes" if room < 0 else problem
                if problem:
                    raise DataError(f"{file} is not safe to unpack: {problem}")
                archive.extract(member, folder)
            while not is_zip and archive.fileobj.read(1 << 20):  # its checksum stands after the last member
                pass
    except DataError:
        raise
    except Exception as error:  # by kind of damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file} could not be unpacked: {reason}") from error
