"""DomainBed's sets of several domains: PACS, VLCS and OfficeHome (Appendix F).

A net is trained on all domains but one, the target. Nine in ten of their images train it, and one in ten,
drawn at random, is for validation. The target's images are split at random within each class, four in five to
train a linear probe and one in five to test it, the shares that DomainBed itself uses (Gulrajani and
Lopez-Paz, 2021). In the set's folder (`lib.data.root.LAYOUTS`) each domain is a folder with one folder a class; it
may also have the paper's letter for a name, or _ in the place of a blank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import check
from lib.data import cache
from lib.data.cache import ImageFiles
from lib.data.dataset import Dataset, Source, Split, rows_of_each
from lib.data.root import DataError, Root, class_images, first_of, need, reading

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


@dataclass(frozen=True)
class Domains(Source):
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
        return f"{self.benchmark} without {self.target}"

    @property
    def configuration(self) -> dict[str, Any]:
        return {"experiment": "domains", "benchmark": self.benchmark, "target": self.target}

    @property
    def files(self) -> tuple[str, ...]:
        return (self.benchmark,)

    def load(self, seed: int = 0, size: int | None = None, root: Root = None) -> Dataset:
        """See `Source`; classes that differ over the domains, or too few images of one, are a DataError."""
        check.whole("seed", seed)
        size = cache.check_size(size)
        files, classes = _read(self.benchmark, root)
        label = files.table["label"].to_numpy(copy=True)
        is_target = files.table["domain"].to_numpy() == list(BENCHMARKS[self.benchmark].domains).index(self.target)
        train_random, target_random = np.random.default_rng(seed).spawn(2)
        others = train_random.permutation(np.flatnonzero(~is_target))
        held_out = max(1, round(VALIDATION_SHARE * len(others)))
        tests, probes = [], []
        for name, rows in zip(classes, rows_of_each(label, len(classes), np.flatnonzero(is_target))):
            if len(rows) < 2:
                problem = f"must have two or more images of each class, and has {len(rows)} of {name}"
                raise DataError(f"{self.benchmark}: the domain {self.target} {problem}")
            shuffled, count = target_random.permutation(rows), max(1, round(TEST_SHARE * len(rows)))
            tests.append(shuffled[:count])
            probes.append(shuffled[count:])
        labels = torch.from_numpy(label)
        everything = Split(files.decoded(size), labels, {ATTRIBUTE: labels})
        chosen = others[held_out:], others[:held_out], np.concatenate(probes), np.concatenate(tests)
        # In the order in which they lie on the disk.
        train, validation, probe_train, test = (everything.take(np.sort(rows)) for rows in chosen)
        return Dataset(self.name, {ATTRIBUTE: classes}, len(classes), train, validation, test, probe_train, test)

    def fingerprint(self, root: Root = None) -> str:
        return _read(self.benchmark, root)[0].contents()


def describe(name: str, root: Root = None) -> tuple[bool, str, ImageFiles]:
    """Whether the benchmark `name` is complete, one line of detail, and its images; raises as `Domains.load`."""
    (images, classes), official = _read(name, root), BENCHMARKS[name]
    counts = np.bincount(images.table["domain"]).tolist()
    detail = ", ".join(f"{count:,} {domain}" for count, domain in zip(counts, official.domains.values()))
    complete = counts == list(official.counts) and len(classes) == official.classes
    return complete, f"{detail} images of {len(classes)} classes", images


def _read(benchmark: str, root: Root) -> tuple[ImageFiles, tuple[str, ...]]:
    """The images with domain and label, numbers, in the order of these, and the classes' names. Raises MissingData or
    DataError where a domain is missing or empty, or classes differ."""
    with reading(benchmark, root):
        folder = need(benchmark, root)
        names = BENCHMARKS[benchmark].domains.items()
        sides = [first_of(folder, domain, domain.replace(" ", "_"), letter) for letter, domain in names]
        rows = class_images(*sides)
    classes = tuple(dict.fromkeys(kind for _, kind, _ in rows))
    found = [(path.relative_to(folder).as_posix(), side, classes.index(kind)) for path, kind, side in rows]
    table = pd.DataFrame(found, columns=["file", "domain", "label"]).set_index("file")
    return ImageFiles(benchmark, folder, table, root), classes
