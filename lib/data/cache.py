"""Images decoded once, at the size that training needs, into a memory-mapped file.

A set's images at one size are one file under the cache root: the environment variable ``SAM_CACHE_ROOT``,
else ``cache/`` in the repository. Its name holds a fingerprint of the image files (names, sizes, times of
change), so that it is made anew where one of them changes. The folder may be deleted at any time.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lib import check
from lib.data.root import DataError, MissingData, rgb_image
from lib.files import locked

DECODING = 1  # raised when the same files come to give other pixels
SIZES = 8, 1024  # pixels, the least and the most


def cache_root() -> Path:
    """The cache root: ``SAM_CACHE_ROOT``, else ``cache/`` in the repository."""
    return Path(os.environ.get("SAM_CACHE_ROOT") or Path(__file__).parents[2] / "cache").expanduser()


def check_size(size: object) -> int:
    """`size` where it may be the side of images, in pixels; raises ValueError where it may not."""
    return check.whole("size", size, *SIZES)


def decoded(name: str, folder: Path, files: Sequence[str], size: int) -> Tensor:
    """The images uint8 (n, 3, size, size) of the set `name`, in the order of `files` (relative to `folder`).

    Every image is turned into RGB and scaled to `size` by `size` pixels (bilinear, with antialiasing, without
    keeping its proportions). The memory is mapped, and pixels are read when they are used; channels come last
    in it. Where several processes need the same images one decodes and the others wait.

    Raises DataError, in one line that names the file, where one is missing or damaged or the cache cannot be
    written, and ValueError on a wrong size.
    """
    check_size(size)
    path = cache_root() / f"{name}-{size}-{fingerprint(name, folder, files)}.npy"
    shape = len(files), size, size, 3
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.stem}")):
            images = _mapped(path, shape)
            if images is None:
                _write(name, folder, files, path, shape)
                images = _mapped(path, shape)
    except OSError as error:
        raise DataError(
            f"{name}: decoded images cannot be kept in {path.parent}: {error.strerror or error}; "
            "set SAM_CACHE_ROOT to a folder that can be written"
        ) from error
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def fingerprint(name: str, folder: Path, files: Sequence[str]) -> str:
    """A hash of the image files: names, sizes and times of change.

    Raises MissingData or DataError, in one line, where a file is not there or is empty.
    """
    digest = hashlib.sha256(f"{DECODING}".encode())
    missing = []
    for file in files:
        try:
            found = os.stat(folder / file)
        except FileNotFoundError:
            missing.append(file)
            continue
        except OSError as error:
            raise DataError(f"{name}: {folder / file} cannot be read ({error.strerror})") from error
        if not found.st_size:
            raise DataError(f"{name}: {folder / file} is empty")
        digest.update(f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogateescape"))
    if missing:
        others = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise MissingData(f"{name}: {folder / missing[0]} is missing{others}")
    return digest.hexdigest()[:16]


def contents(name: str, folder: Path, table: pd.DataFrame) -> str:
    """The number of the images that a table names, and a hash of its columns and of the files, but not of their names.

    Raises MissingData or DataError, in one line, where a file is not there or is empty.
    """
    fingerprint(name, folder, list(table.index))
    digest = hashlib.sha256(table.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogateescape"))
    for file in table.index:
        digest.update(hashlib.sha256((folder / file).read_bytes()).digest())
    return f"{len(table)} images {digest.hexdigest()[:16]}"


def check_images(name: str, folder: Path, files: Sequence[str]) -> None:
    """Decode every image and keep none. Raises DataError, in one line that names the first damaged file."""
    for _ in _decode_all(name, folder, files, SIZES[0]):
        pass


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached images, or None where there is no such file or it is not whole."""
    try:
        images = np.load(path, mmap_mode="c")  # writing to the tensor would change this process's copy only
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _write(name: str, folder: Path, files: Sequence[str], path: Path, shape: tuple[int, ...]) -> None:
    """Decode into a file under a temporary name; one name will do, since only one process is here at once."""
    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if free < needed:
        raise DataError(
            f"{name}: the decoded images need {needed / 1e9:.1f} GB in {path.parent}, which has "
            f"{free / 1e9:.1f} GB left; set SAM_CACHE_ROOT to another folder"
        )
    temporary = path.with_name(f".{path.name}.part")
    try:
        images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for row, image in enumerate(_decode_all(name, folder, files, shape[1])):
            images[row] = image
        images.flush()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _decode_all(name: str, folder: Path, files: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """The images in order, decoded in threads (Pillow lets go of the interpreter), with a progress bar."""

    def decode(file: str) -> np.ndarray:
        image = rgb_image(folder / file, DataError(f"{name}: {folder / file} is not a whole image file"))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

    images = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(map(joblib.delayed(decode), files))
    yield from tqdm(images, total=len(files), desc=f"decoding {name}", unit="image", leave=False, disable=None)
