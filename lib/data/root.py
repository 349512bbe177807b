"""The data root: where the files of each set lie, and what is said of files that are missing or damaged.

The data root is the environment variable ``SAM_DATA_ROOT``, else ``data/`` in the repository.
"""

import os
import shlex
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from lib import check
from lib.files import note_read

Root: TypeAlias = Path | str | None  # of the data; None: see `data_root`

BIRDS, CIFAR = "waterbird_complete95_forest2water2", "cifar-10-python.tar.gz"  # as the authors call them
IDX, TABLE, DOMAINS = "train-*-ubyte*", "metadata.csv", "*/*/[!.]*.*"
# Of each set of files the layouts that are read: folders under the data root, and a file that one has where it is
# usable. The first usable one wins; where none is, the first that is there is damaged. Those of torchvision, of the
# authors and of DomainBed come first, and new files go there; then WILDS, Kaggle, group_DRO, Dassl, official drives.
LAYOUTS: dict[str, dict[str, str]] = {
    "mnist": dict.fromkeys(("MNIST/raw", "MNIST/MNIST/raw", "MNIST", "mnist"), IDX),
    "fashion-mnist": dict.fromkeys(("FashionMNIST/raw", "FashionMNIST/FashionMNIST/raw", "FashionMNIST"), IDX),
    "cifar10": {
        "cifar-10-batches-py": "*_batch*",
        "cifar10": "t*/*/*.png",  # {train,test}/{airplane,...}, maybe some of the classes
        **dict.fromkeys(("cifar10/cifar-10-batches-py", "CIFAR10/cifar-10-batches-py"), "*_batch*"),
        **dict.fromkeys((".", "cifar10/.", "CIFAR10"), CIFAR),  # not unpacked
    },
    "waterbirds": dict.fromkeys(
        (BIRDS, "waterbirds_v1.0", f"cub/data/{BIRDS}", f"{BIRDS}/{BIRDS}", "waterbirds"), TABLE
    ),
    "celeba": {
        **dict.fromkeys(("celeba", "celeba-dataset", "celebA_v1.0", "celebA/data", "archive"), "list_attr_celeba.*"),
        **dict.fromkeys(("CelebA", "celebA", "celeba/."), "*/list_attr_celeba.*"),  # Anno, Eval, Img
    },
    "birds_on_scenes": {"birds_on_scenes": TABLE},  # a stand-in for Waterbirds in its layout, not published
    "pacs": dict.fromkeys(("PACS", "pacs", "PACS/kfold", "PACS/images", "pacs/images", "kfold"), DOMAINS),
    "vlcs": dict.fromkeys(("VLCS", "vlcs", "VLCS/VLCS"), DOMAINS),
    "office_home": dict.fromkeys(("office_home", "OfficeHomeDataset_10072016", "OfficeHome"), DOMAINS),
}
TIMEOUT = 60  # seconds of a download without a byte
UNPUBLISHED = ("birds_on_scenes",)
NO_ARCHIVE = "this set is not published; copy its folder into the data root"


_REMEMBERED: dict[Hashable, str] = {}


class DataError(RuntimeError):
    """A file of a data set is damaged or could not be had; the one line says which file and how to get it."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this name: a notebook shows the line alone
        return [f"{type(self).__name__}: {self}"]


class MissingData(DataError):
    """A file of a data set is not there."""


def data_root(root: Root = None) -> Path:
    """The data root: `root`, else ``SAM_DATA_ROOT``, else ``data/`` in the repository."""
    return Path(root or os.environ.get("SAM_DATA_ROOT") or Path(__file__).parents[2] / "data").expanduser()


def find(name: str, root: Root = None) -> Path | None:
    """The folder of the set of files `name` (one of LAYOUTS), whole or damaged; None where there is none."""
    layouts = LAYOUTS[check.choice("name", name, LAYOUTS)].items()
    for folder, _ in layouts:
        note_read(f"data:{folder}")
    there = [(data_root(root) / folder, mark) for folder, mark in layouts]
    usable = (folder for folder, mark in there if any(True for _ in folder.glob(mark)))
    try:
        return next(usable, None) or next((folder for folder, mark in there if mark != CIFAR and folder.is_dir()), None)
    except OSError as error:  # a folder that may not be entered
        raise DataError(f"{name}: {error.filename} cannot be read ({error.strerror})") from error


def need(name: str, root: Root = None) -> Path:
    """The same folder; raises MissingData where there is none."""
    folder = find(name, root)
    if folder is None:
        raise missing(name, data_root(root) / next(iter(LAYOUTS[name])), root)
    return folder


def exists(path: Path) -> bool:
    """Whether there is such a file or folder. Raises DataError, in one line, where that cannot be known."""
    try:
        return path.exists()
    except OSError as error:  # a folder above it that may not be entered
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what is hidden (``.DS_Store``, ``._x.png``, ``.ipynb_checkpoints``).

    Raises DataError, in one line, where it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder ({error.strerror})") from error


def class_images(folder: Path) -> dict[str, list[Path]]:
    """The image files in each folder below, by the folder's name; hidden ones, and folders without images, are passed
    over."""
    found = {
        kind.name: [path for path in entries(kind) if path.suffix.lower() in IMG_EXTENSIONS]
        for kind in entries(folder)
        if kind.is_dir()
    }
    return {name: paths for name, paths in found.items() if paths}


def listed(names: Sequence[str], most: int = 6) -> str:
    """Some of `names`, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "") or "nothing"


def lacking(names: Sequence[str], root: Root = None) -> str | None:
    """In one line which of the sets of files `names` have no folder, and how to get them; None: all have one."""
    absent = [name for name in names if find(name, root) is None]
    if not absent:
        return None
    otherwise = (
        "; this set is not published: copy its folder there"
        if absent[0] in UNPUBLISHED
        else f", or get them with: {command(absent, root)}"
    )
    return (
        f"the images of {' and '.join(absent)} are not under the data root: "
        f"set SAM_DATA_ROOT to the folder of the data sets{otherwise}"
    )


def remembered(key: Hashable, names: Sequence[str], root: Root, compute: Callable[[], str]) -> str:
    """`compute()`, once in this process for each state (names, sizes, times of change) of the sets of files `names`."""
    folders = [(name, find(name, root)) for name in names]
    files = (path for _, folder in folders if folder is not None for path in sorted(folder.rglob("*")))
    found = ((str(path), path.stat()) for path in files)
    state = key, tuple((path, of_file.st_size, of_file.st_mtime_ns) for path, of_file in found)
    if state not in _REMEMBERED:
        _REMEMBERED[state] = compute()
    return _REMEMBERED[state]


def command(names: Sequence[str], root: Root = None) -> str:
    """The command that gets the sets of files `names`."""
    elsewhere = "" if data_root(root) == data_root() else f" --root {shlex.quote(str(root))}"
    return f"python -m lib.data --download {' '.join(names)}{elsewhere}"


def missing(name: str, path: Path, root: Root = None) -> MissingData:
    """The error of a file that is not there."""
    otherwise = "" if name in UNPUBLISHED else f", or get it with: {command([name], root)}"
    near = next((folder for folder in path.parents if folder.is_dir()), None)
    lies = "" if near is None else f" ({near} holds {listed([entry.name for entry in entries(near)])})"
    return MissingData(f"{name}: {path} is missing{lies}; set SAM_DATA_ROOT to the folder of the data sets{otherwise}")


def damaged(name: str, path: Path, problem: str, root: Root = None) -> DataError:
    """The error of a file with a `problem`."""
    otherwise = "" if name in UNPUBLISHED else f"; get it anew with: {command([name], root)}"
    return DataError(f"{name}: {path} {problem}{otherwise}")


def rgb_image(path: Path | str, damage: DataError) -> Image.Image:
    """The image in colour; of 16 bits a pixel the upper 8. Raises `damage` where the file is not a whole image, and
    another DataError where it cannot be read at all."""
    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):  # Pillow would make 255 of all from there up
                return Image.fromarray((np.asarray(file).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # by kind of damage
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        raise damage from error
