"""Labelled images from files: an .npz, a folder with one folder a class, and MNIST, Fashion-MNIST and CIFAR-10.

Files of these three that have full length are checked by checksum; shorter ones that are whole in themselves are taken
as a reduced set. They are read unpacked, packed as they were published (.gz, .tar.gz), and CIFAR-10 as a folder too.
"""

import gzip
import hashlib
import os
import pickle
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision import datasets

from lib.data.root import CIFAR, LAYOUTS, DataError, Root, class_images, data_root, first_of, need, reading, rgb_image

SIDE = 32  # pixels of a folder's images that have no one size
SPLITS = ("train", "test")
SETS = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}
COUNTS = {"mnist": (60_000, 10_000), "fashion-mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # of each split
CLASSES = {
    "mnist": tuple(map(str, range(10))),
    "fashion-mnist": tuple(datasets.FashionMNIST.classes),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
IDX_FILES = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
IDX_CHECKSUMS = {  # of each, unpacked, the MD5's first half; torchvision knows those of the packed ones
    "mnist": ("6bbc9ace898e44ae", "a25bea736e30d166", "2646ac647ad5339d", "27ae3e4e09519cfb"),
    "fashion-mnist": ("f4a8712d7a061bf5", "9018921c3c673c53", "8181f5470baa50b6", "15d484375f8d13e6"),
}


class Labelled(NamedTuple):
    """n labelled images."""

    images: np.ndarray  # uint8 (n, 1 or 3, height, width)
    kinds: np.ndarray  # (n,): the name of each one's class
    test: np.ndarray | None  # bool (n,): whether it is a test image; None: this is not said


def read(path: str, classes: Collection[str] = (), size: int | None = None, root: Root = None) -> Labelled:
    """The labelled images of one of SETS, or of the file or folder of that path (see `lib.data.own.Files`).

    Of a folder those of `classes`, where it has all of these, of `size` by `size` pixels. CIFAR-10 comes in the order
    of its pixel values, so that all of its layouts give the same images. Raises MissingData or DataError, in one line
    that names the file.
    """
    with reading(path if path in SETS else "", root):
        found = need(path, root)
        if path in ("mnist", "fashion-mnist"):
            return _idx(path, found)
        if path != "cifar10":
            return _folder(found, classes, size) if found.is_dir() else _npz(found)
        all_of = _folder(found, classes, must=SIDE) if (found / "train").is_dir() else _cifar(found)
        order = sorted(range(len(all_of.images)), key=lambda row: all_of.images[row].tobytes())
        return Labelled(*(column[order] for column in all_of if column is not None))


def download(name: str, root: Root = None) -> None:
    """Get one of SETS with torchvision (progress bars, checksums) into the data root.

    All is fetched and unpacked in a temporary folder of the data root, and moved into place when it is whole.
    Raises DataError where a file cannot be had.
    """
    root = data_root(root)
    folder = next(iter(LAYOUTS[name]))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            SETS[name](temporary, download=True)
            (root / folder).mkdir(parents=True, exist_ok=True)
            for path in (Path(temporary) / folder).iterdir():
                if path.suffix != ".gz":
                    os.replace(path, root / folder / path.name)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        problem = f"{name} could not be downloaded to {root / folder}: {' '.join(str(error).split())}"
        raise DataError(f"{problem}; copy the files there by hand or try again") from error


def _npz(path: Path) -> Labelled:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "labels", "names", "split") if name in file}
    except (ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: it must be an .npz of plain arrays, or a folder") from error

    def fits(name: str, good: bool, allowed: str) -> None:
        if not good:
            found = f"{arrays[name].dtype} of shape {arrays[name].shape}" if name in arrays else "missing"
            raise DataError(f"{path}: {name} must be {allowed}, not {found}")

    words = "uint8, uint16 or floats from 0 to 1, of shape (n, height, width) or (n, height, width, 1 or 3)"
    images, labels = (arrays.get(name, np.empty(0)) for name in ("images", "labels"))
    fits("images", images.ndim in (3, 4) and images.size > 0 and images.shape[3:] in ((), (1,), (3,)), words)
    if images.dtype.kind == "f":
        fits("images", bool(((images >= 0) & (images <= 1)).all()), words)  # NaN is neither
        images = (255 * images.astype(np.float64)).round().astype(np.uint8)
    elif images.dtype == np.uint16:
        images = (images >> 8).astype(np.uint8)
    fits("images", images.dtype == np.uint8, words)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    fits("labels", labels.shape == (len(images),) and labels.dtype.kind in "iubU", f"({len(images)},) numbers or texts")
    kinds, test = labels.astype(str), None
    if (names := arrays.get("names")) is not None:
        good = names.ndim == 1 and names.dtype.kind == "U" and len(set(names.tolist())) == len(names)
        fits("names", good and labels.dtype.kind in "iu", "different texts, for labels that are numbers")
        fits("labels", bool(((labels >= 0) & (labels < len(names))).all()), f"numbers from 0 to {len(names) - 1}")
        kinds = names[labels]
    if (split := arrays.get("split")) is not None:
        fits("split", split.shape == kinds.shape and bool(np.isin(split, SPLITS).all()), 'of "train" and "test"')
        test = split == "test"
    return Labelled(images, kinds, test)


def _folder(folder: Path, classes: Collection[str] = (), size: int | None = None, must: int | None = None) -> Labelled:
    sides = [folder / split for split in SPLITS]
    split = bool(must) or all(side.is_dir() for side in sides)
    rows = class_images(*(sides if split else [folder]))
    if set(classes) <= {kind for _, kind, _ in rows}:
        rows = [row for row in rows if row[1] in (classes or row)]
    images = [rgb_image(path) for path, *_ in rows]
    sizes = {image.size: path for image, (path, *_) in zip(images, rows)}
    for width, height in sizes if must else ():
        if (width, height) != (must, must):
            raise DataError(f"{sizes[width, height]} has {width} x {height} pixels, not {must} x {must}")
    shape = (size, size) if size else images[0].size if len(sizes) == 1 else (SIDE, SIDE)
    pixels = np.stack([np.asarray(image if image.size == shape else image.resize(shape)) for image in images])
    kinds, test = np.array([kind for _, kind, _ in rows]), np.array([side == 1 for *_, side in rows])
    return Labelled(pixels.transpose(0, 3, 1, 2), kinds, test if split else None)


def _idx(name: str, folder: Path) -> Labelled:
    arrays: list[np.ndarray] = []
    for place, file in enumerate(IDX_FILES):
        content, item = _content(folder / file), () if place % 2 else (28, 28)
        count = int.from_bytes(content[4:8], "big")
        head = np.array([0x801 + len(item), count, *item], ">u4").tobytes()
        if not content.startswith(head) or len(content) != len(head) + count * 28 ** len(item):
            raise DataError(f"{folder / file} is no whole idx file of items of shape {item}")
        if count >= COUNTS[name][place // 2]:  # a shorter one can be no official one
            _check_sum(folder / file, content, IDX_CHECKSUMS[name][place])
        arrays.append(np.frombuffer(content, np.uint8, offset=len(head)).reshape(count, *item))
        if place % 2 and (count != len(arrays[-2]) or (arrays[-1] > 9).any()):
            raise DataError(f"{folder / file} does not hold {len(arrays[-2]):,} labels from 0 to 9, one an image")
    labels = np.concatenate(arrays[1::2])
    images, kinds = np.concatenate(arrays[::2])[:, None], np.array(CLASSES[name])[labels]
    return Labelled(images, kinds, np.arange(len(labels)) >= len(arrays[0]))


def _cifar(folder: Path) -> Labelled:
    parts, official = [], datasets.CIFAR10
    for file, checksum in (*official.train_list, *official.test_list):
        content = _content(folder / file)
        _check_sum(folder / file, content, checksum)  # before anything in it is executed
        parts.append(pickle.loads(content, encoding="latin1"))
    images, labels = (np.concatenate([part[key] for part in parts]) for key in ("data", "labels"))
    test = np.arange(len(labels)) >= sum(len(part["labels"]) for part in parts[: len(official.train_list)])
    return Labelled(images.reshape(-1, 3, 32, 32), np.array(CLASSES["cifar10"])[labels], test)


def _content(path: Path) -> bytes:
    """A file as it lies there, packed, or in CIFAR-10's archive."""
    found = first_of(path.parent, path.name, f"{path.name}.gz", CIFAR)
    try:
        if found.name == CIFAR:
            with tarfile.open(found) as file:
                return file.extractfile(f"{datasets.CIFAR10.base_folder}/{path.name}").read()  # type: ignore[union-attr]
        return gzip.decompress(found.read_bytes()) if found != path else found.read_bytes()
    except (EOFError, KeyError, AttributeError, zlib.error, tarfile.TarError, gzip.BadGzipFile) as error:
        raise DataError(f"{found} cannot be read ({' '.join(str(error).split())})") from error


def _check_sum(path: Path, content: bytes, checksum: str) -> None:
    if not hashlib.md5(content).hexdigest().startswith(checksum):
        raise DataError(f"{path} has the wrong content (checksum)")
