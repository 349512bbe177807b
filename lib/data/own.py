"""Data of your own: labelled images in an .npz or in one folder a class, and tables of images with attributes.

Codes are positions in names, the names travel with them, and by these the sides of a set are compared. A source reads
its files where a trial runs, and refuses others than those that it was made for.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib import check
from lib.data import cache, groups, readers, tables
from lib.data.dataset import Dataset, Split, rows_of_each
from lib.data.pairs import SIDE, Part
from lib.data.root import DataError, MissingData, Root, class_images, entries, exists, lacking, listed, rgb_image

TEST_SHARE = 1 / 3  # of each class, where the files name no test images
SHARE = 0.2  # of each combination of attributes for validation, and for test, where a table has no split
MOST_VALUES = 20  # of an attribute
FILE_COLUMNS = (
    "file",
    "filename",
    "file_name",
    "img_filename",
    "image_id",
    "image",
    "path",
)  # looked for in this order
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
        object.__setattr__(self, "attribute", self.attribute or Path(self.path).expanduser().resolve().stem)
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different, not {', '.join(self.classes)}")
        if self.path not in readers.SETS:
            object.__setattr__(self, "path", str(Path(self.path).expanduser().resolve()))
        if self.size is not None:
            cache.check_size(self.size)

    def read(self, root: Root = None) -> Part:
        """The images of training and of test. Raises DataError, in one line, where they cannot be read or used."""
        path = Path(self.path)
        if self.path in readers.SETS:
            found, known = self._of_set(root), list(readers.CLASSES[self.path])
        elif not exists(path):
            near = next(folder for folder in path.parents if folder.is_dir())
            raise MissingData(f"{path} is missing ({near} holds {listed([one.name for one in entries(near)])})")
        else:
            found = _folder(path, self.size) if path.is_dir() else _npz(path)
            known = sorted_values(found.kinds)
        if absent := [name for name in self.classes if name not in known]:
            raise DataError(f"{self.path} has no class {listed(absent)}; it has {listed(known, 20)}")
        values = self.classes or tuple(known)
        codes = np.array([values.index(kind) if kind in values else -1 for kind in found.kinds])
        test = found.test
        if test is None:
            test, random = np.zeros(len(codes), bool), np.random.default_rng(0)
            for rows in rows_of_each(codes, len(values)):
                test[random.permutation(rows)[: round(TEST_SHARE * len(rows))]] = True
        sides = {}
        for name, chosen in (("train", ~test), ("test", test)):
            rows = chosen & (codes >= 0)
            if lacks := [value for code, value in enumerate(values) if not (codes[rows] == code).any()]:
                raise DataError(f"{self.path} has no {name} image of {listed(lacks)}")
            sides[name] = Split.of(np.ascontiguousarray(found.images[rows]), codes[rows])
        return Part(self.attribute, sides["train"], sides["test"], values)

    def lacks(self, root: Root = None) -> str | None:
        """See `Source`."""
        if self.path in readers.SETS:
            return lacking([self.path], root)
        return None if Path(self.path).exists() else f"{self.path} is missing"

    def _of_set(self, root: Root) -> Labelled:
        parts = [readers.read(self.path, split, root=root) for split in readers.SPLITS]
        labels = np.concatenate([part.labels.numpy() for part in parts])
        images = np.concatenate([part.images.numpy() for part in parts])
        return Labelled(images, np.array(readers.CLASSES[self.path])[labels], np.arange(len(labels)) >= len(parts[0]))


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
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "it must be an .npz of plain arrays, or a folder"
        raise DataError(f"{path} cannot be read: {reason}") from error

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
    images = [rgb_image(path, DataError(f"{path} is not a whole image file")) for path, _, _ in rows]
    shape = images[0].size if {image.size for image in images} == {images[0].size} else (SIDE, SIDE)
    shape = shape if size is None else (size, size)
    pixels = np.stack([np.asarray(image if image.size == shape else image.resize(shape)) for image in images])
    kinds, test = np.array([kind for _, kind, _ in rows]), np.array([of_test for _, _, of_test in rows])
    return Labelled(pixels.transpose(0, 3, 1, 2), kinds, test if len(sides) == 2 else None)


class Read(NamedTuple):
    """What a table says: where the images are, their names, the attributes' values and codes, and the splits."""

    folder: Path
    files: list[str]
    values: dict[str, tuple[str, ...]]
    codes: dict[str, np.ndarray]
    split: np.ndarray | None  # 0 training, 1 validation, 2 test


@dataclass(frozen=True)
class Table:
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
    digest: str = field(default="", init=False)  # of the files

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
        """See `Source`."""
        return f"{Path(self.table).stem} {' and '.join(self.attributes)}"

    @property
    def configuration(self) -> dict[str, Any]:
        """See `Source`."""
        own = {"attributes": list(self.attributes), "images": self.digest, "natural": self.natural}
        return {"experiment": "own table", "dataset": Path(self.table).stem, **own}

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """See `Source`; too few images of a combination are a DataError, and so are other files than at first."""
        check.whole("seed", seed)
        size = cache.check_size(size)
        read = self._read(root)
        if self._fingerprint(read).split()[-1] != self.digest:
            raise DataError(f"{self.name}: the files are others than those that the trial was made for; make it anew")
        folder, files, values, codes, split = read
        if split is None or not (split == 1).any():
            split, random = np.zeros(len(files), int) if split is None else split, np.random.default_rng(seed)
            drawn = (1,) if (split == 2).any() else (1, 2)
            for kind in np.unique(group := np.stack(list(codes.values())), axis=1).T:
                rows = random.permutation(np.flatnonzero((group == kind[:, None]).all(0) & (split == 0)))
                count = round(SHARE * len(rows))
                for place, part in enumerate(drawn):
                    split[rows[place * count : (place + 1) * count]] = part
        images = partial(cache.decoded, Path(self.table).stem, folder, files, size)
        return groups.with_groups(self.name, values, codes, split, images, seed, pooled=True, natural=self.natural)

    def fingerprint(self, root: Root = None) -> str:
        """The number of images and a hash of what the table says of them and of the files' sizes, the same on every
        machine; raises as `load`."""
        return self._fingerprint(self._read(root))

    def _fingerprint(self, read: Read) -> str:
        folder, files, values, codes, split = read
        cache.fingerprint(Path(self.table).stem, folder, files)
        digest = hashlib.sha256(repr((values, [column.tolist() for column in codes.values()])).encode())
        digest.update(repr(None if split is None else split.tolist()).encode())
        digest.update(repr([(file, (folder / file).stat().st_size) for file in files]).encode())
        return f"{len(files)} images {digest.hexdigest()[:16]}"

    def lacks(self, root: Root = None) -> str | None:
        """See `Source`."""
        if self.table in groups.SETS:
            return lacking([self.table], root)
        return next((f"{path} is missing" for path in (self.table, self.images) if not Path(path).exists()), None)

    def _read(self, root: Root) -> Read:
        if self.table in groups.SETS:
            folder, table = tables.read(self.table, self.attributes, root)
            values: dict[str, tuple[str, ...]] = {column: (f"not {column}", column) for column in self.attributes}
            codes = {column: table[column].to_numpy(copy=True) for column in self.attributes}
            return Read(folder, list(table.index), values, codes, table["split"].to_numpy(copy=True))
        path = Path(self.table)

        def fail(problem: str) -> DataError:
            return DataError(f"{path} {problem}")

        columns = tables.columns(path, fail)
        file = self.file or next((name for name in FILE_COLUMNS if name in columns), "")
        if not file:
            raise fail(f"names its images in no column called {listed(FILE_COLUMNS, 9)}: name it (file)")
        split = self.split or ("split" if "split" in columns else "")
        if file in self.attributes:
            raise fail(f"names its images in {file}, which can be no attribute")
        used = dict.fromkeys([*self.attributes, *([split] if split else [])])
        table = tables.parse(path, file, list(used), fail).sort_index()
        values, codes = {}, {}
        for column in self.attributes:
            known = sorted_values(table[column])
            if not 2 <= len(known) <= MOST_VALUES:
                raise fail(f"must have from 2 to {MOST_VALUES} values of {column}, and has {len(known)}")
            is_number = known[0].lstrip("-").replace(".", "").isdigit()
            values[column] = tuple(f"{column} {value}" if is_number else value for value in known)
            codes[column] = table[column].map(known.index).to_numpy(np.int64, copy=True)
        parts = None
        if split:
            named = table[split].str.casefold().map(SPLIT_NAMES)
            if named.isna().any():
                odd = listed(sorted_values(table[split][named.isna()]))
                raise fail(f"has {split} {odd}; allowed are train, validation and test, or 0, 1 and 2")
            parts = named.to_numpy(np.int64, copy=True)
        return Read(Path(self.images), list(table.index), values, codes, parts)
