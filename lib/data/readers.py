"""MNIST, Fashion-MNIST and CIFAR-10, read, checked and downloaded.

Files of full length are checked by checksum; shorter ones that are whole in themselves are taken as a reduced set. They
are read unpacked, packed as they were published (.gz, .tar.gz), and CIFAR-10 as one folder of images a class too.
"""

import gzip
import hashlib
import os
import pickle
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision import datasets

from lib import check
from lib.data.dataset import Split
from lib.data.root import (
    CIFAR,
    LAYOUTS,
    TIMEOUT,
    DataError,
    Root,
    class_images,
    data_root,
    missing,
    need,
    reading,
    rgb_image,
)

SPLITS = ("train", "test")
SETS = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}
COUNTS = {"mnist": (60_000, 10_000), "fashion-mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # of each split
CLASSES = {
    "mnist": tuple(map(str, range(10))),
    "fashion-mnist": tuple(datasets.FashionMNIST.classes),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
# The files of images and of labels in each split, and their unpacked MD5; torchvision knows those of the packed ones.
IDX = {
    split: [f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte"]
    for split, start in zip(SPLITS, ("train", "t10k"))
}
IDX_CHECKSUMS = {
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
Images = tuple[np.ndarray, np.ndarray]  # uint8 (n, 1 or 3, height, width), and labels 0 to 9 (n,)


def read(name: str, split: str, classes: Sequence[int] | None = None, root: Root = None) -> Split:
    """The images of `classes` (numbers 0 to 9; all ten where None) in one official split of a set.

    `name` is one of SETS and `split` one of SPLITS. Labels are positions in `classes`; images have one channel or
    three. CIFAR-10 comes in the order of its pixel values, so that all of its layouts give the same tensors.

    Raises MissingData or DataError, in one line that names the file, and ValueError on a wrong argument.
    """
    check.choice("name", name, SETS)
    check.choice("split", split, SPLITS)
    classes = tuple(range(10) if classes is None else classes)
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(10)):
        raise ValueError(f"classes must be distinct numbers from 0 to 9, not {classes}")
    with reading(name, root):
        folder = need(name, root)
        if name != "cifar10":
            images, labels = _read_idx(name, split, folder)
        elif (folder / split).is_dir():
            images, labels = _read_cifar_folder(folder / split, classes)
        else:
            images, labels = _read_cifar(split, folder)
    position = np.full(10, -1)
    position[list(classes)] = np.arange(len(classes))
    wanted = position[labels] >= 0
    images, labels = images[wanted], position[labels[wanted]]
    if name == "cifar10":
        order = sorted(range(len(images)), key=lambda index: (images[index].tobytes(), labels[index]))
        images, labels = images[order], labels[order]
    return Split.of(images, labels)


def download(name: str, root: Root = None) -> None:
    """Get the set `name` with torchvision (progress bars, checksums) into the data root.

    All is fetched and unpacked in a temporary folder of the data root, and moved into place when it is whole.
    Raises DataError where a file cannot be had.
    """
    dataset, root = SETS[check.choice("name", name, SETS)], data_root(root)
    folder = next(iter(LAYOUTS[name]))
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            dataset(temporary, download=True)
            (root / folder).mkdir(parents=True, exist_ok=True)
            for path in (Path(temporary) / folder).iterdir():
                if path.suffix != ".gz":
                    os.replace(path, root / folder / path.name)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        problem = f"{name} could not be downloaded to {root / folder}: {' '.join(str(error).split())}"
        raise DataError(f"{problem}; copy the files there by hand or try again") from error
    finally:
        socket.setdefaulttimeout(timeout)


def describe(name: str, root: Root = None) -> tuple[bool, str, None]:
    """Whether the set `name` is complete, and one line of detail; all of its files are read, see `read`."""
    counts, classes = [], list(range(10))
    for split in SPLITS:
        if name == "cifar10" and (folder := need(name, root) / split).is_dir():  # it may hold some of the classes
            classes = [label for label in range(10) if (folder / CLASSES[name][label]).is_dir()] or [0]
        counts.append(len(read(name, split, classes, root)))
    detail = ", ".join(f"{count:,} {split} images" for count, split in zip(counts, SPLITS))
    return tuple(counts) == COUNTS[name], detail + (f" of {len(classes)} classes" if len(classes) < 10 else ""), None


def _content(path: Path) -> bytes:
    """A file as it lies there, packed, or in CIFAR-10's archive."""
    packed, archive = path.with_name(f"{path.name}.gz"), path.with_name(CIFAR)
    found = next(filter(Path.exists, (path, packed, archive)), path)
    try:
        if found == archive:
            with tarfile.open(archive) as file:
                return file.extractfile(f"{datasets.CIFAR10.base_folder}/{path.name}").read()  # type: ignore[union-attr]
        return gzip.decompress(found.read_bytes()) if found == packed else found.read_bytes()
    except (EOFError, KeyError, AttributeError, zlib.error, tarfile.TarError, gzip.BadGzipFile) as error:
        raise DataError(f"{found} cannot be read ({' '.join(str(error).split())})") from error


def _checked(path: Path, content: bytes, checksum: str) -> bytes:
    if hashlib.md5(content).hexdigest() != checksum:
        raise DataError(f"{path} has the wrong content (checksum)")
    return content


def _read_idx(name: str, split: str, folder: Path) -> Images:
    arrays: list[np.ndarray] = []
    checksums = dict(zip(IDX["train"] + IDX["test"], IDX_CHECKSUMS[name]))
    for file, item in zip(IDX[split], ((28, 28), ())):
        content = _content(folder / file)
        count = int.from_bytes(content[4:8], "big")
        head = np.array([0x800 + 1 + len(item), count, *item], ">u4").tobytes()
        if not content.startswith(head) or len(content) != len(head) + count * 28 ** len(item):
            raise DataError(f"{folder / file} is no whole idx file of items of shape {item}")
        if count >= COUNTS[name][SPLITS.index(split)]:  # a shorter one can be no official one
            _checked(folder / file, content, checksums[file])
        arrays.append(np.frombuffer(content, np.uint8, offset=len(head)).reshape(count, *item))
    images, labels = arrays
    if len(images) != len(labels) or (labels > 9).any():
        raise DataError(f"{folder / file} does not hold {len(images):,} labels from 0 to 9, one an image")
    return images[:, None], labels.astype(int)


def _read_cifar(split: str, folder: Path) -> Images:
    cifar, parts = datasets.CIFAR10, []
    for file, checksum in cifar.train_list if split == "train" else cifar.test_list:
        content = _checked(folder / file, _content(folder / file), checksum)  # before anything in it is executed
        parts.append(pickle.loads(content, encoding="latin1"))
    images, labels = (np.concatenate([part[key] for part in parts]) for key in ("data", "labels"))
    return images.reshape(-1, 3, 32, 32), labels


def _read_cifar_folder(folder: Path, classes: Sequence[int]) -> Images:
    found, images, labels = class_images(folder), [], []
    for label in classes:
        kind = CLASSES["cifar10"][label]
        if kind not in found:
            raise missing(folder / kind / "*.png")
        for path in found[kind]:
            image = rgb_image(path)
            if image.size != (32, 32):
                raise DataError(f"{path} has {image.width} x {image.height} pixels, not 32 x 32")
            images.append(np.asarray(image))
            labels.append(label)
    return np.stack(images).transpose(0, 3, 1, 2), np.array(labels)
