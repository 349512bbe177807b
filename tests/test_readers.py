import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from image_trees import write_birds, write_celeba, write_domains
from images import marked, write_cifar_archive, write_cifar_folder, write_idx, write_mnist
from PIL import Image
from torchvision import datasets

from lib.data import readers, root
from lib.data.__main__ import main, state
from lib.data.dataset import Split
from lib.data.root import DataError, MissingData

RAW = "MNIST/raw"
TRAIN_IMAGES = f"{RAW}/train-images-idx3-ubyte"


def test_data_root_is_argument_then_environment_then_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DATA_ROOT", "/somewhere")
    assert root.data_root(tmp_path) == tmp_path
    assert root.data_root() == Path("/somewhere")
    monkeypatch.delenv("SAM_DATA_ROOT")
    assert root.data_root() == Path(root.__file__).parents[2] / "data"


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_as_they_were_written(name, folder, tmp_path):
    write_mnist(tmp_path, folder, train=3, test=2, seed=1)
    expected = marked(dict.fromkeys(range(10), 2), 28, 1, seed=2)
    read = readers.read(name, "test", root=tmp_path)
    assert read.images.dtype == torch.uint8 and read.labels.dtype == torch.int64
    assert torch.equal(read.images, expected.images) and torch.equal(read.labels, expected.labels)


def test_only_the_classes_asked_for_are_read_and_renumbered(tmp_path):
    write_mnist(tmp_path, train=3)
    all_classes, some = (readers.read("mnist", "train", classes, tmp_path) for classes in (None, (7, 2)))
    for position, label in enumerate((7, 2)):
        assert torch.equal(some.images[some.labels == position], all_classes.images[all_classes.labels == label])
    assert len(some) == 6


def test_both_layouts_of_cifar_give_the_same_tensors(tmp_path, monkeypatch):
    write_cifar_folder(tmp_path / "folder", classes=3)
    write_cifar_archive(tmp_path / "archive", monkeypatch, classes=3)
    for split in readers.SPLITS:
        folder, archive = (readers.read("cifar10", split, (1, 0), tmp_path / kind) for kind in ("folder", "archive"))
        assert torch.equal(folder.images, archive.images) and torch.equal(folder.labels, archive.labels)


def test_cifar_folder_may_hold_only_the_classes_asked_for(tmp_path, refuses):
    write_cifar_folder(tmp_path, classes=2)
    assert len(readers.read("cifar10", "train", (0, 1), tmp_path)) == 40
    words = [tmp_path / "cifar10" / "train" / "bird"]
    refuses(MissingData, readers.read, "cifar10", "train", (0, 2), tmp_path, words=words)


@pytest.mark.parametrize(
    "name, file", [("mnist", RAW), ("cifar10", "cifar-10-batches-py"), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_missing_files_are_named_with_the_command_that_gets_them(name, file, tmp_path, refuses, monkeypatch):
    command = f"python -m lib.data --download {name} --root {tmp_path}"
    words = [tmp_path / file, "SAM_DATA_ROOT", command]
    message = refuses(MissingData, readers.read, name, "train", root=tmp_path, words=words)
    (tmp_path / file).mkdir(parents=True)
    refuses(MissingData, readers.read, name, "train", root=tmp_path, words=words)
    shutil.rmtree(tmp_path / Path(file).parts[0])
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))  # a root that the environment gives is not said again
    refuses(MissingData, readers.read, name, "train", words=[message.removesuffix(f" --root {tmp_path}")])


def cut(share: float):
    return lambda content: content[: int(len(content) * share)]


# What may become of a file; of PNG files and of the files of full length only some are noticed.
PAGE = b"<html>404 Not Found</html>"
DAMAGES = {
    "cut": lambda content: content[:-5],
    "longer": lambda content: content + b"x",
    "empty": cut(0),
    "header": lambda content: content[:6],
    "page": lambda content: PAGE,
    "packed": gzip.compress,
    "half": cut(0.5),
    "bytes": lambda content: content[: len(content) // 2] + b"\xff\x00\xff" + content[len(content) // 2 + 3 :],
}


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


@pytest.mark.parametrize("kind", ["cut", "longer", "empty", "header", "page", "packed", "half"])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_damaged_idx_file_is_named(kind, file, tmp_path, refuses):
    write_mnist(tmp_path)
    damage(tmp_path / RAW / file, kind)
    words = [tmp_path / RAW / file, "--download mnist"]
    refuses(DataError, readers.read, "mnist", "train", root=tmp_path, words=words)


def test_folder_in_the_place_of_a_file_is_named(tmp_path, refuses):
    write_mnist(tmp_path)
    (tmp_path / TRAIN_IMAGES).unlink()
    (tmp_path / TRAIN_IMAGES).mkdir()
    refuses(DataError, readers.read, "mnist", "train", root=tmp_path, words=[tmp_path / TRAIN_IMAGES])


@pytest.mark.parametrize("labels", [np.zeros(199), np.full(200, 10), np.zeros((200, 2))])
def test_labels_must_fit_the_images(labels, tmp_path, refuses):
    write_mnist(tmp_path)
    path = tmp_path / RAW / "train-labels-idx1-ubyte"
    write_idx(path, labels)
    refuses(DataError, readers.read, "mnist", "train", root=tmp_path, words=[path])


def test_images_must_be_of_28_by_28_pixels(tmp_path, refuses):
    write_mnist(tmp_path)
    write_idx(tmp_path / TRAIN_IMAGES, np.zeros((200, 27, 28)))
    refuses(DataError, readers.read, "mnist", "train", root=tmp_path, words=[tmp_path / TRAIN_IMAGES])


def test_file_of_full_length_and_wrong_content_is_refused(tmp_path, monkeypatch, refuses):
    write_mnist(tmp_path)
    monkeypatch.setitem(readers.COUNTS, "mnist", (200, 10_000))
    refuses(DataError, readers.read, "mnist", "train", root=tmp_path, match="checksum")
    files = [tmp_path / RAW / file for split in readers.SPLITS for file in readers.IDX[split]]
    checksums = [hashlib.md5(path.read_bytes()).hexdigest() for path in files]
    monkeypatch.setitem(readers.IDX_CHECKSUMS, "mnist", checksums)
    assert len(readers.read("mnist", "train", root=tmp_path)) == 200


@pytest.mark.parametrize("kind", ["half", "empty", "page", "bytes"])
def test_damaged_png_is_named(kind, tmp_path, refuses):
    write_cifar_folder(tmp_path, train=2)
    path = sorted((tmp_path / "cifar10/train/automobile").iterdir())[0]
    damage(path, kind)
    words = [path, "--download cifar10"]
    refuses(DataError, readers.read, "cifar10", "train", (0, 1), tmp_path, words=words)


def test_png_of_another_size_is_named(tmp_path, refuses):
    write_cifar_folder(tmp_path, train=2)
    path = tmp_path / "cifar10/train/airplane/zebra.png"
    Image.new("RGB", (33, 32)).save(path)
    refuses(DataError, readers.read, "cifar10", "train", (0, 1), tmp_path, words=[path, "33 x 32 pixels"])


@pytest.mark.parametrize("split, file", [("train", "data_batch_1"), ("test", "test_batch")])
def test_damaged_archive_file_is_named_and_never_replaced_by_the_folder(split, file, tmp_path, monkeypatch, refuses):
    write_cifar_folder(tmp_path)
    write_cifar_archive(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / file
    damage(path, "cut")
    refuses(DataError, readers.read, "cifar10", split, (0, 1), tmp_path, match="checksum", words=[path])
    path.unlink()
    refuses(MissingData, readers.read, "cifar10", split, (0, 1), tmp_path, words=[path])


@pytest.mark.parametrize(
    "arguments",
    [
        ("imagenet", "train"),
        ("mnist", "validation"),
        ("mnist", "train", ()),
        ("mnist", "train", (1, 1)),
        ("mnist", "train", (10,)),
        ("cifar10", "train", (-1,)),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(arguments, tmp_path, refuses):
    refuses(ValueError, readers.read, *arguments, root=tmp_path)


def test_arrays_that_do_not_fit_are_refused(refuses):
    images = np.zeros((4, 28, 28), np.uint8)
    assert Split.of(images, np.arange(4)).images.shape == (4, 1, 28, 28)
    for bad in (
        (images / 255, np.arange(4)),
        (images, np.arange(3)),
        (images, np.zeros(4)),
        (images[0], [0]),
        (np.zeros((4, 28, 28, 3), np.uint8), np.arange(4)),
    ):
        refuses(ValueError, Split.of, *bad)


def test_error_is_shown_as_one_line_in_a_notebook():
    assert MissingData("x is missing")._render_traceback_() == ["MissingData: x is missing"]


def test_state_tells_complete_reduced_damaged_and_missing_apart(tmp_path, monkeypatch):
    assert state("mnist", tmp_path)[0] == "missing"
    write_mnist(tmp_path)
    write_cifar_folder(tmp_path)
    assert state("mnist", tmp_path) == ("reduced", "200 train images, 120 test images")
    assert state("cifar10", tmp_path) == ("reduced", "40 train images, 24 test images of 2 classes")
    monkeypatch.setitem(readers.COUNTS, "cifar10", (40, 24))
    assert state("cifar10", tmp_path)[0] == "complete"
    damage(tmp_path / TRAIN_IMAGES, "cut")
    assert state("mnist", tmp_path)[0] == "damaged"
    (tmp_path / "empty/cifar10").mkdir(parents=True)
    assert state("cifar10", tmp_path / "empty")[0] == "damaged"


def test_command_lists_every_set_and_fails_on_damage(tmp_path, capsys):
    write_mnist(tmp_path)
    assert main(["--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in root.LAYOUTS) and "reduced" in shown and "missing" in shown
    damage(tmp_path / TRAIN_IMAGES, "cut")
    assert main(["--root", str(tmp_path)]) == 1


def test_command_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lib.data"],
        capture_output=True,
        text=True,
        cwd=Path(root.__file__).parents[2],
        env={**os.environ, "SAM_DATA_ROOT": str(tmp_path)},
    )
    assert done.returncode == 0 and str(tmp_path) in done.stdout and not done.stderr


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
    assert all(name in shown.out for name in root.LAYOUTS)
    assert f"--download mnist --root '{where}'" in shown.out, "a command that a shell takes"


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can take rights away from another user")
def test_folders_and_files_that_may_not_be_read_are_said_so_and_the_others_are_listed(public_path):
    """Of every set one part is closed to a process that has given up its rights."""
    write_mnist(public_path)
    write_mnist(public_path, "FashionMNIST")
    write_cifar_folder(public_path)
    write_birds(public_path)
    write_birds(public_path, "birds_on_scenes")
    write_celeba(public_path)
    for name in ("pacs", "vlcs"):
        write_domains(public_path, name)
    closed = {
        "mnist": "MNIST/raw",
        "fashion-mnist": "FashionMNIST/raw/train-labels-idx1-ubyte",
        "cifar10": "cifar10/train/automobile",
        "waterbirds": "waterbird_complete95_forest2water2",
        "birds_on_scenes": "birds_on_scenes/000.Kind_0",
        "celeba": "celeba/list_eval_partition.txt",
        "pacs": "PACS/photo",
        "vlcs": "VLCS/SUN09/dog",
    }
    for part in closed.values():
        (public_path / part).chmod(0)
    imports = "import encodings.utf_8_sig, os, sys\nfrom lib.data.__main__ import main\n"
    drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)\nsys.exit(main(['--root', sys.argv[1]]))"
    command = [sys.executable, "-c", imports + drop, public_path]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(root.__file__).parents[2])
    for part in closed.values():
        (public_path / part).chmod(0o755)
    assert run.returncode == 1 and not run.stderr
    lines = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert "missing" in lines["office_home"]
    for name in closed:
        assert "damaged" in lines[name] and "ermission denied" in lines[name], lines[name]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror of a tiny MNIST on this machine: the folder that it serves."""
    write_mnist(tmp_path / "made", train=3, test=2)
    served = tmp_path / "served"
    served.mkdir()
    resources = []
    for path in (tmp_path / "made/MNIST/raw").iterdir():
        packed = served / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        resources.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    yield served
    server.shutdown()
    server.server_close()


def test_download_brings_whole_files_and_repairs_damaged_ones(mirror, tmp_path, capsys):
    there = tmp_path / "root"
    assert main(["--root", str(there), "--download", "mnist"]) == 0
    whole = readers.read("mnist", "train", root=there)
    damage(there / TRAIN_IMAGES, "cut")
    readers.download("mnist", there)
    assert torch.equal(readers.read("mnist", "train", root=there).images, whole.images)
    assert {path.name for path in there.iterdir()} == {"MNIST"}
    assert not list((there / "MNIST/raw").glob("*.gz"))


def test_download_that_fails_its_checksum_leaves_the_data_as_it_was(mirror, tmp_path, capsys, refuses):
    there = tmp_path / "root"
    readers.download("mnist", there)
    before = {path: path.read_bytes() for path in there.rglob("*ubyte")}
    damage(mirror / "t10k-images-idx3-ubyte.gz", "longer")
    refuses(DataError, readers.download, "mnist", there, words=["t10k-images-idx3-ubyte.gz"])
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    assert main(["--root", str(there), "--download", "mnist"]) == 1


def test_download_from_nowhere_is_one_line(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    refuses(DataError, readers.download, "mnist", tmp_path / "root", match="mnist could not be downloaded")
