"""Sets with two correlated attributes on natural images: Waterbirds, CelebA, and a stand-in (Appendix B).

The label is the first attribute, and it is correlated with the second; the four combinations are the groups.
The official splits are kept, but for the images that train the probes: half of the validation images of the rarest
group, and as many of every other group, leave the validation split for ``probe_train``. ``probe_test`` are test images,
all of the rarest group and as many of every other. Every other image serves in one place only.

Errors of validation and test are weighted by the groups' shares in training (`lib.measure.group_means`), as in Sagawa
et al. (2020) and Kirichenko et al. (2023).

In the set's folder (`lib.data.root.LAYOUTS`)::

    metadata.csv             of the birds: img_filename, y, split, place, and columns not read here; or
    list_attr_celeba.txt, list_eval_partition.txt, or the same as .csv, maybe in Anno and Eval
    img_align_celeba/*.jpg, maybe in Img, or in one more folder of that name
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from lib import check
from lib.data.cache import ImageFiles
from lib.data.dataset import Dataset, Source, Split, mean_pixel, rows_of_each
from lib.data.root import DataError, Root, first_of, listed, need, reading

SPLITS = ("training", "validation", "test")  # numbered 0, 1, 2 by all of the sets
# Columns of the tables that have an attribute's name of our own, and the names of its values 0 and 1.
ATTRIBUTES = {
    "y": ("bird", ("land bird", "water bird")),
    "place": ("place", ("land", "water")),
    "Blond_Hair": ("hair", ("dark", "blond")),
    "Male": ("gender", ("female", "male")),
}
# The sets, with the columns of the label and of what is correlated with it.
SETS = {"waterbirds": ("y", "place"), "celeba": ("Blond_Hair", "Male"), "birds_on_scenes": ("y", "place")}
COUNTS = {  # images of a complete set in each split, of each group
    "waterbirds": ((3498, 184, 56, 1057), (467, 466, 133, 133), (2255, 2255, 642, 642)),
    "celeba": ((71629, 66874, 22880, 1387), (8535, 8276, 2874, 182), (9767, 7535, 2480, 180)),
    "birds_on_scenes": ((2308, 121, 28, 542), (237, 236, 55, 54), (944, 944, 216, 217)),
}
CODES = {"celeba": {"-1": 0, "1": 1}} | dict.fromkeys(("waterbirds", "birds_on_scenes"), {"0": 0, "1": 1})
FILE_COLUMNS = ("file", "filename", "file_name", "img_filename", "image_id", "image", "path")  # looked for in turn
SPLIT_NAMES = {"train": 0, "training": 0, "0": 0, "val": 1, "valid": 1, "validation": 1, "1": 1}
SPLIT_NAMES |= {"test": 2, "testing": 2, "2": 2}
CELEBA_IMAGES = 202_599
CELEBA_CHECKSUMS = {file: checksum for _, checksum, file in datasets.CelebA.file_list}


# The attributes' values, their codes int64 (n,), and the split (n,) 0, 1 or 2, of n images.
Coded: TypeAlias = tuple[Mapping[str, tuple[str, ...]], Mapping[str, np.ndarray], np.ndarray]


class Grouped(Source):
    """Images with attributes: the first is the label, and a group is a combination of their values."""

    natural = True  # with no mean pixel, see `Dataset`
    # Whether the images that train the probes are half of the validation images of every group, to be weighted, and not
    # as many of each as of the rarest.
    pooled = False
    _coded: Callable[..., Coded]  # of a table and a seed

    def _made(self, images: ImageFiles, seed: int, size: int) -> Dataset:
        values, codes, split = self._coded(images.table, seed)
        sizes = tuple(map(len, values.values()))
        group, count = np.ravel_multi_index(list(codes.values()), sizes), int(np.prod(sizes))
        counts = np.bincount(split * count + group, minlength=len(SPLITS) * count).reshape(len(SPLITS), count)
        # Half of the rarest group's validation images train probes, and at least one stays.
        for part, found, least in zip(SPLITS, counts, (1, 4 if self.pooled else 2, 1), strict=True):
            if few := [", ".join(kind) for kind, n in zip(product(*values.values()), found) if n < least]:
                problem = f"the {part} images must have {least} or more of every group, and lack: {'; '.join(few)}"
                raise DataError(f"{self.name}: {problem}")
        attributes = {name: torch.from_numpy(column) for name, column in codes.items()}
        everything = Split(images.decoded(size), next(iter(attributes.values())), attributes)
        rows = places(split, group, seed, count, self.pooled)
        splits = {part: everything.take(of_part) for part, of_part in rows.items()}
        mean = None if self.natural else mean_pixel(splits["train"].images)
        shares = torch.from_numpy(counts[0] / counts[0].sum())
        return Dataset(self.name, dict(values), sizes[0], mean_pixel=mean, group_weights=shares, **splits)


@dataclass(frozen=True)
class Groups(Grouped):
    """The source of one of SETS.

    `attributes` are the columns of the label and of the other attribute: of CelebA any two of its 40, as
    ``("Smiling", "Young")``; None takes the paper's. Raises ValueError for a value that is not allowed.
    """

    dataset: str
    attributes: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        own = SETS[check.choice("dataset", self.dataset, SETS)]
        chosen = own if self.attributes is None else tuple(self.attributes)
        if chosen != own and (self.dataset != "celeba" or len(set(chosen)) != 2 or len(chosen) != 2):
            allowed = "two different columns of CelebA's table" if self.dataset == "celeba" else f"None or {own}"
            raise ValueError(f"attributes must be {allowed}, not {self.attributes!r}")
        configuration = {"experiment": "groups", "dataset": self.dataset}
        self._set(name=self.dataset, attributes=None, configuration=configuration, files=(self.dataset,))
        if chosen != own:  # the paper's have one name
            name = f"{self.dataset} {' and '.join(chosen)}"
            self._set(name=name, attributes=chosen, configuration=configuration | {"attributes": list(chosen)})

    def _read(self, root: Root) -> ImageFiles:
        return read(self.dataset, self.attributes, root)

    def _coded(self, table: pd.DataFrame, seed: int) -> Coded:
        columns = self.attributes or SETS[self.dataset]
        named = dict(ATTRIBUTES.get(column, (column, (f"not {column}", column))) for column in columns)
        codes = {name: table[column].to_numpy(copy=True) for name, column in zip(named, columns)}
        return named, codes, table["split"].to_numpy()


def places(
    split: np.ndarray, group: np.ndarray, seed: int, count: int = 4, pooled: bool = False
) -> dict[str, np.ndarray]:
    """Which images, of official `split` (n,) and `group` (n,) of `count`, serve where in a Dataset (see above)."""

    def drawn(rows: Sequence[np.ndarray], counts: Sequence[int], random: np.random.Generator) -> np.ndarray:
        return random.permutation(np.concatenate([random.permutation(of)[:count] for of, count in zip(rows, counts)]))

    train, validation, test = rows_of_each(split, len(SPLITS))
    of_validation, of_test = (rows_of_each(group, count, rows) for rows in (validation, test))
    for_probes, for_tests = np.random.default_rng(seed).spawn(2)
    halves = [len(rows) // 2 for rows in of_validation]
    probe_train = drawn(of_validation, halves if pooled else [min(halves)] * count, for_probes)
    probe_test = drawn(of_test, [min(map(len, of_test))] * count, for_tests)
    kept = np.setdiff1d(validation, probe_train)
    return {"train": train, "validation": kept, "test": test, "probe_train": probe_train, "probe_test": probe_test}


def read(name: str, columns: Sequence[str] | None = None, root: Root = None) -> ImageFiles:
    """The images of the set `name`, none of which is opened, and the `columns` of their table (None: those in SETS), of
    0 and 1, and its ``split`` (0, 1, 2), by which they are ordered, and then by name.

    Raises MissingData or DataError, in one line that names the file and the image, where a table is missing,
    cannot be read, or has a value that it may not have.
    """
    columns = columns or SETS[name]
    with reading(name, root):
        folder = need(name, root)
        if name == "celeba":
            places = [f"{place}{{}}{kind}" for place in ("", "Anno/", "Eval/") for kind in (".txt", ".csv")]
            tables = ("list_attr_celeba", "list_eval_partition")
            path, second = (first_of(folder, *(place.format(name) for place in places)) for name in tables)
            table, partition = read_table(path, columns), read_table(second, (), split="partition")
            if len(odd := table.index.symmetric_difference(partition.index)):
                raise DataError(f"{second} and {path.name} differ in {len(odd):,} images, one of them {odd[0]}")
            table = table.join(partition)
            folder = first_of(folder, "img_align_celeba", "Img/img_align_celeba")
            folder = folder / folder.name if (folder / folder.name).is_dir() else folder
        else:
            path = folder / "metadata.csv"
            table = read_table(path, columns, split="split")[["split", *columns]]
        codes = {column: _codes(path, table[column], CODES[name]) for column in columns}
    return ImageFiles(name, folder, table.assign(**codes).sort_values(["split", "file"]), root)


def read_table(path: Path, columns: Sequence[str], file: str = "", split: str = "") -> pd.DataFrame:
    """The `columns` of a table, texts, by the image that its column `file` names ("": one of FILE_COLUMNS), and as
    ``split`` the numbers in SPLIT_NAMES of its column `split` ("": "split", where there is one).

    The table is a .csv, a .tsv, or a .txt in the manner of CelebA's. Raises DataError, or OSError, where it cannot be
    read, a column is not there or lacks a value, or an image is named twice, which could be in two splits.
    """
    table = _texts(path)
    file = file or next((name for name in FILE_COLUMNS if name in table), "")
    if not file or file in columns:
        why = f"{file}, which can be no attribute" if file else f"no column called {listed(FILE_COLUMNS, 9)}"
        raise DataError(f"{path} names its images in {why}; name it (file)")
    split = split or ("split" if "split" in table else "")
    used = list(dict.fromkeys([*columns, split] if split else columns))
    if absent := [column for column in (file, *used) if column not in table]:
        raise DataError(f"{path} has no column {', '.join(absent)}")
    empty = (table[[file, *used]] == "").any(axis=1)
    if not len(table) or empty.any():
        problem = f"lacks a value in row {empty.argmax() + 1:,}" if len(table) else "names no image"
        raise DataError(f"{path} {problem}")
    if not table[file].is_unique:
        raise DataError(f"{path} names {table[file][table[file].duplicated()].iloc[0]} twice")
    table = table.set_index(file).rename_axis("file")
    # A shorter file can be no official one, and is the owner's choice.
    checksum = CELEBA_CHECKSUMS.get(path.name) if len(table) >= CELEBA_IMAGES else None
    if checksum and not check_integrity(path, checksum):
        raise DataError(f"{path} has the wrong content (checksum)")
    splits = {"split": _codes(path, table[split].str.casefold(), SPLIT_NAMES)} if split else {}
    return table[list(columns)].assign(**splits)


def _codes(path: Path, column: pd.Series, allowed: Mapping[str, int]) -> pd.Series:
    codes = column.map(allowed)
    if len(wrong := column[codes.isna()]):
        choices = ", ".join(allowed)
        raise DataError(f"{path} has {column.name} {wrong.iloc[0]!r} for {wrong.index[0]}; allowed are {choices}")
    return codes.astype(np.int64)


def _texts(path: Path) -> pd.DataFrame:
    layout: dict[str, Any] = {"sep": "\t"} if path.suffix == ".tsv" else {}
    content, count = path.read_bytes(), ""
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
    if count and count.strip() != str(len(table)):
        raise DataError(f"{path} has {len(table):,} rows, and not {count.strip()!r} as its first line says")
    return table
