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

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from lib.data import archives, cache, sources
from lib.data.archives import Archive
from lib.data.sources import DataError

VALIDATION_SHARE = 0.1  # of the training domains ("10% of the training dataset", Appendix F.2)
TEST_SHARE = 0.2  # of each class of the target


@dataclass(frozen=True)
class Benchmark:
    """A set of domains; its folder has the name of the archive's target."""

    domains: Mapping[str, str]  # the letter that the paper gives a domain: the domain's folder
    counts: tuple[int, ...]  # images of each domain in a complete set
    classes: int
    archive: Archive


DRIVE = "https://drive.google.com/uc?id="  # with the file numbers of DomainBed's download script
BENCHMARKS = {
    "pacs": Benchmark(
        {"A": "art_painting", "C": "cartoon", "P": "photo", "S": "sketch"},
        (2048, 2344, 1670, 3929),
        7,
        Archive("PACS.zip", "kfold", "PACS", f"{DRIVE}1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"),
    ),
    "vlcs": Benchmark(
        {"C": "Caltech101", "L": "LabelMe", "S": "SUN09", "V": "VOC2007"},
        (1415, 2656, 3282, 3376),
        5,
        Archive("VLCS.tar.gz", "VLCS", "VLCS", f"{DRIVE}1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"),
    ),
    "office_home": Benchmark(
        {"A": "Art", "C": "Clipart", "P": "Product", "R": "Real World"},
        (2427, 4365, 4439, 4357),
        65,
        Archive(
            "office_home.zip", "OfficeHomeDataset_10072016", "office_home", f"{DRIVE}1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"
        ),
    ),
}
NAMES = tuple(BENCHMARKS)


@dataclass(frozen=True, eq=False)
class DomainSplit:
    """n images of one or more domains."""

    images: Tensor  # uint8 (n, 3, size, size), channels last in memory
    labels: Tensor  # int64 (n,): the class
    domains: Tensor  # int64 (n,): position in the set's `domains`

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DomainSet:
    """A benchmark with one of its domains as the target."""

    name: str
    target: str
    domains: tuple[str, ...]  # the paper's letters, the target among them
    classes: int
    class_names: tuple[str, ...]
    train: DomainSplit  # all domains but the target
    validation: DomainSplit  # of the same domains
    target_train: DomainSplit  # for the linear probe
    target_test: DomainSplit


@dataclass(frozen=True, eq=False)
class _Listing:
    """What the folders hold, in the order of domain, class and name."""

    folder: Path
    files: tuple[str, ...]  # n names relative to `folder`
    domain: np.ndarray  # int64 (n,)
    label: np.ndarray  # int64 (n,)
    class_names: tuple[str, ...]


def available(benchmark: str, root: Path | str | None = None) -> bool:
    """Whether the data root has a folder for `benchmark` (one of NAMES); files may still be damaged."""
    return _folder(benchmark, sources.data_root(root)).is_dir()


def load(benchmark: str, target: str, size: int, seed: int = 0, root: Path | str | None = None) -> DomainSet:
    """The set `benchmark` (one of NAMES) with the domain `target`, a letter of the paper's Table 2, held out.

    Images have `size` by `size` pixels; `seed` draws the splits, and gives the same ones on every machine.
    Raises ValueError on a wrong argument, and MissingData or DataError, in one line, where files are missing
    or damaged or the classes of the domains differ.
    """
    sources.check_choice("benchmark", benchmark, NAMES)
    domains = tuple(BENCHMARKS[benchmark].domains)
    sources.check_choice("target", target, domains)
    cache.check_size(size)
    sources.check_seed(seed)
    listing = _list(benchmark, sources.data_root(root))
    is_target = listing.domain == domains.index(target)
    train_random, target_random = np.random.default_rng(seed).spawn(2)
    rows = train_random.permutation(np.flatnonzero(~is_target))
    held_out = max(1, round(VALIDATION_SHARE * len(rows)))
    target_train, target_test = [], []
    for label in range(len(listing.class_names)):
        of_class = target_random.permutation(np.flatnonzero(is_target & (listing.label == label)))
        if len(of_class) < 2:
            raise DataError(
                f"{benchmark}: the domain {target} must have two or more images of each class, "
                f"and has {len(of_class)} of {listing.class_names[label]}"
            )
        tests = max(1, round(TEST_SHARE * len(of_class)))
        target_test.append(of_class[:tests])
        target_train.append(of_class[tests:])
    images = cache.decoded(benchmark, listing.folder, listing.files, size)

    def split_of(rows: np.ndarray) -> DomainSplit:
        rows = np.sort(rows)  # in the order in which they lie on the disk
        return DomainSplit(
            images[rows], *(torch.from_numpy(column[rows]) for column in (listing.label, listing.domain))
        )

    return DomainSet(
        benchmark,
        target,
        domains,
        len(listing.class_names),
        listing.class_names,
        train=split_of(rows[held_out:]),
        validation=split_of(rows[:held_out]),
        target_train=split_of(np.concatenate(target_train)),
        target_test=split_of(np.concatenate(target_test)),
    )


def state(benchmark: str, root: Path | str | None = None, decode: bool = False) -> tuple[str, str]:
    """(complete, reduced, damaged or missing; one line of detail) of the set `benchmark`.

    Folders are listed; images are decoded where `decode` is true.
    """
    root = sources.data_root(root)
    if not available(benchmark, root):
        return "missing", f"get it with: {sources.command(benchmark, root)}"
    try:
        listing = _list(benchmark, root)
        cache.fingerprint(benchmark, listing.folder, listing.files)
        if decode:
            cache.check_images(benchmark, listing.folder, listing.files)
    except DataError as error:
        return "damaged", str(error)
    complete = BENCHMARKS[benchmark]
    counts = np.bincount(listing.domain).tolist()
    detail = ", ".join(f"{count:,} {domain}" for count, domain in zip(counts, complete.domains.values()))
    same = counts == list(complete.counts) and len(listing.class_names) == complete.classes
    return "complete" if same else "reduced", f"{detail} images of {len(listing.class_names)} classes"


def download(benchmark: str, root: Path | str | None = None) -> None:
    """Unpack the archive of the set `benchmark` that lies in the data root.

    Raises DataError, which says where to get it by hand, where there is none.
    """
    sources.check_choice("benchmark", benchmark, NAMES)
    archives.get(benchmark, BENCHMARKS[benchmark].archive, sources.data_root(root))


def _folder(benchmark: str, root: Path) -> Path:
    sources.check_choice("benchmark", benchmark, NAMES)
    return root / BENCHMARKS[benchmark].archive.target


def _list(benchmark: str, root: Path) -> _Listing:
    """The images in the folders, by name; what is no image, or hidden, is passed over.

    Raises MissingData or DataError where a domain or a class is missing or empty, or classes differ.
    """
    folder = _folder(benchmark, root)
    files, domain, label, classes = [], [], [], None
    for number, (letter, domain_folder) in enumerate(BENCHMARKS[benchmark].domains.items()):
        places = [folder / name for name in (domain_folder, domain_folder.replace(" ", "_"), letter)]
        place = next(filter(Path.is_dir, places), None)
        if place is None:
            raise sources.missing(benchmark, places[0], root)
        found = tuple(sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")))
        classes = classes or found
        if odd := sorted(set(found) ^ set(classes)):
            raise sources.damaged(
                benchmark, place, f"and the domains before it do not share the classes {', '.join(odd)}", root
            )
        if not found:
            raise sources.damaged(benchmark, place, "has no folder of a class", root)
        for position, kind in enumerate(found):
            images = sorted(
                path.name
                for path in (place / kind).iterdir()
                if path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")
            )
            if not images:
                raise sources.damaged(benchmark, place / kind, "has no image", root)
            files += [f"{place.name}/{kind}/{image}" for image in images]
            domain += [number] * len(images)
            label += [position] * len(images)
    return _Listing(folder, tuple(files), np.array(domain), np.array(label), classes)
