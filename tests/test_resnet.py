from __future__ import annotations

import copy
import hashlib
import urllib.request
import warnings
from functools import cache
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet18

from lib import training
from lib.data.root import DataError, MissingData
from lib.resnet import FreshLayersWarning, ResNet18, lacking, load_weights

CPU = torch.device("cpu")


def net(classes: int = 2) -> ResNet18:
    return training.initial_model(ResNet18, classes, seed=0, device=CPU)


@cache
def everything() -> dict[str, Tensor]:
    """torchvision's state dict with numbers that no initialisation gives."""
    random = torch.Generator().manual_seed(7)
    return {
        key: torch.randn(value.shape, generator=random) if value.is_floating_point() else value + 3
        for key, value in resnet18().state_dict().items()
    }


def official(classes: int = 1000, without: tuple[str, ...] = ("-",)) -> dict[str, Tensor]:
    """The same for a number of classes, without the entries that begin so."""
    entries = {key: value for key, value in everything().items() if not key.startswith(without)}
    return {key: value[:classes] if key.startswith("fc.") else value for key, value in entries.items()}


def put(root: Path, state: object) -> str:
    (root / "weights").mkdir(exist_ok=True)
    torch.save(state, root / "weights" / "some.pt")
    return "some.pt"


def copied(model: ResNet18) -> dict[str, Tensor]:
    return copy.deepcopy(model.net.state_dict())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2


def test_net_is_torchvisions_split_into_features_and_head():
    model, (x, _) = net(5).eval(), batch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = resnet18(num_classes=5).eval()
    assert same(model.net.state_dict(), whole.state_dict())
    phi, maps = model.features(x), []
    assert phi.shape == (6, 512) and torch.equal(model(x), model.head(phi))
    whole.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    torch.testing.assert_close(model(x), whole(x))
    torch.testing.assert_close(phi, maps[0].mean((2, 3)))  # the last feature map in the mean over its places


WHOLE = {  # entries that a file lacks, its classes, and the layers that stay fresh in a net of two
    "nothing": (("-",), 2, ()),
    "whole parts": (("layer4", "fc"), 2, ("layer4", "fc")),
    "single entries": (("layer2.0.bn1.weight", "layer1.0.bn1.num_batches_tracked"), 2, ("layer2.0.bn1.weight",)),
    "another number of classes": (("-",), 1000, ("fc",)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_weights_go_in_and_what_they_lack_stays_as_the_seed_made_it_and_is_said(kind, tmp_path):
    without, classes, fresh = WHOLE[kind]
    state, model = official(classes, without), net()
    name, before = put(tmp_path, state), copied(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_weights(model, name, tmp_path)
    said = f"{name} leaves these layers freshly initialised: {', '.join(fresh)}"
    assert [str(one.message) for one in caught] == ([said] if fresh else [])
    assert all(one.category is FreshLayersWarning for one in caught)
    assert loaded.fresh == fresh and loaded.name == name and str(tmp_path) not in repr(loaded)
    assert loaded.sha256 == hashlib.sha256((tmp_path / "weights" / name).read_bytes()).hexdigest()
    for key, value in model.net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            kept = key not in state or state[key].shape != value.shape or (classes == 1000 and key.startswith("fc."))
            assert torch.equal(value, before[key] if kept else state[key]), key
    assert model.net.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_no_weights_change_nothing_and_imagenets_are_torchvisions(monkeypatch):
    state, model = official(), net()
    before = copied(model)
    assert load_weights(model, "none").name == "none" and same(model.net.state_dict(), before)
    monkeypatch.setattr("lib.resnet.ResNet18_Weights.get_state_dict", lambda self, **options: state)
    with pytest.warns(FreshLayersWarning, match="^imagenet leaves these layers freshly initialised: fc$"):
        load_weights(model, "imagenet")
    assert torch.equal(model.net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_failed_download_is_one_line_with_the_way_by_hand(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise URLError("no route")

    for where in (urllib.request, torch.hub):
        monkeypatch.setattr(where, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(DataError, match="^weights: .*resnet18[^\n]*could not be downloaded.*no route.*copy it to"):
        load_weights(net(), "imagenet")


OTHERS = {f"other.{number}": torch.zeros(1) for number in range(12)}
BAD = {
    "wrong shapes": (
        {**official(), "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)},
        r"has layer1.0.conv1.weight \(64, 64, 1, 1\)$",
    ),
    "unknown entries": (official() | OTHERS, r"has other.0 \(1,\) and 11 more that have not$"),
    "no state dict": (torch.zeros(3), "must be a state dict"),
    "a dictionary of something else": ({"epoch": 3, "state": official()}, "must be a state dict"),
    "nothing": ({}, "must be a state dict"),
}


@pytest.mark.parametrize("kind", BAD)
def test_unfit_weights_are_refused_in_one_line_before_anything_is_changed(kind, tmp_path, refuses):
    state, message = BAD[kind]
    model, before = net(), copied(net())
    said = refuses(ValueError, load_weights, model, put(tmp_path, state), tmp_path, match=message)
    assert said.startswith("weights must") and same(model.net.state_dict(), before)


def test_missing_and_damaged_files_are_one_line_with_the_place_that_was_looked_in(tmp_path, monkeypatch, refuses):
    path = tmp_path / "weights" / "some.pt"
    for weights, place in (("some.pt", path), (str(tmp_path / "other.pt"), tmp_path / "other.pt")):
        assert lacking(weights, tmp_path) == refuses(MissingData, load_weights, net(), weights, tmp_path, words=[place])
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))
    put(tmp_path, official())
    assert lacking("some.pt") is lacking(path) is lacking("none") is lacking("imagenet") is None
    for content in (b"", path.read_bytes()[:5000], b"no weights"):
        path.write_bytes(content)
        refuses(DataError, load_weights, net(), "some.pt", tmp_path, match="some.pt cannot be read")


@pytest.mark.parametrize("method", ["sam", "lsam"])
def test_phantom_is_of_the_net_or_of_its_last_layer(method):
    model, (x, y) = net(), batch()
    optimizer, before = training.make_optimizer(method, model, 0.3, lr=0.1), copied(model)
    F.cross_entropy(model(x), y).backward()
    with optimizer.at_phantom():
        moved = {name for name, p in model.net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == ({"fc.weight", "fc.bias"} if method == "lsam" else set(dict(model.net.named_parameters())))
