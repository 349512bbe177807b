"""The data root: where the files of each set lie, and what is said of files that are missing or damaged.

The data root is the environment variable ``SAM_DATA_ROOT``, else ``data/`` in the repository.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

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


class DataError(RuntimeError):
    """A file of a data set is damaged or could not be had; the one line says which file and how to get it."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this name: a notebook shows the line alone
        return [f"{type(self).__name__}: {self}"]


class MissingData(DataError):
    """A file of a data set is not there."""


@contextmanager
def reading(name: str = "", root: Root = None) -> Iterator[None]:
    """Whatever is wrong with a file in the block is one line: MissingData or DataError, and of the set of files `name`
    it ends with the way to get it."""
    try:
        yield
    except (DataError, OSError) as error:
        kind, line = MissingData if isinstance(error, MissingData | FileNotFoundError) else DataError, str(error)
        if isinstance(error, OSError) and error.filename:
            line = f"{error.filename} cannot be read ({error.strerror})"
            line = str(missing(Path(error.filename))) if kind is MissingData else line
        if name and not line.startswith(f"{name}: "):  # else it was told by a block within
            elsewhere = "set SAM_DATA_ROOT to the folder of the data sets, or " if kind is MissingData else ""
            line = f"{name}: {line}" + (f"; {elsewhere}{how([name], root)}" if name in LAYOUTS else "")
        raise kind(line) from error


def missing(path: Path) -> MissingData:
    """The error of a file or folder that is not there, which says what lies there instead."""
    near = next((folder for folder in path.parents if os.access(folder, os.R_OK | os.X_OK)), None)
    lies = "" if near is None else f" ({near} holds {listed([entry.name for entry in entries(near)])})"
    return MissingData(f"{path} is missing{lies}")


def data_root(root: Root = None) -> Path:
    """The data root: `root`, else ``SAM_DATA_ROOT``, else ``data/`` in the repository."""
    return Path(root or os.environ.get("SAM_DATA_ROOT") or Path(__file__).parents[2] / "data").expanduser()


def find(name: str, root: Root = None) -> Path | None:
    """The folder of the set of files `name` (one of LAYOUTS), whole or damaged, or the file or folder of that path;
    None where there is none."""
    for folder in LAYOUTS.get(name, ()):
        note_read(f"data:{folder}")
    there = [(data_root(root) / folder, mark) for folder, mark in LAYOUTS.get(name, {}).items()]
    usable = (folder for folder, mark in there if any(True for _ in folder.glob(mark)))
    with reading(name if there else "", root):
        if not there:
            return Path(name) if Path(name).exists() else None
        return next(usable, None) or next((folder for folder, mark in there if mark != CIFAR and folder.is_dir()), None)


def need(name: str, root: Root = None) -> Path:
    """The same; raises MissingData where there is none."""
    found = find(name, root)
    if found is None:
        raise missing(data_root(root) / next(iter(LAYOUTS[name])) if name in LAYOUTS else Path(name))
    return found


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what is hidden (``.DS_Store``, ``._x.png``, ``.ipynb_checkpoints``)."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def first_of(folder: Path, *names: str) -> Path:
    """The first of `names` that is in the folder; raises MissingData, of the first one, where none is."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise missing(folder / names[0])


def class_images(*sides: Path) -> list[tuple[Path, str, int]]:
    """The image files in the folders of classes in each of `sides`, by side, class and name, with the class and the
    number of the side; hidden ones, and folders without images, are passed over.

    Raises DataError where there is none, or the classes of the sides differ.
    """
    found: list[dict[str, list[Path]]] = []
    for side in sides:
        kinds = {kind.name: entries(kind) for kind in entries(side) if kind.is_dir()}
        images = {name: [path for path in of if path.suffix.lower() in IMG_EXTENSIONS] for name, of in kinds.items()}
        found.append({name: paths for name, paths in images.items() if paths})
        if odd := sorted(set(found[0]) ^ set(found[-1])):
            raise DataError(f"{side} and {sides[0].name} must have the same classes, and differ in {listed(odd)}")
    if not found[0]:
        raise DataError(f"{sides[0]} must hold one folder of images a class, and holds {listed(sorted(kinds))}")
    return [(path, kind, side) for side, of in enumerate(found) for kind, paths in of.items() for path in paths]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Some of `names`, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "") or "nothing"


def how(names: Sequence[str], root: Root = None) -> str:
    """How to get the sets of files `names`."""
    if "birds_on_scenes" in names:
        return "copy its folder into the data root: this set is not published"
    return f"get {'them' if len(names) > 1 else 'it'} with: {command(names, root)}"


def command(names: Sequence[str], root: Root = None) -> str:
    """The command that gets the sets of files `names`."""
    elsewhere = "" if data_root(root) == data_root() else f" --root {shlex.quote(str(root))}"
    return f"python -m lib.data --download {' '.join(names)}{elsewhere}"


def rgb_image(path: Path) -> Image.Image:
    """The image in colour; of 16 bits a pixel the upper 8. Raises DataError where the file is not a whole image, and
    OSError where it cannot be read at all."""
    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):  # Pillow would make 255 of all from there up
                return Image.fromarray((np.asarray(file).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # by kind of damage
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path} is not a whole image file") from error
