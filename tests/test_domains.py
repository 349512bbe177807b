from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from image_trees import DOMAIN_FOLDERS, numbers, snapshot, write_domains, write_image

from lib.data import cache, domains, sources
from lib.data.domains import BENCHMARKS, DomainSet, DomainSplit
from lib.data.sources import DataError, MissingData, data_root

SIZE = 8
SPLITS = ("train", "validation", "target_train", "target_test")
CLASSES = ("dog", "house", "person")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_CACHE_ROOT", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, dict[int, tuple[int, int]]]:
    root = tmp_path_factory.mktemp("tree")
    return root, write_domains(root)


def load(tree, target: str = "C", seed: int = 0) -> DomainSet:
    return domains.load("pacs", target, SIZE, seed, tree[0])


def used(split: DomainSplit) -> list[int]:
    return numbers(split.images)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("benchmark", domains.NAMES)
def test_every_benchmark_gives_each_image_with_its_class_and_domain(benchmark, tmp_path):
    assert not domains.available(benchmark, tmp_path)
    made = write_domains(tmp_path, benchmark)
    assert domains.available(benchmark, tmp_path)
    letters = tuple(BENCHMARKS[benchmark].domains)
    for position, target in enumerate(letters):
        chosen = domains.load(benchmark, target, SIZE, 0, tmp_path)
        assert (chosen.name, chosen.target, chosen.domains) == (benchmark, target, letters)
        assert (chosen.classes, chosen.class_names) == (3, CLASSES)
        for split in SPLITS:
            found = getattr(chosen, split)
            assert found.images.shape == (len(found), 3, SIZE, SIZE) and found.images.dtype == torch.uint8
            assert found.images.is_contiguous(memory_format=torch.channels_last)
            assert list(zip(found.domains.tolist(), found.labels.tolist())) == [made[number] for number in used(found)]
            assert {position} == set(found.domains.tolist()) if split in SPLITS[2:] else (position not in found.domains)


@pytest.mark.parametrize("folders", [("A", "C", "P", "S"), ("art_painting", "C", "photo", "S")])
def test_folders_of_domains_may_have_the_papers_letters_for_names(folders, tree, tmp_path):
    write_domains(tmp_path, folders=folders)
    for target in "AS":
        first, second = load(tree, target), domains.load("pacs", target, SIZE, 0, tmp_path)
        assert all(used(getattr(first, split)) == used(getattr(second, split)) for split in SPLITS)


def test_blanks_in_the_folders_of_domains_may_be_underscores(tmp_path):
    write_domains(tmp_path, "office_home", folders=("Art", "Clipart", "Product", "Real_World"))
    assert len(domains.load("office_home", "R", SIZE, 0, tmp_path).target_train) == 25


@pytest.mark.parametrize("target", "ACPS")
def test_every_image_serves_in_exactly_one_place(tree, target):
    chosen = load(tree, target)
    assert sorted(sum((used(getattr(chosen, split)) for split in SPLITS), [])) == list(range(4 * 31))


def test_one_in_ten_training_images_is_for_validation_and_one_in_five_of_the_targets_for_tests(tree):
    chosen = load(tree)
    assert len(chosen.validation) == 9 and len(chosen.train) == 84
    assert torch.bincount(chosen.target_train.labels).tolist() == [9, 8, 8]
    assert torch.bincount(chosen.target_test.labels).tolist() == [2, 2, 2]


def test_every_image_is_reachable_in_every_split(tree):
    reached = {split: set() for split in SPLITS}
    for seed in range(60):
        chosen = load(tree, seed=seed)
        for split, seen in reached.items():
            seen.update(used(getattr(chosen, split)))
    of_target = {number for number, (domain, _) in tree[1].items() if domain == 1}
    for split, seen in reached.items():
        assert seen == (of_target if "target" in split else set(tree[1]) - of_target), split


def test_same_seed_gives_the_same_set_and_another_seed_another(tree):
    first, again, other = load(tree), load(tree), load(tree, seed=1)
    for split in SPLITS:
        assert torch.equal(getattr(first, split).images, getattr(again, split).images)
        assert used(getattr(first, split)) != used(getattr(other, split))


def test_all_targets_share_one_decoding(tree, tmp_path):
    for target in "ACPS":
        load(tree, target)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_oddly_named_files_are_read_and_others_passed_over(tmp_path):
    made = write_domains(tmp_path)
    house = tmp_path / "PACS/cartoon/house"
    odd = ("With blank.jpg", "Häuschen 家.JPG", "x.y.JPEG", "z.Png")
    for path, name in zip(sorted(house.iterdir()), odd):
        path.rename(house / name)
    for name in ("Thumbs.db", ".DS_Store", "._pic_001.jpg", "list.txt"):
        (house / name).write_text("no image")
        (tmp_path / "PACS" / name).write_text("no image")
        (tmp_path / "PACS/photo" / name).write_text("no image")
    (tmp_path / "PACS/photo/.ipynb_checkpoints").mkdir()
    chosen = domains.load("pacs", "C", SIZE, 0, tmp_path)
    assert sorted(sum((used(getattr(chosen, split)) for split in SPLITS), [])) == sorted(made)
    assert chosen.class_names == CLASSES


def test_missing_domain_is_named(tmp_path):
    write_domains(tmp_path)
    (tmp_path / "PACS/photo").rename(tmp_path / "PACS/photos")
    with pytest.raises(MissingData, match="--download pacs") as error:
        domains.load("pacs", "A", SIZE, 0, tmp_path)
    assert str(tmp_path / "PACS/photo is") in one_line(error)
    assert domains.state("pacs", tmp_path) == ("damaged", str(error.value))


@pytest.mark.parametrize(
    "change",
    [
        lambda photo: (photo / "dog").rename(photo / "Dog"),
        lambda photo: (photo / "cat").mkdir(),
        lambda photo: (photo / "person").rename(photo.parent / "elsewhere"),
    ],
)
def test_classes_that_differ_over_domains_are_named(change, tmp_path):
    write_domains(tmp_path)
    change(tmp_path / "PACS/photo")
    with pytest.raises(DataError, match="classes (Dog, dog|cat|person);") as error:
        domains.load("pacs", "A", SIZE, 0, tmp_path)
    assert str(tmp_path / "PACS/photo") in one_line(error)
    assert domains.state("pacs", tmp_path)[0] == "damaged"


def test_folders_without_images_and_domains_without_folders_are_named(tmp_path):
    write_domains(tmp_path)
    for path in (tmp_path / "PACS/sketch/house").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no image") as error:
        domains.load("pacs", "A", SIZE, 0, tmp_path)
    assert str(tmp_path / "PACS/sketch/house") in one_line(error)
    for folder in ("art_painting", "cartoon", "photo", "sketch"):
        (tmp_path / "empty/PACS" / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="no folder of a class"):
        domains.load("pacs", "A", SIZE, 0, tmp_path / "empty")


def test_target_with_a_single_image_of_a_class_is_refused(tmp_path):
    write_domains(tmp_path)
    for path in sorted((tmp_path / "PACS/photo/house").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="domain P .* 1 of house"):
        domains.load("pacs", "P", SIZE, 0, tmp_path)
    assert len(domains.load("pacs", "A", SIZE, 0, tmp_path).target_test) == 6


def test_damaged_and_empty_images_are_named(tmp_path):
    write_domains(tmp_path)
    path = tmp_path / "PACS/photo/house/pic_075.jpg"
    path.write_text("<html>quota exceeded</html>")
    with pytest.raises(DataError, match="not a whole image") as error:
        domains.load("pacs", "A", SIZE, 0, tmp_path)
    assert str(path) in one_line(error)
    assert domains.state("pacs", tmp_path)[0] == "reduced"
    assert domains.state("pacs", tmp_path, decode=True) == ("damaged", str(error.value))
    path.write_bytes(b"")
    assert domains.state("pacs", tmp_path) == ("damaged", f"pacs: {path} is empty")


def test_state_tells_complete_reduced_and_missing_apart(tmp_path, monkeypatch):
    assert domains.state("vlcs", tmp_path)[0] == "missing"
    write_domains(tmp_path, "vlcs", images=2)
    assert domains.state("vlcs", tmp_path) == (
        "reduced",
        "7 Caltech101, 7 LabelMe, 7 SUN09, 7 VOC2007 images of 3 classes",
    )
    known = BENCHMARKS["vlcs"]
    monkeypatch.setitem(BENCHMARKS, "vlcs", domains.Benchmark(known.domains, (7,) * 4, 3, known.archive))
    assert domains.state("vlcs", tmp_path)[0] == "complete"


def test_official_archives_fetched_by_hand_are_unpacked_into_the_folders_that_are_read(tmp_path, capsys):
    command = ["--root", str(tmp_path / "root"), "--download"]
    for benchmark in domains.NAMES:
        assert sources.main([*command, benchmark]) == 1
        shown = capsys.readouterr().err
        assert BENCHMARKS[benchmark].archive.file in shown and "https://drive.google.com/uc?id=" in shown
        write_domains(tmp_path / "made", benchmark, images=2)
        folder = tmp_path / "made" / DOMAIN_FOLDERS[benchmark][0]
        inner = {"pacs": "kfold", "vlcs": "VLCS", "office_home": "OfficeHomeDataset_10072016"}[benchmark]
        content = {f"{inner}/{name}": image for name, image in snapshot(folder).items()}
        file = tmp_path / "root" / BENCHMARKS[benchmark].archive.file
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".zip":
            with zipfile.ZipFile(file, "w") as archive:
                for name, image in content.items():
                    archive.writestr(name, image)
        else:
            with tarfile.open(file, "w:gz") as archive:
                for name, image in content.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(image)
                    archive.addfile(member, io.BytesIO(image))
        assert sources.main([*command, benchmark]) == 0
        assert snapshot(tmp_path / "root" / DOMAIN_FOLDERS[benchmark][0]) == snapshot(folder)
        assert f"{benchmark:16} reduced" in capsys.readouterr().out


def test_absent_set_is_named_with_the_way_to_get_it(tmp_path):
    for benchmark in domains.NAMES:
        with pytest.raises(MissingData, match=f"SAM_DATA_ROOT.*--download {benchmark}") as error:
            domains.load(benchmark, "C", SIZE, 0, tmp_path)
        assert str(tmp_path) in one_line(error)


@pytest.mark.parametrize(
    "arguments, word",
    [
        (("domain_net", "C", SIZE), "benchmark"),
        (("pacs", "R", SIZE), "A, C, P, S"),
        (("pacs", "photo", SIZE), "target"),
        (("pacs", "C", 0), "size"),
        (("pacs", "C", SIZE, -1), "seed"),
        (("pacs", "C", SIZE, True), "seed"),
    ],
)
def test_wrong_arguments_are_refused_before_files_are_touched(arguments, word, tmp_path):
    with pytest.raises(ValueError, match=word) as error:
        domains.load(*arguments, root=tmp_path)
    assert "\n" not in str(error.value)


def test_image_of_a_number_is_known_again(tmp_path):
    """What the tests above stand on."""
    for number in (0, 7, 8, 63, 64, 511):
        write_image(tmp_path / f"PACS/photo/dog/{number:03}.jpg", number)
    files = sorted(path.name for path in (tmp_path / "PACS/photo/dog").iterdir())
    images = cache.decoded("x", tmp_path / "PACS/photo/dog", files, SIZE)
    assert numbers(images) == [0, 7, 8, 63, 64, 511]


@pytest.mark.parametrize("benchmark", domains.NAMES)
def test_real_benchmarks_have_the_expected_sizes(benchmark):
    if not domains.available(benchmark):
        pytest.skip(f"{benchmark} is not under the data root {data_root()}")
    counts = dict(zip(BENCHMARKS[benchmark].domains, BENCHMARKS[benchmark].counts))
    if domains.state(benchmark)[0] != "complete":
        pytest.skip(f"{benchmark} is reduced")
    for target, count in counts.items():
        chosen = domains.load(benchmark, target, SIZE)
        assert len(chosen.target_train) + len(chosen.target_test) == count
        assert len(chosen.train) + len(chosen.validation) == sum(counts.values()) - count
        assert len(chosen.target_test) == pytest.approx(0.2 * count, abs=chosen.classes)
        assert set(chosen.train.labels.tolist()) == set(range(chosen.classes))
