"""DomainBed's sets of several domains: PACS, VLCS and OfficeHome (Appendix F).

A net is trained on all domains but one, the target. Nine in ten of their images train it, and one in ten,
drawn at random, is for validation. The target's images are split at random within each class, four in five to
train a linear probe and one in five to test it, the shares that DomainBed itself uses (Gulrajani and
Lopez-Paz, 2021). Under the data root, in the folders that DomainBed's own script leaves::

    PACS/{art_painting,cartoon,photo,sketch}/{dog,...}/*
    VLCS/{Caltech101,LabelMe,SUN09,VOC2007}/{bird,...}/*
    office_home/{Art,Clipart,Product,Real World}/{Alarm_Clock,...}/*

A domain's folder may also have the paper's letter for a name, or _ in the place of a blank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import check
from lib.data import cache
from lib.data.dataset import Dataset, Split, rows_of_each
from lib.data.root import DataError, Root, class_images, damaged, lacking, missing, need, remembered

ATTRIBUTE = "class"  # the one attribute
VALIDATION_SHARE = 0.1  # of the training domains ("10% of the training dataset", Appendix F.2)
TEST_SHARE = 0.2  # of each class of the target


@dataclass(frozen=True)
class Benchmark:
    """A set of domains."""

    domains: Mapping[str, str]  # the letter that the paper gives a domain: the domain's folder
    counts: tuple[int, ...]  # images of each domain in a complete set
    classes: int


BENCHMARKS = {
    "pacs": Benchmark(
        {"A": "art_painting", "C": "cartoon", "P": "photo", "S": "sketch"}, (2048, 2344, 1670, 3929), classes=7
    ),
    "vlcs": Benchmark(
        {"C": "Caltech101", "L": "LabelMe", "S": "SUN09", "V": "VOC2007"}, (1415, 2656, 3282, 3376), classes=5
    ),
    "office_home": Benchmark(
        {"A": "Art", "C": "Clipart", "P": "Product", "R": "Real World"}, (2427, 4365, 4439, 4357), classes=65
    ),
}
NAMES = tuple(BENCHMARKS)


@dataclass(frozen=True)
class Domains:
    """The source of a benchmark (one of BENCHMARKS) without the domain `target`, a letter of the paper's Table 2.

    The label is the class, and the one attribute; `test` and `probe_test` are the target's test images,
    `probe_train` are its others. Raises ValueError for a value that is not allowed.
    """

    benchmark: str
    target: str

    def __post_init__(self) -> None:
        check.choice("target", self.target, BENCHMARKS[check.choice("benchmark", self.benchmark, BENCHMARKS)].domains)

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"{self.benchmark} without {self.target}"

    @property
    def configuration(self) -> dict[str, Any]:
        """See `Source`."""
        return {"experiment": "domains", "benchmark": self.benchmark, "target": self.target}

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """See `Source`; classes that differ over the domains, or too few images of one, are a DataError."""
        check.whole("seed", seed)
        size = cache.check_size(size)
        folder, table, classes = _list(self.benchmark, root)
        is_target = table["domain"].to_numpy() == list(BENCHMARKS[self.benchmark].domains).index(self.target)
        train_random, target_random = np.random.default_rng(seed).spawn(2)
        others = train_random.permutation(np.flatnonzero(~is_target))
        held_out = max(1, round(VALIDATION_SHARE * len(others)))
        tests, probes = [], []
        for name, rows in zip(
            classes, rows_of_each(table["label"].to_numpy(), len(classes), np.flatnonzero(is_target))
        ):
            if len(rows) < 2:
                problem = f"must have two or more images of each class, and has {len(rows)} of {name}"
                raise DataError(f"{self.benchmark}: the domain {self.target} {problem}")
            shuffled, count = target_random.permutation(rows), max(1, round(TEST_SHARE * len(rows)))
            tests.append(shuffled[:count])
            probes.append(shuffled[count:])
        labels = torch.tensor(table["label"].to_numpy())
        images = cache.decoded(self.benchmark, folder, list(table.index), size)
        everything = Split(images, labels, {ATTRIBUTE: labels})
        chosen = others[held_out:], others[:held_out], np.concatenate(probes), np.concatenate(tests)
        # In the order in which they lie on the disk.
        train, validation, probe_train, test = (everything.take(np.sort(rows)) for rows in chosen)
        return Dataset(self.name, {ATTRIBUTE: classes}, len(classes), train, validation, test, probe_train, test)

    def fingerprint(self, root: Root = None) -> str:
        """See `Source`; that of the whole benchmark."""
        read = partial(_list, self.benchmark, root)
        return remembered(self.benchmark, [self.benchmark], root, lambda: cache.contents(self.benchmark, *read()[:2]))

    def lacks(self, root: Root = None) -> str | None:
        """See `Source`."""
        return lacking([self.benchmark], root)


def describe(name: str, root: Root = None) -> tuple[str, str, Path, Sequence[str]]:
    """Complete or reduced; one line of detail; the folder of the benchmark `name` and its images' names in it.

    Raises MissingData or DataError as `Domains.load`.
    """
    (folder, table, classes), official = _list(name, root), BENCHMARKS[name]
    counts = np.bincount(table["domain"]).tolist()
    detail = ", ".join(f"{count:,} {domain}" for count, domain in zip(counts, official.domains.values()))
    complete = counts == list(official.counts) and len(classes) == official.classes
    detail += f" images of {len(classes)} classes"
    return "complete" if complete else "reduced", detail, folder, list(table.index)


def _list(benchmark: str, root: Root) -> tuple[Path, pd.DataFrame, tuple[str, ...]]:
    """The folder; its images by their names in it, with domain and label, numbers, in the order of these; the
    classes' names. What is no image, or hidden, is passed over.

    Raises MissingData or DataError where a domain is missing or empty, or classes differ.
    """
    folder, rows = need(benchmark, root), []
    classes: tuple[str, ...] = ()
    for number, (letter, domain) in enumerate(BENCHMARKS[benchmark].domains.items()):
        places = [folder / name for name in (domain, domain.replace(" ", "_"), letter)]
        place = next(filter(Path.is_dir, places), None)
        if place is None:
            raise missing(benchmark, places[0], root)
        found = class_images(place)
        classes = classes or tuple(found)
        if odd := sorted(set(found) ^ set(classes)):
            problem = f"and the domains before it do not share the classes {', '.join(odd)}"
            raise damaged(benchmark, place, problem, root)
        if not found:
            raise damaged(benchmark, place, "has no folder of images of a class", root)
        for label, (kind, images) in enumerate(found.items()):
            rows += [(f"{place.name}/{kind}/{image.name}", number, label) for image in images]
    return folder, pd.DataFrame(rows, columns=["file", "domain", "label"]).set_index("file"), classes
