"""Paired sets: two images stacked into one, each with an attribute (CIFAR-MNIST, FMNIST-MNIST; Appendix B).

Every image serves in one place only. The official training images are paired within their class, each used
at most once, and the pairs are split at random, 90 % for training and 10 % for validation. The official test
images of each class are split in half: one half is paired in every combination of classes equally often
(``probe_train``); the other is paired within its class (``test``), and these same images once more in every
combination (``probe_test``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lib.data import sources
from lib.data.sources import SPLITS, Labelled

ByClass: TypeAlias = Sequence[np.ndarray]  # for each class, indices of images

SIDE = 32  # pixels: the side of the square that each of the two images is padded to
VALIDATION_SHARE = 0.1  # "a random 90/10 split of the training set" (Appendix B)
# (attribute, source) of the upper and of the lower image, and how many of the first classes of each are used.
PAIRED_SETS = {
    "cifar-mnist": (("cifar", "cifar10"), ("mnist", "mnist"), 2),
    "fmnist-mnist": (("fmnist", "fashion-mnist"), ("mnist", "mnist"), 5),
}


@dataclass(frozen=True)
class Part:
    """One of the two images of a pair: the name of its attribute, its training and its test images."""

    attribute: str
    train: Labelled
    test: Labelled


@dataclass(frozen=True, eq=False)
class Split:
    """n stacked images, whole tensors."""

    images: Tensor  # uint8 (n, 3, 2 side, side): the first part's image above the second's
    attributes: dict[str, Tensor]  # int64 (n,) each: the class of either image
    labels: Tensor  # int64 (n,): the class of the first part; in correlated splits equal to every attribute

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class PairedSet:
    """A paired set: three perfectly correlated splits, and two balanced ones for probes."""

    name: str
    classes: int
    attributes: tuple[str, ...]  # of the upper and of the lower image
    train: Split
    validation: Split
    test: Split
    probe_train: Split
    probe_test: Split  # the images of `test`, paired anew
    mean_pixel: Tensor  # float32 (3,): mean of train.images / 255 over images and pixels


_own: dict[str, tuple[Part, Part]] = {}


def add(name: str, first: Part, second: Part) -> None:
    """Make a pair of your own known by `name` in this process, so that trials can be named by it.

    Raises ValueError where the name is taken or the parts cannot be paired (see `pair`).
    """
    if name in PAIRED_SETS:
        raise ValueError(f"name must be none of {', '.join(PAIRED_SETS)}, not {name!r}")
    pair(name, first, second)
    _own[name] = first, second


def names() -> tuple[str, ...]:
    """The sets that `load` knows."""
    return *PAIRED_SETS, *_own


def fingerprint(name: str) -> str | None:
    """A hash of the images and labels of a pair of your own; None for the paper's sets."""
    if name not in _own:
        return None
    digest = hashlib.sha256()
    for part in _own[name]:
        for labelled in (part.train, part.test):
            digest.update(labelled.images.numpy().tobytes() + labelled.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def available(name: str, root: Path | str | None = None) -> bool:
    """Whether the data root has a folder for both sources of the set `name`; files may still be damaged."""
    return name in _own or all(sources.is_present(source, root) for _, source in _definition(name)[:2])


def load(name: str, seed: int = 0, root: Path | str | None = None) -> PairedSet:
    """The set `name` (one of `names()`), paired at random by `seed` from the images under the data root.

    Raises DataError (one line: which file, how to get it); ValueError on an unknown name or a negative seed.
    """
    _check_seed(seed)
    if name in _own:
        return pair(name, *_own[name], seed)
    first, second, classes = _definition(name)
    upper, lower = (
        Part(attribute, *(sources.read(source, split, range(classes), root) for split in SPLITS))
        for attribute, source in (first, second)
    )
    return pair(name, upper, lower, seed)


def pair(name: str, first: Part, second: Part, seed: int = 0) -> PairedSet:
    """Pair any two labelled image sets that have the same classes 0, 1, ..., as the module's text says.

    Where a class has more images in one part than in the other, a random surplus is left out.

    Raises ValueError where both attributes have one name, a class lacks images, or the seed is negative.
    """
    _check_seed(seed)
    if first.attribute == second.attribute:
        raise ValueError(f"the two parts must have different attributes, not {first.attribute!r} twice")
    classes = int(first.train.labels.max()) + 1 if len(first.train) else 0
    for part in (first, second):
        _check_classes(f"{part.attribute} training", part.train.labels, classes, least=1)
        # Either half of the test images serves every combination of classes at least once.
        _check_classes(f"{part.attribute} test", part.test.labels, classes, least=2 * classes)

    parts = (first, second)
    train_random, half_random, probe_random, test_random = np.random.default_rng(seed).spawn(4)
    train_rows = _correlated(*(_by_class(part.train, classes) for part in parts), train_random)
    validation = round(VALIDATION_SHARE * len(train_rows))
    probe_half, test_half = zip(*(_halves(_by_class(part.test, classes), half_random) for part in parts))
    test_rows = _correlated(*test_half, test_random)
    test_images = [_by_class(part.test, classes, rows) for part, rows in zip(parts, test_rows.T)]

    train = _stack(first, second, "train", train_rows[validation:])
    return PairedSet(
        name,
        classes,
        (first.attribute, second.attribute),
        train=train,
        validation=_stack(first, second, "train", train_rows[:validation]),
        test=_stack(first, second, "test", test_rows),
        probe_train=_stack(first, second, "test", _balanced(*probe_half, probe_random)),
        probe_test=_stack(first, second, "test", _balanced(*test_images, test_random)),
        mean_pixel=(train.images.sum((0, 2, 3)).double() / (255 * train.images[:, 0].numel())).float(),
    )


def _correlated(first: ByClass, second: ByClass, random: np.random.Generator) -> np.ndarray:
    """Shuffled rows (first image, second image): within each class, as many as the rarer image allows."""
    rows = []
    for images in zip(first, second):
        count = min(map(len, images))
        rows.append(np.stack([random.permutation(side)[:count] for side in images], axis=1))
    return random.permutation(np.concatenate(rows))


def _balanced(first: ByClass, second: ByClass, random: np.random.Generator) -> np.ndarray:
    """Shuffled rows (first image, second image): every combination of classes equally often, none twice."""
    classes = len(first)
    count = min(len(images) for images in (*first, *second)) // classes
    upper = [random.permutation(images)[: classes * count].reshape(classes, count) for images in first]
    lower = [random.permutation(images)[: classes * count].reshape(classes, count) for images in second]
    rows = [np.stack([upper[i][j], lower[j][i]], axis=1) for i in range(classes) for j in range(classes)]
    return random.permutation(np.concatenate(rows))


def _halves(by_class: ByClass, random: np.random.Generator) -> tuple[ByClass, ByClass]:
    shuffled = [random.permutation(images) for images in by_class]
    halves = [np.split(images, [len(images) // 2]) for images in shuffled]
    return [first for first, _ in halves], [second for _, second in halves]


def _by_class(part: Labelled, classes: int, rows: np.ndarray | None = None) -> ByClass:
    """Indices into `part` (those in `rows`, or all) for each class."""
    rows = np.arange(len(part)) if rows is None else rows
    labels = part.labels.numpy()[rows]
    return [rows[labels == label] for label in range(classes)]


def _stack(first: Part, second: Part, split: str, rows: np.ndarray) -> Split:
    """Images of both parts padded with black to one square, grey repeated to three channels, first on top."""
    everything = [labelled.images for part in (first, second) for labelled in (part.train, part.test)]
    side = max(SIDE, *(size for images in everything for size in images.shape[2:]))
    chosen = {part.attribute: getattr(part, split) for part in (first, second)}
    halves, attributes = [], {}
    for (attribute, part), indices in zip(chosen.items(), torch.from_numpy(rows.T.copy())):
        images = part.images[indices]
        down, right = side - images.shape[2], side - images.shape[3]
        images = pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
        halves.append(images.expand(-1, 3, -1, -1))
        attributes[attribute] = part.labels[indices]
    return Split(torch.cat(halves, dim=2), attributes, attributes[first.attribute])


def _definition(name: str) -> tuple[tuple[str, str], tuple[str, str], int]:
    if name not in PAIRED_SETS:
        raise ValueError(f"name must be one of {', '.join(names())}, not {name!r}")
    return PAIRED_SETS[name]


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0, not {seed!r}")


def _check_classes(what: str, labels: Tensor, classes: int, least: int) -> None:
    values, counts = labels.unique(return_counts=True)
    if classes < 2 or values.tolist() != list(range(classes)) or counts.min() < least:
        raise ValueError(
            f"{what} labels must be the classes 0 to {max(classes, 2) - 1}, {least} or more of "
            f"each, not {dict(zip(values.tolist(), counts.tolist()))} (class: images)"
        )
