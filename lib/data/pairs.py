"""Paired sets: two images stacked into one, each with an attribute (CIFAR-MNIST, FMNIST-MNIST; Appendix B).

Every image serves in one place only. The official training images are paired within their class, each used
at most once, and the pairs are split at random, 90 % for training and 10 % for validation. The official test
images of each class are split in half: one half is paired in every combination of classes equally often
(``probe_train``); the other is paired within its class (``test``), and these same images once more in every
combination (``probe_test``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2.functional import center_crop

from lib import check
from lib.data.dataset import Dataset, Part, Source, Split, mean_pixel, rows_of_each
from lib.data.own import Files
from lib.data.readers import CLASSES, SIDE
from lib.data.root import DataError, Root, find, reading

VALIDATION_SHARE = 0.1  # "a random 90/10 split of the training set" (Appendix B)
# The upper and the lower image, each of the first classes of its set.
PAIRED_SETS = {
    "cifar-mnist": (Files("cifar10", CLASSES["cifar10"][:2], attribute="cifar"), Files("mnist", CLASSES["mnist"][:2])),
    "fmnist-mnist": (
        Files("fashion-mnist", CLASSES["fashion-mnist"][:5], attribute="fmnist"),
        Files("mnist", CLASSES["mnist"][:5]),
    ),
}
_FINGERPRINTS: dict[Hashable, str] = {}


@dataclass(frozen=True)
class Pair(Source):
    """The source of a paired set: one of PAIRED_SETS, or two parts of your own (`Part` or `lib.data.own.Files`), whose
    classes go together by their names, or in their order where all names differ. Images keep their size.

    Raises ValueError on an unknown name, one of the paper's given to parts of your own, or parts that cannot be
    paired (see `pair`), and DataError where files of your own cannot be read.
    """

    name: str
    parts: tuple[Any, Any] | None = field(default=None, compare=False, repr=False)
    sized = False

    def __post_init__(self) -> None:
        if self.parts is None:
            check.choice("name", self.name, PAIRED_SETS)
        elif self.name in PAIRED_SETS:
            raise ValueError(f"name must be none of {', '.join(PAIRED_SETS)}, not {self.name!r}")
        parts = self.parts or PAIRED_SETS[self.name]
        self._set(files=tuple(part.path for part in parts if isinstance(part, Files)))
        own = {"experiment": "images"}
        if self.parts is not None:
            found = self._read()
            self._made(found)
            self._set(digest=found.contents().split()[-1])
            own = {"experiment": "own pair", "images": self.digest}  # named by their images too
        self._set(configuration={"dataset": self.name, **own})

    def fingerprint(self, root: Root = None) -> str:
        """See `Source`; computed once in this process for each state (names, sizes, times of change) of the files."""
        with reading():
            folders = [find(name, root) or Path(name) for name in self.files]
            files = [path for folder in folders for path in (folder, *sorted(folder.rglob("*")))]
            state = self, tuple((path, (found := path.stat()).st_size, found.st_mtime_ns) for path in files)
        if state not in _FINGERPRINTS:
            _FINGERPRINTS[state] = super().fingerprint(root)
        return _FINGERPRINTS[state]

    def _read(self, root: Root = None) -> _Parts:
        parts = self.parts or PAIRED_SETS[self.name]
        first, second = (part.read(root) if isinstance(part, Files) else part for part in parts)
        return _Parts(first, _in_order_of(first, second))

    def _made(self, parts: _Parts, seed: int = 0, size: None = None) -> Dataset:
        return pair(self.name, *parts, seed, side=SIDE if self.parts is None else 0)


class _Parts(NamedTuple):
    first: Part
    second: Part

    def contents(self) -> str:
        digest, splits = hashlib.sha256(), [split for part in self for split in (part.train, part.test)]
        for split in splits:
            digest.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
        return f"{sum(map(len, splits))} images {digest.hexdigest()[:16]}"


def _in_order_of(first: Part, second: Part) -> Part:
    """The second part, its classes in the first one's order where both have the same names. Names that are all
    different go together as they stand. Raises DataError for others, such as ant and Bee against ant and bee."""
    if not first.values or not second.values or first.values == second.values:
        return second
    sides = f"{first.attribute} and {second.attribute}"
    if len(first.values) != len(second.values):
        counts = f"{len(first.values)} and {len(second.values)} classes"
        raise DataError(f"{sides} must have equally many classes, not {counts}: choose some of them")
    if set(first.values) == set(second.values):
        place = torch.tensor([first.values.index(name) for name in second.values])
        train, test = (Split.of(part.images, place[part.labels]) for part in (second.train, second.test))
        return Part(second.attribute, train, test, first.values)
    if {name.casefold() for name in first.values} & {name.casefold() for name in second.values}:
        odd = ", ".join(sorted(set(first.values) ^ set(second.values)))
        raise DataError(f"{sides} must have classes of the same names or of none in common, and differ in {odd}")
    return second


def pair(name: str, first: Part, second: Part, seed: int = 0, side: int = 0) -> Dataset:
    """Pair any two labelled image sets that have the same classes 0, 1, ..., as the module's text says.

    Where a class has more images in one part than in the other, a random surplus is left out. The label is the
    class of the first part, which stands on top; `mean_pixel` is that of the training pairs. Each image is padded to a
    square of the longest side of any of them, and of `side` pixels at least.

    Raises ValueError where both attributes have one name, a class lacks images, or the seed is negative.
    """
    check.whole("seed", seed)
    if first.attribute == second.attribute:
        raise ValueError(f"the two parts must have different attributes, not {first.attribute!r} twice")
    parts = first, second
    classes = int(first.train.labels.max()) + 1 if len(first.train) else 0
    # Either half of the test images serves every combination of classes at least once.
    for part, (what, least) in product(parts, {"train": 1, "test": 2 * classes}.items()):
        values, counts = getattr(part, what).labels.unique(return_counts=True)
        if classes < 2 or values.tolist() != list(range(classes)) or counts.min() < least:
            allowed = f"the classes 0 to {max(classes, 2) - 1}, {least} or more of each"
            found = dict(zip(values.tolist(), counts.tolist()))
            raise ValueError(f"{part.attribute} {what} labels must be {allowed}, not {found} (class: images)")

    train_random, half_random, probe_random, test_random = np.random.default_rng(seed).spawn(4)
    train = _correlated([rows_of_each(part.train.labels.numpy(), classes) for part in parts], train_random)
    shuffled = [list(map(half_random.permutation, rows_of_each(part.test.labels.numpy(), classes))) for part in parts]
    probed, kept = ([[np.split(rows, [len(rows) // 2])[half] for rows in of] for of in shuffled] for half in (0, 1))
    test = _correlated(kept, test_random)
    tested = [rows_of_each(part.test.labels.numpy(), classes, rows) for part, rows in zip(parts, test.T)]
    validation = round(VALIDATION_SHARE * len(train))
    stacked = _stack(parts, "train", train[validation:], side)
    return Dataset(
        name,
        {part.attribute: part.values or tuple(map(str, range(classes))) for part in parts},
        classes,
        train=stacked,
        validation=_stack(parts, "train", train[:validation], side),
        test=_stack(parts, "test", test, side),
        probe_train=_stack(parts, "test", _balanced(probed, probe_random), side),
        probe_test=_stack(parts, "test", _balanced(tested, test_random), side),
        mean_pixel=mean_pixel(stacked.images),
    )


def _correlated(rows: Sequence[Sequence[np.ndarray]], random: np.random.Generator) -> np.ndarray:
    """Of the rows [part][class], shuffled pairs (n, 2) within each class, as many as the rarer image allows."""
    shuffled = ([random.permutation(side)[: min(map(len, sides))] for side in sides] for sides in zip(*rows))
    return random.permutation(np.concatenate([np.stack(sides, axis=1) for sides in shuffled]))


def _balanced(rows: Sequence[Sequence[np.ndarray]], random: np.random.Generator) -> np.ndarray:
    """Of the rows [part][class], shuffled pairs (n, 2): every combination of classes equally often, no row twice."""
    classes = len(rows[0])
    count = min(len(of_class) for part in rows for of_class in part) // classes
    upper, lower = (
        [of_class[: classes * count].reshape(classes, count) for of_class in map(random.permutation, part)]
        for part in rows
    )
    pairs = [np.stack([upper[i][j], lower[j][i]], axis=1) for i in range(classes) for j in range(classes)]
    return random.permutation(np.concatenate(pairs))


def _stack(parts: tuple[Part, Part], split: str, rows: np.ndarray, least: int) -> Split:
    """Images of both parts padded with black to one square, grey repeated to three channels, first on top."""
    sizes = [part_split.images.shape[2:] for part in parts for part_split in (part.train, part.test)]
    side = max(least, *(length for size in sizes for length in size))
    chosen = [getattr(part, split).take(of_part) for part, of_part in zip(parts, rows.T.copy())]
    halves = [center_crop(taken.images, [side, side]).expand(-1, 3, -1, -1) for taken in chosen]
    attributes = {part.attribute: taken.labels for part, taken in zip(parts, chosen)}
    return Split(torch.cat(halves, dim=2), chosen[0].labels, attributes)
