"""MNIST, Fashion-MNIST and CIFAR-10: where the files are, whether they are whole, and how to get them.

``python -m lib.data.sources`` lists what the data root holds of these and of the sets with natural images
(`groups`, `domains`); with ``--download NAME ...`` it gets what is missing. The data root is the environment
variable ``SAM_DATA_ROOT``, else ``data/`` in the repository::

    MNIST/raw/*-ubyte, FashionMNIST/raw/*-ubyte      torchvision's
    cifar-10-batches-py/*                            torchvision's, or else
    cifar10/{train,test}/{airplane,...}/*.png        an image folder, which may hold only some of the classes
"""

from __future__ import annotations

import hashlib
import importlib
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

SPLITS = ("train", "test")
IDX_SETS = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
SOURCES = (*IDX_SETS, "cifar10")
IDX_COUNTS = {"train": 60_000, "test": 10_000}
# Of the unpacked files; torchvision knows the checksums of the packed ones only.
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
UNPUBLISHED = ("birds_on_scenes",)  # sets that nobody can download
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_COUNTS = {"train": 50_000, "test": 10_000}
DOWNLOAD_TIMEOUT = 60  # seconds without a byte


class DataError(RuntimeError):
    """A file of a data set is damaged or could not be had; the one line says which file and how to get it."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this name: a notebook shows the line alone
        return [f"{type(self).__name__}: {self}"]


class MissingData(DataError):
    """A file of a data set is not there."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled images: `images` uint8 (n, 1 or 3, height, width), `labels` int64 (n,).

    Arrays are taken as well as tensors, and grey images may come as (n, height, width).
    Raises ValueError where shapes or types do not fit.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = torch.as_tensor(self.images), torch.as_tensor(self.labels)
        if images.ndim == 3:
            images = images[:, None]
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise ValueError(
                "images must be uint8 of shape (n, height, width) or (n, 1 or 3, height, width) "
                f"and not {images.dtype} of {tuple(images.shape)}"
            )
        if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"labels must be integers of shape ({len(images)},), not {labels.dtype} of shape {tuple(labels.shape)}"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.long())

    def __len__(self) -> int:
        return len(self.labels)


def data_root(root: Path | str | None = None) -> Path:
    """The data root: `root`, else ``SAM_DATA_ROOT``, else ``data/`` in the repository."""
    return Path(root or os.environ.get("SAM_DATA_ROOT") or Path(__file__).parents[2] / "data").expanduser()


def is_present(name: str, root: Path | str | None = None) -> bool:
    """Whether the data root has a folder for the source `name`; it may still be damaged."""
    check_choice("name", name, SOURCES)
    return any(folder.is_dir() for folder in _folders(name, data_root(root)))


def read(name: str, split: str, classes: Sequence[int] | None = None, root: Path | str | None = None) -> Labelled:
    """The images of `classes` (numbers 0 to 9; all ten where None) in one official split of a source.

    `name` is one of SOURCES and `split` one of SPLITS. Labels are positions in `classes`. CIFAR-10 comes in
    the order of its pixel values, so that both of its layouts give the same tensors. Files of full length are
    checked by checksum; shorter ones that are whole in themselves are taken as a reduced set.

    Raises MissingData or DataError, in one line that names the file, and ValueError on a wrong argument.
    """
    check_choice("name", name, SOURCES)
    check_choice("split", split, SPLITS)
    classes = tuple(range(10) if classes is None else classes)
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(10)):
        raise ValueError(f"classes must be distinct numbers from 0 to 9, not {classes}")
    reader = _read_cifar if name == "cifar10" else _read_idx
    images, labels = reader(name, split, classes, data_root(root))
    position = torch.full((10,), -1)
    position[list(classes)] = torch.arange(len(classes))
    wanted = position[labels] >= 0
    images, labels = images[wanted], position[labels[wanted]]
    if name == "cifar10":
        pixels = images.flatten(1).numpy()
        order = sorted(range(len(pixels)), key=lambda index: (pixels[index].tobytes(), int(labels[index])))
        images, labels = images[order], labels[order]
    return Labelled(images, labels)


def download(name: str, root: Path | str | None = None) -> None:
    """Get the source `name` with torchvision (progress bars, checksums) into the data root.

    All is fetched and unpacked in a temporary folder of the data root, and moved into place when it is whole.
    Raises DataError where a file cannot be had.
    """
    check_choice("name", name, SOURCES)
    root = data_root(root)
    dataset = IDX_SETS.get(name, datasets.CIFAR10)
    target = _folders(name, root)[0]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            dataset(temporary, download=True)
            target.mkdir(parents=True, exist_ok=True)
            for path in (Path(temporary) / target.relative_to(root)).iterdir():
                if path.suffix != ".gz":
                    os.replace(path, target / path.name)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} could not be downloaded to {target}: {reason}; copy the files there by hand or try again"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def state(name: str, root: Path | str | None = None) -> tuple[str, str]:
    """(complete, reduced, damaged or missing; one line of detail) of a source, whose files are all read."""
    root = data_root(root)
    if not is_present(name, root):
        return "missing", f"get it with: {command(name, root)}"
    counts = {}
    try:
        for split in SPLITS:
            tree = root / "cifar10" / split
            folder = name == "cifar10" and not _folders(name, root)[0].is_dir()
            classes = [label for label in range(10) if not folder or (tree / CIFAR_CLASSES[label]).is_dir()]
            if not classes:
                raise missing(name, tree / "*" / "*.png", root)
            counts[split] = len(read(name, split, classes, root))
    except DataError as error:
        return "damaged", str(error)
    detail = ", ".join(f"{count:,} {split} images" for split, count in counts.items())
    detail += f" of {len(classes)} classes" if len(classes) < 10 else ""
    return "complete" if counts == (CIFAR_COUNTS if name == "cifar10" else IDX_COUNTS) else "reduced", detail


def _folders(name: str, root: Path) -> tuple[Path, ...]:
    """Where a source may lie, the place that wins first."""
    if name in IDX_SETS:
        return (root / IDX_SETS[name].__name__ / "raw",)
    return root / datasets.CIFAR10.base_folder, root / "cifar10"


def command(name: str, root: Path) -> str:
    """The command that gets the set `name`."""
    elsewhere = "" if root == data_root() else f" --root {root}"
    return f"python -m lib.data.sources --download {name}{elsewhere}"


def missing(name: str, path: Path, root: Path) -> MissingData:
    """The error of a file that is not there."""
    otherwise = "" if name in UNPUBLISHED else f", or get it with: {command(name, root)}"
    return MissingData(f"{name}: {path} is missing; set SAM_DATA_ROOT to the folder of the data sets{otherwise}")


def damaged(name: str, path: Path, problem: str, root: Path) -> DataError:
    """The error of a file with a `problem`."""
    otherwise = "" if name in UNPUBLISHED else f"; get it anew with: {command(name, root)}"
    return DataError(f"{name}: {path} {problem}{otherwise}")


def _read_idx(name: str, split: str, classes: Sequence[int], root: Path) -> tuple[Tensor, Tensor]:
    """All images uint8 (n, 1, 28, 28) and labels int64 (n,) of MNIST or Fashion-MNIST, checked."""
    prefix = {"train": "train", "test": "t10k"}[split]
    arrays = []
    for file, item in ((f"{prefix}-images-idx3-ubyte", (28, 28)), (f"{prefix}-labels-idx1-ubyte", ())):
        path = _folders(name, root)[0] / file
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise missing(name, path, root) from None
        except OSError as error:
            raise damaged(name, path, f"cannot be read ({error.strerror})", root) from error
        header = 8 + 4 * len(item)
        sizes = np.frombuffer(content[4:header].ljust(header - 4), ">u4")
        magic = bytes([0, 0, 8, 1 + len(item)])
        if len(content) < header or content[:4] != magic or tuple(sizes[1:]) != item:
            raise damaged(name, path, f"is not an idx file of items of shape {item}", root)
        count = int(sizes[0])
        whole = header + count * int(np.prod(item))
        if len(content) != whole:
            raise damaged(name, path, f"has {len(content):,} bytes, not {whole:,} as its header says", root)
        # A shorter file can be no official one, and is the owner's choice.
        if count >= IDX_COUNTS[split] and hashlib.md5(content).hexdigest() != IDX_CHECKSUMS[name][file]:
            raise damaged(name, path, "has the wrong content (checksum)", root)
        arrays.append(np.frombuffer(bytearray(content), np.uint8, offset=header).reshape(count, *item))
    images, labels = arrays
    if len(images) != len(labels) or labels.max(initial=0) > 9:
        raise damaged(name, path, f"does not hold {len(images):,} labels from 0 to 9, one an image", root)
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def _read_cifar(name: str, split: str, classes: Sequence[int], root: Path) -> tuple[Tensor, Tensor]:
    """Images uint8 (n, 3, 32, 32) and labels int64 (n,), of at least `classes`; the archive comes first."""
    if not _folders(name, root)[0].is_dir():
        return _read_cifar_folder(split, classes, root)
    try:
        archive = datasets.CIFAR10(root, train=split == "train", download=False)
    except RuntimeError as error:
        files = [
            *datasets.CIFAR10.train_list,
            *datasets.CIFAR10.test_list,
            (datasets.CIFAR10.meta["filename"], datasets.CIFAR10.meta["md5"]),
        ]
        for file, checksum in files:
            path = _folders(name, root)[0] / file
            if not path.is_file():
                raise missing(name, path, root) from error
            if not check_integrity(path, checksum):
                raise damaged(name, path, "has the wrong content (checksum)", root) from error
        raise
    images = torch.from_numpy(archive.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(archive.targets)


def _read_cifar_folder(split: str, classes: Sequence[int], root: Path) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for label in classes:
        folder = root / "cifar10" / split / CIFAR_CLASSES[label]
        paths = sorted(folder.glob("*.png"))
        if not paths:
            raise missing("cifar10", folder / "*.png", root)
        for path in paths:
            image = np.asarray(rgb_image(path, damaged("cifar10", path, "is not a whole image file", root)))
            if image.shape != (32, 32, 3):
                size = f"{image.shape[1]} x {image.shape[0]}"
                raise damaged("cifar10", path, f"has {size} pixels, not 32 x 32", root)
            images.append(image)
        labels += [label] * len(paths)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def rgb_image(path: Path, damage: DataError) -> Image.Image:
    """The image in colour. Raises `damage` where the file is not a whole image."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # by kind of damage
        raise damage from error


def read_folder(folder: Path | str, side: int = 32) -> Labelled:
    """Images of your own: one folder a class under `folder`, classes 0, 1, ... in the order of their names;
    every image in colour, scaled to `side` by `side` pixels where it has another size.

    Raises DataError, in one line, where there is no such folder, no image, or a file is no image.
    """
    folder = Path(folder)
    images, labels = [], []
    for label, kind in enumerate(sorted(path for path in folder.glob("*") if path.is_dir())):
        found = (path for path in kind.glob("*") if path.suffix.lower() in datasets.folder.IMG_EXTENSIONS)
        for path in sorted(found):
            image = rgb_image(path, DataError(f"{path} is not a whole image file"))
            images.append(np.asarray(image if image.size == (side, side) else image.resize((side, side))))
            labels.append(label)
    if not images:
        raise DataError(f"{folder} must hold one folder of images a class, and has no image in a folder")
    return Labelled(np.stack(images).transpose(0, 3, 1, 2), np.array(labels))


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError where `value` is none of `choices`."""
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, not {value!r}")


def check_seed(seed: int) -> None:
    """Raises ValueError where `seed` is no whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0, not {seed!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command (`lib.data.command`)."""
    # By its name: the command stands above this module, and is no part of what the readers need.
    return importlib.import_module("lib.data.command").main(arguments)


if __name__ == "__main__":
    sys.exit(main())
