"""Data of your own: labelled images in an .npz or in one folder a class, and tables of images with attributes.

Codes are positions in names, the names travel with them, and by these the sides of a set are compared. A source reads
its files where a trial runs, and refuses others than those that it was made for.
"""

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib import check
from lib.data import cache, groups, readers, tables
from lib.data.cache import ImageFiles
from lib.data.dataset import Dataset, Part, Source, Split, rows_of_each
from lib.data.root import DataError, Root, class_images, entries, listed, need, reading, rgb_image

SIDE = 32  # pixels of a folder's images that have no one size
TEST_SHARE = 1 / 3  # of each class, where the files name no test images
SHARE = 0.2  # of each combination of attributes for validation, and for test, where a table has no split
MOST_VALUES = 20  # of an attribute
FILE_COLUMNS = ("file", "filename", "file_name", "img_filename", "image_id", "image", "path")  # looked for in turn
SPLIT_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
SPLIT_NAMES |= {str(number): number for number in range(tables.SPLITS)}


class Labelled(NamedTuple):
    """Images uint8 (n, 1 or 3, height, width), the name of each one's class, and whether it is a test image (n,)."""

    images: np.ndarray
    kinds: np.ndarray
    test: np.ndarray | None


@dataclass(frozen=True)
class Files:
    """One side of a `Pair`: an .npz, a folder with one folder a class, or a set of the data root ("mnist", ...).

    The .npz has ``images`` (n, height, width) or (n, height, width, 3), uint8, uint16 or floats from 0 to 1; ``labels``
    (n,), whole numbers or texts; maybe ``names``, of the labels 0, 1, ...; maybe ``split`` (n,), "train" or "test". The
    folder may have ``train`` and ``test`` above those of the classes. Where the test images are not named, a third of
    each class, always the same, serves. `classes` are the names of those used, in this order (none: all); `size` is the
    side in pixels of a folder's images (None: their own where it is one, else SIDE).
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

    @property
    def files(self) -> tuple[str, ...]:
        """As of a `Source`."""
        return (self.path,)

    def read(self, root: Root = None) -> Part:
        """The images of training and of test. Raises DataError, in one line, where they cannot be read or used."""
        if self.path in readers.SETS:
            known = list(readers.CLASSES[self.path])
        else:
            with reading():
                found = _folder(path, self.size) if (path := need(self.path)).is_dir() else _npz(path)
            known = sorted_values(found.kinds)
        if absent := [name for name in self.classes if name not in known]:
            raise DataError(f"{self.path} has no class {listed(absent)}; it has {listed(known, 20)}")
        values = self.classes or tuple(known)
        if self.path in readers.SETS:
            numbers = [known.index(value) for value in values]
            train, test = (readers.read(self.path, split, numbers, root) for split in readers.SPLITS)
            return Part(self.attribute, train, test, values)
        codes = np.array([values.index(kind) if kind in values else -1 for kind in found.kinds])
        of_test = found.test
        if of_test is None:
            of_test, random = np.zeros(len(codes), bool), np.random.default_rng(0)
            for rows in rows_of_each(codes, len(values)):
                of_test[random.permutation(rows)[: round(TEST_SHARE * len(rows))]] = True
        sides = []
        for split, chosen in zip(readers.SPLITS, (~of_test, of_test)):
            rows = chosen & (codes >= 0)
            if lacks := [value for code, value in enumerate(values) if not (codes[rows] == code).any()]:
                raise DataError(f"{self.path} has no {split} image of {listed(lacks)}")
            sides.append(Split.of(np.ascontiguousarray(found.images[rows]), codes[rows]))
        return Part(self.attribute, sides[0], sides[1], values)


def sorted_values(column: Iterable[Any]) -> list[str]:
    """The different values of a column of texts, by number where all are numbers."""
    values = sorted({str(value) for value in column})
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def _npz(path: Path) -> Labelled:
    """Raises DataError, in one line, where the file is none or its arrays do not fit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "labels", "names", "split") if name in file}
    except (ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: it must be an .npz of plain arrays, or a folder") from error

    def fits(name: str, good: bool, allowed: str) -> None:
        if not good:
            found = f"{arrays[name].dtype} of shape {arrays[name].shape}" if name in arrays else "missing"
            raise DataError(f"{path}: {name} must be {allowed}, not {found}")

    words = "uint8, uint16 or floats from 0 to 1, of shape (n, height, width) or (n, height, width, 1 or 3)"
    images, labels = (arrays.get(name, np.empty(0)) for name in ("images", "labels"))
    fits("images", images.ndim in (3, 4) and images.size > 0 and images.shape[3:] in ((), (1,), (3,)), words)
    if images.dtype.kind == "f":
        fits("images", bool(((images >= 0) & (images <= 1)).all()), words)  # NaN is neither
        images = (255 * images.astype(np.float64)).round().astype(np.uint8)
    elif images.dtype == np.uint16:
        images = (images >> 8).astype(np.uint8)
    fits("images", images.dtype == np.uint8, words)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    fits("labels", labels.shape == (len(images),) and labels.dtype.kind in "iubU", f"({len(images)},) numbers or texts")
    kinds = labels.astype(str)
    if "names" in arrays:
        names = arrays["names"]
        good = names.ndim == 1 and names.dtype.kind == "U" and len(set(names.tolist())) == len(names)
        fits("names", good and labels.dtype.kind in "iu", "different texts, for labels that are numbers")
        fits("labels", bool(((labels >= 0) & (labels < len(names))).all()), f"numbers from 0 to {len(names) - 1}")
        kinds = names[labels]
    if "split" not in arrays:
        return Labelled(images, kinds, None)
    split = arrays["split"]
    fits("split", split.shape == kinds.shape and bool(np.isin(split, readers.SPLITS).all()), 'of "train" and "test"')
    return Labelled(images, kinds, split == "test")


def _folder(folder: Path, size: int | None) -> Labelled:
    """Raises DataError, in one line, where classes differ, there is no image, or a file is none."""
    below = {path.name: path for path in entries(folder) if path.is_dir()}
    sides = [below[split] for split in readers.SPLITS] if set(readers.SPLITS) <= below.keys() else [folder]
    found = [class_images(side) for side in sides]
    if odd := sorted(set(found[0]) ^ set(found[-1])):
        raise DataError(f"{folder}: train and test must have the same classes, and differ in {listed(odd)}")
    rows = [(path, kind, bool(side)) for side, kinds in enumerate(found) for kind, of in kinds.items() for path in of]
    if not rows:
        raise DataError(f"{folder} must hold one folder of images a class, and holds {listed(sorted(below)) or 'none'}")
    images = [rgb_image(path) for path, _, _ in rows]
    shape = images[0].size if {image.size for image in images} == {images[0].size} else (SIDE, SIDE)
    shape = shape if size is None else (size, size)
    pixels = np.stack([np.asarray(image if image.size == shape else image.resize(shape)) for image in images])
    kinds, test = np.array([kind for _, kind, _ in rows]), np.array([of_test for _, _, of_test in rows])
    return Labelled(pixels.transpose(0, 3, 1, 2), kinds, test if len(sides) == 2 else None)


@dataclass(frozen=True)
class Table(Source):
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
    digest: str = field(default="", init=False)  # of the table's columns and the files

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(self.attributes))
        if len(set(self.attributes)) < max(2, len(self.attributes)):
            raise ValueError(f"attributes must be two or more different columns, not {self.attributes!r}")
        if self.table in groups.SETS:
            object.__setattr__(self, "natural", True)
        else:
            for name in ("table", "images"):
                object.__setattr__(self, name, str(Path(getattr(self, name)).expanduser().resolve()))
        object.__setattr__(self, "digest", self.fingerprint().split()[-1])

    @property
    def name(self) -> str:
        return f"{Path(self.table).stem} {' and '.join(self.attributes)}"

    @property
    def configuration(self) -> dict[str, Any]:
        own = {"attributes": list(self.attributes), "images": self.digest, "natural": self.natural}
        return {"experiment": "own table", "dataset": Path(self.table).stem, **own}

    @property
    def files(self) -> tuple[str, ...]:
        return (self.table,) if self.table in groups.SETS else (self.table, self.images)

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """See `Source`; too few images of a combination are a DataError, and so are other files than at first."""
        check.whole("seed", seed)
        size = cache.check_size(size)
        images = self._read(root)
        if images.contents().split()[-1] != self.digest:
            raise DataError(f"{self.name}: the files are others than those that the trial was made for; make it anew")
        values, codes = {}, {}
        for column in self.attributes:
            known = sorted_values(images.table[column])
            codes[column] = images.table[column].astype(str).map(known.index).to_numpy(np.int64, copy=True)
            numbers = known[0].lstrip("-").replace(".", "").isdigit()
            values[column] = tuple(f"{column} {value}" if numbers else value for value in known)
            if self.table in groups.SETS:
                values[column] = (f"not {column}", column)
        split = (
            images.table["split"].to_numpy(copy=True) if "split" in images.table else np.zeros(len(images.table), int)
        )
        if not (split == 1).any():
            random, drawn = np.random.default_rng(seed), (1,) if (split == 2).any() else (1, 2)
            for kind in np.unique(group := np.stack(list(codes.values())), axis=1).T:
                rows = random.permutation(np.flatnonzero((group == kind[:, None]).all(0) & (split == 0)))
                count = round(SHARE * len(rows))
                for place, part in enumerate(drawn):
                    split[rows[place * count : (place + 1) * count]] = part
        return groups.with_groups(
            self.name, values, codes, split, images, seed, size, pooled=True, natural=self.natural
        )

    def fingerprint(self, root: Root = None) -> str:
        return self._read(root).contents()

    def _read(self, root: Root) -> ImageFiles:
        """The images, by name, and the attributes as they stand in the table, with the ``split`` where there is one."""
        if self.table in groups.SETS:
            return tables.of_set(self.table, self.attributes, root)
        with reading():
            path, found = Path(self.table), tables.strings(Path(self.table))
            file = self.file or next((name for name in FILE_COLUMNS if name in found), "")
            if not file or file in self.attributes:
                where = f"{file}, which can be no attribute" if file else f"no column called {listed(FILE_COLUMNS, 9)}"
                raise DataError(f"{path} names its images in {where}" + ("" if file else ": name it (file)"))
            split = self.split or ("split" if "split" in found else "")
            used = dict.fromkeys([*self.attributes, *([split] if split else [])])
            table = tables.by_image(path, found, file, list(used)).sort_index()
        for column in self.attributes:
            if not 2 <= (count := table[column].nunique()) <= MOST_VALUES:
                raise DataError(f"{path} must have from 2 to {MOST_VALUES} values of {column}, and has {count}")
        chosen = table[list(self.attributes)]
        if split:
            named = table[split].str.casefold().map(SPLIT_NAMES)
            if named.isna().any():
                odd = listed(sorted_values(table[split][named.isna()]))
                raise DataError(f"{path} has {split} {odd}; allowed are train, validation and test, or 0, 1 and 2")
            chosen = chosen.assign(split=named.astype(np.int64))
        return ImageFiles(f"own-{path.stem}", Path(self.images), chosen)
