"""Tables of images: what those of Waterbirds and CelebA say of each image, in each layout that their tools leave, and
tables of your own.

In the set's folder (`lib.data.root.LAYOUTS`)::

    metadata.csv             of the birds: img_filename, y, split, place, and columns not read here; or
    list_attr_celeba.txt, list_eval_partition.txt, or the same as .csv, maybe in Anno and Eval
    img_align_celeba/*.jpg, maybe in Img, or in one more folder of that name
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from lib.data.root import DataError, Root, damaged, missing, need

SPLITS = 3  # numbered 0 (training), 1 (validation), 2 (test) by all of the sets
CELEBA_IMAGES = 202_599
CELEBA_CHECKSUMS = {file: checksum for _, checksum, file in datasets.CelebA.file_list}


def read(name: str, columns: Sequence[str], root: Root = None) -> tuple[Path, pd.DataFrame]:
    """The folder of the images of the set `name`, and their table; no image is opened.

    The table is indexed by the files' names relative to the folder, ordered by split and then by name, and has the
    columns ``split`` (0 training, 1 validation, 2 test) and `columns`, of 0 and 1.

    Raises MissingData or DataError, in one line that names the file and the image, where a table is missing,
    cannot be read, or has a value that it may not have.
    """
    folder = need(name, root)
    if name == "celeba":
        first, second = (_celeba(folder, stem) for stem in ("list_attr_celeba", "list_eval_partition"))
        attributes = _official(name, first, "image_id", dict.fromkeys(columns, (-1, 1)), root) > 0
        partition = _official(name, second, "image_id", {"partition": range(SPLITS)}, root)
        odd = attributes.index.symmetric_difference(partition.index)
        if len(odd):
            problem = f"and {first.name} differ in {len(odd):,} images, one of them {odd[0]}"
            raise damaged(name, second, problem, root)
        table = attributes.assign(split=partition["partition"])
        images = "img_align_celeba"
        places = (folder / "Img" / images / images, folder / "Img" / images, folder / images / images)
        folder = next(filter(Path.is_dir, places), folder / images)
        if not folder.is_dir():
            raise missing(name, folder, root)
    else:
        allowed = {"split": range(SPLITS), **dict.fromkeys(columns, range(2))}
        table = _official(name, folder / "metadata.csv", "img_filename", allowed, root)
    return folder, table.astype(np.int64).rename_axis("file").sort_values(["split", "file"])


def parse(
    path: Path, file: str, columns: Sequence[str], fail: Callable[[str], DataError], whole: bool = False
) -> pd.DataFrame:
    """The `columns` of a table, as strings, by the image that the column `file` names.

    A .csv, a .tsv, or a .txt in the manner of CelebA's. Raises what `fail` makes of the problem where the table cannot
    be read, lacks a column or a value in one (`whole`: in any), or names an image twice, which could be in two splits.
    """
    table, count = _strings(path, [file, *columns], fail)
    if absent := [column for column in (file, *columns) if column not in table]:
        raise fail(f"has no column {', '.join(absent)}")
    if count is not None and count.strip() != str(len(table)):
        raise fail(f"has {len(table):,} rows, and not {count.strip()!r} as its first line says")
    empty = ((table if whole else table[[file, *columns]]) == "").any(axis=1)
    if not len(table) or empty.any():
        raise fail(f"lacks a value in row {empty.argmax() + 1:,}" if len(table) else "names no image")
    if not table[file].is_unique:
        raise fail(f"names {table[file][table[file].duplicated()].iloc[0]} twice")
    return table.set_index(file)[list(columns)]


def columns(path: Path, fail: Callable[[str], DataError]) -> list[str]:
    """The names of a table's columns; raises as `parse`."""
    return list(_strings(path, ["file"], fail)[0].columns)


def _strings(path: Path, names: Sequence[str], fail: Callable[[str], DataError]) -> tuple[pd.DataFrame, str | None]:
    """A table as it stands, and how many rows its first line says that it has; `names` are those of the columns of a
    text file that does not name them. Raises as `parse`."""
    count: str | None = None
    layout: dict[str, Any] = {"sep": "\t"} if path.suffix == ".tsv" else {}
    try:
        content = path.read_bytes()
        if path.suffix == ".txt":
            layout = {"sep": r"\s+", "names": names}  # the official partition has no line of names
            lines = content.decode().splitlines() + ["", ""]
            if path.name.startswith("list_attr"):
                count = lines[0]
                layout |= {"names": [names[0], *lines[1].split()], "skiprows": 2}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            plain: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False}
            return pd.read_csv(io.BytesIO(content), encoding="utf-8-sig", **plain, **layout), count
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise fail(f"cannot be read as a table ({reason})") from error


def _celeba(folder: Path, stem: str) -> Path:
    """The official text file, or else the one with commas."""
    places = [folder / place / f"{stem}{kind}" for place in ("", "Anno", "Eval") for kind in (".txt", ".csv")]
    return next(filter(Path.is_file, places), places[0])


def _official(name: str, path: Path, file: str, allowed: Mapping[str, Sequence[int]], root: Root) -> pd.DataFrame:
    """The columns of a table that `allowed` names, by image, as whole numbers, each one of those allowed."""
    if not path.is_file():
        raise missing(name, path, root)
    table = parse(path, file, list(allowed), lambda problem: damaged(name, path, problem, root), whole=True)
    # A shorter file can be no official one, and is the owner's choice.
    checksum = CELEBA_CHECKSUMS.get(path.name) if len(table) >= CELEBA_IMAGES else None
    if checksum and not check_integrity(path, checksum):
        raise damaged(name, path, "has the wrong content (checksum)", root)
    for column, values in allowed.items():
        wrong = table[column][~table[column].isin([str(value) for value in values])]
        if len(wrong):
            choices = ", ".join(map(str, values))
            problem = f"has {column} {wrong.iloc[0]!r} for {wrong.index[0]}; allowed are {choices}"
            raise damaged(name, path, problem, root)
    return table.astype(np.int64)
