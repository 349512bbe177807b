"""What the official tables of Waterbirds and CelebA say of each image, in each layout that their tools leave.

In the set's folder (`lib.data.root.FOLDERS`)::

    metadata.csv             of the birds: img_filename, y, split, place, and columns not read here; or
    list_attr_celeba.txt, list_eval_partition.txt, or the same as .csv
    img_align_celeba/*.jpg, or img_align_celeba/img_align_celeba/*.jpg
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

from lib.data.root import Root, damaged, missing, need

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
        attributes = _table(name, first, dict.fromkeys(columns, (-1, 1)), root) > 0
        partition = _table(name, second, {"partition": range(SPLITS)}, root)
        odd = attributes.index.symmetric_difference(partition.index)
        if len(odd):
            problem = f"and {first.name} differ in {len(odd):,} images, one of them {odd[0]}"
            raise damaged(name, second, problem, root)
        table = attributes.assign(split=partition["partition"])
        nested = ("img_align_celeba", "img_align_celeba")
        folder = next(filter(Path.is_dir, (folder.joinpath(*nested),)), folder / nested[0])
    else:
        allowed = {"split": range(SPLITS), **dict.fromkeys(columns, range(2))}
        table = _table(name, folder / "metadata.csv", allowed, root)
    return folder, table.astype(np.int64).rename_axis("file").sort_values(["split", "file"])


def _celeba(folder: Path, stem: str) -> Path:
    """The official text file, or else the one with commas."""
    text, comma = folder / f"{stem}.txt", folder / f"{stem}.csv"
    return comma if comma.is_file() and not text.is_file() else text


def _table(name: str, path: Path, allowed: Mapping[str, Sequence[int]], root: Root) -> pd.DataFrame:
    """The columns of a table that `allowed` names, by image, as whole numbers, each one of those allowed."""
    file = "image_id" if name == "celeba" else "img_filename"
    count: str | None = None
    layout: dict[str, Any] = {}
    try:
        content = path.read_bytes()
        if path.suffix == ".txt":
            layout = {"sep": r"\s+", "names": [file, *allowed]}  # the official partition has no line of names
        if path.name == "list_attr_celeba.txt":
            count, header = (content.decode().splitlines() + ["", ""])[:2]
            layout |= {"names": [file, *header.split()], "skiprows": 2}
        table = _strings(content, **layout)
    except FileNotFoundError:
        raise missing(name, path, root) from None
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        raise damaged(name, path, f"cannot be read as a table ({' '.join(str(error).split())})", root) from error

    empty = (table == "").any(axis=1)
    # A shorter file can be no official one, and is the owner's choice.
    checksum = CELEBA_CHECKSUMS.get(path.name) if len(table) >= CELEBA_IMAGES else None
    problem = None
    if absent := [column for column in (file, *allowed) if column not in table]:
        problem = f"has no column {', '.join(absent)}"
    elif count is not None and count.strip() != str(len(table)):
        problem = f"has {len(table):,} rows, and not {count.strip()!r} as its first line says"
    elif not len(table) or empty.any():
        problem = f"lacks a value in row {empty.argmax() + 1:,}" if len(table) else "names no image"
    elif not table[file].is_unique:  # such an image could be in two splits
        problem = f"names {table[file][table[file].duplicated()].iloc[0]} twice"
    elif checksum and not check_integrity(path, checksum):
        problem = "has the wrong content (checksum)"
    if problem:
        raise damaged(name, path, problem, root)
    table = table.set_index(file)[list(allowed)]
    for column, values in allowed.items():
        wrong = table[column][~table[column].isin([str(value) for value in values])]
        if len(wrong):
            choices = ", ".join(map(str, values))
            problem = f"has {column} {wrong.iloc[0]!r} for {wrong.index[0]}; allowed are {choices}"
            raise damaged(name, path, problem, root)
    return table.astype(np.int64)


def _strings(content: bytes, **layout: Any) -> pd.DataFrame:
    """A table of strings as it stands. Raises ValueError or ParserWarning where rows do not fit its header."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(content), dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig", **layout
        )
