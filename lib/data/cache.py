"""Image files, and these decoded once, at the size that training needs, into a memory-mapped file.

A set's images at one size are one file under the cache root: the environment variable ``SAM_CACHE_ROOT``,
else ``cache/`` in the repository. Its name holds a fingerprint of the image files (names, sizes, times of
change), so that it is made anew where one of them changes. The folder may be deleted at any time.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lib import check
from lib.data.root import DataError, Root, reading, rgb_image
from lib.files import locked

DECODING = 1  # raised when the same files come to give other pixels
SIZES = 8, 1024  # pixels, the least and the most
_CONTENTS: dict[tuple[Path, str, str], str] = {}


def cache_root() -> Path:
    """The cache root: ``SAM_CACHE_ROOT``, else ``cache/`` in the repository."""
    return Path(os.environ.get("SAM_CACHE_ROOT") or Path(__file__).parents[2] / "cache").expanduser()


def check_size(size: object) -> int:
    """`size` where it may be the side of images, in pixels; raises ValueError where it may not."""
    return check.whole("size", size, *SIZES)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The image files of the set `name`, and what is known of each: `table`, by the files' names in `folder`.

    Every method raises MissingData or DataError, in one line that names the file, where one is missing or damaged.
    """

    name: str
    folder: Path
    table: pd.DataFrame
    root: Root = None

    def decoded(self, size: int) -> Tensor:
        """The images in RGB, uint8 (n, 3, size, size), in the order of the table, scaled (bilinear, with antialiasing,
        without keeping proportions). The memory is mapped, and pixels are read when they are used; channels come last
        in it. Where several processes need the same images one decodes and the others wait."""
        shape = len(self.table), check_size(size), size, 3
        path = cache_root() / f"{self.name}-{size}-{self.stamp()}.npy"
        try:
            with locked(path.with_name(f".{path.stem}")):
                images = _mapped(path, shape)
                if images is None:
                    self._write(path, shape)
                    images = _mapped(path, shape)
        except OSError as error:
            problem = f"decoded images cannot be kept in {path.parent}: {error.strerror or error}"
            raise DataError(f"{self.name}: {problem}; set SAM_CACHE_ROOT to a folder that can be written") from error
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def stamp(self) -> str:
        """A hash of the files' names, sizes and times of change."""
        digest = hashlib.sha256(f"{DECODING}".encode())
        with reading(self.name, self.root):
            for file in self.table.index:
                found = os.stat(self.folder / file)
                if not found.st_size:
                    raise DataError(f"{self.folder / file} is empty")
                state = f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}"
                digest.update(state.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def contents(self) -> str:
        """The number of images, and a hash of the table's columns and of the files, but not of their names; computed
        once in this process for each state of the files."""
        columns = self.table.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(columns)
        key = self.folder, self.stamp(), digest.hexdigest()
        if key not in _CONTENTS:
            with reading(self.name, self.root):
                for file in self.table.index:
                    digest.update(hashlib.sha256((self.folder / file).read_bytes()).digest())
            _CONTENTS[key] = f"{len(self.table)} images {digest.hexdigest()[:16]}"
        return _CONTENTS[key]

    def check(self) -> None:
        """Decode every image and keep none."""
        for _ in self._decoded_one_by_one(SIZES[0]):
            pass

    def _write(self, path: Path, shape: tuple[int, ...]) -> None:
        """Decode into a file under a temporary name; one name will do, since only one process is here at once."""
        needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
        if free < needed:  # a map that finds no room would end the process
            raise OSError(f"they need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are left")
        temporary = path.with_name(f".{path.name}.part")
        try:
            images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            for row, image in enumerate(self._decoded_one_by_one(shape[1])):
                images[row] = image
            images.flush()
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _decoded_one_by_one(self, size: int) -> Iterator[np.ndarray]:
        """The images in order, decoded in threads (Pillow lets go of the interpreter), with a progress bar."""

        def decode(file: str) -> np.ndarray:
            return np.asarray(rgb_image(self.folder / file).resize((size, size), Image.Resampling.BILINEAR))

        parallel = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")
        images = parallel(map(joblib.delayed(decode), self.table.index))
        options = {"desc": f"decoding {self.name}", "unit": "image", "leave": False, "disable": None}
        with reading(self.name, self.root):
            yield from tqdm(images, total=len(self.table), **options)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    with suppress(FileNotFoundError, ValueError, EOFError):
        images = np.load(path, mmap_mode="c")  # writing to the tensor would change this process's copy only
        return images if images.shape == shape and images.dtype == np.uint8 else None
    return None
