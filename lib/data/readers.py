"""MNIST, Fashion-MNIST and CIFAR-10, read, checked and downloaded with torchvision; and image folders of your own.

Files of full length are checked by checksum; shorter ones that are whole in themselves are taken as a reduced set.
"""

import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity

from lib import check
from lib.data.dataset import Split
from lib.data.root import FOLDERS, TIMEOUT, DataError, Root, damaged, data_root, missing, need, rgb_image

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


def read(name: str, split: str, classes: Sequence[int] | None = None, root: Root = None) -> Split:
    """The images of `classes` (numbers 0 to 9; all ten where None) in one official split of a set.

    `name` is one of SETS and `split` one of SPLITS. Labels are positions in `classes`; images have one channel or
    three. CIFAR-10 comes in the order of its pixel values, so that both of its layouts give the same tensors.

    Raises MissingData or DataError, in one line that names the file, and ValueError on a wrong argument.
    """
    check.choice("name", name, SETS)
    check.choice("split", split, SPLITS)
    classes = tuple(range(10) if classes is None else classes)
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(10)):
        raise ValueError(f"classes must be distinct numbers from 0 to 9, not {classes}")
    folder = need(name, root)
    reader = _read_idx if name != "cifar10" else _read_cifar_folder if folder.name == "cifar10" else _read_cifar
    images, labels = reader(name, split, classes, folder, root)
    position = torch.full((10,), -1)
    position[list(classes)] = torch.arange(len(classes))
    wanted = position[labels] >= 0
    images, labels = images[wanted], position[labels[wanted]]
    if name == "cifar10":
        pixels = images.flatten(1).numpy()
        order = sorted(range(len(pixels)), key=lambda index: (pixels[index].tobytes(), int(labels[index])))
        images, labels = images[order], labels[order]
    return Split.of(images, labels)


def read_folder(folder: Path | str, side: int = 32) -> Split:
    """Images of your own: one folder a class under `folder`, classes 0, 1, ... in the order of their names;
    every image in colour, scaled to `side` by `side` pixels where it has another size.

    Raises DataError, in one line, where there is no such folder, no image of a class, or a file is no image.
    """

    def load(path: str) -> np.ndarray:
        return np.asarray(rgb_image(path, DataError(f"{path} is not a whole image file")).resize((side, side)))

    try:
        images, labels = zip(*datasets.ImageFolder(folder, loader=load))
    except FileNotFoundError as error:
        raise DataError(f"{folder} must hold one folder of images a class ({error})") from error
    return Split.of(np.stack(images).transpose(0, 3, 1, 2), np.array(labels))


def download(name: str, root: Root = None) -> None:
    """Get the set `name` with torchvision (progress bars, checksums) into the data root.

    All is fetched and unpacked in a temporary folder of the data root, and moved into place when it is whole.
    Raises DataError where a file cannot be had.
    """
    dataset, root = SETS[check.choice("name", name, SETS)], data_root(root)
    folder = FOLDERS[name][0]
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
        if folder.name == "cifar10":  # it may hold only some of the classes, but one at least
            there = [(folder / split / kind).is_dir() for kind in CIFAR_CLASSES]
            classes = [label for label in range(10) if there[label]] or [0]
        counts.append(len(read(name, split, classes, root)))
    detail = ", ".join(f"{count:,} {split} images" for count, split in zip(counts, SPLITS))
    detail += f" of {len(classes)} classes" if len(classes) < 10 else ""
    return "complete" if tuple(counts) == COUNTS[name] else "reduced", detail, folder, ()


# Each reader gives images uint8 (n, 1 or 3, height, width) and labels int64 (n,), of `classes` at least.


def _read_idx(name: str, split: str, classes: Sequence[int], folder: Path, root: Root) -> tuple[Tensor, Tensor]:
    tensors = []
    files = [file for file in IDX_CHECKSUMS[name] if file.startswith({"train": "train", "test": "t10k"}[split])]
    for file, reader, item in zip(files, (read_image_file, read_label_file), ((28, 28), ())):
        path = folder / file
        if not path.exists():
            raise missing(name, path, root)
        try:
            tensor = reader(path)
        except Exception as error:  # by kind of damage, from AssertionError to ValueError
            raise damaged(name, path, f"is no whole idx file ({type(error).__name__})", root) from error
        if tensor.shape[1:] != item:
            raise damaged(name, path, f"is not an idx file of items of shape {item}", root)
        # A shorter file can be no official one, and is the owner's choice.
        full = len(tensor) >= COUNTS[name][SPLITS.index(split)]
        if full and not check_integrity(path, IDX_CHECKSUMS[name][file]):
            raise damaged(name, path, "has the wrong content (checksum)", root)
        tensors.append(tensor)
    images, labels = tensors
    if len(images) != len(labels) or (labels > 9).any():
        raise damaged(name, path, f"does not hold {len(images):,} labels from 0 to 9, one an image", root)
    return images[:, None], labels


def _read_cifar(name: str, split: str, classes: Sequence[int], folder: Path, root: Root) -> tuple[Tensor, Tensor]:
    cifar = datasets.CIFAR10
    try:
        archive = cifar(folder.parent, train=split == "train")
    except RuntimeError as error:
        for file, checksum in (*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])):
            if not (folder / file).is_file():
                raise missing(name, folder / file, root) from error
            if not check_integrity(folder / file, checksum):
                raise damaged(name, folder / file, "has the wrong content (checksum)", root) from error
        raise
    return torch.from_numpy(archive.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(archive.targets)


def _read_cifar_folder(
    name: str, split: str, classes: Sequence[int], folder: Path, root: Root
) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for label in classes:
        paths = list((folder / split / CIFAR_CLASSES[label]).glob("*.png"))
        if not paths:
            raise missing(name, folder / split / CIFAR_CLASSES[label] / "*.png", root)
        for path in paths:
            image = rgb_image(path, damaged(name, path, "is not a whole image file", root))
            if image.size != (32, 32):
                raise damaged(name, path, "has {} x {} pixels, not 32 x 32".format(*image.size), root)
            images.append(np.asarray(image))
        labels += [label] * len(paths)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
