"""A data set as a value: images, two or more named attributes, which of them is the label, and splits.

Everything that is trained or measured on images takes this value. A `Source` is what a trial carries in its place:
`lib.data.pairs.Pair`, `lib.data.groups.Groups`, `lib.data.domains.Domains` and, of your own, `lib.data.own.Table`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lib import check
from lib.data import cache
from lib.data.root import LAYOUTS, DataError, Root, find, how


@dataclass(frozen=True, eq=False)
class Split:
    """n labelled images."""

    # uint8 (n, 3, height, width); may be a memory map, whose pixels are read when they are used; before they are
    # paired images may be grey, (n, 1, height, width)
    images: Tensor
    labels: Tensor  # int64 (n,): what a net is trained to answer
    attributes: dict[str, Tensor]  # int64 (n,) each, by name

    @classmethod
    def of(cls, images: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> Split:
        """From your own arrays: uint8 images (n, height, width) or (n, 1 or 3, height, width), whole labels (n,).

        Raises ValueError where shapes or types do not fit.
        """
        images, labels = torch.as_tensor(images), torch.as_tensor(labels)
        images = images[:, None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"images must be uint8 (n, height, width) or (n, 1 or 3, height, width), not {found}")
        if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
            found = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels must be integers of shape ({len(images)},), not {found}")
        return cls(images, labels.long(), {})

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Split:
        """The images at `rows` int64 (m,), in that order; those that lie side by side take no memory of their own."""
        side_by_side = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        which = slice(rows[0], rows[-1] + 1) if side_by_side else torch.from_numpy(rows)
        attributes = {name: values[which] for name, values in self.attributes.items()}
        return Split(self.images[which], self.labels[which], attributes)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, ready for training and for probes.

    `probe_train` and `probe_test`, for equation (1), are balanced in all attributes (where there are two or more), or
    the first has more of some combinations, which then weigh less each. No probe is trained on an image that the net
    was trained or chosen on. A group is a combination of the attributes, the last one running fastest.
    """

    name: str
    values: dict[str, tuple[str, ...]]  # of every attribute, in order: the names of its values 0, 1, ...
    classes: int  # how many values the label has
    train: Split
    validation: Split  # what hyperparameters are chosen on
    test: Split  # what the net's own answer is measured on
    probe_train: Split
    probe_test: Split
    # float32 (3,), what is subtracted from inputs / 255; None: ImageNet's mean and deviation, and random crops and
    # flips in training
    mean_pixel: Tensor | None = None
    # float64 (groups,): their shares in training, where errors are weighted by them
    group_weights: Tensor | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names."""
        return tuple(self.values)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The combinations of the attributes' values, in the order of the groups' numbers."""
        return tuple(", ".join(combination) for combination in product(*self.values.values()))

    def groups(self, split: Split) -> Tensor:
        """The group of each image of a split, int64 (n,)."""
        columns = tuple(split.attributes[name].numpy() for name in self.values)
        return torch.from_numpy(np.ravel_multi_index(columns, tuple(map(len, self.values.values()))))


@dataclass(frozen=True)
class Part:
    """One of the two images of a pair."""

    attribute: str
    train: Split
    test: Split
    values: tuple[str, ...] = ()  # the names of the classes 0, 1, ..., where they have any


@dataclass(frozen=True)
class Source:
    """What names a data set and can load it: a small frozen dataclass that can be sent to another process."""

    name: str = field(init=False)  # the set in a word or two, for labels
    # What a stored configuration says of the data, as plain values: the kind of ``experiment`` and its own fields.
    configuration: dict[str, Any] = field(init=False, compare=False, repr=False)
    # What is read: sets of files of the data root by name, and paths.
    files: tuple[str, ...] = field(init=False, compare=False, repr=False)
    digest: str = field(default="", init=False)  # of data of your own: the hash in `fingerprint`
    sized: ClassVar[bool] = True  # whether `load` takes a size
    # What `load` reads at a root, `ImageFiles` or the parts of a pair, and what it makes of these with seed and size.
    _read: ClassVar[Callable[..., Any]]
    _made: ClassVar[Callable[..., Dataset]]

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """The data set as `seed` splits it, of `size` by `size` pixels where its images have no size of their own.

        Raises ValueError on a wrong argument, and MissingData or DataError, in one line, where files are missing or
        damaged, or too few of a kind. The same seed gives the same set on every machine.
        """
        check.whole("seed", seed)
        if self.sized:
            cache.check_size(size)
        images = self._read(root)
        if self.digest and self.digest not in images.contents():
            raise DataError(f"{self.name}: the files are others than those that the trial was made for; make it anew")
        return self._made(images, seed, size)

    def fingerprint(self, root: Root = None) -> str:
        """The number of images and a hash of all that `load` reads, the same on every machine; raises as `load`."""
        return self._read(root).contents()

    def lacks(self, root: Root = None) -> str | None:
        """In one line what is missing and how to get it; None: nothing."""
        absent = [name for name in self.files if find(name, root) is None]
        if paths := [name for name in absent if name not in LAYOUTS]:
            return f"{paths[0]} is missing"
        line = f"the images of {' and '.join(absent)} are not under the data root: set SAM_DATA_ROOT to the folder of "
        return f"{line}the data sets, or {how(absent, root)}" if absent else None


def mean_pixel(images: Tensor) -> Tensor:
    """The mean over uint8 images (n, 3, height, width) and their places, from 0 to 1: float32 (3,)."""
    return (images.sum((0, 2, 3)).double() / (255 * images[:, 0].numel())).float()


def rows_of_each(values: np.ndarray, count: int, rows: np.ndarray | None = None) -> list[np.ndarray]:
    """Of `values` (n,), the rows (all, or those in `rows`) of each of the values 0 to `count` - 1, in their order."""
    rows = np.arange(len(values)) if rows is None else rows
    return [rows[values[rows] == value] for value in range(count)]
