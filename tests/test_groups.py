"""Waterbirds, CelebA and the stand-in: their layouts and tables, their splits, and what is damaged."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_trees import COUNTS, edit, numbers, rows_of, write_birds, write_celeba

from lib.data import groups
from lib.data.__main__ import main, state
from lib.data.dataset import Dataset, Split
from lib.data.groups import Groups
from lib.data.root import DataError, MissingData, data_root

SIZE = 8
SPLITS = ("train", "validation", "test", "probe_train", "probe_test")
BALANCED = SPLITS[3:]
BIRDS_TABLE = "waterbird_complete95_forest2water2/metadata.csv"
# (name, function that writes the tree, arguments of it): every layout of the tables and images that is read.
LAYOUTS = {
    "Waterbirds": ("waterbirds", write_birds, {}),
    "birds_on_scenes": ("birds_on_scenes", write_birds, {"folder": "birds_on_scenes"}),
    "CelebA of torchvision": ("celeba", write_celeba, {}),
    "CelebA of torchvision, nested": ("celeba", write_celeba, {"nested": True}),
    "CelebA of Kaggle": ("celeba", write_celeba, {"kaggle": True, "nested": True}),
}
pytestmark = pytest.mark.usefixtures("own_cache")


def load(name: str, root: Path, seed: int = 0) -> Dataset:
    return Groups(name).load(seed, SIZE, root)


@pytest.fixture(scope="module")
def module_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("module")
    write_birds(root)
    return root


@pytest.fixture
def made(module_root) -> Dataset:
    return load("waterbirds", module_root)


def used(split: Split) -> list[int]:
    return numbers(split.images)


def same(first: Dataset, second: Dataset, splits: tuple[str, ...] = SPLITS) -> bool:
    pairs = [(getattr(first, split), getattr(second, split)) for split in splits]
    return all(torch.equal(a.images, b.images) and torch.equal(first.groups(a), second.groups(b)) for a, b in pairs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_each_image_with_its_own_values_and_damaged_ones_are_named(layout, tmp_path, refuses):
    name, write, arguments = LAYOUTS[layout]
    assert Groups(name).lacks(tmp_path)
    paths, rows = write(tmp_path, **arguments), rows_of()
    assert Groups(name).lacks(tmp_path) is None
    chosen = load(name, tmp_path)
    assert chosen.name == name and chosen.classes == 2 and chosen.mean_pixel is None
    for position, split in enumerate(("train", "validation", "test")):
        assert (rows[used(getattr(chosen, split)), 0] == position).all()
    for split in SPLITS:
        found = getattr(chosen, split)
        assert found.images.shape == (len(found), 3, SIZE, SIZE) and found.images.dtype == torch.uint8
        values = rows[used(found)]
        assert found.labels.tolist() == values[:, 1].tolist()
        assert [found.attributes[name].tolist() for name in chosen.attributes] == values[:, 1:].T.tolist()
        assert chosen.groups(found).tolist() == (2 * values[:, 1] + values[:, 2]).tolist()
    assert len(chosen.train) == (rows[:, 0] == 0).sum() and len(chosen.test) == (rows[:, 0] == 2).sum()
    paths[5].write_text("<html>quota exceeded</html>")
    message = refuses(DataError, load, name, tmp_path, match="not a whole image", words=[paths[5]])
    assert state(name, tmp_path)[0] == "reduced"
    assert state(name, tmp_path, decode=True) == ("damaged", message)
    paths[5].unlink()
    assert state(name, tmp_path) == ("damaged", refuses(MissingData, load, name, tmp_path, words=[paths[5]]))


def test_sets_name_their_attributes_and_groups_and_layouts_of_celeba_give_the_same_set(tmp_path):
    write_birds(tmp_path)
    write_celeba(tmp_path)
    write_celeba(tmp_path / "comma", kaggle=True, nested=True)
    birds, faces = (load(name, tmp_path) for name in ("waterbirds", "celeba"))
    assert birds.attributes == ("bird", "place") and faces.attributes == ("hair", "gender")
    assert birds.group_names == ("land bird, land", "land bird, water", "water bird, land", "water bird, water")
    assert faces.group_names == ("dark, female", "dark, male", "blond, female", "blond, male")
    assert same(faces, load("celeba", tmp_path / "comma"))


def test_any_two_columns_of_celeba_are_a_source_of_their_own(tmp_path, refuses):
    write_celeba(tmp_path)
    usual, turned = Groups("celeba"), Groups("celeba", ("Male", "Blond_Hair"))
    assert usual == Groups("celeba", ("Blond_Hair", "Male")) and usual.name == "celeba"
    assert usual.configuration == {"experiment": "groups", "dataset": "celeba"}
    assert turned.configuration == usual.configuration | {"attributes": ["Male", "Blond_Hair"]}
    assert turned.name == "celeba Male and Blond_Hair"
    first, second = (source.load(0, SIZE, tmp_path) for source in (usual, turned))
    assert second.attributes == ("gender", "hair") and second.group_names[1] == "female, blond"
    assert torch.equal(first.train.attributes["gender"], second.train.labels)
    assert used(first.train) == used(second.train)
    other = Groups("celeba", ("Blond_Hair", "5_o_Clock_Shadow"))
    refuses(DataError, other.load, 0, SIZE, tmp_path, words=["lack: dark, 5_o_Clock_Shadow; blond, 5_o_Clock_Shadow"])
    refuses(DataError, Groups("celeba", ("Smiling", "Male")).load, 0, SIZE, tmp_path, match="no column Smiling;")
    for bad in (("celeba", ("Male", "Male")), ("celeba", ("Male",)), ("waterbirds", ("place", "y"))):
        refuses(ValueError, Groups, *bad, match="attributes must be")


def test_images_serve_in_one_place_only_and_those_of_training_and_test_stay_in_the_cache(made):
    train, validation, test, probe_train, probe_test = (used(getattr(made, split)) for split in SPLITS)
    assert sorted(train + validation + test + probe_train) == list(range(sum(COUNTS.values())))
    assert set(probe_test) <= set(test) and len(set(probe_test)) == len(probe_test)
    first, second, third = (getattr(made, split).images.untyped_storage().data_ptr() for split in SPLITS[:3])
    assert first == third != second
    assert made.group_weights.tolist() == [count / 36 for count in (20, 3, 2, 11)], "shares in training"
    # The rarest group has 4 validation images, half of which train probes, and 5 test images.
    for split, count in zip(BALANCED, (2, 5)):
        assert torch.bincount(made.groups(getattr(made, split))).tolist() == [count] * 4


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


def test_every_image_is_reachable_in_every_split_that_is_drawn():
    rows = rows_of()
    split, group = rows[:, 0], 2 * rows[:, 1] + rows[:, 2]
    reached = {name: set() for name in ("validation", *BALANCED)}
    for seed in range(200):
        places = groups.places(split, group, seed)
        for name, seen in reached.items():
            seen.update(places[name].tolist())
    for name, seen in reached.items():
        assert seen == set(np.flatnonzero(split == (2 if name == "probe_test" else 1))), name


def test_seed_decides_the_probes_and_nothing_else(made, module_root):
    again, other = (load("waterbirds", module_root, seed) for seed in (0, 1))
    assert same(made, again) and same(made, other, ("train", "test"))
    for split in ("validation", *BALANCED):
        assert not same(made, other, (split,))
        assert len(getattr(made, split)) == len(getattr(other, split))


@pytest.mark.parametrize("split, least, word", [(0, 1, "training"), (1, 2, "validation"), (2, 1, "test")])
def test_missing_groups_are_named(split, least, word, tmp_path, refuses):
    write_birds(tmp_path, counts=COUNTS | {(split, 0, 1): least - 1, (split, 1, 0): least - 1})
    message = refuses(DataError, load, "waterbirds", tmp_path, match=word)
    assert message.endswith("lack: land bird, water; water bird, land")
    write_birds(tmp_path / "enough", counts=COUNTS | {(split, 0, 1): least, (split, 1, 0): least})
    assert load("waterbirds", tmp_path / "enough")


def test_oddly_named_files_are_read(tmp_path):
    paths = write_birds(tmp_path)
    folder = tmp_path / "waterbird_complete95_forest2water2"
    for number, name in enumerate(("With blank.jpg", "Grüner Häher, 雀.JPG", "'quoted'.jpeg", "x.y.JPEG", "NA")):
        old = paths[number].relative_to(folder).as_posix()
        edit(folder / "metadata.csv", f",{old},", f',"{paths[number].parent.name}/{name}",')
        paths[number].rename(paths[number].with_name(name))
    chosen = load("waterbirds", tmp_path)
    found = [used(getattr(chosen, split)) for split in ("train", "validation", "probe_train", "test")]
    assert sorted(sum(found, [])) == list(range(len(paths)))
    assert state("waterbirds", tmp_path) == ("reduced", "36 training, 27 validation, 32 test images of 4 groups")


ATTRIBUTES, PARTITION = "celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt"
TABLES = (BIRDS_TABLE, ATTRIBUTES, PARTITION, ATTRIBUTES.replace("txt", "csv"), PARTITION.replace("txt", "csv"))
DAMAGES = {
    "empty": (lambda content: b"", "cannot be read|names no image|no column|rows"),
    "page": (lambda content: b"<html><body>404 Not Found</body></html>\n", "no column|cannot be read|no image|rows"),
    "header only": (lambda content: content.splitlines(keepends=True)[0], "names no image|no column|differ|rows"),
    "bytes": (lambda content: b"\xff\xfe\x00\x80", "cannot be read as a table"),
    "long row": (lambda content: content + b"x.jpg 1 1 1 1 1 1,1,1,1,1,1,1,1,1\n", "cannot be read .*line 9[5678]"),
    "row twice": (lambda content: content + content.splitlines()[-1], "twice|96 rows"),
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
SPLIT, LABEL, PLACE = rows_of()[7]
ROW = "Kind_0007.jpg,{},{},{},/o".format
OLD_ROW = ROW(LABEL, SPLIT, PLACE)
WRONG_VALUES = {
    **{
        f"{column} {values}": (BIRDS_TABLE, OLD_ROW, ROW(*values), f"has {column} '.*' for .*/Kind_0007.jpg;")
        for column, values in [
            ("y", (2, 0, 0)),
            ("y", (-1, 0, 0)),
            ("split", (0, 3, 0)),
            ("split", (0, "dev", 0)),
            ("place", (0, 0, "0.5")),
            ("place", (0, 0, "nan")),
        ]
    },
    "no label": (BIRDS_TABLE, OLD_ROW, ROW("", 0, 0), "lacks a value in row 8"),
    "columns of birds": (BIRDS_TABLE, ",y,split,place,", ",label,split,places,", "has no column y, place;"),
    "column of faces": (ATTRIBUTES, "Blond_Hair", "Bald", "has no column Blond_Hair;"),
    "0 for -1": (ATTRIBUTES, "000001.jpg -1 -1", "000001.jpg -1 0", "Blond_Hair '0' for .*.jpg; allowed are -1, 1"),
    "number of rows": (ATTRIBUTES, "95\n", "96\n", "has 95 rows, and not '96'"),
    "partition": (PARTITION, f"000003.jpg {rows_of()[2][0]}", "000003.jpg 3", "partition '3' for 000003.jpg"),
    "images": (PARTITION, f"000001.jpg {rows_of()[0][0]}\n", "", "differ in 1 images, one of them 000001.jpg"),
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


@pytest.mark.parametrize("seed, size, word", [(0, 0, "size"), (0, None, "size"), (-1, SIZE, "seed"), (True, 8, "seed")])
def test_wrong_arguments_are_refused_before_files_are_touched(seed, size, word, tmp_path, refuses):
    refuses(ValueError, Groups("waterbirds").load, seed, size, tmp_path, match=word)
    refuses(ValueError, Groups, "imagenet", match="waterbirds, celeba, birds_on_scenes")


def test_state_is_complete_where_every_group_has_its_official_number(tmp_path, monkeypatch, capsys):
    write_birds(tmp_path)
    counts = np.array(list(COUNTS.values())).reshape(3, 4)
    for official, kind in ((counts, "complete"), (counts[:, ::-1], "reduced"), (counts + 1, "reduced")):
        monkeypatch.setitem(groups.COUNTS, "waterbirds", official)
        assert state("waterbirds", tmp_path)[0] == kind
    (tmp_path / "waterbird_complete95_forest2water2/000.Kind_0/Kind_0000.jpg").write_text("damaged")
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--root", str(tmp_path), "--decode"]) == 1
    assert "Kind_0000.jpg is not a whole image" in capsys.readouterr().out


# Of the rarest group 133, 182 or 54 images are for validation, half of which train probes.
SIZES = {
    "waterbirds": (4795, 1199 - 4 * 66, 5794, 4 * 66, 4 * 642),
    "celeba": (162_770, 19_867 - 4 * 91, 19_962, 4 * 91, 4 * 180),
    "birds_on_scenes": (2999, 582 - 4 * 27, 2321, 4 * 27, 4 * 216),
}


@pytest.mark.parametrize("name", groups.SETS)
def test_real_sets_have_the_expected_sizes(name):
    if Groups(name).lacks():
        pytest.skip(f"{name} is not under the data root {data_root()}")
    chosen = Groups(name).load(0, SIZE)
    assert [chosen.groups(getattr(chosen, split)).unique().numel() for split in SPLITS] == [4] * 5
    kind, _ = state(name)
    assert kind in ("complete", "reduced")
    if kind == "complete":
        assert tuple(len(getattr(chosen, split)) for split in SPLITS) == SIZES[name]
