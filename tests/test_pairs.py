import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from images import identity, marked, write_cifar_folder, write_mnist

from lib.data import pairs
from lib.data.dataset import Dataset, Split
from lib.data.pairs import PAIRED_SETS, Pair, Part
from lib.data.root import DataError, data_root

SPLITS = ("train", "validation", "test", "probe_train", "probe_test")
CORRELATED, BALANCED = SPLITS[:3], SPLITS[3:]
COUNTS = {0: 40, 1: 52, 2: 47}


def parts() -> tuple[Part, Part]:
    """Three classes of unequal size; the two parts differ in size and colour."""
    return (
        Part("upper", marked(COUNTS, 32, 3, 1), marked({0: 23, 1: 30, 2: 27}, 32, 3, 2)),
        Part("lower", marked({0: 60, 1: 30, 2: 50}, 28, 1, 3), marked({0: 30, 1: 25, 2: 40}, 28, 1, 4)),
    )


def make(seed: int = 0) -> Dataset:
    return pairs.pair("made", *parts(), seed)


def identities(split: Split) -> tuple[list[int], list[int]]:
    return identity(split.images, 32).tolist(), identity(split.images, 28, top=32).tolist()


def same(first: Split, second: Split) -> bool:
    return torch.equal(first.images, second.images)


@pytest.fixture(scope="module")
def made() -> Dataset:
    return make()


@pytest.fixture(scope="module")
def made_parts() -> tuple[Part, Part]:
    return parts()


def test_no_image_serves_in_two_places_or_twice_in_a_split(made):
    for part in (0, 1):
        used = [identities(getattr(made, split))[part] for split in SPLITS]
        assert all(len(set(one)) == len(one) for one in used)
        train, validation, test, probe_train, probe_test = map(set, used)
        assert not train & validation and not test & probe_train and probe_test <= test


def test_splits_are_perfectly_correlated_or_hold_every_combination_equally_often(made):
    for split in CORRELATED:
        chosen = getattr(made, split)
        assert all(torch.equal(chosen.labels, values) for values in chosen.attributes.values())
    # The rarest class has 23 test images: 11 in one half and 12 in the other, over three partners.
    for split, count in zip(BALANCED, (3, 4)):
        chosen = getattr(made, split)
        combinations = 3 * chosen.attributes["upper"] + chosen.attributes["lower"]
        assert torch.bincount(combinations, minlength=9).tolist() == [count] * 9


def test_attributes_are_those_of_the_images(made):
    first, second = marked(COUNTS, 32, 3, 1), marked({0: 60, 1: 30, 2: 50}, 28, 1, 3)
    upper, lower = identities(made.train)
    assert torch.equal(made.train.attributes["upper"], first.labels[upper])
    assert torch.equal(made.train.attributes["lower"], second.labels[lower])


def test_first_image_stands_above_the_second_padded_and_grey(made):
    images = made.train.images
    first, second = marked(COUNTS, 32, 3, 1), marked({0: 60, 1: 30, 2: 50}, 28, 1, 3)
    upper, lower = identities(made.train)
    assert images.shape[1:] == (3, 64, 32) and images.dtype == torch.uint8
    assert torch.equal(images[:, :, :32], first.images[upper])
    for channel in range(3):
        assert torch.equal(images[:, channel, 34:62, 2:30], second.images[lower, 0])
    border = images[:, :, 32:].clone()
    border[:, :, 2:30, 2:30] = 0
    assert not border.any()


def test_pairs_match_the_rarer_image_of_each_class_and_split_nine_to_one(made):
    total = 40 + 30 + 47
    assert len(made.train) + len(made.validation) == total
    assert len(made.validation) == round(total / 10)
    assert torch.bincount(made.test.labels).tolist() == [12, 13, 14]  # halves, rounded up, of 23, 25 and 27


def test_same_seed_gives_the_same_set_and_another_seed_another(made):
    again, other = make(0), make(1)
    for split in SPLITS:
        assert same(getattr(made, split), getattr(again, split))
        assert not same(getattr(made, split), getattr(other, split))
        assert len(getattr(made, split)) == len(getattr(other, split))


def test_pairing_within_a_class_and_the_order_are_random(made):
    upper, lower = map(np.array, identities(made.train))
    assert abs(np.corrcoef(upper, lower)[0, 1]) < 0.5
    assert len({tuple(identities(make(seed).train)[1]) for seed in range(5)}) == 5
    for split in SPLITS:
        labels = getattr(made, split).labels
        assert not torch.equal(labels, labels.sort().values)


def test_every_image_is_reachable_in_every_split():
    reached = {split: (set(), set()) for split in SPLITS}
    for seed in range(120):
        chosen = make(seed)
        for split in SPLITS:
            for seen, used in zip(reached[split], identities(getattr(chosen, split))):
                seen.update(used)
    for split in SPLITS:
        expected = (139, 140) if split in ("train", "validation") else (80, 95)
        assert tuple(map(len, reached[split])) == expected, split


def test_mean_pixel_is_that_of_the_training_images(made):
    expected = (made.train.images.double() / 255).mean((0, 2, 3)).float()
    assert made.mean_pixel.dtype == torch.float32
    assert torch.allclose(made.mean_pixel, expected, rtol=0, atol=1e-7)


def test_set_does_not_depend_on_torch_or_numpy_global_state(made):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state()
    assert same(make(0).train, made.train)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_any_two_labelled_arrays_make_a_pair():
    labels = np.arange(40) % 2
    larger = Split.of(np.zeros((40, 40, 36), np.uint8), labels)
    grey = Split.of(np.full((40, 10, 10), 9, np.uint8), labels)
    chosen = pairs.pair("own", Part("a", larger, larger), Part("b", grey, grey))
    assert chosen.train.images.shape == (18 * 2, 3, 80, 40)
    assert (chosen.train.images == 9).sum() == 36 * 3 * 100
    mixed = pairs.pair("own", Part("a", grey, larger), Part("b", grey, grey))
    assert mixed.train.images.shape[1:] == mixed.test.images.shape[1:] == (3, 80, 40)
    small = Part("a", grey, grey), Part("b", grey, grey)
    assert pairs.pair("own", *small).train.images.shape[1:] == (3, 20, 10)
    assert pairs.pair("own", *small, side=32).train.images.shape[1:] == (3, 64, 32)


def test_wrong_parts_are_refused(refuses):
    good = Split.of(np.zeros((12, 8, 8), np.uint8), np.arange(12) % 2)
    of = {
        "one class": Split.of(good.images, np.zeros(12, int)),
        "three": Split.of(good.images, np.arange(12) % 3),
        "few": Split.of(good.images[:4], np.array([0, 0, 0, 1])),
        "gap": Split.of(good.images, np.arange(12) % 2 * 2),
        "none": Split.of(good.images[:0], np.zeros(0, int)),
        "negative": Split.of(good.images, np.arange(12) % 2 - 1),
    }
    part = Part("a", good, good)
    assert len(pairs.pair("x", part, Part("b", good, good)).train) == 11
    refuses(ValueError, pairs.pair, "x", part, part, match="different attributes, not 'a' twice")
    for name, bad in of.items():
        wrong = Part("b", good, bad) if name == "few" else Part("b", bad, good)
        refuses(ValueError, pairs.pair, "x", part, wrong, match="b (training|test) labels must be the classes 0 to 1")
        if name in ("one class", "gap", "none", "negative"):
            refuses(ValueError, pairs.pair, "x", Part("a", bad, bad), Part("b", bad, bad), match="a training labels")


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_wrong_seed_is_refused_before_files_are_touched(seed, tmp_path, refuses):
    refuses(ValueError, Pair("cifar-mnist").load, seed, root=tmp_path, match="seed")


def test_unknown_name_is_refused_and_one_of_the_papers_for_parts_of_ones_own(made_parts, refuses):
    refuses(ValueError, Pair, "mnist-mnist", match="cifar-mnist, .*, not 'mnist-mnist'")
    refuses(ValueError, Pair, "cifar-mnist", made_parts, match="none of cifar-mnist, .*, not 'cifar-mnist'")
    refuses(ValueError, Pair, "x", (made_parts[0],) * 2, match="different attributes")


def test_source_of_ones_own_parts_is_named_by_its_images_too_and_can_be_sent(made_parts, made):
    own = Pair("own", made_parts)
    assert own.lacks("/nowhere") is None and all(same(getattr(own.load(), s), getattr(made, s)) for s in SPLITS)
    assert own.configuration == {"experiment": "own pair", "dataset": "own", "images": "8d18dff192ca80df"}
    sent = pickle.loads(pickle.dumps(own))
    assert sent == own and hash(sent) == hash(own) and same(sent.load().train, made.train)
    upper, lower = made_parts
    changed = replace(lower, test=Split.of(255 - lower.test.images, lower.test.labels))
    assert Pair("own", (upper, changed)) != own
    assert Pair("cifar-mnist").configuration == {"experiment": "images", "dataset": "cifar-mnist"}


def test_named_sets_are_read_from_their_files_and_lack_them_until_they_are_there(tmp_path, refuses):
    source = Pair("cifar-mnist")
    for missing in ("cifar10 mnist", "cifar10"):
        assert source.lacks(tmp_path).endswith(f"python -m lib.data --download {missing} --root {tmp_path}")
        refuses(DataError, source.load, root=tmp_path, words=["--download cifar10"])
        write_mnist(tmp_path)
    write_cifar_folder(tmp_path)
    write_mnist(tmp_path, "FashionMNIST", seed=7)
    kinds = {"cifar": ("airplane", "automobile"), "fmnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")}
    for name, (first, values) in zip(PAIRED_SETS, kinds.items()):
        assert Pair(name).lacks(tmp_path) is None
        chosen, classes = Pair(name).load(3, root=tmp_path), len(values)
        assert (chosen.name, chosen.classes, chosen.attributes) == (name, classes, (first, "mnist"))
        assert chosen.values == {first: values, "mnist": tuple("01234"[:classes])}
        assert len(chosen.train) + len(chosen.validation) == 20 * classes
        assert chosen.train.labels.unique().tolist() == list(range(classes))
        assert tuple(chosen.probe_test.attributes) == chosen.attributes


@pytest.mark.parametrize(
    "name, sizes", [("cifar-mnist", (9000, 1000, 990, 980, 980)), ("fmnist-mnist", (26751, 2972, 2481, 2450, 2450))]
)
def test_real_sets_have_the_expected_sizes(name, sizes):
    if Pair(name).lacks():
        pytest.skip(f"{name} is not under the data root {data_root()}")
    chosen = Pair(name).load()
    assert tuple(len(getattr(chosen, split)) for split in SPLITS) == sizes
