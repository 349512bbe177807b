"""MNIST, Fashion-MNIST and CIFAR-10: read, damaged, downloaded; and what the command says of the data root."""

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
from lib.data.dataset import Part, Split
from lib.data.own import Files
from lib.data.root import DataError, MissingData

RAW = "MNIST/raw"
TRAIN_IMAGES = f"{RAW}/train-images-idx3-ubyte"
PLANES = ("airplane", "automobile")


def read(name: str, where: Path | None, *classes: str) -> Part:
    return Files(name, classes).read(where)


def test_data_root_is_argument_then_environment_then_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DATA_ROOT", "/somewhere")
    assert root.data_root(tmp_path) == tmp_path and root.data_root() == Path("/somewhere")
    monkeypatch.delenv("SAM_DATA_ROOT")
    assert root.data_root() == Path(root.__file__).parents[2] / "data"


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_as_they_were_written(name, folder, tmp_path):
    write_mnist(tmp_path, folder, train=3, test=2, seed=1)
    part = read(name, tmp_path)
    assert part.values == readers.CLASSES[name]
    for seed, count, found in ((1, 3, part.train), (2, 2, part.test)):
        expected = marked(dict.fromkeys(range(10), count), 28, 1, seed)
        assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)


def test_chosen_classes_keep_their_images_in_the_order_asked_for(tmp_path):
    write_mnist(tmp_path, train=3, test=2)
    some, every = read("mnist", tmp_path, "7", "2"), read("mnist", tmp_path)
    assert some.values == ("7", "2") and len(some.train) == 6
    for code, label in enumerate((7, 2)):
        chosen = every.train.images[every.train.labels == label]
        assert torch.equal(some.train.images[some.train.labels == code], chosen)


def test_both_layouts_of_cifar_give_the_same_tensors_in_the_order_of_their_pixels(tmp_path, monkeypatch):
    write_cifar_folder(tmp_path / "folder", classes=3)
    write_cifar_archive(tmp_path / "archive", monkeypatch, classes=3)
    folder, archive = (read("cifar10", tmp_path / kind, *PLANES[::-1]) for kind in ("folder", "archive"))
    for one, other in ((folder.train, archive.train), (folder.test, archive.test)):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        pixels = [image.numpy().tobytes() for image in one.images]
        assert pixels == sorted(pixels)


def test_cifar_folder_may_hold_only_the_classes_asked_for(tmp_path, refuses):
    write_cifar_folder(tmp_path, classes=2)
    assert len(read("cifar10", tmp_path, *PLANES).train) == 40
    refuses(DataError, read, "cifar10", tmp_path, "airplane", "bird", match="no train image of bird")


@pytest.mark.parametrize(
    "name, file", [("mnist", RAW), ("cifar10", "cifar-10-batches-py"), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_missing_files_are_named_with_the_command_that_gets_them(name, file, tmp_path, refuses, monkeypatch):
    command = f"python -m lib.data --download {name} --root {tmp_path}"
    words = [tmp_path / file, "SAM_DATA_ROOT", command]
    message = refuses(MissingData, read, name, tmp_path, words=words)
    (tmp_path / file).mkdir(parents=True)
    refuses(MissingData, read, name, tmp_path, words=words)
    shutil.rmtree(tmp_path / Path(file).parts[0])
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))  # a root that the environment gives is not said again
    refuses(MissingData, read, name, None, words=[message.removesuffix(f" --root {tmp_path}")])


# What may become of a file; of PNG files and of the files of full length only some are noticed.
PAGE = b"<html>404 Not Found</html>"
DAMAGES = {
    "cut": lambda content: content[:-5],
    "longer": lambda content: content + b"x",
    "empty": lambda content: b"",
    "header": lambda content: content[:6],
    "page": lambda content: PAGE,
    "packed": gzip.compress,
    "half": lambda content: content[: len(content) // 2],
    "bytes": lambda content: content[: len(content) // 2] + b"\xff\x00\xff" + content[len(content) // 2 + 3 :],
}


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


@pytest.mark.parametrize("kind", ["cut", "longer", "empty", "header", "page", "packed", "half"])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_idx_file_is_named(kind, file, tmp_path, refuses):
    write_mnist(tmp_path)
    damage(tmp_path / RAW / file, kind)
    refuses(DataError, read, "mnist", tmp_path, words=[tmp_path / RAW / file, "get it with:", "--download mnist"])


@pytest.mark.parametrize(
    "file, items",
    [("train-labels-idx1-ubyte", items) for items in (np.zeros(199), np.full(200, 10), np.zeros((200, 2)))]
    + [("train-images-idx3-ubyte", np.zeros((200, 27, 28)))],
)
def test_labels_and_images_must_fit(file, items, tmp_path, refuses):
    write_mnist(tmp_path)
    write_idx(tmp_path / RAW / file, items)
    refuses(DataError, read, "mnist", tmp_path, words=[tmp_path / RAW / file])


def test_file_of_full_length_and_wrong_content_is_refused(tmp_path, monkeypatch, refuses):
    write_mnist(tmp_path)
    monkeypatch.setitem(readers.COUNTS, "mnist", (200, 10_000))
    refuses(DataError, read, "mnist", tmp_path, match="checksum")
    checksums = [hashlib.md5((tmp_path / RAW / file).read_bytes()).hexdigest() for file in readers.IDX_FILES]
    monkeypatch.setitem(readers.IDX_CHECKSUMS, "mnist", checksums)
    assert len(read("mnist", tmp_path).train) == 200


@pytest.mark.parametrize("kind", ["half", "empty", "page", "bytes", "33 x 32 pixels", "a folder"])
def test_damaged_png_or_one_of_another_size_is_named(kind, tmp_path, refuses):
    write_cifar_folder(tmp_path, train=2)
    path = sorted((tmp_path / "cifar10/train/automobile").iterdir())[0]
    if kind in DAMAGES:
        damage(path, kind)
    elif path.unlink() or kind == "a folder":
        path.mkdir()
    else:
        Image.new("RGB", (33, 32)).save(path)
    refuses(DataError, read, "cifar10", tmp_path, *PLANES, words=[path, "--download cifar10"])


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch"])
def test_damaged_archive_file_is_named_and_never_replaced_by_the_folder(file, tmp_path, monkeypatch, refuses):
    write_cifar_folder(tmp_path)
    write_cifar_archive(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / file
    damage(path, "cut")
    refuses(DataError, read, "cifar10", tmp_path, *PLANES, match="checksum", words=[path])
    path.unlink()
    refuses(MissingData, read, "cifar10", tmp_path, *PLANES, words=[path])


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
    assert state("mnist", tmp_path) == ("missing", f"get it with: {root.command(['mnist'], tmp_path)}")
    write_mnist(tmp_path)
    write_cifar_folder(tmp_path)
    assert state("mnist", tmp_path) == ("reduced", "200 train, 120 test images of 10 classes")
    assert state("cifar10", tmp_path) == ("reduced", "40 train, 24 test images of 2 classes")
    monkeypatch.setitem(readers.COUNTS, "cifar10", (40, 24))
    assert state("cifar10", tmp_path)[0] == "complete"
    damage(tmp_path / TRAIN_IMAGES, "cut")
    assert state("mnist", tmp_path)[0] == "damaged"
    (tmp_path / "empty/cifar10").mkdir(parents=True)
    assert state("cifar10", tmp_path / "empty")[0] == "damaged"


def test_command_lists_every_set_and_fails_on_damage(tmp_path):
    write_mnist(tmp_path)
    command, where = [sys.executable, "-m", "lib.data"], Path(root.__file__).parents[2]
    told = {"capture_output": True, "text": True, "cwd": where, "env": os.environ | {"SAM_DATA_ROOT": str(tmp_path)}}
    done = subprocess.run(command, **told)
    assert done.returncode == 0 and not done.stderr and str(tmp_path) in done.stdout
    assert all(name in done.stdout for name in root.LAYOUTS) and "reduced" in done.stdout and "missing" in done.stdout
    damage(tmp_path / TRAIN_IMAGES, "cut")
    assert main(["--root", str(tmp_path)]) == 1


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
    own = [public_path / "own.npz", public_path / "office", public_path / "PACS/photo"]
    np.savez(own[0], images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    write_birds(public_path, "office")
    closed |= {"own": "own.npz", "office": "office/001.Kind_1/Kind_0001.jpg"}
    for part in closed.values():
        (public_path / part).chmod(0)
    command = [sys.executable, "-c", WITHOUT_RIGHTS, public_path, *own]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(root.__file__).parents[2])
    for part in closed.values():
        (public_path / part).chmod(0o755)
    assert run.returncode == 1 and not run.stderr
    lines = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert "missing" in lines["office_home"] and len(lines) == 1 + len(root.LAYOUTS) + len(own)
    for name in lines.keys() - {"data", "office_home"}:
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
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    yield served
    server.shutdown()
    server.server_close()


def test_download_brings_whole_files_and_repairs_damaged_ones(mirror, tmp_path, refuses):
    there = tmp_path / "root"
    assert main(["--root", str(there), "--download", "mnist"]) == 0
    whole = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert len(whole) == 4 and {path.name for path in there.iterdir()} == {"MNIST"}
    damage(there / TRAIN_IMAGES, "cut")
    readers.download("mnist", there)
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == whole
    damage(mirror / "t10k-images-idx3-ubyte.gz", "longer")
    refuses(DataError, readers.download, "mnist", there, words=["t10k-images-idx3-ubyte.gz"])
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == whole
    assert main(["--root", str(there), "--download", "mnist"]) == 1


def test_download_from_nowhere_is_one_line(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    refuses(DataError, readers.download, "mnist", tmp_path / "root", match="mnist could not be downloaded")
