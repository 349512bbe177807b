"""A pair of one's own, in the few lines that chapter 7 gives."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from images import marked
from PIL import Image

from book.protocols import Protocol, computed
from book.real_data import probing_errors
from lib.data.dataset import Split
from lib.data.pairs import Pair, Part
from lib.data.readers import read_folder
from lib.trials.images import paired
from lib.trials.store import Store
from lib.trials.trial import Place


def write_folder(folder, labelled: Split) -> None:
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

    def arrays(count: int, seed: int) -> Split:
        random = np.random.default_rng(seed)
        labels = random.permutation(np.repeat([0, 1], count))
        images = random.integers(0, 60, (2 * count, 28, 28))
        images[labels == 0, ::4] += 90
        images[labels == 1, :, ::4] += 90
        return Split.of(images.astype(np.uint8), labels)

    return Part("stripe", arrays(20, 0), arrays(16, 1))


def test_two_parts_are_paired_trained_on_probed_and_tabled_like_the_papers(shades, stripes, tmp_path):
    own = paired(Pair("stripes-shades", (stripes, shades)), "sgd", epochs=2, batch_size=10)
    protocol = Protocol(own, rates=(0.05,), radii=(0.05,), lsam=True)
    result = computed(protocol, Store(tmp_path / "results"), Place(device="cpu", checkpoints=None), seeds=2)
    assert set(result.features) == {"stripe", "shade"} and result.title == "stripes-shades"
    assert set(result.table.method) == {"untrained", "sgd", "sam", "lsam"} and set(result.table.seed) == {0, 1}
    assert len(probing_errors([result]).axes) == 4
    plt.close("all")
