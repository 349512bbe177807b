"""Data of one's own: files as they come, damaged, odd or misnamed, and what becomes of each."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_trees import COUNTS, write_birds, write_celeba
from PIL import Image

from lib.data.dataset import Split
from lib.data.own import Files, Table
from lib.data.pairs import Pair, Part
from lib.data.root import DataError

COUNT = 48  # images, half of each class
SHADES = {"ant": 40, "bee": 200}
Change = Callable[[Path], object]
pytestmark = pytest.mark.usefixtures("own_cache")


def arrays(**changes) -> dict[str, np.ndarray]:
    """Two classes told by their brightness; every image has its number in its corner."""
    labels = np.arange(COUNT) % 2
    images = np.where(labels[:, None, None] == 1, 200, 40) * np.ones((1, 10, 10))
    images[:, 0, 0] = np.arange(COUNT)
    return {"images": images.astype(np.uint8), "labels": labels, **changes}


def write_npz(folder: Path, **changes) -> Path:
    found = {name: array for name, array in arrays(**changes).items() if array is not None}
    np.savez(folder / "own.npz", **found)
    return folder / "own.npz"


def write_folder(folder: Path, kinds=SHADES, count: int = 20, split: bool = True, mode: str = "RGB") -> Path:
    for place in ("train", "test") if split else ("",):
        for kind, shade in kinds.items():
            (folder / "own" / place / kind).mkdir(parents=True)
            for number in range(count):
                image = Image.new("L", (10, 10), shade).convert(mode)
                image.save(folder / "own" / place / kind / f"{number}.png")
    return folder / "own"


def grid(count: int = 20) -> list[tuple[str, str, int]]:
    """(hair, gender, number) of `count` images of each combination."""
    kinds = [(hair, gender) for hair in ("blond", "dark") for gender in ("female", "male")]
    return [(hair, gender, number) for number in range(count) for hair, gender in kinds]


def write_table(folder: Path, rows=None, columns=("filename", "hair", "gender"), more=None, name="own.csv") -> Path:
    """Images of 10 by 10, brighter by hair, and their table; `more` is the value of a further column by row."""
    (folder / "images").mkdir()
    lines = [",".join(columns)]
    for index, (hair, gender, number) in enumerate(grid() if rows is None else rows):
        file = f"{index:03}.png"
        Image.new("RGB", (10, 10), (100 if hair == "dark" else 220, number, 0)).save(folder / "images" / file)
        lines.append(",".join([file, hair, gender, *([] if more is None else [str(more(index))])]))
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def table(folder: Path, **options) -> Table:
    given = {"attributes": ("hair", "gender"), "images": str(folder / "images"), **options}
    return Table(str(folder / given.pop("name", "own.csv")), **given)


# What is right.


def test_arrays_of_every_allowed_kind_are_the_same_images(tmp_path):
    plain = Files(str(write_npz(tmp_path))).read()
    assert plain.attribute == "own" and plain.values == ("0", "1")
    assert len(plain.train) == 32 and len(plain.test) == 16, "a third of each class"
    assert torch.bincount(plain.test.labels).tolist() == [8, 8]
    of_first = torch.from_numpy(arrays()["images"][arrays()["labels"] == 0])
    assert not torch.equal(plain.test.images[plain.test.labels == 0].flatten(), of_first[:8].flatten()), "drawn"
    for images in (
        arrays()["images"] / 255,
        (arrays()["images"] / 255).astype(np.float32),
        arrays()["images"].astype(np.uint16) * 257,
        arrays()["images"][..., None],
        arrays()["images"].astype(">u2") * 257,
    ):
        other = Files(str(write_npz(tmp_path, images=images))).read()
        assert torch.equal(other.train.images, plain.train.images) and torch.equal(other.test.images, plain.test.images)
    colour = Files(str(write_npz(tmp_path, images=np.repeat(arrays()["images"][..., None], 3, 3)))).read()
    assert colour.train.images.shape == (32, 3, 10, 10) and torch.equal(colour.train.images[:, :1], plain.train.images)


@pytest.mark.parametrize(
    ("labels", "names", "values"),
    [
        (np.where(np.arange(COUNT) % 2, 1, -1), None, ("-1", "1")),
        (np.where(np.arange(COUNT) % 2, 10, 9).astype(np.int8), None, ("9", "10")),
        (np.arange(COUNT) % 2 == 1, None, ("False", "True")),
        (np.array(["b", "a"])[np.arange(COUNT) % 2], None, ("a", "b")),
        (np.arange(COUNT) % 2, np.array(["zebra", "ant"]), ("ant", "zebra")),
        (np.arange(COUNT) % 2 * 2, np.array(["a", "unused", "c"]), ("a", "c")),
    ],
)
def test_values_are_names_in_their_order_whatever_the_code(labels, names, values, tmp_path):
    part = Files(str(write_npz(tmp_path, labels=labels, names=names))).read()
    assert part.values == values
    bright = part.train.images[:, 0, 5, 5] == 200
    assert torch.equal(part.train.labels == values.index(str(labels[1]) if names is None else names[labels[1]]), bright)


def test_images_named_for_the_test_are_the_test(tmp_path):
    split = np.where(np.arange(COUNT) < 30, "train", "test")
    part = Files(str(write_npz(tmp_path, split=split))).read()
    assert part.train.images[:, 0, 0, 0].tolist() == list(range(30)) and len(part.test) == 18


def test_folders_are_read_with_or_without_a_split_in_any_mode_and_size(tmp_path):
    for number, (split, mode) in enumerate(((True, "RGB"), (False, "L"), (True, "P"), (True, "RGBA"), (False, "1"))):
        (tmp_path / str(number)).mkdir()
        folder = write_folder(tmp_path / str(number), split=split, mode=mode)
        part = Files(str(folder)).read()
        assert part.values == ("ant", "bee") and part.train.images.shape[1:] == (3, 10, 10)
        assert len(part.test) == (40 if split else 14) and len(part.train) == (40 if split else 26)
    for kind in ("train/ant", "test/bee"):
        Image.fromarray(np.full((30, 50), 257 * 90, np.uint16)).save(tmp_path / f"0/own/{kind}/large.PNG")
    assert Files(str(tmp_path / "0/own")).read().train.images.shape[1:] == (3, 32, 32)
    test = Files(str(tmp_path / "0/own"), size=16).read().test
    assert test.images.shape[1:] == (3, 16, 16)
    assert test.images.unique().tolist() == [40, 90, 200], "of 16 bits the upper 8"


# What is not: what becomes of the files, and the line that is said.


def npz(**changes) -> Change:
    return lambda path: write_npz(path.parent, **{name: change(arrays()[name]) for name, change in changes.items()})


def named(*names: object, **changes) -> Change:
    return lambda path: write_npz(path.parent, names=np.array(names), **changes)


def split(of: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda path: write_npz(path.parent, split=of(arrays()["labels"]))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


IMAGE = "train/ant/0.png"
NO_NPZ, FOLDERS = (
    "cannot be read: it must be an .npz of plain arrays",
    "must hold one folder of images a class, and holds",
)
REFUSED: list[tuple[Callable[[Path], Path], Change, str]] = [
    (write_npz, npz(labels=lambda labels: None), r"labels must be \(48,\) numbers or texts, not missing"),
    (write_npz, npz(labels=lambda labels: labels[1:]), r"labels must be \(48,\) .* \(47,\)"),
    (write_npz, npz(labels=lambda labels: labels / 2), "labels must be .* not float64"),
    (write_npz, npz(labels=lambda labels: labels[:, None]), r"labels must be .* \(48, 1\)"),
    (write_npz, npz(labels=lambda labels: labels.astype(object)), NO_NPZ),
    (write_npz, npz(images=lambda images: images.reshape(COUNT, 100)), "images must be uint8"),
    (write_npz, npz(images=lambda images: np.stack([images] * 4, -1)), r"images must be .* \(48, 10, 10, 4\)"),
    (write_npz, npz(images=lambda images: images[:0], labels=lambda labels: labels[:0]), "images must be uint8"),
    (write_npz, npz(images=lambda images: images.astype(np.int32)), "not int32"),
    (write_npz, npz(images=lambda images: images.astype(float)), "floats from 0 to 1.*not float64"),
    (write_npz, npz(images=lambda images: images / 255 - 0.5), "floats from 0 to 1"),
    (write_npz, npz(images=lambda images: np.where(images > 9, np.nan, 0)), "floats from 0 to 1"),
    (write_npz, named("a"), "labels must be numbers from 0 to 0"),
    (write_npz, named("a", "b", labels=arrays()["labels"] - 1), "labels must be numbers from 0 to 1"),
    (write_npz, named(3, 4), "names must be different texts"),
    (write_npz, named("a", "a"), "names must be different texts"),
    (write_npz, named("a", "b", labels=np.array(["a", "b"] * 24)), "names must be"),
    (write_npz, split(lambda labels: np.where(labels, "train", "valid")), 'split must be of "train" and "test"'),
    (write_npz, split(lambda labels: np.array(["train", "test"])), "split must be"),
    (write_npz, split(lambda labels: np.where(labels < 2, "train", "")), "has no test image of 0, 1"),
    (write_npz, split(lambda labels: np.where(labels, "test", "train")), "has no train image of 1"),
    (write_npz, lambda path: path.unlink(), r"own.npz is missing \(.* holds nothing\)"),
    (write_npz, lambda path: path.rename(path.with_name("mine.npz")), "is missing .*holds mine.npz"),
    (write_npz, lambda path: path.write_bytes(path.read_bytes()[:-300]), NO_NPZ),
    (write_npz, lambda path: np.save(path.open("wb"), np.zeros(3)), NO_NPZ),
    (write_npz, lambda path: (path.unlink(), path.symlink_to(path)), "own.npz .*symbolic links|is missing"),
    (write_folder, lambda own: (shutil.rmtree(own), own.write_text("")), NO_NPZ),
    (write_folder, empty, f"{FOLDERS} nothing"),
    (write_folder, lambda own: shutil.rmtree(own / "test"), f"{FOLDERS} train"),
    (write_folder, lambda own: [path.rename(f"{path}.txt") for path in own.rglob("*.png")], FOLDERS),
    (write_folder, lambda own: empty(own / "test"), "differ in ant, bee"),
    (write_folder, lambda own: (own / "test/ant").rename(own / "test/cat"), "differ in ant, cat"),
    (write_folder, lambda own: empty(own / "test/bee"), "differ in bee$"),
    (write_folder, lambda own: (own / IMAGE).write_bytes((own / IMAGE).read_bytes()[:-30]), f"{IMAGE} is not a whole"),
    (write_folder, lambda own: ((own / IMAGE).unlink(), (own / IMAGE).mkdir()), r"read \(Is a directory\)"),
    (write_folder, lambda own: ((own / IMAGE).unlink(), (own / IMAGE).symlink_to("no")), f"{IMAGE} is missing"),
]


@pytest.mark.parametrize(("write", "change", "line"), REFUSED)
def test_files_that_are_damaged_or_do_not_fit_are_refused_in_one_line(write, change, line, tmp_path, refuses):
    path = write(tmp_path)
    source = Files(str(path))
    change(path)
    refuses(DataError, source.read, match=line, words=[tmp_path])


def test_what_is_asked_of_files_is_checked(tmp_path, refuses):
    path = str(write_npz(tmp_path))
    refuses(DataError, Files(path, ("3",)).read, match="has no class 3; it has 0, 1")
    refuses(ValueError, Files, path, ("1", "1"), match="classes must be different, not 1, 1")
    for size in (4, 2.5):
        refuses(ValueError, Files, path, size=size, match="size must be a whole number")


def part(name: str, values: tuple[str, ...], bright: str, count: int = 24) -> Part:
    """Images that are bright where their class is called `bright`."""
    codes = np.arange(count) % len(values)
    images = np.where(np.array(values)[codes] == bright, 200, 40)[:, None, None] * np.ones((1, 8, 8))
    split = Split.of(images.astype(np.uint8), codes)
    return Part(name, split, split, values)


# Of two sides, the names of their classes; "" where they go together, the bright ones with each other, else the line.
SIDES: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (("ant", "bee"), ("ant", "bee"), ""),
    (("a", "bee", "c"), ("c", "a", "bee"), ""),
    (("ant", "bee"), ("0", "bee, a digit"), ""),
    ((), ("ant", "bee"), ""),
    (("Ant", "cow"), ("ant", "dog"), "differ in Ant, ant, cow, dog"),
    (("ant", "cow"), ("Ant", "dog"), "differ in Ant, ant, cow, dog"),
    (("ant", "bee"), ("bee", "cat"), "differ in ant, cat"),
    (("ant", "bee"), ("0", "1", "2"), "equally many classes, not 2 and 3 classes"),
]


@pytest.mark.parametrize("names, others, line", SIDES)
def test_classes_of_two_sides_go_together_by_their_names_or_are_refused(names, others, line, refuses):
    first = part("first", names or ("0", "bee"), "bee")
    first = first if names else Part("first", first.train, first.test)
    second = part("second", others, "bee" if "bee" in others else others[1])
    if line:
        refuses(DataError, Pair, "own", (first, second), match=line)
        return
    made = Pair("own", (first, second)).load()
    upper, lower = made.train.images[:, 0, 4, 4], made.train.images[:, 0, 12, 4]
    assert torch.equal(upper, lower) and set(upper.tolist()) == {40, 200}
    if set(names) == set(others):
        assert made.values["first"] == made.values["second"] == names


def test_a_pair_of_files_travels_by_name_and_refuses_other_files(tmp_path, refuses):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    split = np.where(np.arange(COUNT) % 4 < 2, "train", "test")
    first, second = write_npz(tmp_path / "a", split=split), write_folder(tmp_path / "b", {"0": 30, "1": 90})
    files = Files(str(first), attribute="shade"), Files(str(second), attribute="tone")
    source = Pair("shade-tone", files)
    assert source.configuration["experiment"] == "own pair" and str(tmp_path) not in str(source.configuration)
    sent = pickle.loads(pickle.dumps(source))
    assert sent == source and len(pickle.dumps(source)) < 2000, "the files stay where they are"
    loaded = sent.load(1)
    assert loaded.attributes == ("shade", "tone") and loaded.values == {"shade": ("0", "1"), "tone": ("0", "1")}
    write_npz(tmp_path / "a", split=split, images=255 - arrays()["images"])
    refuses(DataError, sent.load, match="others than those that the trial was made for; make it anew")
    assert Pair("shade-tone", files).configuration != source.configuration
    first.unlink()
    assert sent.lacks() == f"{first} is missing"


# Tables.


def test_a_table_gives_each_image_its_values_and_splits_by_seed(tmp_path):
    write_table(tmp_path)
    source = table(tmp_path)
    assert source.name == "own hair and gender" and str(tmp_path) not in str(source.configuration)
    data, again, other = (source.load(seed, 8) for seed in (0, 0, 1))
    assert data.values == {"hair": ("blond", "dark"), "gender": ("female", "male")} and data.classes == 2
    assert [len(getattr(data, split)) for split in ("train", "validation", "test")] == [48, 8, 16]
    assert len(data.probe_train) == 8 and len(data.probe_test) == 16 and data.mean_pixel is not None
    for split in (data.train, data.validation, data.test, data.probe_train, data.probe_test):
        assert torch.equal(split.images[:, 0, 4, 4] == 100, split.labels == 1)
    assert torch.equal(again.train.images, data.train.images)
    assert not torch.equal(other.train.images, data.train.images)
    assert pickle.loads(pickle.dumps(source)).load(0, 8).values == data.values
    assert table(tmp_path, natural=True).load(0, 8).mean_pixel is None


def test_few_images_of_a_group_train_the_probe_with_all_those_of_the_others(tmp_path):
    rows = [row for row in grid(60) if row[:2] != ("blond", "male") or row[2] < 20]
    write_table(tmp_path, rows)
    data = table(tmp_path).load(0, 8)
    assert torch.bincount(data.groups(data.probe_train)).tolist() == [6, 2, 6, 6]
    assert torch.bincount(data.groups(data.probe_test)).tolist() == [4, 4, 4, 4]


def test_any_number_of_attributes_of_up_to_twenty_values(tmp_path, refuses):
    write_table(tmp_path, grid(60), ("filename", "hair", "gender", "age"), more=lambda row: row // 4 % 3 - 1)
    data = table(tmp_path, attributes=("age", "hair", "gender")).load(0, 8)
    assert data.values["age"] == ("age -1", "age 0", "age 1") and data.classes == 3
    assert len(data.group_names) == 12 and data.group_weights.sum() == pytest.approx(1)
    for attributes in ((), ("hair",), ("hair", "hair"), ("hair", "gender", "hair")):
        refuses(ValueError, table, tmp_path, attributes=attributes, match="two or more different columns")
    rows = (tmp_path / "own.csv").read_text().splitlines()
    for count in (20, 21):
        lines = [row.rpartition(",")[0] + f",{number % count}" for number, row in enumerate(rows[1:])]
        (tmp_path / "own.csv").write_text("\n".join([rows[0], *lines]))
        if count == 20:
            assert table(tmp_path, attributes=("age", "hair")).attributes == ("age", "hair")
    refuses(DataError, table, tmp_path, attributes=("age", "hair"), match="values of age, and has 21")


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "valid", "TEST"), (0, 1, 2)])
def test_a_split_that_is_named_holds_for_every_seed(words, tmp_path):
    write_table(tmp_path, columns=("filename", "hair", "gender", "split"), more=lambda row: words[min(2, row // 4 % 4)])
    first, second = (table(tmp_path).load(seed, 8) for seed in (0, 1))
    assert torch.equal(first.train.images, second.train.images) and len(first.train) == 20 and len(first.test) == 40


def test_a_split_without_validation_takes_it_from_training(tmp_path):
    columns = ("filename", "hair", "gender", "part")
    write_table(tmp_path, grid(40), columns, more=lambda row: "test" if row // 4 % 4 == 0 else "train")
    data = table(tmp_path, split="part").load(0, 8)
    assert [len(split) for split in (data.train, data.validation, data.probe_train, data.test)] == [96, 12, 12, 40]


SAME_TABLES: list[tuple[Callable[[str], str], dict]] = [
    (lambda text: "\ufeff" + text.replace("\n", "\r\n").replace("blond", '"blond"'), {}),  # Windows, quotes
    (lambda text: "\n".join(",".join(line.split(",")[::-1]) for line in text.split("\n")), {}),  # columns turned
    (lambda text: "\n".join([text.split("\n")[0], *text.strip().split("\n")[:0:-1], ""]), {}),  # rows turned
    (lambda text: text.replace("\n", ",\n").replace("gender,", "gender,note", 1), {}),  # a column more, with blanks
    (lambda text: text.replace("filename", "picture"), {"file": "picture"}),
]


@pytest.mark.parametrize("change, options", SAME_TABLES)
def test_tables_that_say_the_same_are_the_same_source(change, options, tmp_path):
    path = write_table(tmp_path)
    before = table(tmp_path)
    path.write_bytes(change(path.read_text()).encode())
    assert table(tmp_path, **options).digest == before.digest
    (tmp_path / "own.tsv").write_text(path.read_text().replace(",", "\t"))
    assert table(tmp_path, name="own.tsv", **options).digest == before.digest


def edited(old: str, new: str, count: int = 1) -> Change:
    def change(folder: Path) -> None:
        text = (folder / "own.csv").read_text()
        assert old in text
        (folder / "own.csv").write_text(text.replace(old, new, count))

    return change


# What becomes of the table, with which options it is read, and the line that is said.
TABLE_CHANGES: list[tuple[Change, dict, str]] = [
    (lambda folder: None, {"split": "fold"}, "has no column fold"),
    (lambda folder: None, {"split": "gender"}, "has gender 'female' for 000.png; allowed are train"),
    (lambda folder: None, {"attributes": ("filename", "hair")}, "filename, which can be no attribute; name it"),
    (edited("filename", "picture"), {}, "in no column called file, filename,.*; name it"),
    (edited("female", "male", 999), {}, "from 2 to 20 values of gender, and has 1"),
    (edited("blond", "Blond"), {}, "lack: "),  # another value
    (lambda folder: (folder / "images/007.png").unlink(), {}, "007.png is missing"),
]


@pytest.mark.parametrize("change, options, line", TABLE_CHANGES)
def test_a_table_that_is_damaged_or_misnamed_is_refused_in_one_line(change, options, line, tmp_path, refuses):
    write_table(tmp_path)
    change(tmp_path)
    refuses(DataError, lambda: table(tmp_path, **options).load(0, 8), match=line)


@pytest.mark.parametrize("kept", [0, 17, 18])
def test_combinations_with_too_few_images_are_named_before_any_is_decoded(kept, tmp_path, refuses, own_cache):
    write_table(tmp_path, [row for row in grid() if row[:2] != ("blond", "male") or row[2] < kept])
    if kept < 18:
        refuses(DataError, table(tmp_path).load, 0, 8, match="4 or more .*lack: blond, male" if kept else "lack: blond")
        assert not own_cache.exists()
    else:
        data = table(tmp_path).load(0, 8)
        assert torch.bincount(data.groups(data.probe_train)).tolist() == [2, 2, 2, 2]


def test_other_files_than_at_first_are_refused(tmp_path, refuses):
    write_table(tmp_path)
    source = table(tmp_path)
    edited("000.png,blond", "000.png,dark")(tmp_path)
    refuses(DataError, source.load, 0, 8, match="others than those that the trial was made for")
    shutil.rmtree(tmp_path / "images")
    assert source.lacks() == f"{tmp_path / 'images'} is missing"


def test_celeba_and_wilds_are_tables_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))
    write_celeba(tmp_path, {kind: 3 * count for kind, count in COUNTS.items()})
    faces = Table("celeba", ("Male", "Blond_Hair")).load(0, 8)
    assert faces.values == {"Male": ("not Male", "Male"), "Blond_Hair": ("not Blond_Hair", "Blond_Hair")}
    assert faces.mean_pixel is None and len(faces.probe_train) == 13 + 12 + 6 + 9
    own = Table(
        str(tmp_path / "celeba/list_attr_celeba.txt"), ("Male", "Blond_Hair"), str(tmp_path / "celeba/img_align_celeba")
    )
    assert own.load(0, 8).values["Male"] == ("Male -1", "Male 1")
    write_birds(tmp_path, "waterbirds_v1.0", COUNTS)
    place = tmp_path / "waterbirds_v1.0"
    birds = Table(str(place / "metadata.csv"), ("place", "y"), str(place)).load(0, 8)
    assert birds.values == {"place": ("place 0", "place 1"), "y": ("y 0", "y 1")} and len(birds.train) == 36
