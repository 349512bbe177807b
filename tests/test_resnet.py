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
from lib.optim.variants import take_step
from lib.resnet import FreshLayersWarning, ResNet18, lacking, load_weights

CPU = torch.device("cpu")
SIDE = 32


def net(classes: int = 2, seed: int = 0) -> ResNet18:
    return training.initial_model(ResNet18, classes, seed=seed, device=CPU)


@cache
def everything() -> dict[str, Tensor]:
    """torchvision's state dict with numbers that no initialisation gives."""
    random = torch.Generator().manual_seed(7)
    return {
        key: torch.randn(value.shape, generator=random) if value.is_floating_point() else value + 3
        for key, value in resnet18().state_dict().items()
    }


def official(classes: int = 1000, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The same for a number of classes, without the entries that begin so."""
    return {
        key: value[:classes] if key.startswith("fc.") else value
        for key, value in everything().items()
        if not key.startswith(without or "-")
    }


def put(root: Path, state: object, name: str = "some.pt") -> str:
    (root / "weights").mkdir(exist_ok=True)
    torch.save(state, root / "weights" / name)
    return name


def copied(model: ResNet18) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def batch(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=random)
    return torch.randn(count, 3, SIDE, SIDE, generator=random), labels


def test_net_is_torchvisions_split_into_features_and_head():
    model, (x, _) = net(5).eval(), batch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = resnet18(num_classes=5).eval()
    phi = model.features(x)
    assert phi.shape == (6, 512) and model.head.weight.shape == (5, 512)
    assert torch.equal(model(x), model.head(phi))
    torch.testing.assert_close(model(x), whole(x))
    # Features are the last feature map in the mean over its places.
    maps = []
    model.body.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    torch.testing.assert_close(model.features(x), maps[0].mean((2, 3)))


@pytest.mark.parametrize("shape", [(3, SIDE, SIDE), (2, 1, SIDE, SIDE)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3, height, width\), not"):
        net().features(torch.zeros(shape))


def test_equal_seeds_give_equal_weights_and_other_seeds_others():
    first, again, other = net(seed=1), net(seed=1), net(seed=2)
    assert same(first.state_dict(), again.state_dict())
    for part in ("body.layer4.1.conv2.weight", "head.weight"):
        assert not torch.equal(first.state_dict()[part], other.state_dict()[part])


def test_partial_weights_go_in_and_the_rest_stays_as_the_seed_made_it(tmp_path):
    state = official(without=("layer4", "fc"))
    name, model, before = put(tmp_path, state), net(), copied(net())
    with pytest.warns(FreshLayersWarning) as caught:
        loaded = load_weights(model, name, tmp_path)
    assert str(caught[0].message) == f"{name} leaves these layers freshly initialised: layer4, fc"
    assert loaded.fresh == ("layer4", "fc") and loaded.name == name
    assert loaded.sha256 == hashlib.sha256((tmp_path / "weights" / name).read_bytes()).hexdigest()
    after = model.state_dict()
    for key, value in after.items():
        official_key = key.removeprefix("body.")
        expected = state[official_key] if official_key in state else before[key]
        assert torch.equal(value, expected), key
    assert sum(key.removeprefix("body.") in state for key in after) == len(state)
    assert model.body.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_single_missing_entries_are_named(tmp_path):
    state = official(classes=2, without=("layer2.0.bn1.weight", "layer1.0.bn1.num_batches_tracked"))
    with pytest.warns(FreshLayersWarning, match="initialised: layer2.0.bn1.weight$"):
        load_weights(net(), put(tmp_path, state), tmp_path)


def test_whole_weights_go_in_without_a_word(tmp_path):
    state = official(classes=2)
    path, model = tmp_path / "weights" / put(tmp_path, state), net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_weights(model, path)  # a path needs no data root
    assert loaded.fresh == () and loaded.name == "some.pt" and str(tmp_path) not in repr(loaded)
    assert torch.equal(model.head.weight, state["fc.weight"])


def test_last_layer_of_another_number_of_classes_is_left_out_and_said(tmp_path):
    model, before = net(7), copied(net(7))
    with pytest.warns(FreshLayersWarning, match="initialised: fc$"):
        load_weights(model, put(tmp_path, official(classes=1000)), tmp_path)
    assert torch.equal(model.head.weight, before["head.weight"])
    assert torch.equal(model.head.bias, before["head.bias"])


def test_no_weights_change_nothing():
    model, before = net(), copied(net())
    assert load_weights(model, "none").name == "none" and same(model.state_dict(), before)


def test_imagenet_weights_are_torchvisions(monkeypatch):
    state = official()
    monkeypatch.setattr("lib.resnet.ResNet18_Weights.get_state_dict", lambda self, **options: state)
    model = net()
    with pytest.warns(FreshLayersWarning, match="^imagenet leaves these layers freshly initialised: fc$"):
        load_weights(model, "imagenet")
    assert torch.equal(model.body.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_failed_download_is_one_line_with_the_way_by_hand(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    line = "resnet18.*could not be downloaded.*no route.*copy the file to"
    with pytest.raises(DataError, match=line) as caught:
        load_weights(net(), "imagenet")
    assert "\n" not in str(caught.value)


BAD = {
    "unknown entries": (
        {**official(), "layer9.weight": torch.zeros(2), "module.x": torch.zeros(1)},
        "layer9.weight, module.x",
    ),
    "wrong shapes": (
        {**official(), "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)},
        r"layer1.0.conv1.weight \(64, 64, 1, 1\) for \(64, 64, 3, 3\)",
    ),
    "no state dict": (torch.zeros(3), "must be a state dict"),
    "a dictionary of something else": ({"epoch": 3, "state": official()}, "must be a state dict"),
    "nothing": ({}, "must be a state dict"),
}


@pytest.mark.parametrize("kind", BAD)
def test_unfit_weights_are_refused_in_one_line_before_anything_is_changed(kind, tmp_path):
    state, message = BAD[kind]
    name, model, before = put(tmp_path, state), net(), copied(net())
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(model, name, tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("weights must")
    assert same(model.state_dict(), before)


def test_many_unknown_entries_are_counted(tmp_path):
    state = {f"other.{number}": torch.zeros(1) for number in range(12)}
    with pytest.raises(ValueError, match="other.4 and 7 more"):
        load_weights(net(), put(tmp_path, state), tmp_path)


def test_missing_file_is_named_with_the_place_that_was_looked_in(tmp_path, monkeypatch):
    for weights, place in (
        ("some.pt", tmp_path / "weights" / "some.pt"),
        (str(tmp_path / "other.pt"), tmp_path / "other.pt"),
    ):
        with pytest.raises(MissingData) as caught:
            load_weights(net(), weights, tmp_path)
        assert str(place) in str(caught.value) and "\n" not in str(caught.value)
        assert lacking(weights, tmp_path) == str(caught.value)
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))
    put(tmp_path, official())
    assert lacking("some.pt") is lacking("none") is lacking("imagenet") is None


def test_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "weights" / put(tmp_path, official())
    for content in (b"", path.read_bytes()[:5000], b"no weights"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="some.pt cannot be read") as caught:
            load_weights(net(), "some.pt", tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["sgd", "sam", "lsam"])
def test_batch_norm_of_the_whole_net_advances_once_a_step_at_the_unperturbed_weights(method):
    model = net().train()
    optimizer = training.make_optimizer(method, model, 0.0 if method == "sgd" else 0.5, lr=0.01, momentum=0.9)
    steps = 3
    for step in range(steps):
        x, y = batch(seed=step)
        once = copy.deepcopy(model)
        with torch.no_grad():
            once(x)
        take_step(model, optimizer, x, y)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, once.get_buffer(name), msg=name)
    counters = [int(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counters == [steps] * 20


def test_phantom_of_the_whole_net_is_at_distance_rho_and_leaves_no_trace():
    model, (x, y) = net().train(), batch()
    optimizer = training.make_optimizer("sam", model, 0.3, lr=0.1)
    F.cross_entropy(model(x), y).backward()
    before = copied(model)
    with optimizer.at_phantom():
        moved = model.state_dict()
        squares = [float((moved[name] - before[name]).square().sum()) for name, _ in model.named_parameters()]
        model(x)
        assert sum(squares) ** 0.5 == pytest.approx(0.3, rel=1e-4) and min(squares) > 0
        assert not same(model.state_dict(), before)
    assert same(model.state_dict(), before)


def test_phantom_of_lsam_moves_the_head_alone():
    model, (x, y) = net().train(), batch()
    optimizer = training.make_optimizer("lsam", model, 0.3, lr=0.1)
    F.cross_entropy(model(x), y).backward()
    before = copied(model)
    with optimizer.at_phantom():
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"} and same(model.state_dict(), before)
