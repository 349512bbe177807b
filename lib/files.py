"""Files that are replaced whole: no reader meets half of one, and a writer that dies leaves the old one. Locks that say
who holds them."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

READ = "SAM_RESULTS_READ"  # names a file that gets a line for all that is read of the results
SILENT_SECONDS = 5.0  # of a wait; then it says what it waits for


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the place of `path` at the end of the block; after an error in it,
    `path` is as it was. The folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file is private; a result is not
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock ``<path>.lock`` in the block; the system takes it from a process that dies.

    A wait of more than SILENT_SECONDS is told in one line, with the holder. Without `wait`, raises filelock.Timeout
    where another holds it. Raises OSError where the file system allows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, told = FileLock(f"{path}.lock", fallback_to_soft=False), Path(f"{path}.holder")
    try:
        lock.acquire(timeout=SILENT_SECONDS if wait else 0)
    except Timeout:
        if not wait:
            raise
        print(f"waiting for {path.name}, held by {holder(path)}", file=sys.stderr, flush=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # by file system
        raise OSError(f"{path.parent} allows no locks (flock): {error}") from error
    try:
        told.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%d %b %H:%M:%S')}")
        yield
    finally:
        told.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str:
    """Who holds the lock of `path`: process, host and since when."""
    try:
        return Path(f"{path}.holder").read_text()
    except OSError:
        return "another process"


def note_read(what: str) -> None:
    """Note what is read of the results, where that is asked for."""
    if READ in os.environ:
        with open(os.environ[READ], "a") as file:
            file.write(f"{what}\n")
