import shutil
from pathlib import Path

import pytest
import torch
from image_trees import numbers, write_domains

from lib.data.__main__ import state
from lib.data.dataset import Dataset, Split
from lib.data.domains import BENCHMARKS, COUNTS, Domains
from lib.data.root import DataError, MissingData, data_root

SIZE = 8
SPLITS = ("train", "validation", "probe_train", "test")
CLASSES = ("dog", "house", "person")
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, dict[int, tuple[int, int]]]:
    root = tmp_path_factory.mktemp("tree")
    return root, write_domains(root)


def load(root: Path, target: str = "C", seed: int = 0, benchmark: str = "pacs") -> Dataset:
    return Domains(benchmark, target).load(seed, SIZE, root)


def used(split: Split) -> list[int]:
    return numbers(split.images)


def everything(chosen: Dataset) -> list[int]:
    return sorted(sum((used(getattr(chosen, split)) for split in SPLITS), []))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_gives_each_image_with_its_class_and_domain(benchmark, tmp_path):
    assert Domains(benchmark, "C").lacks(tmp_path)
    made = write_domains(tmp_path, benchmark)
    for position, target in enumerate(BENCHMARKS[benchmark]):
        source = Domains(benchmark, target)
        assert source.lacks(tmp_path) is None
        assert source.configuration == {"experiment": "domains", "benchmark": benchmark, "target": target}
        chosen = load(tmp_path, target, benchmark=benchmark)
        assert chosen.name == source.name == f"{benchmark} without {target}"
        assert (chosen.classes, chosen.attributes, chosen.group_names) == (3, ("class",), CLASSES)
        assert chosen.mean_pixel is None and chosen.group_weights is None and chosen.probe_test is chosen.test
        for split in SPLITS:
            found = getattr(chosen, split)
            assert found.images.shape == (len(found), 3, SIZE, SIZE) and found.images.dtype == torch.uint8
            assert found.images.is_contiguous(memory_format=torch.channels_last)
            domains, labels = zip(*(made[number] for number in used(found)))
            assert found.labels.tolist() == found.attributes["class"].tolist() == list(labels)
            assert set(domains) == {position} if split in SPLITS[2:] else set(domains) == set(range(4)) - {position}


def test_folders_of_domains_may_have_the_papers_letters_for_names_and_underscores_for_blanks(tree, tmp_path):
    write_domains(tmp_path, folders=("art_painting", "C", "P", "S"))
    for target in "AS":
        first, second = load(tree[0], target), load(tmp_path, target)
        assert all(used(getattr(first, split)) == used(getattr(second, split)) for split in SPLITS)
    write_domains(tmp_path, "office_home", folders=("Art", "Clipart", "Product", "Real_World"))
    assert len(load(tmp_path, "R", benchmark="office_home").probe_train) == 25


def test_every_image_serves_in_one_place_and_shares_are_those_of_the_paper(tree, own_cache):
    for target in "ACPS":
        assert everything(load(tree[0], target)) == list(range(4 * 31))
    assert len(list(own_cache.glob("*.npy"))) == 1, "all targets share one decoding"
    chosen = load(tree[0])
    assert len(chosen.validation) == 9 and len(chosen.train) == 84
    assert torch.bincount(chosen.probe_train.labels).tolist() == [9, 8, 8]
    assert torch.bincount(chosen.test.labels).tolist() == [2, 2, 2]


def test_every_image_is_reachable_in_every_split(tree):
    root, made = tree
    reached = {split: set() for split in SPLITS}
    for seed in range(60):
        chosen = load(root, seed=seed)
        for split, seen in reached.items():
            seen.update(used(getattr(chosen, split)))
    of_target = {number for number, (domain, _) in made.items() if domain == 1}
    for split, seen in reached.items():
        assert seen == (of_target if split in SPLITS[2:] else set(made) - of_target), split


def test_same_seed_gives_the_same_set_and_another_seed_another(tree):
    first, again, other = (load(tree[0], seed=seed) for seed in (0, 0, 1))
    for split in SPLITS:
        assert torch.equal(getattr(first, split).images, getattr(again, split).images)
        assert used(getattr(first, split)) != used(getattr(other, split))


def test_oddly_named_files_are_read(tmp_path):
    made = write_domains(tmp_path)
    house = tmp_path / "PACS/cartoon/house"
    odd = ("With blank.jpg", "Häuschen 家.JPG", "x.y.JPEG", "z.Png")
    for path, name in zip(sorted(house.iterdir()), odd):
        path.rename(house / name)
    chosen = load(tmp_path)
    assert everything(chosen) == sorted(made) and chosen.group_names == CLASSES


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DIFFER = "photo and art_painting must have the same classes, and differ in"
# What becomes of the folder of the photographs, and what is said then of which folder below PACS.
WRONG_FOLDERS = {
    "no domain": (lambda photo: photo.rename(photo.parent / "photos"), "photo is missing"),
    "other case": (lambda photo: (photo / "dog").rename(photo / "Dog"), f"{DIFFER} Dog, dog;"),
    "one more": (lambda photo: shutil.copytree(photo / "dog", photo / "cat"), f"{DIFFER} cat;"),
    "one less": (lambda photo: (photo / "dog").rename(photo.parent / "x"), f"{DIFFER} dog;"),
    "no image": (lambda photo: empty(photo / "house"), f"{DIFFER} house;"),
    "no class": (
        lambda photo: [empty(domain) for domain in photo.parent.iterdir()],
        "art_painting must hold one folder of images",
    ),
}


@pytest.mark.parametrize("kind", WRONG_FOLDERS)
def test_missing_domains_and_classes_and_those_that_differ_are_named(kind, tmp_path, refuses):
    write_domains(tmp_path)
    change, problem = WRONG_FOLDERS[kind]
    change(tmp_path / "PACS/photo")
    error = MissingData if kind == "no domain" else DataError
    message = refuses(error, load, tmp_path, match=f"{tmp_path}/PACS/{problem}", words=["--download pacs"])
    assert state("pacs", tmp_path) == ("damaged", message)


def test_target_with_a_single_image_of_a_class_is_refused(tmp_path, refuses):
    write_domains(tmp_path)
    for path in sorted((tmp_path / "PACS/photo/house").iterdir())[1:]:
        path.unlink()
    refuses(DataError, load, tmp_path, "P", match="domain P .* 1 of house")
    assert len(load(tmp_path, "A").test) == 6


def test_state_tells_complete_reduced_and_missing_apart(tmp_path, monkeypatch):
    assert state("vlcs", tmp_path)[0] == "missing"
    write_domains(tmp_path, "vlcs", images=2)
    detail = "7 Caltech101, 7 LabelMe, 7 SUN09, 7 VOC2007 images of 3 classes"
    assert state("vlcs", tmp_path) == ("reduced", detail)
    for counts, kind in (((7,) * 4, "complete"), ((7, 7, 7, 8), "reduced")):
        monkeypatch.setitem(COUNTS, "vlcs", counts)
        assert state("vlcs", tmp_path) == (kind, detail)


@pytest.mark.parametrize("given, word", [(("domain_net", "C"), "benchmark"), (("pacs", "photo"), "A, C, P, S")])
def test_unknown_benchmark_and_target_are_refused(given, word, refuses):
    refuses(ValueError, Domains, *given, match=word)


@pytest.mark.parametrize("seed, size, word", [(0, 0, "size"), (0, None, "size"), (-1, SIZE, "seed"), (True, 8, "seed")])
def test_wrong_arguments_are_refused_before_files_are_touched(seed, size, word, tmp_path, refuses):
    refuses(ValueError, Domains("pacs", "C").load, seed, size, tmp_path, match=word)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_real_benchmarks_have_the_expected_sizes(benchmark):
    counts = COUNTS[benchmark]
    if Domains(benchmark, "C").lacks():
        pytest.skip(f"{benchmark} is not under the data root {data_root()}")
    if state(benchmark)[0] != "complete":
        pytest.skip(f"{benchmark} is reduced")
    for target, count in zip(BENCHMARKS[benchmark], counts):
        chosen = Domains(benchmark, target).load(0, SIZE)
        assert len(chosen.probe_train) + len(chosen.test) == count
        assert len(chosen.train) + len(chosen.validation) == sum(counts) - count
        assert len(chosen.test) == pytest.approx(0.2 * count, abs=chosen.classes)
        assert set(chosen.train.labels.tolist()) == set(range(chosen.classes))
