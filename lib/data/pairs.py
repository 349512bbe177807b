"""Paired sets: two images stacked into one, each with an attribute (CIFAR-MNIST, FMNIST-MNIST; Appendix B).

Every image serves in one place only. The official training images are paired within their class, each used
at most once, and the pairs are split at random, 90 % for training and 10 % for validation. The official test
images of each class are split in half: one half is paired in every combination of classes equally often
(``probe_train``); the other is paired within its class (``test``), and these same images once more in every
combination (``probe_test``).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lib import check
from lib.data import readers
from lib.data.dataset import Dataset, Split, rows_of_each
from lib.data.root import Root, lacking

SIDE = 32  # pixels: the side of the square that each of the two images is padded to
VALIDATION_SHARE = 0.1  # "a random 90/10 split of the training set" (Appendix B)
# (attribute, files) of the upper and of the lower image, and how many of the first classes of each are used.
PAIRED_SETS = {
    "cifar-mnist": (("cifar", "cifar10"), ("mnist", "mnist"), 2),
    "fmnist-mnist": (("fmnist", "fashion-mnist"), ("mnist", "mnist"), 5),
}


@dataclass(frozen=True)
class Part:
    """One of the two images of a pair: the name of its attribute, its training and its test images, and the names
    of its classes 0, 1, ... where they have any."""

    attribute: str
    train: Split
    test: Split
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """The source of a paired set: one of PAIRED_SETS, or two parts of your own that have the same classes.

    Raises ValueError on an unknown name, one of the paper's given to parts of your own, or parts that cannot be
    paired (see `pair`).
    """

    name: str
    parts: tuple[Part, Part] | None = field(default=None, compare=False, repr=False)
    images: str | None = field(default=None, init=False)  # a hash of the parts' images and labels

    def __post_init__(self) -> None:
        if self.parts is None:
            check.choice("name", self.name, PAIRED_SETS)
            return
        if self.name in PAIRED_SETS:
            raise ValueError(f"name must be none of {', '.join(PAIRED_SETS)}, not {self.name!r}")
        pair(self.name, *self.parts)
        digest = hashlib.sha256()
        for part in self.parts:
            for split in (part.train, part.test):
                digest.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
        object.__setattr__(self, "images", digest.hexdigest()[:16])

    @property
    def configuration(self) -> dict[str, Any]:
        """See `Source`; parts of your own are named by their images too."""
        own = {} if self.images is None else {"images": self.images}
        return {"experiment": "images", "dataset": self.name, **own}

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """See `Source`; the images keep their size."""
        check.whole("seed", seed)
        if self.parts is not None:
            return pair(self.name, *self.parts, seed)
        *sides, classes = PAIRED_SETS[self.name]
        parts = []
        for attribute, files in sides:
            train, test = (readers.read(files, split, range(classes), root) for split in readers.SPLITS)
            parts.append(Part(attribute, train, test, readers.CLASSES[files][:classes]))
        return pair(self.name, parts[0], parts[1], seed)

    def lacks(self, root: Root = None) -> str | None:
        """See `Source`."""
        return None if self.parts is not None else lacking([files for _, files in PAIRED_SETS[self.name][:2]], root)


def pair(name: str, first: Part, second: Part, seed: int = 0) -> Dataset:
    """Pair any two labelled image sets that have the same classes 0, 1, ..., as the module's text says.

    Where a class has more images in one part than in the other, a random surplus is left out. The label is the
    class of the first part, which stands on top; `mean_pixel` is that of the training pairs.

    Raises ValueError where both attributes have one name, a class lacks images, or the seed is negative.
    """
    check.whole("seed", seed)
    if first.attribute == second.attribute:
        raise ValueError(f"the two parts must have different attributes, not {first.attribute!r} twice")
    parts = first, second
    classes = int(first.train.labels.max()) + 1 if len(first.train) else 0
    for part in parts:
        _check_classes(f"{part.attribute} training", part.train.labels, classes, least=1)
        # Either half of the test images serves every combination of classes at least once.
        _check_classes(f"{part.attribute} test", part.test.labels, classes, least=2 * classes)

    train_random, half_random, probe_random, test_random = np.random.default_rng(seed).spawn(4)
    train = _correlated([rows_of_each(part.train.labels.numpy(), classes) for part in parts], train_random)
    shuffled = [_shuffled(rows_of_each(part.test.labels.numpy(), classes), half_random) for part in parts]
    probed, kept = ([[np.split(rows, [len(rows) // 2])[half] for rows in of] for of in shuffled] for half in (0, 1))
    test = _correlated(kept, test_random)
    tested = [rows_of_each(part.test.labels.numpy(), classes, rows) for part, rows in zip(parts, test.T)]
    validation = round(VALIDATION_SHARE * len(train))
    stacked = _stack(parts, "train", train[validation:])
    return Dataset(
        name,
        {part.attribute: part.values or tuple(map(str, range(classes))) for part in parts},
        classes,
        train=stacked,
        validation=_stack(parts, "train", train[:validation]),
        test=_stack(parts, "test", test),
        probe_train=_stack(parts, "test", _balanced(probed, probe_random)),
        probe_test=_stack(parts, "test", _balanced(tested, test_random)),
        mean_pixel=(stacked.images.sum((0, 2, 3)).double() / (255 * stacked.images[:, 0].numel())).float(),
    )


def _shuffled(rows: Sequence[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
    return [random.permutation(of_class) for of_class in rows]


def _correlated(rows: Sequence[Sequence[np.ndarray]], random: np.random.Generator) -> np.ndarray:
    """Of the rows [part][class], shuffled pairs (n, 2) within each class, as many as the rarer image allows."""
    pairs = [np.stack([side[: min(map(len, sides))] for side in _shuffled(sides, random)], 1) for sides in zip(*rows)]
    return random.permutation(np.concatenate(pairs))


def _balanced(rows: Sequence[Sequence[np.ndarray]], random: np.random.Generator) -> np.ndarray:
    """Of the rows [part][class], shuffled pairs (n, 2): every combination of classes equally often, no row twice."""
    classes = len(rows[0])
    count = min(len(of_class) for part in rows for of_class in part) // classes
    upper, lower = (
        [of_class[: classes * count].reshape(classes, count) for of_class in _shuffled(part, random)] for part in rows
    )
    pairs = [np.stack([upper[i][j], lower[j][i]], axis=1) for i in range(classes) for j in range(classes)]
    return random.permutation(np.concatenate(pairs))


def _stack(parts: tuple[Part, Part], split: str, rows: np.ndarray) -> Split:
    """Images of both parts padded with black to one square, grey repeated to three channels, first on top."""
    sizes = [part_split.images.shape[2:] for part in parts for part_split in (part.train, part.test)]
    side = max(SIDE, *(length for size in sizes for length in size))
    chosen = [getattr(part, split).take(of_part) for part, of_part in zip(parts, rows.T.copy())]
    halves = []
    for images in (taken.images for taken in chosen):
        down, right = side - images.shape[2], side - images.shape[3]
        images = pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
        halves.append(images.expand(-1, 3, -1, -1))
    attributes = {part.attribute: taken.labels for part, taken in zip(parts, chosen)}
    return Split(torch.cat(halves, dim=2), chosen[0].labels, attributes)


def _check_classes(what: str, labels: Tensor, classes: int, least: int) -> None:
    values, counts = labels.unique(return_counts=True)
    if classes < 2 or values.tolist() != list(range(classes)) or counts.min() < least:
        raise ValueError(
            f"{what} labels must be the classes 0 to {max(classes, 2) - 1}, {least} or more of "
            f"each, not {dict(zip(values.tolist(), counts.tolist()))} (class: images)"
        )
