"""Sets with two correlated attributes on natural images: Waterbirds, CelebA, and a stand-in (Appendix B).

The label is the first attribute, and it is correlated with the second; the four combinations are the groups.
The official splits for training, validation and test are kept, but for the images that train the probes: half
of the validation images of the rarest group, and as many of every other group, leave the validation split for
``probe_train``. So no probe is trained on images that the net was trained on, or that its hyperparameters
were chosen on. ``probe_test`` are test images, all of the rarest group and as many of every other. Every
image serves in one place only, but for those of ``test`` and ``probe_test``.

Validation and test have other shares of the groups than training; their errors are weighted by the shares in
training (`weighted_error`), as in Sagawa et al. (2020) and Kirichenko et al. (2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.data import annotations, archives, cache, sources
from lib.data.annotations import Annotations
from lib.data.archives import Archive
from lib.data.sources import DataError

GROUPS = 4
SPLIT_NAMES = ("training", "validation", "test")
NO_ARCHIVE = "this set is not published; copy its folder into the data root"


@dataclass(frozen=True)
class Definition:
    """One of the sets: its attributes and their two values, and how many images a complete one has."""

    attributes: tuple[str, str]  # the label, and what is correlated with it
    values: tuple[tuple[str, str], tuple[str, str]]
    counts: tuple[tuple[int, ...], ...]  # of each split, of each group
    archive: Archive | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their numbers."""
        return tuple(f"{label}, {other}" for label in self.values[0] for other in self.values[1])


BIRDS = ("bird", "place"), (("land bird", "water bird"), ("land", "water"))
SETS = {
    "waterbirds": Definition(
        *BIRDS,
        ((3498, 184, 56, 1057), (467, 466, 133, 133), (2255, 2255, 642, 642)),
        Archive(
            "waterbird_complete95_forest2water2.tar.gz",
            "waterbird_complete95_forest2water2",
            "waterbird_complete95_forest2water2",
            "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz",
            direct=True,
        ),
    ),
    "celeba": Definition(
        ("hair", "gender"),
        (("dark", "blond"), ("female", "male")),
        ((71629, 66874, 22880, 1387), (8535, 8276, 2874, 182), (9767, 7535, 2480, 180)),
        Archive(
            "celeba/img_align_celeba.zip",
            "img_align_celeba",
            "celeba/img_align_celeba",
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
            checksum=annotations.CELEBA_CHECKSUMS["img_align_celeba.zip"],
            also=("list_attr_celeba.txt", "list_eval_partition.txt"),
        ),
    ),
    "birds_on_scenes": Definition(*BIRDS, ((2308, 121, 28, 542), (237, 236, 55, 54), (944, 944, 216, 217))),
}
NAMES = tuple(SETS)


@dataclass(frozen=True, eq=False)
class GroupedSplit:
    """n images of a set."""

    images: Tensor  # uint8 (n, 3, size, size), channels last in memory
    labels: Tensor  # int64 (n,): the first attribute
    attributes: dict[str, Tensor]  # int64 (n,) each: 0 or 1
    groups: Tensor  # int64 (n,): 2 first attribute + second attribute

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class GroupedSet:
    """A set in its three official splits, the second less the images of a balanced one for probes."""

    name: str
    classes: int
    attributes: tuple[str, str]  # the label, and what is correlated with it
    group_names: tuple[str, ...]
    train: GroupedSplit
    validation: GroupedSplit
    test: GroupedSplit
    probe_train: GroupedSplit
    probe_test: GroupedSplit  # images of `test`
    group_weights: Tensor  # float64 (4,): shares of the groups in `train`


def available(name: str, root: Path | str | None = None) -> bool:
    """Whether the data root has a folder for the set `name` (one of NAMES); files may still be damaged."""
    sources.check_choice("name", name, NAMES)
    return annotations.folder_of(name, sources.data_root(root)) is not None


def load(name: str, size: int, seed: int = 0, root: Path | str | None = None) -> GroupedSet:
    """The set `name` (one of NAMES) with images of `size` by `size` pixels; `seed` draws the probes' images.

    The same seed gives the same set, on every machine. Raises ValueError on a wrong argument, and MissingData
    or DataError, in one line, where files are missing or damaged or a split has too few images of a group.
    """
    sources.check_choice("name", name, NAMES)
    cache.check_size(size)
    sources.check_seed(seed)
    definition = SETS[name]
    table = annotations.read(name, sources.data_root(root))
    group, counts = _groups(table)
    # Half of the rarest group's validation images train probes, and at least one stays.
    for split, found, least in zip(SPLIT_NAMES, counts, (1, 2, 1), strict=True):
        if lacking := [kind for kind, count in zip(definition.groups, found) if count < least]:
            raise DataError(
                f"{name}: the {split} images must have {least} or more of every group, and lack: {'; '.join(lacking)}"
            )
    images = cache.decoded(name, table.folder, table.files, size)

    def split_of(rows: np.ndarray) -> GroupedSplit:
        label, other = torch.from_numpy(table.label[rows]), torch.from_numpy(table.other[rows])
        attributes = dict(zip(definition.attributes, (label, other), strict=True))
        # A slice of the images takes no memory; training and test are each the whole of an official split.
        whole = len(rows) == rows[-1] - rows[0] + 1 and (np.diff(rows) == 1).all()
        return GroupedSplit(
            images[rows[0] : rows[-1] + 1] if whole else images[rows], label, attributes, 2 * label + other
        )

    splits = {place: split_of(rows) for place, rows in places(table.split, group, seed).items()}
    return GroupedSet(
        name,
        2,
        definition.attributes,
        definition.groups,
        **splits,
        group_weights=torch.from_numpy(counts[0] / counts[0].sum()),
    )


def places(split: np.ndarray, group: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Which images, of official `split` (n,) and `group` (n,), serve where in a GroupedSet (see above)."""
    train, validation, test = (np.flatnonzero(split == position) for position in range(annotations.SPLITS))
    train_random, test_random = np.random.default_rng(seed).spawn(2)
    rarest = [np.bincount(group[rows], minlength=GROUPS).min() for rows in (validation, test)]
    probe_train = _balanced(validation, group, rarest[0] // 2, train_random)
    return {
        "train": train,
        "validation": np.setdiff1d(validation, probe_train),
        "test": test,
        "probe_train": probe_train,
        "probe_test": _balanced(test, group, rarest[1], test_random),
    }


def group_errors(wrong: Tensor, groups: Tensor) -> Tensor:
    """The share of wrong answers in each group, float64 (4,), from `wrong` (n,), true or false for each
    image, and `groups` (n,).

    Raises ValueError where shapes or numbers do not fit or a group has no image.
    """
    wrong, groups = torch.as_tensor(wrong), torch.as_tensor(groups)
    if wrong.ndim != 1 or wrong.shape != groups.shape or wrong.dtype != torch.bool:
        raise ValueError(
            f"wrong must be true or false for each of the {groups.numel()} images in groups, "
            f"not {wrong.dtype} of shape {tuple(wrong.shape)}"
        )
    if groups.is_floating_point() or not ((groups >= 0) & (groups < GROUPS)).all():
        raise ValueError(f"groups must be whole numbers from 0 to {GROUPS - 1}")
    counts = torch.bincount(groups, minlength=GROUPS)
    if not counts.all():
        absent = ", ".join(str(group) for group in (counts == 0).nonzero().flatten().tolist())
        raise ValueError(f"groups must each have an image, and lack: {absent}")
    return torch.bincount(groups, weights=wrong.double(), minlength=GROUPS) / counts


def weighted_error(wrong: Tensor, groups: Tensor, weights: Tensor) -> float:
    """The error if the groups had the shares `weights` (4,): with those of training, what the paper reports
    (Appendix B). Raises ValueError as `group_errors`, and where `weights` are no shares."""
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.shape != (GROUPS,) or not (weights >= 0).all() or abs(float(weights.sum()) - 1) > 1e-6:
        raise ValueError(f"weights must be {GROUPS} shares that add up to 1, not {weights.tolist()}")
    errors = group_errors(wrong, groups)
    return float(errors @ weights.to(errors.device))


def worst_group_error(wrong: Tensor, groups: Tensor) -> float:
    """The largest of the groups' errors. Raises ValueError as `group_errors`."""
    return float(group_errors(wrong, groups).max())


def state(name: str, root: Path | str | None = None, decode: bool = False) -> tuple[str, str]:
    """(complete, reduced, damaged or missing; one line of detail) of the set `name`.

    Tables are read and every file is looked for; images are decoded where `decode` is true.
    """
    root = sources.data_root(root)
    if not available(name, root):
        how = f"get it with: {sources.command(name, root)}"
        return "missing", how if SETS[name].archive else NO_ARCHIVE
    try:
        table = annotations.read(name, root)
        cache.fingerprint(name, table.folder, table.files)
        if decode:
            cache.check_images(name, table.folder, table.files)
    except DataError as error:
        return "damaged", str(error)
    _, counts = _groups(table)
    detail = ", ".join(f"{count:,} {split}" for count, split in zip(counts.sum(1), SPLIT_NAMES)) + " images"
    if others := annotations.unnamed(table):
        detail += f"; {others:,} more that no table names"
    official = np.array(SETS[name].counts)
    if (counts == official).all():
        return "complete", detail
    if (counts.sum(1) == official.sum(1)).all():
        return "damaged", f"{detail}, but other numbers in the groups than the official ones"
    return "reduced", detail


def download(name: str, root: Path | str | None = None) -> None:
    """Get the set `name` into the data root.

    Raises DataError, which says what to do by hand, where it cannot be had.
    """
    sources.check_choice("name", name, NAMES)
    if SETS[name].archive is None:
        raise DataError(f"{name}: {NO_ARCHIVE}")
    archives.get(name, SETS[name].archive, sources.data_root(root))


def _groups(table: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """The group of each image (n,), and the number of images of each split and group (3, 4)."""
    group = 2 * table.label + table.other
    counts = np.bincount(GROUPS * table.split + group, minlength=annotations.SPLITS * GROUPS)
    return group, counts.reshape(annotations.SPLITS, GROUPS)


def _balanced(rows: np.ndarray, group: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Shuffled rows: `count` of each group, drawn at random."""
    drawn = [random.permutation(rows[group[rows] == kind])[:count] for kind in range(GROUPS)]
    return random.permutation(np.concatenate(drawn))
