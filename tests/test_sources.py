from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from images import marked, write_cifar_archive, write_cifar_folder, write_idx, write_mnist
from PIL import Image
from torchvision import datasets

from lib.data import sources
from lib.data.sources import DataError, Labelled, MissingData

TRAIN_IMAGES = "MNIST/raw/train-images-idx3-ubyte"


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_data_root_is_argument_then_environment_then_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DATA_ROOT", "/somewhere")
    assert sources.data_root(tmp_path) == tmp_path
    assert sources.data_root() == Path("/somewhere")
    monkeypatch.delenv("SAM_DATA_ROOT")
    assert sources.data_root() == Path(sources.__file__).parents[2] / "data"


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_read_as_they_were_written(name, folder, tmp_path):
    write_mnist(tmp_path, folder, train=3, test=2, seed=1)
    expected = marked(dict.fromkeys(range(10), 2), 28, 1, seed=2)
    read = sources.read(name, "test", root=tmp_path)
    assert read.images.dtype == torch.uint8 and read.labels.dtype == torch.int64
    assert torch.equal(read.images, expected.images) and torch.equal(read.labels, expected.labels)


def test_only_the_classes_asked_for_are_read_and_renumbered(tmp_path):
    write_mnist(tmp_path, train=3)
    all_classes = sources.read("mnist", "train", root=tmp_path)
    some = sources.read("mnist", "train", (7, 2), tmp_path)
    assert torch.equal(some.images[some.labels == 0], all_classes.images[all_classes.labels == 7])
    assert torch.equal(some.images[some.labels == 1], all_classes.images[all_classes.labels == 2])
    assert len(some) == 6


def test_both_layouts_of_cifar_give_the_same_tensors(tmp_path, monkeypatch):
    write_cifar_folder(tmp_path / "folder", classes=3)
    write_cifar_archive(tmp_path / "archive", monkeypatch, classes=3)
    for split in sources.SPLITS:
        folder, archive = (sources.read("cifar10", split, (1, 0), tmp_path / kind) for kind in ("folder", "archive"))
        assert torch.equal(folder.images, archive.images) and torch.equal(folder.labels, archive.labels)


def test_cifar_folder_may_hold_only_the_classes_asked_for(tmp_path):
    write_cifar_folder(tmp_path, classes=2)
    assert len(sources.read("cifar10", "train", (0, 1), tmp_path)) == 40
    with pytest.raises(MissingData) as error:
        sources.read("cifar10", "train", (0, 2), tmp_path)
    assert str(tmp_path / "cifar10" / "train" / "bird") in one_line(error)


@pytest.mark.parametrize(
    "name, file",
    [
        ("mnist", TRAIN_IMAGES),
        ("cifar10", "cifar10/train/airplane"),
        ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
    ],
)
def test_missing_files_are_named_with_the_command_that_gets_them(name, file, tmp_path):
    with pytest.raises(MissingData) as error:
        sources.read(name, "train", root=tmp_path)
    message = one_line(error)
    assert str(tmp_path / file) in message and "SAM_DATA_ROOT" in message
    assert f"python -m lib.data.sources --download {name} --root {tmp_path}" in message


def test_command_in_the_message_names_no_root_that_the_environment_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))
    with pytest.raises(MissingData, match="--download mnist$"):
        sources.read("mnist", "train")


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def damage_halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def damage_lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6])


def damage_page(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def damage_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


DAMAGES = (damage_truncate, damage_lengthen, damage_empty, damage_header, damage_page, damage_packed)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [TRAIN_IMAGES, "MNIST/raw/train-labels-idx1-ubyte"])
def test_damaged_idx_file_is_named(damage, file, tmp_path):
    write_mnist(tmp_path)
    damage(tmp_path / file)
    with pytest.raises(DataError) as error:
        sources.read("mnist", "train", root=tmp_path)
    assert str(tmp_path / file) in one_line(error) and "--download mnist" in str(error.value)


def test_folder_in_the_place_of_a_file_is_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / TRAIN_IMAGES).unlink()
    (tmp_path / TRAIN_IMAGES).mkdir()
    with pytest.raises(DataError) as error:
        sources.read("mnist", "train", root=tmp_path)
    assert str(tmp_path / TRAIN_IMAGES) in one_line(error)


def test_labels_must_fit_the_images(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    for labels in (np.zeros(199), np.full(200, 10)):
        write_idx(path, labels)
        with pytest.raises(DataError, match=str(path)):
            sources.read("mnist", "train", root=tmp_path)


def test_file_of_full_length_and_wrong_content_is_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setitem(sources.IDX_COUNTS, "train", 200)
    with pytest.raises(DataError, match="checksum"):
        sources.read("mnist", "train", root=tmp_path)
    files = (tmp_path / "MNIST/raw").iterdir()
    checksums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in files}
    monkeypatch.setitem(sources.IDX_CHECKSUMS, "mnist", checksums)
    assert len(sources.read("mnist", "train", root=tmp_path)) == 200


@pytest.mark.parametrize("damage", [damage_halve, damage_empty, damage_page, damage_bytes])
def test_damaged_png_is_named(damage, tmp_path):
    write_cifar_folder(tmp_path, train=2)
    path = sorted((tmp_path / "cifar10/train/automobile").iterdir())[0]
    damage(path)
    with pytest.raises(DataError) as error:
        sources.read("cifar10", "train", (0, 1), tmp_path)
    assert str(path) in one_line(error) and "--download cifar10" in str(error.value)


def test_png_of_another_size_is_named(tmp_path):
    write_cifar_folder(tmp_path, train=2)
    path = tmp_path / "cifar10/train/airplane/zebra.png"
    Image.new("RGB", (33, 32)).save(path)
    with pytest.raises(DataError, match="33 x 32 pixels") as error:
        sources.read("cifar10", "train", (0, 1), tmp_path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_damaged_archive_file_is_named_and_never_replaced_by_the_folder(file, tmp_path, monkeypatch):
    write_cifar_folder(tmp_path)
    write_cifar_archive(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / file
    damage_truncate(path)
    with pytest.raises(DataError, match="checksum") as error:
        sources.read("cifar10", "train", (0, 1), tmp_path)
    assert str(path) in one_line(error)
    path.unlink()
    with pytest.raises(MissingData, match=file):
        sources.read("cifar10", "train", (0, 1), tmp_path)


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
def test_wrong_arguments_are_refused_before_anything_is_read(arguments, tmp_path):
    with pytest.raises(ValueError):
        sources.read(*arguments, root=tmp_path)


def test_labelled_refuses_what_does_not_fit():
    images = np.zeros((4, 28, 28), np.uint8)
    assert Labelled(images, np.arange(4)).images.shape == (4, 1, 28, 28)
    for bad in (
        (images / 255, np.arange(4)),
        (images, np.arange(3)),
        (images, np.zeros(4)),
        (images[0], [0]),
        (np.zeros((4, 28, 28, 3), np.uint8), np.arange(4)),
    ):
        with pytest.raises(ValueError):
            Labelled(*bad)


def test_error_is_shown_as_one_line_in_a_notebook():
    assert MissingData("x is missing")._render_traceback_() == ["MissingData: x is missing"]


def test_state_tells_complete_reduced_damaged_and_missing_apart(tmp_path, monkeypatch):
    assert sources.state("mnist", tmp_path)[0] == "missing" and not sources.is_present("mnist", tmp_path)
    write_mnist(tmp_path)
    write_cifar_folder(tmp_path)
    assert sources.state("mnist", tmp_path) == ("reduced", "200 train images, 120 test images")
    assert sources.state("cifar10", tmp_path) == ("reduced", "40 train images, 24 test images of 2 classes")
    monkeypatch.setattr(sources, "CIFAR_COUNTS", {"train": 40, "test": 24})
    assert sources.state("cifar10", tmp_path)[0] == "complete"
    damage_truncate(tmp_path / TRAIN_IMAGES)
    assert sources.state("mnist", tmp_path)[0] == "damaged"


def test_command_lists_every_source_and_fails_on_damage(tmp_path, capsys):
    write_mnist(tmp_path)
    assert sources.main(["--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in sources.SOURCES) and "reduced" in shown and "missing" in shown
    damage_truncate(tmp_path / TRAIN_IMAGES)
    assert sources.main(["--root", str(tmp_path)]) == 1


def test_command_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lib.data.sources"],
        capture_output=True,
        text=True,
        cwd=Path(sources.__file__).parents[2],
        env={**os.environ, "SAM_DATA_ROOT": str(tmp_path)},
    )
    assert done.returncode == 0 and str(tmp_path) in done.stdout and not done.stderr


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
    root = tmp_path / "root"
    assert sources.main(["--root", str(root), "--download", "mnist"]) == 0
    whole = sources.read("mnist", "train", root=root)
    damage_truncate(root / TRAIN_IMAGES)
    sources.download("mnist", root)
    assert torch.equal(sources.read("mnist", "train", root=root).images, whole.images)
    assert {path.name for path in root.iterdir()} == {"MNIST"}
    assert not list((root / "MNIST/raw").glob("*.gz"))


def test_download_that_fails_its_checksum_leaves_the_data_as_it_was(mirror, tmp_path, capsys):
    root = tmp_path / "root"
    sources.download("mnist", root)
    before = {path: path.read_bytes() for path in root.rglob("*ubyte")}
    damage_lengthen(mirror / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(DataError) as error:
        sources.download("mnist", root)
    assert "t10k-images-idx3-ubyte.gz" in one_line(error)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert sources.main(["--root", str(root), "--download", "mnist"]) == 1


def test_download_from_nowhere_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError) as error:
        sources.download("mnist", tmp_path / "root")
    assert "mnist could not be downloaded" in one_line(error)
