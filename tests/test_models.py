"""The nets: one convention, the paper's shapes, arguments checked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib.models import ConvNet, ToyNet


@pytest.mark.parametrize("model, shape", [(ToyNet(8), (5, 4)), (ConvNet(3), (2, 3, 64, 32))])
def test_forward_is_head_of_features(model: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert torch.equal(model(x), model.head(model.features(x)))


def test_toy_logit_is_the_weighted_sum_of_its_features() -> None:
    model, x = ToyNet(16), torch.randn(7, 4)
    phi = model.features(x)
    assert phi.shape == (7, 2) and model(x).shape == (7,)
    assert model.head.weight.tolist() == [[1, 1]] and model.head.bias is None
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[2.0, -3.0]]))
    torch.testing.assert_close(model(x), 2 * phi[:, 0] - 3 * phi[:, 1])


def test_toy_features_see_only_their_own_coordinates() -> None:
    model, x = ToyNet(8), torch.randn(6, 4)
    easy_moved, hard_moved = x.clone(), x.clone()
    easy_moved[:, :2] += 1
    hard_moved[:, 2:] += 1
    phi = model.features(x)
    assert torch.equal(model.features(easy_moved)[:, 1], phi[:, 1])
    assert torch.equal(model.features(hard_moved)[:, 0], phi[:, 0])
    assert not torch.equal(model.features(easy_moved)[:, 0], phi[:, 0])


def test_toy_features_are_three_layer_relu_nets_of_the_given_width() -> None:
    linear = [(m.in_features, m.out_features) for m in ToyNet(48).easy if isinstance(m, nn.Linear)]
    assert linear == [(2, 48), (48, 48), (48, 1)]


@pytest.mark.parametrize("height, width, entries", [(64, 32, 4096), (28, 28, 2048), (17, 9, 768)])
def test_conv_net_fits_its_head_to_the_image_size(height: int, width: int, entries: int) -> None:
    model = ConvNet(classes=5, in_channels=1, height=height, width=width)
    x = torch.randn(2, 1, height, width)
    assert model.features(x).shape == (2, entries) and model(x).shape == (2, 5)


def test_conv_net_is_the_same_function_in_channels_last() -> None:
    model, x = ConvNet(), torch.randn(3, 3, 64, 32)
    before = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda: ToyNet(0), "width"),
        (lambda: ConvNet(classes=0), "classes"),
        (lambda: ConvNet(width=0), "width"),
        (lambda: ToyNet(4)(torch.zeros(3, 2)), "x"),
        (lambda: ToyNet(4)(torch.zeros(4)), "x"),
        (lambda: ConvNet()(torch.zeros(2, 3, 32, 32)), "x"),
        (lambda: ConvNet()(torch.zeros(3, 64, 32)), "x"),
    ],
)
def test_bad_argument_is_one_line_that_names_it(build, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must [^\n]*$"):
        build()
