"""Sets with two correlated attributes on natural images: Waterbirds, CelebA, and a stand-in (Appendix B).

The label is the first attribute, and it is correlated with the second; the four combinations are the groups.
The official splits for training, validation and test are kept, but for the images that train the probes: half
of the validation images of the rarest group, and as many of every other group, leave the validation split for
``probe_train``. So no probe is trained on images that the net was trained on, or that its hyperparameters
were chosen on. ``probe_test`` are test images, all of the rarest group and as many of every other. Every
image serves in one place only, but for those of ``test`` and ``probe_test``.

Validation and test have other shares of the groups than training; their errors are weighted by the shares in
training (`lib.measure.group_means`), as in Sagawa et al. (2020) and Kirichenko et al. (2023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from lib import check
from lib.data import cache, tables
from lib.data.cache import ImageFiles
from lib.data.dataset import Dataset, Source, Split, mean_pixel, rows_of_each
from lib.data.root import DataError, Root

GROUPS = 4
SPLIT_NAMES = ("training", "validation", "test")
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


@dataclass(frozen=True)
class Groups(Source):
    """The source of one of SETS.

    `attributes` are the columns of the label and of the other attribute: of CelebA any two of its 40, as
    ``("Smiling", "Young")``; None takes the paper's. Raises ValueError for a value that is not allowed.
    """

    dataset: str
    attributes: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        own = SETS[check.choice("dataset", self.dataset, SETS)]
        if self.attributes is None:
            return
        chosen = tuple(self.attributes)
        if chosen != own and (self.dataset != "celeba" or len(set(chosen)) != 2 or len(chosen) != 2):
            allowed = "two different columns of CelebA's table" if self.dataset == "celeba" else f"None or {own}"
            raise ValueError(f"attributes must be {allowed}, not {self.attributes!r}")
        object.__setattr__(self, "attributes", None if chosen == own else chosen)  # the paper's have one name

    @property
    def name(self) -> str:
        """See `Source`."""
        return self.dataset if self.attributes is None else f"{self.dataset} {' and '.join(self.attributes)}"

    @property
    def configuration(self) -> dict[str, Any]:
        """See `Source`."""
        other = {} if self.attributes is None else {"attributes": list(self.attributes)}
        return {"experiment": "groups", "dataset": self.dataset, **other}

    @property
    def files(self) -> tuple[str, ...]:
        """See `Source`."""
        return (self.dataset,)

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """See `Source`; `seed` draws the probes' images. A split with too few images of a group is a DataError."""
        check.whole("seed", seed)
        size = cache.check_size(size)
        images = self._read(root)
        columns = self.attributes or SETS[self.dataset]
        named = dict(ATTRIBUTES.get(column, (column, (f"not {column}", column))) for column in columns)
        codes = {name: images.table[column].to_numpy(copy=True) for name, column in zip(named, columns)}
        return with_groups(self.name, named, codes, images.table["split"].to_numpy(), images, seed, size)

    def fingerprint(self, root: Root = None) -> str:
        """See `Source`."""
        return self._read(root).contents()

    def _read(self, root: Root) -> ImageFiles:
        return tables.of_set(self.dataset, self.attributes or SETS[self.dataset], root)


def with_groups(
    name: str,
    values: Mapping[str, tuple[str, ...]],
    codes: Mapping[str, np.ndarray],
    split: np.ndarray,
    images: ImageFiles,
    seed: int,
    size: int,
    pooled: bool = False,
    natural: bool = True,
) -> Dataset:
    """The data set of n `images` whose attributes have the `values`, by their `codes` int64 (n,), and which belong to
    the `split` (n,) 0, 1 or 2; the label is the first attribute.

    pooled: the images that train the probes are half of the validation images of every group, to be weighted, and not
    as many of each as of the rarest. natural: with no mean pixel, see `Dataset`. Raises DataError where a split has too
    few images of a group, and as `ImageFiles.decoded`.
    """
    sizes = tuple(map(len, values.values()))
    group, count = np.ravel_multi_index(list(codes.values()), sizes), int(np.prod(sizes))
    counts = np.bincount(split * count + group, minlength=tables.SPLITS * count).reshape(tables.SPLITS, count)
    # Half of the rarest group's validation images train probes, and at least one stays.
    for part, found, least in zip(SPLIT_NAMES, counts, (1, 4 if pooled else 2, 1), strict=True):
        if few := [", ".join(kind) for kind, images_of in zip(product(*values.values()), found) if images_of < least]:
            problem = f"the {part} images must have {least} or more of every group, and lack: {'; '.join(few)}"
            raise DataError(f"{name}: {problem}")
    attributes = {name: torch.from_numpy(column) for name, column in codes.items()}
    everything = Split(images.decoded(size), next(iter(attributes.values())), attributes)
    splits = {part: everything.take(rows) for part, rows in places(split, group, seed, count, pooled).items()}
    mean = None if natural else mean_pixel(splits["train"].images)
    shares = torch.from_numpy(counts[0] / counts[0].sum())
    return Dataset(name, dict(values), sizes[0], mean_pixel=mean, group_weights=shares, **splits)


def places(
    split: np.ndarray, group: np.ndarray, seed: int, count: int = GROUPS, pooled: bool = False
) -> dict[str, np.ndarray]:
    """Which images, of official `split` (n,) and `group` (n,), serve where in a Dataset (see above)."""
    train, validation, test = rows_of_each(split, tables.SPLITS)
    of_validation, of_test = (rows_of_each(group, count, rows) for rows in (validation, test))
    for_probes, for_tests = np.random.default_rng(seed).spawn(2)
    halves = [len(rows) // 2 for rows in of_validation]
    probe_train = _drawn(of_validation, halves if pooled else [min(halves)] * count, for_probes)
    probe_test = _drawn(of_test, [min(map(len, of_test))] * count, for_tests)
    kept = np.setdiff1d(validation, probe_train)
    return {"train": train, "validation": kept, "test": test, "probe_train": probe_train, "probe_test": probe_test}


def describe(name: str, root: Root = None) -> tuple[bool, str, ImageFiles]:
    """Whether the set `name` is complete, one line of detail, and its images; raises as `tables.of_set`, and DataError
    where it has as many images as the official one but other groups."""
    images = tables.of_set(name, SETS[name], root)
    group = images.table["split"] * GROUPS + 2 * images.table[SETS[name][0]] + images.table[SETS[name][1]]
    counts = np.bincount(group, minlength=tables.SPLITS * GROUPS).reshape(tables.SPLITS, GROUPS)
    official = np.array(COUNTS[name])
    detail = ", ".join(f"{count:,} {split}" for count, split in zip(counts.sum(1), SPLIT_NAMES)) + " images"
    complete = bool((counts == official).all())
    if not complete and (counts.sum(1) == official.sum(1)).all():
        raise DataError(f"{detail}, but other numbers in the groups than the official ones")
    return complete, detail, images


def _drawn(rows: Sequence[np.ndarray], counts: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Shuffled rows: of each group as many as `counts` says."""
    return random.permutation(
        np.concatenate([random.permutation(of_group)[:count] for of_group, count in zip(rows, counts)])
    )
