"""Tables of images: what those of Waterbirds and CelebA say of each image, in each layout that their tools leave, and
tables of your own.

In the set's folder (`lib.data.root.LAYOUTS`)::

    metadata.csv             of the birds: img_filename, y, split, place, and columns not read here; or
    list_attr_celeba.txt, list_eval_partition.txt, or the same as .csv, maybe in Anno and Eval
    img_align_celeba/*.jpg, maybe in Img, or in one more folder of that name
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from lib.data.cache import ImageFiles
from lib.data.root import DataError, Root, missing, need, reading

SPLITS = 3  # numbered 0 (training), 1 (validation), 2 (test) by all of the sets
CELEBA_IMAGES = 202_599
CELEBA_CHECKSUMS = {file: checksum for _, checksum, file in datasets.CelebA.file_list}


def of_set(name: str, columns: Sequence[str], root: Root = None) -> ImageFiles:
    """The images of the set `name`, none of which is opened, and the `columns` of their table, of 0 and 1, and its
    ``split`` (0 training, 1 validation, 2 test), by which they are ordered, and then by name.

    Raises MissingData or DataError, in one line that names the file and the image, where a table is missing,
    cannot be read, or has a value that it may not have.
    """
    with reading(name, root):
        folder = need(name, root)
        if name == "celeba":
            first, second = (_celeba(folder, stem) for stem in ("list_attr_celeba", "list_eval_partition"))
            attributes = _official(first, "image_id", dict.fromkeys(columns, (-1, 1))) > 0
            partition = _official(second, "image_id", {"partition": range(SPLITS)})
            if len(odd := attributes.index.symmetric_difference(partition.index)):
                raise DataError(f"{second} and {first.name} differ in {len(odd):,} images, one of them {odd[0]}")
            table = attributes.assign(split=partition["partition"])
            images = "img_align_celeba"
            places = (folder / "Img" / images / images, folder / "Img" / images, folder / images / images)
            folder = next(filter(Path.is_dir, places), folder / images)
            if not folder.is_dir():
                raise missing(folder)
        else:
            allowed = {"split": range(SPLITS), **dict.fromkeys(columns, range(2))}
            table = _official(folder / "metadata.csv", "img_filename", allowed)
    return ImageFiles(name, folder, table.astype(np.int64).rename_axis("file").sort_values(["split", "file"]), root)


def strings(path: Path) -> pd.DataFrame:
    """A table as it stands: a .csv, a .tsv, or a .txt in the manner of CelebA's. Raises DataError or OSError."""
    layout: dict[str, Any] = {"sep": "\t"} if path.suffix == ".tsv" else {}
    content, count = path.read_bytes(), None
    try:
        if path.suffix == ".txt":
            layout = {"sep": r"\s+", "names": ["image_id", "partition"]}  # which the official file does not name
            if path.name.startswith("list_attr"):
                count, names, *_ = content.decode().splitlines() + ["", ""]
                layout |= {"names": ["image_id", *names.split()], "skiprows": 2}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            plain: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False}
            table = pd.read_csv(io.BytesIO(content), encoding="utf-8-sig", **plain, **layout)
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        raise DataError(f"{path} cannot be read as a table ({' '.join(str(error).split())})") from error
    if count is not None and count.strip() != str(len(table)):
        raise DataError(f"{path} has {len(table):,} rows, and not {count.strip()!r} as its first line says")
    return table


def by_image(path: Path, table: pd.DataFrame, file: str, columns: Sequence[str]) -> pd.DataFrame:
    """The `columns` of the `table` of `path`, by the image that the column `file` names.

    Raises DataError where one is not there or lacks a value, or an image is named twice, which could be in two splits.
    """
    if absent := [column for column in (file, *columns) if column not in table]:
        raise DataError(f"{path} has no column {', '.join(absent)}")
    empty = (table[[file, *columns]] == "").any(axis=1)
    if not len(table) or empty.any():
        raise DataError(
            f"{path} " + (f"lacks a value in row {empty.argmax() + 1:,}" if len(table) else "names no image")
        )
    if not table[file].is_unique:
        raise DataError(f"{path} names {table[file][table[file].duplicated()].iloc[0]} twice")
    return table.set_index(file)[list(columns)]


def _celeba(folder: Path, stem: str) -> Path:
    """The official text file, or else the one with commas."""
    places = [folder / place / f"{stem}{kind}" for place in ("", "Anno", "Eval") for kind in (".txt", ".csv")]
    return next(filter(Path.is_file, places), places[0])


def _official(path: Path, file: str, allowed: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """The columns of a table that `allowed` names, by image, as whole numbers, each one of those allowed."""
    table = by_image(path, strings(path), file, list(allowed))
    # A shorter file can be no official one, and is the owner's choice.
    checksum = CELEBA_CHECKSUMS.get(path.name) if len(table) >= CELEBA_IMAGES else None
    if checksum and not check_integrity(path, checksum):
        raise DataError(f"{path} has the wrong content (checksum)")
    for column, values in allowed.items():
        wrong = table[column][~table[column].isin([str(value) for value in values])]
        if len(wrong):
            choices = ", ".join(map(str, values))
            raise DataError(f"{path} has {column} {wrong.iloc[0]!r} for {wrong.index[0]}; allowed are {choices}")
    return table.astype(np.int64)
