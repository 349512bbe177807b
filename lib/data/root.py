"""The data root: where the files of each set lie, and what is said of files that are missing or damaged.

The data root is the environment variable ``SAM_DATA_ROOT``, else ``data/`` in the repository.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from lib import check

Root: TypeAlias = Path | str | None  # of the data; None: see `data_root`

# Of each set of files, where it may lie under the data root; the folder that wins comes first.
FOLDERS = {
    "mnist": ("MNIST/raw",),  # torchvision's, as the next
    "fashion-mnist": ("FashionMNIST/raw",),
    "cifar10": (
        "cifar-10-batches-py",
        "cifar10",
    ),  # torchvision's; {train,test}/{airplane,...}/*.png, maybe some classes
    "waterbirds": ("waterbird_complete95_forest2water2", "waterbirds_v1.0"),  # the authors'; WILDS's
    "celeba": ("celeba", "celeba-dataset"),  # torchvision's; Kaggle's
    "birds_on_scenes": ("birds_on_scenes",),  # a stand-in for Waterbirds in its layout, not published
    "pacs": ("PACS",),  # DomainBed's, as the next two
    "vlcs": ("VLCS",),
    "office_home": ("office_home",),
}
TIMEOUT = 60  # seconds of a download without a byte
UNPUBLISHED = ("birds_on_scenes",)
NO_ARCHIVE = "this set is not published; copy its folder into the data root"


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
    """The folder of the set of files `name` (one of FOLDERS), whole or damaged; None where there is none."""
    folders = FOLDERS[check.choice("name", name, FOLDERS)]
    return next(filter(Path.is_dir, (data_root(root) / folder for folder in folders)), None)


def need(name: str, root: Root = None) -> Path:
    """The same folder; raises MissingData where there is none."""
    folder = find(name, root)
    if folder is None:
        raise missing(name, data_root(root) / FOLDERS[name][0], root)
    return folder


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


def command(names: Sequence[str], root: Root = None) -> str:
    """The command that gets the sets of files `names`."""
    elsewhere = "" if data_root(root) == data_root() else f" --root {root}"
    return f"python -m lib.data --download {' '.join(names)}{elsewhere}"


def missing(name: str, path: Path, root: Root = None) -> MissingData:
    """The error of a file that is not there."""
    otherwise = "" if name in UNPUBLISHED else f", or get it with: {command([name], root)}"
    return MissingData(f"{name}: {path} is missing; set SAM_DATA_ROOT to the folder of the data sets{otherwise}")


def damaged(name: str, path: Path, problem: str, root: Root = None) -> DataError:
    """The error of a file with a `problem`."""
    otherwise = "" if name in UNPUBLISHED else f"; get it anew with: {command([name], root)}"
    return DataError(f"{name}: {path} {problem}{otherwise}")


def rgb_image(path: Path | str, damage: DataError) -> Image.Image:
    """The image in colour. Raises `damage` where the file is not a whole image."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # by kind of damage
        raise damage from error
