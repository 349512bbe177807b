"""Tiny trees of real JPEG files in the official layouts of Waterbirds, CelebA and DomainBed's sets.

Every image of a tree has one colour, which is its number (see `numbers`), so that it can be known again.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lib.data.domains import BENCHMARKS
from lib.data.root import LAYOUTS

LEVELS = 8  # of each of three channels: far enough apart to outlast JPEG
# (split, label, other attribute): images. Correlated in training, the rarest group first to run out.
COUNTS = dict(zip(product(range(3), range(2), range(2)), (20, 3, 2, 11, 9, 8, 4, 6, 10, 10, 5, 7)))
CELEBA_HEADER = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Young")


def write_image(path: Path, number: int, width: int = 11, height: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(16 + 32 * (number // LEVELS**place % LEVELS) for place in range(3))
    Image.new("RGB", (width, height), colour).save(path, "JPEG", quality=100, subsampling=0)


def numbers(images: torch.Tensor) -> list[int]:
    """The numbers of images (n, 3, height, width)."""
    middle = images[:, :, images.shape[2] // 2, images.shape[3] // 2].numpy().astype(int)
    return (((middle - 16) / 32).round() @ [1, LEVELS, LEVELS**2]).astype(int).tolist()


def rows_of(counts: Mapping[tuple[int, int, int], int] = COUNTS, seed: int = 0) -> np.ndarray:
    """(split, label, other attribute) of each image, shuffled as in the official tables."""
    rows = np.repeat(list(counts), list(counts.values()), axis=0)
    return np.random.default_rng(seed).permutation(rows)


def write_birds(
    root: Path, folder: str = "waterbird_complete95_forest2water2", counts: Mapping[tuple[int, int, int], int] = COUNTS
) -> list[Path]:
    """Waterbirds as its authors (or WILDS) leave it; returns the images by number."""
    lines, paths = ["img_id,img_filename,y,split,place,place_filename"], []
    for number, (split, label, place) in enumerate(rows_of(counts)):
        kind = f"{number % 5:03}.Kind_{number % 5}"
        file = f"{kind}/Kind_{number:04}.jpg"
        lines.append(f"{number},{file},{label},{split},{place},/o/ocean/{number:08}.jpg")
        paths.append(root / folder / file)
        write_image(paths[-1], number)
    (root / folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return paths


def write_celeba(
    root: Path,
    counts: Mapping[tuple[int, int, int], int] = COUNTS,
    kaggle: bool = False,
    nested: bool = False,
    folder: str = "celeba",
) -> list[Path]:
    """CelebA with the official text files, or with Kaggle's; returns the images by number."""
    place, rows = root / folder, rows_of(counts)
    images = place / "img_align_celeba" / ("img_align_celeba" if nested else "")
    names = [f"{number + 1:06}.jpg" for number in range(len(rows))]
    for number, name in enumerate(names):
        write_image(images / name, number)
    attributes = [[name, "-1", str(2 * hair - 1), str(2 * sex - 1), "1"] for name, (_, hair, sex) in zip(names, rows)]
    partition = [[name, str(row[0])] for name, row in zip(names, rows)]
    if kaggle:
        tables = ("csv", ",", ["image_id," + ",".join(CELEBA_HEADER)], ["image_id,partition"])
    else:
        tables = ("txt", " ", [str(len(rows)), " ".join(CELEBA_HEADER) + " "], [])
    kind, blank, *heads = tables
    for name, head, table in zip(("list_attr_celeba", "list_eval_partition"), heads, (attributes, partition)):
        lines = [blank.join(row) for row in table]
        (place / f"{name}.{kind}").write_text("\n".join([*head, *lines]) + "\n")
    return [images / name for name in names]


def write_domains(
    root: Path,
    benchmark: str = "pacs",
    classes: tuple[str, ...] = ("dog", "house", "person"),
    images: int = 10,
    folders: tuple[str, ...] | None = None,
) -> dict[int, tuple[int, int]]:
    """A benchmark with `images` images of each class in each domain and one more of the first class.

    Returns (domain, class) by number.
    """
    folder = next(iter(LAYOUTS[benchmark]))
    made: dict[int, tuple[int, int]] = {}
    for domain, place in enumerate(folders or BENCHMARKS[benchmark].values()):
        for label, kind in enumerate(classes):
            for _ in range(images + (label == 0)):
                write_image(root / folder / place / kind / f"pic_{len(made):03}.jpg", len(made))
                made[len(made)] = domain, label
    return made


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place in a text file that reads `old`."""
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, hidden ones too, and its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
