from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_trees import COUNTS, edit, numbers, rows_of, write_birds, write_celeba, write_image

from lib.data import annotations, groups, sources
from lib.data.groups import GroupedSet, GroupedSplit
from lib.data.sources import DataError, MissingData, data_root

SIZE = 8
SPLITS = ("train", "validation", "test", "probe_train", "probe_test")
BALANCED = SPLITS[3:]
# (name, function that writes the tree, arguments of it): every layout that is read.
LAYOUTS = {
    "Waterbirds of its authors": ("waterbirds", write_birds, {}),
    "Waterbirds of WILDS": ("waterbirds", write_birds, {"folder": "waterbirds_v1.0"}),
    "birds_on_scenes": ("birds_on_scenes", write_birds, {"folder": "birds_on_scenes"}),
    "CelebA of torchvision": ("celeba", write_celeba, {}),
    "CelebA of torchvision, nested": ("celeba", write_celeba, {"nested": True}),
    "CelebA of Kaggle": ("celeba", write_celeba, {"kaggle": True, "nested": True}),
    "CelebA of Kaggle, in its own folder": (
        "celeba",
        write_celeba,
        {"kaggle": True, "nested": True, "folder": "celeba-dataset"},
    ),
    "CelebA with tables as csv and images not nested": ("celeba", write_celeba, {"kaggle": True}),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_CACHE_ROOT", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def module_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("module")
    write_birds(root)
    return root


@pytest.fixture
def made(module_root) -> GroupedSet:
    return groups.load("waterbirds", SIZE, 0, module_root)


def used(split: GroupedSplit) -> list[int]:
    return numbers(split.images)


def same(first: GroupedSplit, second: GroupedSplit) -> bool:
    return torch.equal(first.images, second.images) and torch.equal(first.groups, second.groups)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_each_image_with_its_own_values(layout, tmp_path):
    name, write, arguments = LAYOUTS[layout]
    assert not groups.available(name, tmp_path)
    write(tmp_path, **arguments)
    assert groups.available(name, tmp_path)
    chosen, rows = groups.load(name, SIZE, 0, tmp_path), rows_of()
    assert chosen.name == name and chosen.classes == 2
    for position, split in enumerate(("train", "validation", "test")):
        found = getattr(chosen, split)
        assert (rows[used(found), 0] == position).all()
    for split in SPLITS:
        found = getattr(chosen, split)
        assert found.images.shape == (len(found), 3, SIZE, SIZE) and found.images.dtype == torch.uint8
        values = rows[used(found)]
        assert found.labels.tolist() == values[:, 1].tolist()
        assert [found.attributes[name].tolist() for name in chosen.attributes] == values[:, 1:].T.tolist()
    assert len(chosen.train) == (rows[:, 0] == 0).sum() and len(chosen.test) == (rows[:, 0] == 2).sum()


def test_sets_name_their_attributes_and_groups(tmp_path):
    write_birds(tmp_path)
    write_celeba(tmp_path)
    birds, faces = (groups.load(name, SIZE, 0, tmp_path) for name in ("waterbirds", "celeba"))
    assert birds.attributes == ("bird", "place") and faces.attributes == ("hair", "gender")
    assert birds.group_names == ("land bird, land", "land bird, water", "water bird, land", "water bird, water")
    assert faces.group_names == ("dark, female", "dark, male", "blond, female", "blond, male")


def test_both_layouts_of_celeba_give_the_same_set(tmp_path):
    write_celeba(tmp_path / "text")
    write_celeba(tmp_path / "comma", kaggle=True, nested=True)
    text, comma = (groups.load("celeba", SIZE, 2, tmp_path / kind) for kind in ("text", "comma"))
    assert all(same(getattr(text, split), getattr(comma, split)) for split in SPLITS)


def test_images_serve_in_one_place_only_and_none_is_left_out(made):
    train, validation, test, probe_train, probe_test = (used(getattr(made, split)) for split in SPLITS)
    everything = train + validation + test + probe_train
    assert sorted(everything) == list(range(sum(COUNTS.values())))
    assert set(probe_test) <= set(test) and len(set(probe_test)) == len(probe_test)


def test_images_of_training_and_test_are_read_from_the_cache_when_used(made):
    train, validation, test = (getattr(made, split).images for split in SPLITS[:3])
    assert train.untyped_storage().data_ptr() == test.untyped_storage().data_ptr()
    assert train.untyped_storage().data_ptr() != validation.untyped_storage().data_ptr()
    for split in SPLITS:
        assert getattr(made, split).images.is_contiguous(memory_format=torch.channels_last)


def test_groups_part_every_split_by_both_attributes(made):
    for split in SPLITS:
        found = getattr(made, split)
        assert torch.equal(found.groups, 2 * found.attributes["bird"] + found.attributes["place"])
        assert torch.equal(found.labels, found.attributes["bird"])
        assert torch.bincount(found.groups, minlength=4).sum() == len(found)


@pytest.mark.parametrize("split", BALANCED)
def test_probe_sets_hold_every_group_equally_often(made, split):
    # The rarest group has 4 validation images, half of which train probes, and 5 test images.
    count = {"probe_train": 2, "probe_test": 5}[split]
    assert torch.bincount(getattr(made, split).groups).tolist() == [count] * 4


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
    again, other = (groups.load("waterbirds", SIZE, seed, module_root) for seed in (0, 1))
    assert all(same(getattr(made, split), getattr(again, split)) for split in SPLITS)
    for split in ("train", "test"):
        assert same(getattr(made, split), getattr(other, split))
    for split in ("validation", *BALANCED):
        assert not same(getattr(made, split), getattr(other, split))
        assert len(getattr(made, split)) == len(getattr(other, split))


def test_order_of_the_tables_does_not_matter(made, tmp_path):
    write_birds(tmp_path)
    path = tmp_path / "waterbird_complete95_forest2water2/metadata.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines)]))
    other = groups.load("waterbirds", SIZE, 0, tmp_path)
    assert all(same(getattr(made, split), getattr(other, split)) for split in SPLITS)


def test_group_weights_are_the_shares_in_training(made):
    counts = torch.bincount(made.train.groups)
    assert torch.allclose(made.group_weights, counts / counts.sum(dtype=torch.float64))
    assert made.group_weights.tolist() == [count / 36 for count in (20, 3, 2, 11)]


@pytest.mark.parametrize("split, least, word", [(0, 1, "training"), (1, 2, "validation"), (2, 1, "test")])
def test_missing_groups_are_named(split, least, word, tmp_path):
    write_birds(tmp_path, counts=COUNTS | {(split, 0, 1): least - 1, (split, 1, 0): least - 1})
    with pytest.raises(DataError, match=word) as error:
        groups.load("waterbirds", SIZE, 0, tmp_path)
    assert one_line(error).endswith("lack: land bird, water; water bird, land")
    write_birds(tmp_path / "enough", counts=COUNTS | {(split, 0, 1): least, (split, 1, 0): least})
    assert groups.load("waterbirds", SIZE, 0, tmp_path / "enough")


def test_oddly_named_files_are_read_and_others_passed_over(tmp_path):
    paths = write_birds(tmp_path)
    folder = tmp_path / "waterbird_complete95_forest2water2"
    for number, name in enumerate(("With blank.jpg", "Grüner Häher, 雀.JPG", "'quoted'.jpeg", "x.y.JPEG")):
        old = paths[number].relative_to(folder).as_posix()
        edit(folder / "metadata.csv", f",{old},", f',"{paths[number].parent.name}/{name}",')
        paths[number].rename(paths[number].with_name(name))
    for name in ("Thumbs.db", ".DS_Store", "._Kind_0001.jpg", "readme.txt"):
        (folder / "000.Kind_0" / name).write_text("no image")
    chosen = groups.load("waterbirds", SIZE, 0, tmp_path)
    found = [used(getattr(chosen, split)) for split in ("train", "validation", "probe_train", "test")]
    assert sorted(sum(found, [])) == list(range(len(paths)))
    assert groups.state("waterbirds", tmp_path) == ("reduced", "36 training, 27 validation, 32 test images")


def test_images_that_no_table_names_are_left_out_and_counted(tmp_path):
    write_birds(tmp_path)
    write_image(tmp_path / "waterbird_complete95_forest2water2/000.Kind_0/other.jpg", 300)
    chosen = groups.load("waterbirds", SIZE, 0, tmp_path)
    assert not any(300 in used(getattr(chosen, split)) for split in SPLITS)
    assert groups.state("waterbirds", tmp_path)[1].endswith("; 1 more that no table names")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_and_damaged_images_are_named(layout, tmp_path):
    name, write, arguments = LAYOUTS[layout]
    paths = write(tmp_path, **arguments)
    paths[5].write_text("<html>quota exceeded</html>")
    with pytest.raises(DataError, match="not a whole image") as error:
        groups.load(name, SIZE, 0, tmp_path)
    assert str(paths[5]) in one_line(error)
    assert groups.state(name, tmp_path)[0] == "reduced"
    assert groups.state(name, tmp_path, decode=True) == ("damaged", str(error.value))
    paths[5].unlink()
    with pytest.raises(MissingData) as error:
        groups.load(name, SIZE, 0, tmp_path)
    assert str(paths[5]) in one_line(error)
    assert groups.state(name, tmp_path) == ("damaged", str(error.value))


BIRDS_TABLE = "waterbird_complete95_forest2water2/metadata.csv"
ATTRIBUTES, PARTITION = "celeba/list_attr_celeba.txt", "celeba/list_eval_partition.txt"
DAMAGES = {
    "empty": (b"", "no column|names no image"),
    "page": (b"<html><body>404 Not Found</body></html>\n", "no column|values in row 1"),
    "header only": (lambda content: content.splitlines(keepends=True)[0], "names no image|no column|differ"),
    "bytes": (b"\xff\xfe\x00\x80", "not a table"),
    "long row": (lambda content: content + b"x.jpg 1 1 1 1 1 1,1,1,1,1,1,1,1,1\n", "values in row 96"),
    "last row cut": (lambda content: content.rstrip().rsplit(b" ", 1)[0].rsplit(b",", 1)[0], "values in row 95"),
    "row twice": (lambda content: content + content.splitlines()[-1], "twice|96 rows"),
}


@pytest.mark.parametrize(
    "file", [BIRDS_TABLE, ATTRIBUTES, PARTITION, ATTRIBUTES.replace("txt", "csv"), PARTITION.replace("txt", "csv")]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tables_are_named(damage, file, tmp_path):
    name = "celeba" if "celeba" in file else "waterbirds"
    write_celeba(tmp_path, kaggle=file.endswith("csv")) if name == "celeba" else write_birds(tmp_path)
    change, problem = DAMAGES[damage]
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(change if isinstance(change, bytes) else change(content))
    with pytest.raises(DataError, match=problem) as error:
        groups.load(name, SIZE, 0, tmp_path)
    assert str(tmp_path / file) in one_line(error) and f"--download {name}" in str(error.value)
    assert groups.state(name, tmp_path)[0] == "damaged"


@pytest.mark.parametrize("file", [BIRDS_TABLE, ATTRIBUTES, PARTITION])
def test_missing_tables_are_named(file, tmp_path):
    name = "celeba" if "celeba" in file else "waterbirds"
    write_celeba(tmp_path) if name == "celeba" else write_birds(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(MissingData) as error:
        groups.load(name, SIZE, 0, tmp_path)
    assert str(tmp_path / file) in one_line(error)


def bird_row(label: object, split: object, place: object, number: int = 7) -> str:
    return f"Kind_{number:04}.jpg,{label},{split},{place},/o"


@pytest.mark.parametrize(
    "column, values",
    [
        ("y", (2, 0, 0)),
        ("y", (-1, 0, 0)),
        ("y", ("", 0, 0)),
        ("split", (0, 3, 0)),
        ("split", (0, "train", 0)),
        ("place", (0, 0, 2)),
        ("place", (0, 0, "0.5")),
        ("place", (0, 0, "nan")),
    ],
)
def test_birds_with_a_label_split_or_place_that_is_not_allowed_are_named(column, values, tmp_path):
    write_birds(tmp_path)
    _, label, place = rows_of()[7]
    edit(tmp_path / BIRDS_TABLE, bird_row(label, rows_of()[7][0], place), bird_row(*values))
    with pytest.raises(DataError, match=f"has {column} ") as error:
        groups.load("waterbirds", SIZE, 0, tmp_path)
    assert "Kind_0007.jpg" in one_line(error) and str(tmp_path / BIRDS_TABLE) in str(error.value)


def test_lacking_columns_are_named(tmp_path):
    write_birds(tmp_path)
    edit(tmp_path / BIRDS_TABLE, ",y,split,place,", ",label,split,places,")
    with pytest.raises(DataError, match="has no column y, place;"):
        groups.load("waterbirds", SIZE, 0, tmp_path)
    write_celeba(tmp_path)
    edit(tmp_path / ATTRIBUTES, "Blond_Hair", "Bald")
    with pytest.raises(DataError, match="has no column Blond_Hair;"):
        groups.load("celeba", SIZE, 0, tmp_path)


@pytest.mark.parametrize("kaggle", [False, True])
def test_attributes_of_0_and_1_are_not_taken_for_those_of_minus_1_and_1(kaggle, tmp_path):
    write_celeba(tmp_path, kaggle=kaggle)
    path = tmp_path / (ATTRIBUTES.replace("txt", "csv") if kaggle else ATTRIBUTES)
    path.write_text(path.read_text().replace("-1", " 0" if not kaggle else "0"))
    with pytest.raises(DataError, match="Blond_Hair '0' for .*; allowed are -1, 1") as error:
        groups.load("celeba", SIZE, 0, tmp_path)
    assert ".jpg" in one_line(error)


def test_unknown_partition_and_tables_that_differ_are_named(tmp_path):
    write_celeba(tmp_path)
    path = tmp_path / PARTITION
    content = path.read_text()
    edit(path, f"000003.jpg {rows_of()[2][0]}", "000003.jpg 3")
    with pytest.raises(DataError, match="partition '3' for 000003.jpg"):
        groups.load("celeba", SIZE, 0, tmp_path)
    path.write_text("".join(content.splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="differ in 1 images, one of them 000001.jpg") as error:
        groups.load("celeba", SIZE, 0, tmp_path)
    assert str(path) in one_line(error)


def test_attributes_must_be_as_many_as_their_first_line_says(tmp_path):
    write_celeba(tmp_path)
    edit(tmp_path / ATTRIBUTES, "95\n", "96\n")
    with pytest.raises(DataError, match="has 95 rows, and not '96'"):
        groups.load("celeba", SIZE, 0, tmp_path)


def test_official_text_file_of_full_length_must_have_the_published_checksum(tmp_path, monkeypatch):
    write_celeba(tmp_path)
    monkeypatch.setattr(annotations, "CELEBA_IMAGES", 95)
    with pytest.raises(DataError, match="checksum"):
        groups.load("celeba", SIZE, 0, tmp_path)
    for file in (ATTRIBUTES, PARTITION):
        content = (tmp_path / file).read_bytes()
        monkeypatch.setitem(annotations.CELEBA_CHECKSUMS, Path(file).name, hashlib.md5(content).hexdigest())
    assert groups.load("celeba", SIZE, 0, tmp_path)


def test_table_with_a_byte_order_mark_and_windows_line_ends_is_read(made, tmp_path):
    write_birds(tmp_path)
    content = (tmp_path / BIRDS_TABLE).read_text()
    (tmp_path / BIRDS_TABLE).write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    other = groups.load("waterbirds", SIZE, 0, tmp_path)
    assert all(same(getattr(made, split), getattr(other, split)) for split in SPLITS)


def test_absent_set_is_named_with_the_way_to_get_it(tmp_path):
    for name in groups.NAMES:
        with pytest.raises(MissingData, match="SAM_DATA_ROOT") as error:
            groups.load(name, SIZE, 0, tmp_path)
        published = name != "birds_on_scenes"
        assert (f"--download {name}" in one_line(error)) == published
        kind, detail = groups.state(name, tmp_path)
        assert kind == "missing" and ("--download" in detail) == published
    with pytest.raises(DataError, match="list_attr_celeba.txt.* with a browser") as error:
        groups.download("celeba", tmp_path)
    assert str(tmp_path / "celeba") in one_line(error)
    with pytest.raises(DataError, match="not published"):
        groups.download("birds_on_scenes", tmp_path)


def test_waterbirds_and_celeba_are_read_from_their_unpacked_archives(tmp_path, monkeypatch):
    """Waterbirds comes from a server, CelebA's images from an archive fetched by hand beside the tables."""
    root = tmp_path / "root"
    (root / "celeba").mkdir(parents=True)
    write_birds(tmp_path / "made")
    write_celeba(tmp_path / "made")
    archive = groups.SETS["waterbirds"].archive
    packed = shutil.make_archive(tmp_path / "birds", "gztar", tmp_path / "made", archive.inner)
    monkeypatch.setitem(
        groups.SETS,
        "waterbirds",
        replace(groups.SETS["waterbirds"], archive=replace(archive, address=Path(packed).as_uri())),
    )
    groups.download("waterbirds", root)
    assert len(groups.load("waterbirds", SIZE, 0, root).train) == 36

    archive = groups.SETS["celeba"].archive
    packed = shutil.make_archive(tmp_path / "faces", "zip", tmp_path / "made/celeba", archive.inner)
    shutil.copy(packed, root / archive.file)
    for file in archive.also:
        shutil.copy(tmp_path / "made/celeba" / file, root / "celeba" / file)
    with pytest.raises(DataError, match="checksum"):
        groups.download("celeba", root)
    content = (root / archive.file).read_bytes()
    monkeypatch.setitem(
        groups.SETS,
        "celeba",
        replace(groups.SETS["celeba"], archive=replace(archive, checksum=hashlib.md5(content).hexdigest())),
    )
    groups.download("celeba", root)
    assert len(groups.load("celeba", SIZE, 0, root).train) == 36
    with pytest.raises(DataError, match="in the way.*list_attr_celeba.txt"):
        groups.download("celeba", root)


@pytest.mark.parametrize(
    "arguments",
    [
        ("imagenet", SIZE),
        ("waterbirds", 0),
        ("waterbirds", 64.0),
        ("waterbirds", SIZE, -1),
        ("waterbirds", SIZE, 0.5),
        ("waterbirds", SIZE, True),
        ("waterbirds", SIZE, None),
    ],
)
def test_wrong_arguments_are_refused_before_files_are_touched(arguments, tmp_path):
    with pytest.raises(ValueError) as error:
        groups.load(*arguments, root=tmp_path)
    assert "\n" not in str(error.value)


def test_state_tells_complete_from_wrong_counts(tmp_path, monkeypatch):
    write_birds(tmp_path)
    counts = np.array(list(COUNTS.values())).reshape(3, 4)
    definition = groups.SETS["waterbirds"]
    monkeypatch.setitem(
        groups.SETS,
        "waterbirds",
        groups.Definition(definition.attributes, definition.values, tuple(map(tuple, counts))),
    )
    assert groups.state("waterbirds", tmp_path)[0] == "complete"
    monkeypatch.setitem(
        groups.SETS,
        "waterbirds",
        groups.Definition(definition.attributes, definition.values, tuple(map(tuple, counts[:, ::-1]))),
    )
    assert groups.state("waterbirds", tmp_path)[0] == "damaged"


def test_command_lists_the_sets_and_fails_on_damage(tmp_path, capsys):
    write_birds(tmp_path)
    arguments = ["--root", str(tmp_path)]
    assert sources.main(arguments) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= set(groups.NAMES)
    (tmp_path / "waterbird_complete95_forest2water2/000.Kind_0/Kind_0000.jpg").write_text("damaged")
    assert sources.main(arguments) == 0
    assert sources.main([*arguments, "--decode"]) == 1
    assert "Kind_0000.jpg is not a whole image" in capsys.readouterr().out


errors_of = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=40)


@given(errors_of, st.tuples(*[st.floats(0.01, 1)] * 4))
def test_weighted_error_is_that_of_examples_weighted_by_their_group(examples, shares):
    examples = [*examples, *((False, group) for group in range(4))]
    wrong, group = (torch.tensor(column) for column in zip(*examples))
    weights = torch.tensor(shares, dtype=torch.float64) / sum(shares)
    per_example = (weights / torch.bincount(group))[group]
    expected = float((per_example * wrong).sum() / per_example.sum())
    assert groups.weighted_error(wrong, group, weights) == pytest.approx(expected)
    worst = max(float(wrong[group == kind].float().mean()) for kind in range(4))
    assert groups.worst_group_error(wrong, group) == pytest.approx(worst)


def test_training_error_weighted_by_the_training_shares_is_the_plain_error(made):
    wrong = torch.arange(len(made.train)) % 3 == 0
    weighted = groups.weighted_error(wrong, made.train.groups, made.group_weights)
    assert weighted == pytest.approx(float(wrong.double().mean()))


def test_errors_refuse_what_does_not_fit_and_name_groups_without_images():
    wrong, group = torch.tensor([True, False, True]), torch.tensor([0, 2, 2])
    with pytest.raises(ValueError, match="lack: 1, 3"):
        groups.worst_group_error(wrong, group)
    full = torch.tensor([0, 1, 2, 3])
    right = torch.zeros(4, dtype=torch.bool)
    assert groups.worst_group_error(right, full) == 0
    for bad in (
        (right[:3], full),
        (right.float(), full),
        (right, full + 1),
        (right, full - 1),
        (right, full.float()),
        (right[None], full[None]),
    ):
        with pytest.raises(ValueError):
            groups.group_errors(*bad)
    for weights in (torch.ones(4), torch.tensor([0.5, 0.5]), torch.tensor([1.5, -0.5, 0, 0])):
        with pytest.raises(ValueError, match="weights"):
            groups.weighted_error(right, full, weights)


# Of the rarest group 133, 182 or 54 images are for validation, half of which train probes.
SIZES = {
    "waterbirds": (4795, 1199 - 4 * 66, 5794, 4 * 66, 4 * 642),
    "celeba": (162_770, 19_867 - 4 * 91, 19_962, 4 * 91, 4 * 180),
    "birds_on_scenes": (2999, 582 - 4 * 27, 2321, 4 * 27, 4 * 216),
}


@pytest.mark.parametrize("name", groups.NAMES)
def test_real_sets_have_the_expected_sizes(name):
    if not groups.available(name):
        pytest.skip(f"{name} is not under the data root {data_root()}")
    chosen = groups.load(name, SIZE)
    assert [int(getattr(chosen, split).groups.unique().numel()) for split in SPLITS] == [4] * 5
    kind, _ = groups.state(name)
    assert kind in ("complete", "reduced")
    if kind == "complete":
        assert tuple(len(getattr(chosen, split)) for split in SPLITS) == SIZES[name]
