"""Tiny image data sets in the official layouts, every image carrying its identity in its first pixels."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from lib.data.dataset import Split
from lib.data.readers import CLASSES


def marked(counts: dict[int, int], side: int, channels: int, seed: int = 0) -> Split:
    """`counts[label]` images a class, shuffled: bright by class, noisy, and numbered (see `identity`)."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(list(counts), list(counts.values())))
    images = random.integers(0, 40, (len(labels), channels, side, side)) + 20 * labels[:, None, None, None]
    index = np.arange(len(labels))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = index // 256, index % 256
    return Split.of(images.astype(np.uint8), labels)


def identity(images: torch.Tensor, side: int, top: int = 0) -> np.ndarray:
    """The numbers that `marked` wrote, of images of `side` padded to 32 pixels that begin at row `top`."""
    margin = (32 - side) // 2
    corner = images[:, 0, top + margin, margin : margin + 2].numpy().astype(int)
    return corner[:, 0] * 256 + corner[:, 1]


def write_idx(path: Path, items: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, items.ndim]) + np.array(items.shape, ">u4").tobytes()
    path.write_bytes(header + items.astype(np.uint8).tobytes())


def write_mnist(
    root: Path, folder: str = "MNIST", train: int = 20, test: int = 12, classes: int = 10, seed: int = 1
) -> None:
    """`train` and `test` images a class in idx files; `folder` is MNIST or FashionMNIST."""
    for number, (prefix, count) in enumerate((("train", train), ("t10k", test))):
        part = marked(dict.fromkeys(range(classes), count), 28, 1, seed + number)
        write_idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", part.images[:, 0].numpy())
        write_idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", part.labels.numpy())


def write_cifar_folder(root: Path, train: int = 20, test: int = 12, classes: int = 2, seed: int = 5) -> None:
    """`train` and `test` images a class as PNG files under ``cifar10/{train,test}/{class}``."""
    for number, (split, count) in enumerate((("train", train), ("test", test))):
        part = marked(dict.fromkeys(range(classes), count), 32, 3, seed + number)
        for index, (image, label) in enumerate(zip(part.images, part.labels)):
            path = root / "cifar10" / split / CLASSES["cifar10"][label] / f"image_{index:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def write_cifar_archive(
    root: Path, monkeypatch, train: int = 20, test: int = 12, classes: int = 10, seed: int = 5
) -> None:
    """The same images in the unpacked archive's layout; `monkeypatch` tells torchvision their checksums."""
    folder = root / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, (kind, file, count) in enumerate((("train", "data_batch_1", train), ("test", "test_batch", test))):
        part = marked(dict.fromkeys(range(classes), count), 32, 3, seed + number)
        content = pickle.dumps({"data": part.images.flatten(1).numpy(), "labels": part.labels.tolist()})
        (folder / file).write_bytes(content)
        monkeypatch.setattr(datasets.CIFAR10, f"{kind}_list", [[file, hashlib.md5(content).hexdigest()]])
