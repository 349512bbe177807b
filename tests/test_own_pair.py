"""A pair of one's own, in the few lines that chapter 7 gives."""

from __future__ import annotations

import numpy as np
import pytest
from images import marked
from PIL import Image

from book.real_data_table import easy_and_hard, table
from book.real_data_table1 import comparison, one_setting
from lib.data import pairs
from lib.data.pairs import Part
from lib.data.sources import DataError, Labelled, read_folder
from lib.trials import run
from lib.trials.images import ImageTrial
from lib.trials.store import Store
from lib.trials.trial import Place


@pytest.fixture(autouse=True)
def no_own_sets_afterwards(monkeypatch):
    monkeypatch.setattr(pairs, "_own", {})


def write_folder(folder, labelled: Labelled) -> None:
    """One folder a class, named so that their order is that of the classes."""
    for number, (image, label) in enumerate(zip(labelled.images.numpy(), labelled.labels)):
        path = folder / f"kind {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)


@pytest.fixture
def shades(tmp_path):
    """Noisy images whose brightness is their class, in folders."""
    for split, count in (("train", 20), ("test", 16)):
        write_folder(tmp_path / "shades" / split, marked({0: count, 1: count}, 32, 3, seed=count))
    return Part("shade", read_folder(tmp_path / "shades/train"), read_folder(tmp_path / "shades/test"))


@pytest.fixture
def stripes():
    """Noisy grey arrays with horizontal stripes in class 0 and vertical ones in class 1."""

    def arrays(count: int, seed: int) -> Labelled:
        random = np.random.default_rng(seed)
        labels = random.permutation(np.repeat([0, 1], count))
        images = random.integers(0, 60, (2 * count, 28, 28))
        images[labels == 0, ::4] += 90
        images[labels == 1, :, ::4] += 90
        return Labelled(images.astype(np.uint8), labels)

    return Part("stripe", arrays(20, 0), arrays(16, 1))


def test_two_parts_are_paired_trained_on_probed_and_tabled_like_the_papers(shades, stripes, tmp_path):
    pairs.add("stripes-shades", stripes, shades)
    trials = comparison(one_setting("stripes-shades", lr=0.05, rho=0.05, epochs=2, batch_size=10), seeds=2)
    records = run(trials, Store(tmp_path / "results"), Place(device="cpu", checkpoints=None))
    rows = table(records)
    assert set(easy_and_hard(rows, "stripes-shades")) == {"stripe", "shade"}
    assert set(rows.method) == {"untrained", "sgd", "sam", "lsam"} and set(rows.seed) == {0, 1}


def test_record_of_an_own_pair_is_named_by_its_images_too(shades, stripes):
    pairs.add("stripes-shades", stripes, shades)
    first = ImageTrial("stripes-shades", "sgd", epochs=1)
    identity = first.identity
    pairs.add(
        "stripes-shades", stripes, Part("shade", shades.train, Labelled(255 - shades.test.images, shades.test.labels))
    )
    assert first.identity != identity
    assert pairs.fingerprint("cifar-mnist") is None, "the paper's sets are named by name alone"


def test_own_pair_must_not_take_a_name_of_the_papers_nor_be_impossible_to_pair(shades, stripes):
    with pytest.raises(ValueError, match="name must be none of cifar-mnist, fmnist-mnist, not 'cifar-mnist'"):
        pairs.add("cifar-mnist", stripes, shades)
    with pytest.raises(ValueError, match="different attributes"):
        pairs.add("shades", shades, shades)
    with pytest.raises(ValueError, match="name must be one of cifar-mnist, fmnist-mnist, not 'shades'"):
        pairs.load("shades")


def test_folder_is_read_by_class_in_colour_and_in_one_size(tmp_path):
    for kind, colour, size in (("b", (0, 200, 0), (32, 32)), ("a", (200, 0, 0), (50, 40))):
        path = tmp_path / kind / f"{kind}.JPEG"
        path.parent.mkdir()
        Image.new("RGB", size, colour).save(path, quality=95)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    labelled = read_folder(tmp_path, side=16)
    assert labelled.images.shape == (2, 3, 16, 16) and labelled.labels.tolist() == [0, 1]
    assert labelled.images[0, 0].float().mean() > 190 > 60 > labelled.images[0, 1].float().mean()


def test_folder_without_images_or_with_a_damaged_one_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere must hold one folder of images a class"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="cut.png is not a whole image file"):
        read_folder(tmp_path)
