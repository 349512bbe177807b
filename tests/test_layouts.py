"""The layouts that the tools of each data set leave: each is read, the first usable one wins, a miss says what lies
there."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_trees import write_birds, write_celeba, write_domains, write_image
from images import write_cifar_archive, write_cifar_folder, write_mnist

from lib.data.__main__ import state
from lib.data.dataset import Dataset
from lib.data.domains import Domains
from lib.data.groups import Groups
from lib.data.own import Files
from lib.data.readers import CLASSES
from lib.data.root import LAYOUTS, DataError, MissingData, find

pytestmark = pytest.mark.usefixtures("own_cache")
BIRDS = "waterbird_complete95_forest2water2"
WRITE: dict[str, Callable] = {
    "mnist": write_mnist,
    "fashion-mnist": lambda where: write_mnist(where, "FashionMNIST"),
    "cifar10": write_cifar_folder,
    "waterbirds": write_birds,
    "celeba": write_celeba,
    "birds_on_scenes": lambda where: write_birds(where, "birds_on_scenes"),
    "pacs": write_domains,
    "vlcs": lambda where: write_domains(where, "vlcs"),
    "office_home": lambda where: write_domains(where, "office_home"),
}


def load(name: str, where: Path) -> torch.Tensor:
    """Images of a set, whatever it is."""
    if name in CLASSES:
        return Files(name, CLASSES[name][:2]).read(where).test.images
    source = Groups(name) if name in ("waterbirds", "celeba", "birds_on_scenes") else Domains(name, "C")
    data: Dataset = source.load(0, 8, where)
    return data.test.images


def moved(made: str, there: str) -> Callable[[Path], None]:
    """Move a folder of the data root to another place there."""

    def move(where: Path) -> None:
        shutil.move(where / made, where / "moved")
        (where / there).parent.mkdir(parents=True, exist_ok=True)
        (where / "moved").rename(where / there)

    return move


def packed(folder: str, keep: bool = False) -> Callable[[Path], None]:
    """Pack every file of a folder, as it was published."""

    def pack(where: Path) -> None:
        for path in list((where / folder).iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            if not keep:
                path.unlink()

    return pack


def in_drive(where: Path) -> None:
    """CelebA as its official drive has it."""
    for place, names in (("Anno", ["list_attr_celeba.txt"]), ("Eval", ["list_eval_partition.txt"])):
        (where / "CelebA" / place).mkdir(parents=True)
        for name in names:
            shutil.move(where / "celeba" / name, where / "CelebA" / place / name)
    (where / "CelebA/Img").mkdir()
    shutil.move(where / "celeba/img_align_celeba", where / "CelebA/Img/img_align_celeba")
    (where / "celeba").rmdir()


# The set, what becomes of the folders that its first layout has, and the folder that is then read.
OTHERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "MNIST of DomainBed": ("mnist", moved("MNIST", "MNIST/MNIST"), "MNIST/MNIST/raw"),
    "MNIST without raw": ("mnist", moved("MNIST/raw", "mnist"), "mnist"),
    "MNIST fetched by hand": ("mnist", packed("MNIST/raw"), "MNIST/raw"),
    "MNIST packed and unpacked": ("mnist", packed("MNIST/raw", keep=True), "MNIST/raw"),
    "FMNIST fetched by hand": ("fashion-mnist", packed("FashionMNIST/raw"), "FashionMNIST/raw"),
    "FMNIST of DomainBed": ("fashion-mnist", moved("FashionMNIST", "FashionMNIST/FashionMNIST"), "FashionMNIST"),
    "Waterbirds of WILDS": ("waterbirds", moved(BIRDS, "waterbirds_v1.0"), "waterbirds_v1.0"),
    "Waterbirds of group_DRO": ("waterbirds", moved(BIRDS, f"cub/data/{BIRDS}"), f"cub/data/{BIRDS}"),
    "Waterbirds unpacked into its own name": ("waterbirds", moved(BIRDS, f"{BIRDS}/{BIRDS}"), BIRDS),
    "CelebA of WILDS": ("celeba", moved("celeba", "celebA_v1.0"), "celebA_v1.0"),
    "CelebA of group_DRO": ("celeba", moved("celeba", "celebA/data"), "celebA/data"),
    "CelebA of Kaggle": ("celeba", moved("celeba", "archive"), "archive"),
    "CelebA of Kaggle, named": ("celeba", moved("celeba", "celeba-dataset"), "celeba-dataset"),
    "CelebA's drive": ("celeba", in_drive, "CelebA"),
    "PACS of Dassl": ("pacs", moved("PACS", "pacs/images"), "pacs/images"),
    "PACS from its archive": ("pacs", moved("PACS", "PACS/kfold"), "PACS/kfold"),
    "PACS as its archive names it": ("pacs", moved("PACS", "kfold"), "kfold"),
    "VLCS twice": ("vlcs", moved("VLCS", "VLCS/VLCS"), "VLCS/VLCS"),
    "OfficeHome as its archive names it": (
        "office_home",
        moved("office_home", "OfficeHomeDataset_10072016"),
        "OfficeHomeDataset_10072016",
    ),
}


@pytest.mark.parametrize("layout", OTHERS)
def test_every_layout_gives_the_images_of_the_first_one(layout, tmp_path):
    name, change, there = OTHERS[layout]
    WRITE[name](tmp_path)
    before = load(name, tmp_path)
    change(tmp_path)
    assert torch.equal(load(name, tmp_path), before)
    assert find(name, tmp_path).is_relative_to(tmp_path / there) and state(name, tmp_path)[0] == "reduced"


@pytest.mark.parametrize("place", [".", "cifar10", "CIFAR10"])
def test_the_archive_of_cifar_need_not_be_unpacked(place, tmp_path, monkeypatch, refuses):
    write_cifar_archive(tmp_path / "made", monkeypatch)
    before = load("cifar10", tmp_path / "made")
    (tmp_path / "root" / place).mkdir(parents=True)
    archive = tmp_path / "root" / place / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "made/cifar-10-batches-py", "cifar-10-batches-py")
    assert torch.equal(load("cifar10", tmp_path / "root"), before)
    archive.write_bytes(archive.read_bytes()[:-200])
    refuses(DataError, load, "cifar10", tmp_path / "root", words=[archive, "cannot be read"])
    archive.write_text("<html>")
    refuses(DataError, load, "cifar10", tmp_path / "root", words=[archive, "cannot be read"])


@pytest.mark.parametrize("content", [b"", b"<html>", gzip.compress(b"x" * 99)[:-9], gzip.compress(b"x" * 99)])
def test_a_damaged_packed_file_is_named(content, tmp_path, refuses):
    write_mnist(tmp_path)
    packed("MNIST/raw")(tmp_path)
    (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte.gz").write_bytes(content)
    refuses(DataError, load, "mnist", tmp_path, words=["t10k-images-idx3-ubyte"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_hides_no_good_one(name, tmp_path):
    WRITE[name](tmp_path / "made")
    first, *others = [folder for folder in LAYOUTS[name] if folder != "."] * 2
    there = tmp_path / "root" / others[0]
    made = find(name, tmp_path / "made")
    (tmp_path / "root" / first).mkdir(parents=True)
    if len(LAYOUTS[name]) > 1 and name != "cifar10":
        shutil.copytree(made, there, dirs_exist_ok=True)
        assert find(name, tmp_path / "root") == there
        assert torch.equal(load(name, tmp_path / "root"), load(name, tmp_path / "made"))
    else:
        assert find(name, tmp_path / "root") == tmp_path / "root" / first, "damaged, where nothing better is there"


@pytest.mark.parametrize("name", LAYOUTS)
def test_litter_is_passed_over_and_a_miss_says_what_lies_there(name, tmp_path, refuses):
    (tmp_path / "Downloads").mkdir()
    (tmp_path / "celeba.zip").write_text("")
    words = [f"{tmp_path} holds Downloads, celeba.zip)", "SAM_DATA_ROOT"]
    refuses(MissingData, load, name, tmp_path, words=words)
    WRITE[name](tmp_path)
    before, said = load(name, tmp_path), state(name, tmp_path)
    for place in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):  # what systems leave
        for file in (".DS_Store", "._picture.png", "._picture.jpg", "Thumbs.db"):
            (place / file).write_text("no image")
        write_image(place / ".ipynb_checkpoints/picture.jpg", 1)
    assert torch.equal(load(name, tmp_path), before) and state(name, tmp_path) == said


def test_an_inner_archive_that_was_left_packed_is_named(tmp_path, refuses):
    write_celeba(tmp_path)
    shutil.make_archive(tmp_path / "celeba/img_align_celeba", "zip", tmp_path / "celeba", "img_align_celeba")
    shutil.rmtree(tmp_path / "celeba/img_align_celeba")
    words = ["img_align_celeba is missing", "img_align_celeba.zip", "--download celeba"]
    refuses(MissingData, load, "celeba", tmp_path, words=words)
