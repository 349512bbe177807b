"""Pairs, groups and domains: which images serve where and as what, and what is said of files that are damaged."""

import hashlib
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_trees import COUNTS, edit, numbers, rows_of, write_birds, write_celeba, write_domains
from images import identity, marked, write_cifar_folder, write_mnist

from lib.data import domains, groups, pairs
from lib.data.__main__ import main, state
from lib.data.dataset import Dataset, Source, Split
from lib.data.domains import BENCHMARKS, Domains
from lib.data.groups import SETS, Groups
from lib.data.pairs import PAIRED_SETS, Pair, Part
from lib.data.root import DataError, MissingData
from lib.data.sources import SOURCES, named

SIZE = 8
SPLITS = ("train", "validation", "test", "probe_train", "probe_test")
PARTS = (  # three classes of unequal size; the two parts differ in size and colour
    Part("upper", marked({0: 40, 1: 52, 2: 47}, 32, 3, 1), marked({0: 23, 1: 30, 2: 27}, 32, 3, 2)),
    Part("lower", marked({0: 60, 1: 30, 2: 50}, 28, 1, 3), marked({0: 30, 1: 25, 2: 40}, 28, 1, 4)),
)
KINDS = {"pairs": Pair("made", PARTS), "groups": Groups("waterbirds"), "domains": Domains("pacs", "C")}
of_every_kind = pytest.mark.parametrize("source", KINDS.values(), ids=KINDS)
ROWS = rows_of()  # (split, label, other attribute) of each image of Waterbirds and CelebA
DOMAINS = np.array([(domain, label) for domain in range(4) for label, n in enumerate((11, 10, 10)) for _ in range(n)])
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_birds(root)
    write_celeba(root)
    write_domains(root)
    return root


def load(source: Source | str, root: Path, seed: int = 0) -> Dataset:
    return (named(source) if isinstance(source, str) else source).load(seed, SIZE, root)


def used(split: Split) -> list[list[int]]:
    """The numbers of the images, of each side of a pair."""
    if split.images.shape[2] == split.images.shape[3]:
        return [numbers(split.images)]
    return [identity(split.images, 32).tolist(), identity(split.images, 28, top=32).tolist()]


def of(data: Dataset) -> dict[str, Split]:
    return {name: getattr(data, name) for name in SPLITS}


def same(first: Split, second: Split) -> bool:
    return torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)


# Which images serve where.


@of_every_kind
def test_no_image_serves_in_two_places_or_twice_and_every_one_has_its_own_values(source, tree):
    data = load(source, tree)
    for part in range(len(used(data.train))):
        train, validation, test, probe_train, probe_test = (used(split)[part] for split in of(data).values())
        places = np.concatenate([train, validation, test, probe_train])
        assert set(probe_test) <= set(test) and len(set(probe_test)) == len(probe_test)
        if source.name == "made":  # training and test images are numbered from 0 each
            assert not set(train) & set(validation) and not set(test) & set(probe_train)
            assert all(len(set(rows)) == len(rows) for rows in (train, validation, test, probe_train))
        else:
            assert sorted(places) == list(range(len(places))) and len(places) == (
                95 if data.group_weights is not None else 124
            )
    for name, split in of(data).items():
        for (attribute, values), rows in zip(split.attributes.items(), used(split) * 2):
            if source.name == "made":
                part = PARTS[attribute == "lower"]
                expected = getattr(part, "train" if name in SPLITS[:2] else "test").labels.numpy()
            else:
                expected = {"bird": ROWS[:, 1], "place": ROWS[:, 2], "class": DOMAINS[:, 1]}[attribute]
            assert values.tolist() == expected[rows].tolist()
        assert torch.equal(split.labels, next(iter(split.attributes.values()))) and split.images.dtype == torch.uint8


@of_every_kind
def test_same_seed_gives_the_same_set_and_another_seed_another_whatever_the_global_state(source, tree):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state()
    first, again, other = (of(load(source, tree, seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    fixed = ("train", "test") if source.name == "waterbirds" else ()  # the official ones
    for name in SPLITS:
        assert same(first[name], again[name]) and len(first[name]) == len(other[name])
        assert same(first[name], other[name]) == (name in fixed)


@of_every_kind
def test_every_image_is_reachable_in_every_split(source, tree):
    """Of groups every validation and test image, whatever its group."""
    reached: dict[str, list[set[int]]] = {name: [set(), set()] for name in SPLITS}
    for seed in range(120):
        for name, split in of(load(source, tree, seed)).items():
            for seen, rows in zip(reached[name], used(split)):
                seen.update(rows)
    for name, seen in reached.items():
        position = ("train", "validation", "test").index(
            name.replace("probe_train", "validation").replace("probe_", "")
        )
        expected = {
            "made": (139, 140) if name in SPLITS[:2] else (80, 95),
            "waterbirds": ((ROWS[:, 0] == position).sum(), 0),
            "pacs without C": (93 if name in SPLITS[:2] else 31, 0),
        }[source.name]
        assert tuple(map(len, seen)) == expected, name


def test_every_source_has_a_name_and_a_configuration_of_plain_values_and_can_be_sent():
    assert len(SOURCES) == len(PAIRED_SETS) + len(SETS) + 3 * 4
    assert Pair("cifar-mnist").configuration == {"dataset": "cifar-mnist", "experiment": "images"}
    assert Domains("vlcs", "C").configuration == {"experiment": "domains", "benchmark": "vlcs", "target": "C"}
    assert Groups("celeba").configuration == {"experiment": "groups", "dataset": "celeba"}
    for name, source in (SOURCES | KINDS).items():
        sent = pickle.loads(pickle.dumps(source))
        assert sent == source and hash(sent) == hash(source) and sent.configuration == source.configuration
        assert name in KINDS or (source.name == name and named(name) is source)


@of_every_kind
def test_wrong_seed_and_size_are_refused_before_files_are_touched(source, tmp_path, refuses):
    for seed in (-1, 0.5, True, None):
        refuses(ValueError, source.load, seed, SIZE, tmp_path, match="seed")
    for size in (0, None) if source.sized else ():
        refuses(ValueError, source.load, 0, size, tmp_path, match="size")


WRONG = {
    "pair": (Pair, ("mnist-mnist",), "cifar-mnist, .*, not 'mnist-mnist'"),
    "own pair": (Pair, ("cifar-mnist", PARTS), "none of cifar-mnist, .*, not 'cifar-mnist'"),
    "one attribute": (Pair, ("x", PARTS[:1] * 2), "different attributes, not 'upper' twice"),
    "groups": (Groups, ("imagenet",), "waterbirds, celeba, birds_on_scenes"),
    "twice": (Groups, ("celeba", ("Male", "Male")), "attributes must be two different columns"),
    "one": (Groups, ("celeba", ("Male",)), "attributes must be two different columns"),
    "of birds": (Groups, ("waterbirds", ("place", "y")), "attributes must be None or"),
    "benchmark": (Domains, ("domain_net", "C"), "benchmark"),
    "target": (Domains, ("pacs", "photo"), "A, C, P, S"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_unknown_names_are_refused(kind, refuses):
    source, arguments, line = WRONG[kind]
    refuses(ValueError, source, *arguments, match=line)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_real_sets_have_the_expected_sizes(source):
    if source.lacks():
        pytest.skip(source.lacks())
    data, complete = source.load(0, SIZE), all(state(name)[0] == "complete" for name in source.files)
    sizes = tuple(len(split) for split in of(data).values())
    if source.name in REAL_SIZES:
        assert data.groups(data.probe_train).unique().numel() == len(data.group_names)
        assert sizes == REAL_SIZES[source.name] or not complete
    elif complete:
        counts = dict(zip(BENCHMARKS[source.benchmark], domains.COUNTS[source.benchmark]))
        assert sum(sizes[:2]) == sum(counts.values()) - counts[source.target]
        assert sizes[2] + sizes[3] == counts[source.target]
        assert sizes[2] == pytest.approx(0.2 * counts[source.target], abs=data.classes)
        assert set(data.train.labels.tolist()) == set(range(data.classes))


REAL_SIZES = {  # of the rarest group 133, 182 or 54 images are for validation, half of which train probes
    "cifar-mnist": (9000, 1000, 990, 980, 980),
    "fmnist-mnist": (26751, 2972, 2481, 2450, 2450),
    "waterbirds": (4795, 1199 - 4 * 66, 5794, 4 * 66, 4 * 642),
    "celeba": (162_770, 19_867 - 4 * 91, 19_962, 4 * 91, 4 * 180),
    "birds_on_scenes": (2999, 582 - 4 * 27, 2321, 4 * 27, 4 * 216),
}


# Pairs.


@pytest.fixture(scope="module")
def made() -> Dataset:
    return KINDS["pairs"].load()


def test_pairs_match_the_rarer_image_of_each_class_or_hold_every_combination_equally_often(made):
    for split in (made.train, made.validation, made.test):
        assert all(torch.equal(split.labels, values) for values in split.attributes.values())
    # The rarest class has 23 test images: 11 in one half and 12 in the other, over three partners.
    for split, count in ((made.probe_train, 3), (made.probe_test, 4)):
        assert torch.bincount(made.groups(split), minlength=9).tolist() == [count] * 9
    total = 40 + 30 + 47
    assert len(made.train) + len(made.validation) == total and len(made.validation) == round(total / 10)
    assert torch.bincount(made.test.labels).tolist() == [12, 13, 14]  # halves, rounded up, of 23, 25 and 27


def test_first_image_stands_above_the_second_padded_and_grey(made):
    images, (upper, lower) = made.train.images, used(made.train)
    assert images.shape[1:] == (3, 64, 32)
    assert torch.equal(images[:, :, :32], PARTS[0].train.images[upper])
    assert torch.equal(images[:, :, 34:62, 2:30], PARTS[1].train.images[lower].expand(-1, 3, -1, -1))
    border = images[:, :, 32:].clone()
    border[:, :, 2:30, 2:30] = 0
    assert not border.any()
    assert torch.allclose(made.mean_pixel, (images.double() / 255).mean((0, 2, 3)).float(), rtol=0, atol=1e-7)


def test_pairing_within_a_class_and_the_order_are_random(made):
    assert abs(np.corrcoef(*used(made.train))[0, 1]) < 0.5
    assert len({tuple(used(pairs.pair("made", *PARTS, seed).train)[1]) for seed in range(5)}) == 5
    for split in of(made).values():
        assert not torch.equal(split.labels, split.labels.sort().values)


def test_any_two_labelled_arrays_make_a_pair():
    labels = np.arange(40) % 2
    larger = Split.of(np.zeros((40, 40, 36), np.uint8), labels)
    grey = Split.of(np.full((40, 10, 10), 9, np.uint8), labels)
    small = Part("b", grey, grey)
    for train, side, shape in ((larger, 0, (3, 80, 40)), (grey, 0, (3, 20, 10)), (grey, 32, (3, 64, 32))):
        made = pairs.pair("own", Part("a", train, train), small, side=side)
        assert (
            made.train.images.shape == (36, *shape)
            and (made.train.images[:, :, shape[1] // 2 :] == 9).sum() == 36 * 300
        )
    mixed = pairs.pair("own", Part("a", grey, larger), small)
    assert mixed.train.images.shape[1:] == mixed.test.images.shape[1:] == (3, 80, 40)


def test_parts_whose_classes_differ_or_lack_images_are_refused(refuses):
    good = Split.of(np.zeros((12, 8, 8), np.uint8), np.arange(12) % 2)
    few = Split.of(good.images[:4], np.array([0, 0, 0, 1]))
    part = Part("a", good, good)
    assert len(pairs.pair("x", part, Part("b", good, good)).train) == 11
    refuses(ValueError, pairs.pair, "x", part, Part("b", good, few), match="b test labels must be .*, 4 or more of")
    for labels in (
        np.zeros(12, int),
        np.arange(12) % 3,
        np.arange(12) % 2 * 2,
        np.zeros(0, int),
        np.arange(12) % 2 - 1,
    ):
        bad = Split.of(good.images[: len(labels)], labels)
        refuses(
            ValueError, pairs.pair, "x", part, Part("b", bad, good), match="b train labels must be the classes 0 to 1"
        )
        if labels.max(initial=0) != 2 or 1 not in labels:
            refuses(ValueError, pairs.pair, "x", Part("a", bad, bad), Part("b", bad, bad), match="a train labels")


def test_source_of_ones_own_parts_is_named_by_its_images_too(made):
    own, (upper, lower) = KINDS["pairs"], PARTS
    assert own.lacks("/nowhere") is None
    assert own.configuration == {"experiment": "own pair", "dataset": "made", "images": "8d18dff192ca80df"}
    changed = replace(lower, test=Split.of(255 - lower.test.images, lower.test.labels))
    assert Pair("made", (upper, changed)) != own


def test_named_pairs_are_read_from_their_files_and_lack_them_until_they_are_there(tmp_path, refuses):
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


# Groups and domains.


def test_sets_name_their_attributes_and_groups_and_keep_the_official_splits(tree):
    birds, faces, drawn = (load(name, tree) for name in ("waterbirds", "celeba", "pacs without C"))
    assert birds.attributes == ("bird", "place") and faces.attributes == ("hair", "gender")
    assert birds.group_names == ("land bird, land", "land bird, water", "water bird, land", "water bird, water")
    assert faces.group_names == ("dark, female", "dark, male", "blond, female", "blond, male")
    assert drawn.group_names == ("dog", "house", "person") and drawn.probe_test is drawn.test
    assert drawn.mean_pixel is None and birds.mean_pixel is None and drawn.group_weights is None
    for data in (birds, faces):
        for position, split in enumerate((data.train, data.validation, data.test)):
            rows = ROWS[used(split)[0]]
            assert (rows[:, 0] == position).all()
            assert data.groups(split).tolist() == (2 * rows[:, 1] + rows[:, 2]).tolist()
        assert len(data.train) == (ROWS[:, 0] == 0).sum() and len(data.test) == (ROWS[:, 0] == 2).sum()
        assert data.group_weights.tolist() == [count / 36 for count in (20, 3, 2, 11)], "shares in training"
        # The rarest group has 4 validation images, half of which train probes, and 5 test images.
        for split, count in ((data.probe_train, 2), (data.probe_test, 5)):
            assert torch.bincount(data.groups(split)).tolist() == [count] * 4
    train, validation, test = (split.images.untyped_storage().data_ptr() for split in list(of(birds).values())[:3])
    assert train == test != validation, "those of training and test stay in the cache"


def test_domains_but_the_target_train_and_shares_are_those_of_the_paper(tree, own_cache):
    for position, target in enumerate("ACPS"):
        data = load(f"pacs without {target}", tree)
        for name, split in of(data).items():
            others = {0, 1, 2, 3} - {position}
            assert set(DOMAINS[used(split)[0], 0]) == (others if name in SPLITS[:2] else {position})
        assert len(data.validation) == 9 and len(data.train) == 84
        assert torch.bincount(data.probe_train.labels).tolist() == [9, 8, 8]
        assert torch.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert len(list(own_cache.glob("*.npy"))) == 1, "all targets share one decoding"


def test_folders_of_domains_may_have_the_papers_letters_for_names_and_underscores_for_blanks(tree, tmp_path):
    write_domains(tmp_path, folders=("art_painting", "C", "P", "S"))
    for target in "AS":
        first, second = (of(load(f"pacs without {target}", root)) for root in (tree, tmp_path))
        assert all(used(first[name]) == used(second[name]) for name in SPLITS)
    write_domains(tmp_path, "office_home", folders=("Art", "Clipart", "Product", "Real_World"))
    assert len(load("office_home without R", tmp_path).probe_train) == 25


def test_any_two_columns_of_celeba_are_a_source_of_their_own(tree, refuses):
    usual, turned = Groups("celeba"), Groups("celeba", ("Male", "Blond_Hair"))
    assert usual == Groups("celeba", ("Blond_Hair", "Male")) and usual.name == "celeba"
    assert turned.configuration == usual.configuration | {"attributes": ["Male", "Blond_Hair"]}
    assert turned.name == "celeba Male and Blond_Hair"
    first, second = load(usual, tree), load(turned, tree)
    assert second.attributes == ("gender", "hair") and second.group_names[1] == "female, blond"
    assert torch.equal(first.train.attributes["gender"], second.train.labels) and used(first.train) == used(
        second.train
    )
    lack = "lack: dark, 5_o_Clock_Shadow; blond, 5_o_Clock_Shadow"
    refuses(DataError, load, Groups("celeba", ("Blond_Hair", "5_o_Clock_Shadow")), tree, words=[lack])
    refuses(DataError, load, Groups("celeba", ("Smiling", "Male")), tree, match="no column Smiling;")


counts_of_split = st.tuples(*[st.integers(2, 6)] * 4)


@given(st.tuples(counts_of_split, counts_of_split, counts_of_split), st.integers(0, 2**40))
def test_splits_of_any_counts_are_disjoint_complete_and_balanced(counts, seed):
    split, group = (np.repeat(np.indices((3, 4))[axis].ravel(), np.ravel(counts)) for axis in (0, 1))
    places = groups.places(split, group, seed)
    rows = np.concatenate([places[name] for name in ("train", "validation", "test", "probe_train")])
    assert sorted(rows) == list(range(len(split)))
    assert set(places["probe_test"]) <= set(places["test"])
    for name, position, least in (("probe_train", 1, min(counts[1]) // 2), ("probe_test", 2, min(counts[2]))):
        assert (split[places[name]] == position).all()
        assert np.bincount(group[places[name]], minlength=4).tolist() == [least] * 4
    assert set(group[places["validation"]]) == set(range(4))


# What is damaged or missing.


@pytest.mark.parametrize("split, least, word", [(0, 1, "training"), (1, 2, "validation"), (2, 1, "test")])
def test_missing_groups_are_named(split, least, word, tmp_path, refuses):
    write_birds(tmp_path, counts=COUNTS | {(split, 0, 1): least - 1, (split, 1, 0): least - 1})
    message = refuses(DataError, load, "waterbirds", tmp_path, match=word)
    assert message.endswith("lack: land bird, water; water bird, land")
    write_birds(tmp_path / "enough", counts=COUNTS | {(split, 0, 1): least, (split, 1, 0): least})
    assert load("waterbirds", tmp_path / "enough")


def test_oddly_named_files_are_read(tmp_path):
    paths = write_birds(tmp_path)
    write_domains(tmp_path)
    places = paths[:5], sorted((tmp_path / "PACS/cartoon/house").iterdir())
    for number, name in enumerate(("With blank.jpg", "Grüner Häher, 雀.JPG", "'quoted'.jpeg", "x.y.JPEG", "NA.Jpg")):
        for old in (place[number] for place in places):
            old.rename(old.with_name(name))
        row = f"{paths[number].parent.name}/"
        edit(tmp_path / BIRDS, f",{row}{paths[number].name},", f',"{row}{name}",')
    for name, count in (("waterbirds", 95), ("pacs without C", 124)):
        data = load(name, tmp_path)
        found = [used(split)[0] for split in (data.train, data.validation, data.probe_train, data.test)]
        assert sorted(sum(found, [])) == list(range(count))


BIRDS = "waterbird_complete95_forest2water2/metadata.csv"
ATTRIBUTES, PARTITION = "celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt"
TABLES = (BIRDS, ATTRIBUTES, PARTITION, ATTRIBUTES.replace("txt", "csv"), PARTITION.replace("txt", "csv"))
NO_TABLE = "cannot be read|no image|no column|differ|rows, and not"
DAMAGES = {
    "empty": (lambda content: b"", NO_TABLE),
    "page": (lambda content: b"<html>404 Not Found</html>\n", NO_TABLE),
    "header only": (lambda content: content.splitlines(keepends=True)[0], NO_TABLE),
    "bytes": (lambda content: b"\xff\xfe\x00\x80", "cannot be read as a table"),
    "long row": (lambda content: content + b"x.jpg 1 1 1 1 1 1,1,1,1,1,1,1,1,1\n", "cannot be read .*line 9[5678]"),
    "row twice": (lambda content: content + content.splitlines()[-1], "twice|rows, and not"),
}


def written(file: str, root: Path) -> str:
    """Write the set that has the table `file`; its name."""
    if "celeba" not in file:
        write_birds(root)
        return "waterbirds"
    write_celeba(root, kaggle=file.endswith("csv"))
    return "celeba"


@pytest.mark.parametrize("file", TABLES)
def test_damaged_and_missing_tables_are_named(file, tmp_path, refuses):
    name = written(file, tmp_path)
    content = (tmp_path / file).read_bytes()
    for change, problem in DAMAGES.values():
        (tmp_path / file).write_bytes(change(content))
        refuses(DataError, load, name, tmp_path, match=problem, words=[tmp_path / file, f"--download {name}"])
        assert state(name, tmp_path)[0] == "damaged"
    (tmp_path / file).unlink()
    refuses(MissingData, load, name, tmp_path, words=[(tmp_path / file).with_suffix("")])


# The table, what is replaced in it, and what is said then.
SPLIT, LABEL, PLACE = ROWS[7]
ROW = "Kind_0007.jpg,{},{},{},/o".format
OLD_ROW = ROW(LABEL, SPLIT, PLACE)
VALUES = [("y", (2, 0, 0)), ("y", (-1, 0, 0)), ("split", (0, 3, 0)), ("split", (0, "dev", 0)), ("place", (0, 0, "0.5"))]
WRONG_VALUES = {
    **{
        f"{column} {row}": (BIRDS, OLD_ROW, ROW(*row), f"has {column} '.*' for .*/Kind_0007.jpg; allowed are")
        for column, row in VALUES
    },
    "no label": (BIRDS, OLD_ROW, ROW("", 0, 0), "lacks a value in row 8"),
    "columns of birds": (BIRDS, ",y,split,place,", ",label,part,places,", "has no column y, place, split;"),
    "column of faces": (ATTRIBUTES, "Blond_Hair", "Bald", "has no column Blond_Hair;"),
    "rows of faces": (
        ATTRIBUTES,
        f"{len(ROWS)}\n",
        f"{len(ROWS) + 1}\n",
        f"{len(ROWS)} rows, and not '{len(ROWS) + 1}' as",
    ),
    "0 for -1": (ATTRIBUTES, "000001.jpg -1 -1", "000001.jpg -1 0", "Blond_Hair '0' for .*.jpg; allowed are -1, 1"),
    "partition": (PARTITION, f"000003.jpg {ROWS[2][0]}", "000003.jpg 3", "partition '3' for 000003.jpg"),
    "images": (PARTITION, f"000001.jpg {ROWS[0][0]}\n", "", "differ in 1 images, one of them 000001.jpg"),
}


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_values_that_are_not_allowed_are_named_with_their_image(kind, tmp_path, refuses):
    file, old, new, problem = WRONG_VALUES[kind]
    name = written(file, tmp_path)
    edit(tmp_path / file, old, new)
    refuses(DataError, load, name, tmp_path, match=problem, words=[tmp_path / file])


def test_official_text_file_of_full_length_must_have_the_published_checksum(tmp_path, monkeypatch, refuses):
    write_celeba(tmp_path)
    monkeypatch.setattr(groups, "CELEBA_IMAGES", 95)
    refuses(DataError, load, "celeba", tmp_path, match="checksum")
    for file in (ATTRIBUTES, PARTITION):
        checksum = hashlib.md5((tmp_path / file).read_bytes()).hexdigest()
        monkeypatch.setitem(groups.CELEBA_CHECKSUMS, Path(file).name, checksum)
    assert load("celeba", tmp_path)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DIFFER = "photo and art_painting must have the same classes, and differ in"
# What becomes of the folder of the photographs, and what is said then of which folder below PACS.
WRONG_FOLDERS = {
    "no domain": (lambda photo: photo.rename(photo.parent / "photos"), "photo is missing"),
    "other case": (lambda photo: (photo / "dog").rename(photo / "Dog"), f"{DIFFER} Dog, dog;"),
    "one more": (lambda photo: shutil.copytree(photo / "dog", photo / "cat"), f"{DIFFER} cat;"),
    "no image": (lambda photo: empty(photo / "house"), f"{DIFFER} house;"),
    "no class": (lambda photo: [empty(domain) for domain in photo.parent.iterdir()], "art_painting must hold one fold"),
}


@pytest.mark.parametrize("kind", WRONG_FOLDERS)
def test_missing_domains_and_classes_and_those_that_differ_are_named(kind, tmp_path, refuses):
    write_domains(tmp_path)
    change, problem = WRONG_FOLDERS[kind]
    change(tmp_path / "PACS/photo")
    error, words = MissingData if kind == "no domain" else DataError, ["--download pacs"]
    message = refuses(error, load, "pacs without C", tmp_path, match=f"{tmp_path}/PACS/{problem}", words=words)
    assert state("pacs", tmp_path) == ("damaged", message)


def test_target_with_a_single_image_of_a_class_is_refused(tmp_path, refuses):
    write_domains(tmp_path)
    for path in sorted((tmp_path / "PACS/photo/house").iterdir())[1:]:
        path.unlink()
    refuses(DataError, load, "pacs without P", tmp_path, match="domain P .* 1 of house")
    assert len(load("pacs without A", tmp_path).test) == 6


def test_state_is_complete_where_every_group_or_domain_has_its_official_number(tmp_path, monkeypatch, capsys, refuses):
    write_domains(tmp_path, "vlcs", images=2)
    bird = write_birds(tmp_path)[5]
    counts = np.array(list(COUNTS.values())).reshape(3, 4)
    birds = "36 training, 27 validation, 32 test images of 4 groups"
    for name, room, official, kind, detail in (
        ("waterbirds", groups, counts, "complete", birds),
        ("waterbirds", groups, counts[:, ::-1], "reduced", birds),
        ("vlcs", domains, (7, 7, 7, 7), "complete", "7 Caltech101, 7 LabelMe, 7 SUN09, 7 VOC2007 images of 3 classes"),
        ("vlcs", domains, (7, 7, 7, 8), "reduced", "7 Caltech101, 7 LabelMe, 7 SUN09, 7 VOC2007 images of 3 classes"),
    ):
        monkeypatch.setitem(room.COUNTS, name, official)
        assert state(name, tmp_path) == (kind, detail)
    bird.write_text("damaged")
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--root", str(tmp_path), "--decode"]) == 1
    assert f"{bird} is not a whole image" in capsys.readouterr().out
    bird.unlink()
    message = refuses(MissingData, load, "waterbirds", tmp_path, words=[bird])
    assert state("waterbirds", tmp_path) == ("damaged", message)
