"""Data of your own: labelled images in an .npz or in one folder a class, and tables of images with attributes.

Codes are positions in names, the names travel with them, and by these the sides of a set are compared. A source reads
its files where a trial runs, and refuses others than those that it was made for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.data import cache, groups, readers
from lib.data.cache import ImageFiles
from lib.data.dataset import Part, Split, rows_of_each
from lib.data.root import DataError, Root, listed, reading

TEST_SHARE = 1 / 3  # of each class, where the files name no test images
SHARE = 0.2  # of each combination of attributes for validation, and for test, where a table has no split
MOST_VALUES = 20  # of an attribute


@dataclass(frozen=True)
class Files:
    """One side of a `Pair`: an .npz, a folder with one folder a class, or a set of the data root ("mnist", ...).

    The .npz has ``images`` (n, height, width) or (n, height, width, 3), uint8, uint16 or floats from 0 to 1; ``labels``
    (n,), whole numbers or texts; maybe ``names``, of the labels 0, 1, ...; maybe ``split`` (n,), "train" or "test". The
    folder may have ``train`` and ``test`` above those of the classes. Where the test images are not named, a third of
    each class, always the same, serves. `classes` are the names of those used, in this order (none: all); `size` is the
    side in pixels of a folder's images (None: their own where it is one, else 32).
    """

    path: str
    classes: tuple[str, ...] = ()
    size: int | None = None
    attribute: str = ""  # what these images are called; "": as their file

    def __post_init__(self) -> None:
        path = Path(self.path).expanduser().resolve()
        object.__setattr__(self, "attribute", self.attribute or path.stem)
        object.__setattr__(self, "path", self.path if self.path in readers.SETS else str(path))
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different, not {', '.join(self.classes)}")
        if self.size is not None:
            cache.check_size(self.size)

    def read(self, root: Root = None) -> Part:
        """The images of training and of test. Raises DataError, in one line, where they cannot be read or used."""
        images, kinds, test = readers.read(self.path, self.classes, self.size, root)
        known = readers.CLASSES.get(self.path) or sorted_values(kinds)
        if absent := [name for name in self.classes if name not in known]:
            raise DataError(f"{self.path} has no class {listed(absent)}; it has {listed(known, 20)}")
        values = self.classes or known
        codes = np.array([values.index(kind) if kind in values else -1 for kind in kinds])
        if test is None:
            test, random = np.zeros(len(codes), bool), np.random.default_rng(0)
            for rows in rows_of_each(codes, len(values)):
                test[random.permutation(rows)[: round(TEST_SHARE * len(rows))]] = True
        sides = []
        for split, chosen in zip(readers.SPLITS, (~test, test)):
            rows = chosen & (codes >= 0)
            if lacks := [value for code, value in enumerate(values) if not (codes[rows] == code).any()]:
                raise DataError(f"{self.path} has no {split} image of {listed(lacks)}")
            sides.append(Split.of(np.ascontiguousarray(images[rows]), codes[rows]))
        return Part(self.attribute, sides[0], sides[1], values)


def sorted_values(column: Iterable[Any]) -> tuple[str, ...]:
    """The different values of a column of texts, by number where all are numbers."""
    values = sorted({str(value) for value in column})
    try:
        return tuple(sorted(values, key=float))
    except ValueError:
        return tuple(values)


@dataclass(frozen=True)
class Table(groups.Grouped):
    """The source of images with attributes: the columns `attributes` of a `table`, the label's first.

    The table is a .csv or .tsv, or CelebA's own .txt; its column `file` ("": one of FILE_COLUMNS) names images in the
    folder `images`, and its column `split` ("": "split", where there is one) says train, validation, test, or 0, 1, 2.
    Without one a fifth of every combination is for validation and one for test, drawn by the seed; without validation
    images a fifth of those of training. "celeba" and "waterbirds" are those of the data root. `natural` images are
    photographs: normalised as ImageNet's, cropped and flipped in training.
    """

    table: str
    attributes: tuple[str, ...]
    images: str = ""
    file: str = ""
    split: str = ""
    natural: bool = False
    pooled = True

    def __post_init__(self) -> None:
        self._set(attributes=tuple(self.attributes), files=(self.table,))
        if len(set(self.attributes)) < max(2, len(self.attributes)):
            raise ValueError(f"attributes must be two or more different columns, not {self.attributes!r}")
        if self.table in groups.SETS:
            self._set(natural=True)
        else:
            files = tuple(str(Path(path).expanduser().resolve()) for path in (self.table, self.images))
            self._set(files=files, table=files[0], images=files[1])
        stem, attributes = Path(self.table).stem, list(self.attributes)
        self._set(name=f"{stem} {' and '.join(attributes)}", digest=self.fingerprint().split()[-1])
        own = {"attributes": attributes, "images": self.digest, "natural": self.natural}
        self._set(configuration={"experiment": "own table", "dataset": stem, **own})

    def _coded(self, table: pd.DataFrame, seed: int) -> groups.Coded:
        values, codes = {}, {}
        for column in self.attributes:
            known = sorted_values(table[column])
            codes[column] = table[column].astype(str).map(known.index).to_numpy(np.int64, copy=True)
            is_number = known[0].lstrip("-").replace(".", "").isdigit()
            values[column] = tuple(f"{column} {value}" if is_number else value for value in known)
            if self.table in groups.SETS:
                values[column] = (f"not {column}", column)
        split = table.get("split", pd.Series(0, table.index)).to_numpy(copy=True)
        if not (split == 1).any():
            random, drawn = np.random.default_rng(seed), (1,) if (split == 2).any() else (1, 2)
            for kind in np.unique(group := np.stack(list(codes.values())), axis=1).T:
                rows = random.permutation(np.flatnonzero((group == kind[:, None]).all(0) & (split == 0)))
                count = round(SHARE * len(rows))
                for place, part in enumerate(drawn):
                    split[rows[place * count : (place + 1) * count]] = part
        return values, codes, split

    def _read(self, root: Root) -> ImageFiles:
        if self.table in groups.SETS:
            return groups.read(self.table, self.attributes, root)
        path = Path(self.table)
        with reading():
            table = groups.read_table(path, self.attributes, self.file, self.split).sort_index()
            for column in self.attributes:
                if not 2 <= (count := table[column].nunique()) <= MOST_VALUES:
                    raise DataError(f"{path} must have from 2 to {MOST_VALUES} values of {column}, and has {count}")
        return ImageFiles(f"own-{path.stem}", Path(self.images), table)
