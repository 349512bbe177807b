"""DomainBed's sets of several domains: PACS, VLCS and OfficeHome (Appendix F).

A net is trained on all domains but one, the target. Nine in ten of their images train it, and one in ten,
drawn at random, is for validation. The target's images are split at random within each class, four in five to
train a linear probe and one in five to test it, the shares that DomainBed itself uses (Gulrajani and
Lopez-Paz, 2021). In the set's folder (`lib.data.root.LAYOUTS`) each domain is a folder with one folder a class; it
may also have the paper's letter for a name, or _ in the place of a blank.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lib import check
from lib.data.cache import ImageFiles
from lib.data.dataset import Dataset, Source, Split, rows_of_each
from lib.data.root import DataError, Root, class_images, first_of, need, reading

VALIDATION_SHARE = 0.1  # of the training domains ("10% of the training dataset", Appendix F.2)
TEST_SHARE = 0.2  # of each class of the target


BENCHMARKS = {  # the letter that the paper gives a domain: the domain's folder
    "pacs": {"A": "art_painting", "C": "cartoon", "P": "photo", "S": "sketch"},
    "vlcs": {"C": "Caltech101", "L": "LabelMe", "S": "SUN09", "V": "VOC2007"},
    "office_home": {"A": "Art", "C": "Clipart", "P": "Product", "R": "Real World"},
}
COUNTS = {  # images of each domain in a complete set
    "pacs": (2048, 2344, 1670, 3929),
    "vlcs": (1415, 2656, 3282, 3376),
    "office_home": (2427, 4365, 4439, 4357),
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
        check.choice("target", self.target, BENCHMARKS[check.choice("benchmark", self.benchmark, BENCHMARKS)])
        configuration = {"experiment": "domains", "benchmark": self.benchmark, "target": self.target}
        name = f"{self.benchmark} without {self.target}"
        self._set(name=name, configuration=configuration, files=(self.benchmark,))

    def _read(self, root: Root) -> ImageFiles:
        return read(self.benchmark, root)

    def _made(self, images: ImageFiles, seed: int, size: int) -> Dataset:
        classes = tuple(dict.fromkeys(file.split("/")[-2] for file in images.table.index))
        label = images.table["label"].to_numpy(copy=True)
        is_target = images.table["domain"].to_numpy() == list(BENCHMARKS[self.benchmark]).index(self.target)
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
        everything = Split(images.decoded(size), labels, {"class": labels})
        chosen = others[held_out:], others[:held_out], np.concatenate(probes), np.concatenate(tests)
        # In the order in which they lie on the disk.
        train, validation, probe_train, test = (everything.take(np.sort(rows)) for rows in chosen)
        return Dataset(self.name, {"class": classes}, len(classes), train, validation, test, probe_train, test)


def read(benchmark: str, root: Root = None) -> ImageFiles:
    """The images with the numbers of their domain and label, in the order of these. Raises MissingData or DataError
    where a domain is missing or empty, or classes differ."""
    with reading(benchmark, root):
        folder, names = need(benchmark, root), BENCHMARKS[benchmark].items()
        sides = [first_of(folder, domain, domain.replace(" ", "_"), letter) for letter, domain in names]
        rows = class_images(*sides)
    found = [(path.relative_to(folder).as_posix(), domain, kind) for path, kind, domain in rows]
    table = pd.DataFrame(found, columns=["file", "domain", "label"]).set_index("file")
    return ImageFiles(benchmark, folder, table.assign(label=pd.factorize(table["label"])[0]), root)
