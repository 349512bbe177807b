import os
import shutil
import warnings
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from image_trees import numbers, write_image
from PIL import Image
from torchvision.transforms.v2 import functional

from lib.data import cache
from lib.data.cache import ImageFiles
from lib.data.root import DataError, MissingData

SIZE = 8


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(6):
        write_image(tmp_path / "images" / f"{number}.jpg", number)
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def root(own_cache) -> Path:
    return own_cache


def images(folder: Path, files: list[str] | None = None) -> ImageFiles:
    return ImageFiles("set", folder, pd.DataFrame(index=files or sorted(path.name for path in folder.iterdir())))


def decoded(folder: Path, size: int = SIZE) -> torch.Tensor:
    return images(folder).decoded(size)


def cached(root: Path) -> list[Path]:
    return sorted(root.glob("*.npy"))


@pytest.fixture
def no_decoding(monkeypatch):
    """Calling it makes every further decoding fail."""
    return lambda: monkeypatch.setattr(ImageFiles, "_decoded_one_by_one", lambda *_: pytest.fail("decoded again"))


def test_cache_root_is_that_of_the_environment_else_of_the_repository(root, monkeypatch):
    assert cache.cache_root() == root
    monkeypatch.delenv("SAM_CACHE_ROOT")
    assert cache.cache_root() == Path(cache.__file__).parents[2] / "cache"


def test_images_come_in_the_order_asked_for_as_bytes_with_channels_last_in_memory(folder):
    found = images(folder, ["4.jpg", "0.jpg", "5.jpg"]).decoded(SIZE)
    assert found.shape == (3, 3, SIZE, SIZE) and found.dtype == torch.uint8
    assert numbers(found) == [4, 0, 5] and found.is_contiguous(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found[0] = 0
    assert numbers(images(folder, ["4.jpg", "0.jpg", "5.jpg"]).decoded(SIZE)) == [4, 0, 5], "the cache is as it was"


def test_images_are_scaled_as_torchvision_scales_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images/noise.png")
    whole = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = functional.resize(whole, [16, 16], antialias=True)
    assert (decoded(tmp_path / "images", 16)[0].int() - expected.int()).abs().max() <= 1


def test_each_size_is_decoded_once_and_kept_beside_the_others(folder, root, no_decoding):
    first, larger = decoded(folder), decoded(folder, 12)
    no_decoding()
    assert torch.equal(decoded(folder), first) and torch.equal(decoded(folder, 12), larger)
    assert larger.shape[-1] == 12 and len(cached(root)) == 2


def test_changed_added_removed_and_renamed_images_are_decoded_again(folder):
    stamps = [images(folder).stamp()]
    for change, expected in (
        (lambda: (write_image(folder / "2.jpg", 77), os.utime(folder / "2.jpg", (1, 1))), [0, 1, 77, 3, 4, 5]),
        (lambda: write_image(folder / "6.jpg", 6), [0, 1, 77, 3, 4, 5, 6]),
        (lambda: (folder / "0.jpg").unlink(), [1, 77, 3, 4, 5, 6]),
        (lambda: (folder / "3.jpg").rename(folder / "3 é.JPG"), [1, 77, 3, 4, 5, 6]),
    ):
        change()
        stamps.append(images(folder).stamp())
        assert numbers(decoded(folder)) == expected
    assert len(set(stamps)) == 5


def test_contents_depend_on_the_files_and_the_columns_but_not_on_names_and_times(folder):
    def contents(values: str = "abcabc") -> str:
        made = images(folder)
        return ImageFiles("set", folder, made.table.assign(kind=list(values))).contents()

    before = contents()
    os.utime(folder / "2.jpg", (1, 1))
    (folder / "5.jpg").rename(folder / "6.jpg")
    assert contents() == before and before.startswith("6 images ")
    assert contents("abcabd") != before
    content = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert contents() != before


def test_damaged_cache_is_made_anew(folder, root):
    first = decoded(folder).clone()
    content = cached(root)[0].read_bytes()
    for damaged in (content[:-1], b"", b"no array", content.replace(b"(6, 8", b"(3, 8"), content.replace(b"u1", b"i1")):
        cached(root)[0].write_bytes(damaged)
        assert torch.equal(decoded(folder), first)
        assert cached(root)[0].read_bytes() == content


def test_damaged_image_is_named_and_leaves_nothing_behind(folder, root, refuses):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "3.jpg")
    for content in (b"<html>not found</html>", b"\xff\xd8\xff\xe0 short", (folder / "3.jpg").read_bytes()[:2000]):
        (folder / "3.jpg").write_bytes(content)
        words = [f"set: {folder / '3.jpg'} is not a whole image"]
        refuses(DataError, decoded, folder, words=words)
        assert not [path for path in root.iterdir() if path.suffix != ".lock"]
        refuses(DataError, images(folder).check, words=words)
    (folder / "3.jpg").write_bytes(b"")
    refuses(DataError, decoded, folder, match="empty", words=[folder / "3.jpg"])
    refuses(MissingData, images(folder, ["0.jpg", "x.jpg"]).decoded, SIZE, words=[folder / "x.jpg"])


def test_decoding_that_was_killed_does_not_matter_afterwards(folder, root):
    decoded(folder)
    whole = cached(root)[0]
    whole.rename(whole.with_name(f".{whole.name}.part"))
    assert numbers(decoded(folder)) == list(range(6))
    assert [path.name for path in root.iterdir() if path.suffix != ".lock"] == [whole.name]


def test_several_at_once_decode_once(folder, monkeypatch):
    decodings, decode = [], ImageFiles._decoded_one_by_one
    monkeypatch.setattr(ImageFiles, "_decoded_one_by_one", lambda *given: decodings.append(1) or decode(*given))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: numbers(decoded(folder)), range(4)))
    assert found == [list(range(6))] * 4 and len(decodings) == 1


def test_too_little_room_is_said_before_anything_is_decoded(folder, root, monkeypatch, no_decoding, refuses):
    Usage = namedtuple("Usage", "total used free")
    needed = 6 * SIZE * SIZE * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, needed))
    decoded(folder)
    shutil.rmtree(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, needed - 1))
    no_decoding()
    refuses(DataError, decoded, folder, words=["SAM_CACHE_ROOT", root])
    shutil.rmtree(root)
    root.write_text("")
    refuses(DataError, decoded, folder, words=["SAM_CACHE_ROOT", root])


@pytest.mark.parametrize("size", [7, 1025, 64.0, True, "64", None])
def test_wrong_size_is_refused(size, folder, root, refuses):
    refuses(ValueError, decoded, folder, size, match="size")
    assert not root.exists()
