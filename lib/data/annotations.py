"""What the official tables of Waterbirds and CelebA say of each image, in each layout that their tools leave.

Under the data root, the folder that wins first::

    waterbird_complete95_forest2water2/              Waterbirds as the authors give it, or
    waterbirds_v1.0/                                 as WILDS gives it; either holds
        metadata.csv                                 img_filename, y, split, place, and columns not read here
    birds_on_scenes/                                 a stand-in in the same layout
    celeba/                                          CelebA as torchvision leaves it, or
    celeba-dataset/                                  as it comes from Kaggle; either may hold
        list_attr_celeba.txt, list_eval_partition.txt, or the same as .csv
        img_align_celeba/*.jpg, or img_align_celeba/img_align_celeba/*.jpg
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS

from lib.data import sources
from lib.data.sources import DataError

FOLDERS = {
    "waterbirds": ("waterbird_complete95_forest2water2", "waterbirds_v1.0"),
    "celeba": (datasets.CelebA.base_folder, "celeba-dataset"),
    "birds_on_scenes": ("birds_on_scenes",),
}
SPLITS = 3  # numbered 0 (training), 1 (validation), 2 (test) by all of the sets
CELEBA_IMAGES = 202_599
CELEBA_CHECKSUMS = {file: checksum for _, checksum, file in datasets.CelebA.file_list}
BIRD_COLUMNS = ("img_filename", "y", "split", "place")


@dataclass(frozen=True, eq=False)
class Annotations:
    """n images, ordered by split and then by name."""

    folder: Path
    files: tuple[str, ...]  # n names relative to `folder`
    split: np.ndarray  # int64 (n,): 0 training, 1 validation, 2 test
    label: np.ndarray  # int64 (n,): 0 or 1, water bird or blond
    other: np.ndarray  # int64 (n,): 0 or 1, on water or male

    def __len__(self) -> int:
        return len(self.files)


def folder_of(name: str, root: Path) -> Path | None:
    """The folder of the set `name` (one of FOLDERS) under the data root, or None."""
    return next((root / folder for folder in FOLDERS[name] if (root / folder).is_dir()), None)


def read(name: str, root: Path) -> Annotations:
    """The tables of the set `name`; no image is opened.

    Raises MissingData or DataError, in one line that names the file and the row, where a table is missing,
    cannot be read, or has a value that it may not have.
    """
    folder = folder_of(name, root)
    if folder is None:
        raise sources.missing(name, root / FOLDERS[name][0], root)
    table, images = (_celeba if name == "celeba" else _birds)(name, folder, root)
    table = table.rename_axis("file").sort_values(["split", "file"])
    columns = (table[column].to_numpy(np.int64) for column in ("split", "label", "other"))
    return Annotations(images, tuple(table.index), *columns)


def unnamed(table: Annotations) -> int:
    """How many images lie in the set's folder that its tables do not name, hidden ones aside."""
    names = set(table.files)
    found = (path for path in table.folder.rglob("[!.]*") if path.suffix.lower() in IMG_EXTENSIONS)
    return sum(path.relative_to(table.folder).as_posix() not in names for path in found)


def _birds(name: str, folder: Path, root: Path) -> tuple[pd.DataFrame, Path]:
    path = folder / "metadata.csv"
    table = _table(name, path, root, BIRD_COLUMNS)
    allowed = {"split": range(SPLITS), "y": range(2), "place": range(2)}
    numbers = pd.DataFrame({column: _numbers(name, path, table[column], values) for column, values in allowed.items()})
    return numbers.rename(columns={"y": "label", "place": "other"}), folder


def _celeba(name: str, folder: Path, root: Path) -> tuple[pd.DataFrame, Path]:
    def table(stem: str, columns: Sequence[str]) -> tuple[pd.DataFrame, Path]:
        text, comma = folder / f"{stem}.txt", folder / f"{stem}.csv"
        path = comma if comma.is_file() and not text.is_file() else text
        return _table(name, path, root, columns), path

    attributes, attributes_path = table("list_attr_celeba", ("image_id", "Blond_Hair", "Male"))
    split, split_path = table("list_eval_partition", ("image_id", "partition"))
    odd = attributes.index.symmetric_difference(split.index)
    if len(odd):
        raise sources.damaged(
            name, split_path, f"and {attributes_path.name} differ in {len(odd):,} images, one of them {odd[0]}", root
        )
    images = folder / "img_align_celeba"
    nested = images / "img_align_celeba"
    return pd.DataFrame(
        {
            "split": _numbers(name, split_path, split["partition"], range(SPLITS)),
            "label": _numbers(name, attributes_path, attributes["Blond_Hair"], (-1, 1)) > 0,
            "other": _numbers(name, attributes_path, attributes["Male"], (-1, 1)) > 0,
        }
    ), nested if nested.is_dir() else images


def _table(name: str, path: Path, root: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The `columns` of a table as strings, by image, whose name is the first of them."""

    def damaged(problem: str) -> DataError:
        return sources.damaged(name, path, problem, root)

    content = _content(name, path, root)
    header, count, rows = list(columns), None, []  # the official partition has no line of names
    try:
        text = content.decode("utf-8-sig").splitlines()
        lines = csv.reader(text) if path.suffix == ".csv" else map(str.split, text)
        if path.name == "list_attr_celeba.txt":
            count, header = " ".join(next(lines, [])), ["image_id", *next(lines, [])]
        elif path.suffix == ".csv":
            header = next(lines, [])
        if absent := [column for column in columns if column not in header]:
            raise damaged(f"has no column {', '.join(absent)}")
        wanted = [header.index(column) for column in columns]
        for row in filter(None, lines):
            if len(row) != len(header):
                raise damaged(f"has {len(row)} values in row {len(rows) + 1:,}, and not {len(header)}")
            rows.append([row[column] for column in wanted])
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged("is not a table") from error
    if count is not None and count != str(len(rows)):
        raise damaged(f"has {len(rows):,} rows, and not {count!r} as its first line says")
    # A shorter file can be no official one, and is the owner's choice.
    checksum = CELEBA_CHECKSUMS.get(path.name)
    if checksum and len(rows) >= CELEBA_IMAGES and hashlib.md5(content).hexdigest() != checksum:
        raise damaged("has the wrong content (checksum)")
    table = pd.DataFrame(rows, columns=list(columns), dtype=str).set_index(columns[0])
    if not len(table) or "" in table.index:
        raise damaged("names no image" + " in a row" * bool(len(table)))
    if not table.index.is_unique:  # such an image could be in two splits
        raise damaged(f"names {table.index[table.index.duplicated()][0]} twice")
    return table


def _content(name: str, path: Path, root: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise sources.missing(name, path, root) from None
    except OSError as error:
        raise sources.damaged(name, path, f"cannot be read ({error.strerror})", root) from error


def _numbers(name: str, path: Path, values: pd.Series, allowed: Sequence[int]) -> pd.Series:
    """Strings, by image, as numbers. Raises DataError naming the first image whose number is not allowed."""
    wrong = ~values.isin([str(value) for value in allowed])
    if wrong.any():
        raise DataError(
            f"{name}: {path} has {values.name} {values[wrong].iloc[0]!r} for {wrong.idxmax()}; "
            f"allowed are {', '.join(map(str, allowed))}"
        )
    return values.astype(np.int64)
