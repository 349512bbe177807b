"""Files of the data root: every layout is read, the first usable one wins, damage is named; downloads; the command."""

import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from image_trees import snapshot, write_birds, write_celeba, write_domains, write_image
from images import marked, write_cifar_archive, write_cifar_folder, write_idx, write_mnist
from PIL import Image
from torchvision import datasets

from lib.data import readers, root
from lib.data.__main__ import main, state
from lib.data.dataset import Part, Split
from lib.data.own import Files
from lib.data.root import LAYOUTS, DataError, MissingData, find
from lib.data.sources import SOURCES

RAW = "MNIST/raw"
IMAGES, LABELS = (f"{RAW}/{name}-ubyte" for name in ("train-images-idx3", "t10k-labels-idx1"))
PLANES = ("airplane", "automobile")
REPOSITORY = Path(root.__file__).parents[2]
BIRDS = "waterbird_complete95_forest2water2"
WRITE: dict[str, Callable[[Path], object]] = {
    "mnist": write_mnist,
    "fashion-mnist": partial(write_mnist, folder="FashionMNIST"),
    "cifar10": write_cifar_folder,
    "waterbirds": write_birds,
    "celeba": write_celeba,
    "birds_on_scenes": partial(write_birds, folder="birds_on_scenes"),
    "pacs": write_domains,
    "vlcs": partial(write_domains, benchmark="vlcs"),
    "office_home": partial(write_domains, benchmark="office_home"),
}
pytestmark = pytest.mark.usefixtures("own_cache")


def read(name: str, where: Path | None, *classes: str) -> Part:
    return Files(name, classes).read(where)


def load(name: str, where: Path) -> torch.Tensor:
    """Images of a set, whatever it is."""
    if name in readers.SETS:
        return read(name, where, *readers.CLASSES[name][:2]).test.images
    return SOURCES.get(name, SOURCES.get(f"{name} without C")).load(0, 8, where).test.images


def test_data_root_is_argument_then_environment_then_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DATA_ROOT", "/somewhere")
    assert root.data_root(tmp_path) == tmp_path and root.data_root() == Path("/somewhere")
    monkeypatch.delenv("SAM_DATA_ROOT")
    assert root.data_root() == REPOSITORY / "data"


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_as_they_were_written(name, folder, tmp_path):
    write_mnist(tmp_path, folder, train=3, test=2, seed=1)
    part = read(name, tmp_path)
    assert part.values == readers.CLASSES[name]
    for seed, count, found in ((1, 3, part.train), (2, 2, part.test)):
        expected = marked(dict.fromkeys(range(10), count), 28, 1, seed)
        assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
    some = read(name, tmp_path, part.values[7], part.values[2])
    for code, label in enumerate((7, 2)):  # in the order asked for
        assert torch.equal(some.train.images[some.train.labels == code], part.train.images[part.train.labels == label])


def test_both_layouts_of_cifar_give_the_same_tensors_in_the_order_of_their_pixels(tmp_path, monkeypatch, refuses):
    write_cifar_folder(tmp_path / "folder", classes=3)
    write_cifar_archive(tmp_path / "archive", monkeypatch, classes=3)
    folder, archive = (read("cifar10", tmp_path / kind, *PLANES[::-1]) for kind in ("folder", "archive"))
    for one, other in ((folder.train, archive.train), (folder.test, archive.test)):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        pixels = [image.numpy().tobytes() for image in one.images]
        assert pixels == sorted(pixels)
    shutil.rmtree(tmp_path / "folder/cifar10/train/bird")
    shutil.rmtree(tmp_path / "folder/cifar10/test/bird")
    assert len(read("cifar10", tmp_path / "folder", *PLANES).train) == 40, "only the classes asked for"
    refuses(DataError, read, "cifar10", tmp_path / "folder", "airplane", "bird", match="no train image of bird")


# Layouts.


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
    for name, place in (
        ("list_attr_celeba.txt", "Anno"),
        ("list_eval_partition.txt", "Eval"),
        ("img_align_celeba", "Img"),
    ):
        (where / "CelebA" / place).mkdir(parents=True)
        shutil.move(where / "celeba" / name, where / "CelebA" / place / name)
    (where / "celeba").rmdir()


def of_kaggle(where: Path) -> None:
    shutil.rmtree(where / "celeba")
    write_celeba(where, kaggle=True, nested=True)


# The set, what becomes of the folders that its first layout has, and the folder that is then read.
OTHERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "MNIST of DomainBed": ("mnist", moved("MNIST", "MNIST/MNIST"), "MNIST/MNIST/raw"),
    "MNIST without raw": ("mnist", moved("MNIST/raw", "mnist"), "mnist"),
    "MNIST fetched by hand": ("mnist", packed("MNIST/raw"), "MNIST/raw"),
    "MNIST packed and unpacked": ("mnist", packed("MNIST/raw", keep=True), "MNIST/raw"),
    "FMNIST of DomainBed": ("fashion-mnist", moved("FashionMNIST", "FashionMNIST/FashionMNIST"), "FashionMNIST"),
    "Waterbirds of WILDS": ("waterbirds", moved(BIRDS, "waterbirds_v1.0"), "waterbirds_v1.0"),
    "Waterbirds of group_DRO": ("waterbirds", moved(BIRDS, f"cub/data/{BIRDS}"), f"cub/data/{BIRDS}"),
    "Waterbirds unpacked into its own name": ("waterbirds", moved(BIRDS, f"{BIRDS}/{BIRDS}"), BIRDS),
    "CelebA of WILDS": ("celeba", moved("celeba", "celebA_v1.0"), "celebA_v1.0"),
    "CelebA of group_DRO": ("celeba", moved("celeba", "celebA/data"), "celebA/data"),
    "CelebA of Kaggle": ("celeba", moved("celeba", "archive"), "archive"),
    "CelebA of Kaggle, nested, with commas": ("celeba", of_kaggle, "celeba"),
    "CelebA of Kaggle, named": ("celeba", moved("celeba", "celeba-dataset"), "celeba-dataset"),
    "CelebA's drive": ("celeba", in_drive, "CelebA"),
    "PACS of Dassl": ("pacs", moved("PACS", "pacs/images"), "pacs/images"),
    "PACS from its archive": ("pacs", moved("PACS", "PACS/kfold"), "PACS/kfold"),
    "PACS as its archive names it": ("pacs", moved("PACS", "kfold"), "kfold"),
    "VLCS twice": ("vlcs", moved("VLCS", "VLCS/VLCS"), "VLCS/VLCS"),
    "OfficeHome": ("office_home", moved("office_home", "OfficeHomeDataset_10072016"), "OfficeHomeDataset_10072016"),
}


@pytest.mark.parametrize("layout", OTHERS)
def test_every_layout_gives_the_images_of_the_first_one(layout, tmp_path):
    name, change, there = OTHERS[layout]
    WRITE[name](tmp_path)
    before = load(name, tmp_path)
    change(tmp_path)
    assert torch.equal(load(name, tmp_path), before)
    assert find(name, tmp_path).is_relative_to(tmp_path / there) and state(name, tmp_path)[0] == "reduced"


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
        assert state(name, tmp_path / "root")[0] == "damaged"


@pytest.mark.parametrize("name", LAYOUTS)
def test_litter_is_passed_over_and_a_miss_says_what_lies_there(name, tmp_path, refuses):
    (tmp_path / "Downloads").mkdir()
    (tmp_path / "celeba.zip").write_text("")
    words = [f"{tmp_path} holds Downloads, celeba.zip)", "SAM_DATA_ROOT", root.how([name], tmp_path)]
    refuses(MissingData, load, name, tmp_path, words=words)
    assert state(name, tmp_path) == ("missing", root.how([name], tmp_path))
    WRITE[name](tmp_path)
    before, said = load(name, tmp_path), state(name, tmp_path)
    for place in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):  # what systems leave
        for file in (".DS_Store", "._picture.png", "._picture.jpg", "Thumbs.db"):
            (place / file).write_text("no image")
        write_image(place / ".ipynb_checkpoints/picture.jpg", 1)
        (place / "empty").mkdir()
    assert torch.equal(load(name, tmp_path), before) and state(name, tmp_path) == said


def test_an_inner_archive_that_was_left_packed_is_named(tmp_path, refuses):
    write_celeba(tmp_path)
    shutil.make_archive(tmp_path / "celeba/img_align_celeba", "zip", tmp_path / "celeba", "img_align_celeba")
    shutil.rmtree(tmp_path / "celeba/img_align_celeba")
    words = ["img_align_celeba is missing", "img_align_celeba.zip", "--download celeba"]
    refuses(MissingData, load, "celeba", tmp_path, words=words)


@pytest.mark.parametrize("place", [".", "cifar10", "CIFAR10"])
def test_the_archive_of_cifar_need_not_be_unpacked(place, tmp_path, monkeypatch, refuses):
    write_cifar_archive(tmp_path / "made", monkeypatch)
    (tmp_path / "root" / place).mkdir(parents=True)
    archive = tmp_path / "root" / place / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "made/cifar-10-batches-py", "cifar-10-batches-py")
    assert torch.equal(load("cifar10", tmp_path / "root"), load("cifar10", tmp_path / "made"))
    for content in (archive.read_bytes()[:-200], b"<html>"):
        archive.write_bytes(content)
        refuses(DataError, load, "cifar10", tmp_path / "root", words=[archive, "cannot be read"])


# Damage.

PAGE = b"<html>404 Not Found</html>"
# What may become of a file; of PNG files only some are noticed.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-5],
    "longer": lambda content: content + b"x",
    "header": lambda content: content[:6],
    "packed": gzip.compress,
    "empty": lambda content: b"",
    "page": lambda content: PAGE,
    "half": lambda content: content[: len(content) // 2],
    "bytes": lambda content: content[: len(content) // 2] + b"\xff\x00\xff" + content[len(content) // 2 + 3 :],
}
PLANE, BATCHES, GZ = "cifar10/train/automobile/0.png", "cifar-10-batches-py", f"{RAW}/t10k-images-idx3-ubyte.gz"


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


def items(*shape: int, value: int = 0) -> Callable[[Path], None]:
    return lambda path: write_idx(path, np.full(shape, value))


# The file, and what becomes of it.
DAMAGED: list[tuple[str, Callable[[Path], object]]] = [
    *((file, partial(damage, kind=kind)) for file in (IMAGES, LABELS) for kind in [*DAMAGES][:-1]),
    *((f"{RAW}/train-labels-idx1-ubyte", items(*size)) for size in ((199,), (200, 2))),
    (f"{RAW}/train-labels-idx1-ubyte", items(200, value=10)),
    (IMAGES, items(200, 27, 28)),
    *((PLANE, partial(damage, kind=kind)) for kind in [*DAMAGES][4:]),
    (PLANE, lambda path: Image.new("RGB", (33, 32)).save(path)),
    (PLANE, lambda path: (path.unlink(), path.mkdir())),
    *((f"{BATCHES}/{file}", partial(damage, kind="cut")) for file in ("data_batch_1", "test_batch")),
    (f"{BATCHES}/test_batch", Path.unlink),  # never replaced by the folder
    ("cifar10/test", shutil.rmtree),
    *((GZ, partial(damage, kind=kind)) for kind in ("cut", "empty", "page")),
    (GZ, lambda path: path.write_bytes(gzip.compress(b"x" * 99))),
]


@pytest.mark.parametrize("file, change", DAMAGED)
def test_a_damaged_file_is_named_with_the_command_that_gets_it_anew(file, change, tmp_path, monkeypatch, refuses):
    name = "mnist" if file.startswith("MNIST") else "cifar10"
    WRITE[name](tmp_path)
    if file == GZ:
        packed(RAW)(tmp_path)
    if file.startswith(BATCHES):
        write_cifar_archive(tmp_path, monkeypatch)
    if file == PLANE:
        sorted((tmp_path / PLANE).parent.iterdir())[0].rename(tmp_path / PLANE)
    change(tmp_path / file)
    words = [tmp_path / file.removesuffix(".gz"), f"get it with: {root.command([name], tmp_path)}"]
    refuses(DataError, read, name, tmp_path, *readers.CLASSES[name][:2], words=words)
    assert state(name, tmp_path)[0] == "damaged" and main(["--root", str(tmp_path)]) == 1


def test_file_of_full_length_and_wrong_content_is_refused(tmp_path, monkeypatch, refuses):
    write_mnist(tmp_path)
    monkeypatch.setitem(readers.COUNTS, "mnist", (200, 10_000))
    refuses(DataError, read, "mnist", tmp_path, match="checksum")
    checksums = [hashlib.md5((tmp_path / RAW / file).read_bytes()).hexdigest() for file in readers.IDX_FILES]
    monkeypatch.setitem(readers.IDX_CHECKSUMS, "mnist", checksums)
    assert len(read("mnist", tmp_path).train) == 200


def test_missing_files_are_named_with_the_command_that_gets_them(tmp_path, refuses, monkeypatch):
    for name, file in (("mnist", RAW), ("cifar10", BATCHES), ("fashion-mnist", "FashionMNIST/raw")):
        words = [tmp_path / file, "SAM_DATA_ROOT", f"python -m lib.data --download {name} --root {tmp_path}"]
        message = refuses(MissingData, read, name, tmp_path, words=words)
        with monkeypatch.context() as patch:  # a root that the environment gives is not said again
            patch.setenv("SAM_DATA_ROOT", str(tmp_path))
            refuses(MissingData, read, name, None, words=[message.removesuffix(f" --root {tmp_path}")])
        (tmp_path / file).mkdir(parents=True)
        refuses(MissingData, read, name, tmp_path, words=words)
        shutil.rmtree(tmp_path / Path(file).parts[0])
    assert MissingData("x is missing")._render_traceback_() == ["MissingData: x is missing"], "as a notebook shows it"


def test_arrays_that_do_not_fit_are_refused(refuses):
    images = np.zeros((4, 28, 28), np.uint8)
    assert Split.of(images, np.arange(4)).images.shape == (4, 1, 28, 28)
    for bad in ((images / 255, np.arange(4)), (images[0], [0]), (np.zeros((4, 28, 28, 3), np.uint8), np.arange(4))):
        refuses(ValueError, Split.of, *bad, match="images must be uint8")
    for labels in (np.arange(3), np.zeros(4)):
        refuses(ValueError, Split.of, images, labels, match="labels must be integers")


# The command.


def test_command_lists_every_set_and_tells_complete_and_reduced_apart(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path)
    write_cifar_folder(tmp_path)
    told = {
        "capture_output": True,
        "text": True,
        "cwd": REPOSITORY,
        "env": os.environ | {"SAM_DATA_ROOT": str(tmp_path)},
    }
    done = subprocess.run([sys.executable, "-m", "lib.data"], **told)
    assert done.returncode == 0 and not done.stderr and str(tmp_path) in done.stdout
    assert all(name in done.stdout for name in LAYOUTS) and "missing" in done.stdout
    assert "mnist            reduced   200 train, 120 test images of 10 classes\n" in done.stdout
    assert "cifar10          reduced   40 train, 24 test images of 2 classes\n" in done.stdout
    monkeypatch.setitem(readers.COUNTS, "cifar10", (40, 24))
    assert state("cifar10", tmp_path)[0] == "complete"


@pytest.mark.parametrize("kind", ["missing", "a file", "a link to nowhere"])
def test_a_data_root_that_is_none_is_a_failure_with_every_set_listed(kind, tmp_path, capsys):
    where = tmp_path / "a root"
    if kind == "a file":
        where.write_text("")
    elif kind != "missing":
        where.symlink_to("nowhere")
    assert main(["--root", str(where)]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"the data root {where} must be a folder, and is none\n"
    assert all(name in shown.out for name in LAYOUTS)
    assert f"--download mnist --root '{where}'" in shown.out, "a command that a shell takes"


WITHOUT_RIGHTS = """
import encodings.utf_8_sig, os, sys
from lib.data.__main__ import main
from lib.data.own import Files
from lib.data.root import DataError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
code = main(["--root", sys.argv[1]])
for path in sys.argv[2:]:
    try:
        Files(path).read()
    except DataError as error:
        print(os.path.basename(path), "damaged", error)
sys.exit(code)
"""
CLOSED = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw/train-labels-idx1-ubyte",
    "cifar10": "cifar10/train/automobile",
    "waterbirds": BIRDS,
    "birds_on_scenes": "birds_on_scenes/000.Kind_0",
    "celeba": "celeba/list_eval_partition.txt",
    "pacs": "PACS/photo",
    "vlcs": "VLCS/SUN09/dog",
    "own.npz": "own.npz",
    "office": "office/001.Kind_1/Kind_0001.jpg",
}


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can take rights away from another user")
def test_folders_and_files_that_may_not_be_read_are_said_so_and_the_others_are_listed(public_path):
    """Of every set one part is closed to a process that has given up its rights."""
    for name in CLOSED.keys() & WRITE.keys():
        WRITE[name](public_path)
    np.savez(public_path / "own.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    write_birds(public_path, "office")
    for part in CLOSED.values():
        (public_path / part).chmod(0)
    own = [public_path / name for name in ("own.npz", "office", "PACS/photo")]
    command = [sys.executable, "-c", WITHOUT_RIGHTS, public_path, *own]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    for part in CLOSED.values():
        (public_path / part).chmod(0o755)
    assert run.returncode == 1 and not run.stderr
    lines = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert "missing" in lines["office_home"] and len(lines) == 1 + len(LAYOUTS) + len(own)
    for name in lines.keys() - {"data", "office_home"}:
        assert "damaged" in lines[name] and "ermission denied" in lines[name], lines[name]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror of a tiny MNIST on this machine: the folder that it serves."""
    write_mnist(tmp_path / "made", train=3, test=2)
    served = tmp_path / "made" / RAW
    packed(".")(served)
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in served.iterdir()]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    yield served
    server.shutdown()
    server.server_close()


def test_download_brings_whole_files_and_repairs_damaged_ones(mirror, tmp_path, monkeypatch, refuses):
    there = tmp_path / "root"
    assert main(["--root", str(there), "--download", "mnist"]) == 0
    whole = snapshot(there)
    assert len(whole) == 4 and {path.name for path in there.iterdir()} == {"MNIST"}
    damage(there / IMAGES, "cut")
    readers.download("mnist", there)
    assert snapshot(there) == whole
    damage(mirror / Path(GZ).name, "longer")
    refuses(DataError, readers.download, "mnist", there, words=[Path(GZ).name])
    assert snapshot(there) == whole and main(["--root", str(there), "--download", "mnist"]) == 1
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    refuses(DataError, readers.download, "mnist", tmp_path / "other", match="mnist could not be downloaded")
