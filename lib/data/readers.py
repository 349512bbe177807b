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
    damaged,
    data_root,
    missing,
    need,
    rgb_image,
)

SPLITS = ("train", "test")
SETS = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}
COUNTS = {"mnist": (60_000, 10_000), "fashion-mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # of each split
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = {
    "mnist": tuple(map(str, range(10))),
    "fashion-mnist": tuple(datasets.FashionMNIST.classes),
    "cifar10": CIFAR_CLASSES,
}
# MD5 of the unpacked files; torchvision knows those of the packed ones.
IDX_CHECKSUMS = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
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
    folder = need(name, root)
    if name != "cifar10":
        images, labels = _read_idx(name, split, folder, root)
    elif (folder / split).is_dir():
        images, labels = _read_cifar_folder(folder / split, classes, root)
    else:
        images, labels = _read_cifar(split, folder, root)
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
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} could not be downloaded to {root / folder}: {reason}; copy the files there by hand or try again"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def describe(name: str, root: Root = None) -> tuple[str, str, Path, Sequence[str]]:
    """Complete or reduced; one line of detail; the folder of the set `name`, whose files are all read, and no names.

    Raises MissingData or DataError as `read`.
    """
    folder, counts, classes = need(name, root), [], list(range(10))
    for split in SPLITS:
        if name == "cifar10" and (folder / split).is_dir():  # it may hold only some of the classes, but one at least
            there = [(folder / split / kind).is_dir() for kind in CIFAR_CLASSES]
            classes = [label for label in range(10) if there[label]] or [0]
        counts.append(len(read(name, split, classes, root)))
    detail = ", ".join(f"{count:,} {split} images" for count, split in zip(counts, SPLITS))
    detail += f" of {len(classes)} classes" if len(classes) < 10 else ""
    return "complete" if tuple(counts) == COUNTS[name] else "reduced", detail, folder, ()


def _content(name: str, path: Path, root: Root) -> bytes:
    """A file as it lies there, packed, or in CIFAR-10's archive."""
    packed, archive = path.with_name(f"{path.name}.gz"), path.with_name(CIFAR)
    try:
        if path.exists():
            return path.read_bytes()
        if packed.exists():
            return gzip.decompress(packed.read_bytes())
        if name == "cifar10" and archive.exists():
            with tarfile.open(archive) as file:
                return file.extractfile(f"{datasets.CIFAR10.base_folder}/{path.name}").read()  # type: ignore[union-attr]
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, AttributeError) as error:
        found = next(filter(Path.exists, (path, packed, archive)))
        raise damaged(name, found, f"cannot be read ({' '.join(str(error).split())})", root) from error
    raise missing(name, path, root)


def _read_idx(name: str, split: str, folder: Path, root: Root) -> Images:
    arrays = []
    files = [file for file in IDX_CHECKSUMS[name] if file.startswith({"train": "train", "test": "t10k"}[split])]
    for file, item in zip(files, ((28, 28), ())):
        path, content = folder / file, _content(name, folder / file, root)
        shape = np.frombuffer(content[4:], ">u4", min(1 + len(item), len(content) // 4 - 1)).tolist()
        head = 8 + 4 * len(item)
        if content[:4] != bytes([0, 0, 8, 1 + len(item)]) or len(content) - head != np.prod(shape, dtype=int):
            raise damaged(name, path, "is no whole idx file", root)
        if tuple(shape[1:]) != item:
            raise damaged(name, path, f"is not an idx file of items of shape {item}", root)
        # A shorter file can be no official one, and is the owner's choice.
        full = shape[0] >= COUNTS[name][SPLITS.index(split)]
        if full and hashlib.md5(content).hexdigest() != IDX_CHECKSUMS[name][file]:
            raise damaged(name, path, "has the wrong content (checksum)", root)
        arrays.append(np.frombuffer(content, np.uint8, offset=head).reshape(shape))
    images, labels = arrays
    if len(images) != len(labels) or (labels > 9).any():
        raise damaged(name, path, f"does not hold {len(images):,} labels from 0 to 9, one an image", root)
    return images[:, None], labels.astype(int)


def _read_cifar(split: str, folder: Path, root: Root) -> Images:
    cifar, parts = datasets.CIFAR10, []
    for file, checksum in cifar.train_list if split == "train" else cifar.test_list:
        content = _content("cifar10", folder / file, root)
        if hashlib.md5(content).hexdigest() != checksum:  # before anything in it is executed
            raise damaged("cifar10", folder / file, "has the wrong content (checksum)", root)
        parts.append(pickle.loads(content, encoding="latin1"))
    return np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32), np.concatenate(
        [part["labels"] for part in parts]
    )


def _read_cifar_folder(folder: Path, classes: Sequence[int], root: Root) -> Images:
    found, images, labels = class_images(folder), [], []
    for label in classes:
        paths = found.get(CIFAR_CLASSES[label], [])
        if not paths:
            raise missing("cifar10", folder / CIFAR_CLASSES[label] / "*.png", root)
        for path in paths:
            image = rgb_image(path, damaged("cifar10", path, "is not a whole image file", root))
            if image.size != (32, 32):
                raise damaged("cifar10", path, "has {} x {} pixels, not 32 x 32".format(*image.size), root)
            images.append(np.asarray(image))
        labels += [label] * len(paths)
    return np.stack(images).transpose(0, 3, 1, 2), np.array(labels)
