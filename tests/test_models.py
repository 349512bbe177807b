"""The nets: one convention, the paper's shapes, arguments checked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib.models import ConvNet, ToyNet


def test_toy_logit_is_the_weighted_sum_of_the_features_of_two_relu_nets() -> None:
    model, x = ToyNet(48), torch.randn(7, 4)
    assert model.head.weight.tolist() == [[1, 1]] and model.head.bias is None
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[2.0, -3.0]]))
    phi = model.features(x)
    assert phi.shape == (7, 2) and model(x).shape == (7,)
    torch.testing.assert_close(model(x), 2 * phi[:, 0] - 3 * phi[:, 1])
    for body in (model.easy, model.hard):
        assert [tuple(layer.weight.shape) for layer in body[::2]] == [(48, 2), (48, 48), (1, 48)]
        assert all(isinstance(layer, nn.ReLU) for layer in body[1::2])


def test_toy_features_see_only_their_own_coordinates() -> None:
    model, x = ToyNet(8), torch.randn(6, 4)
    easy_moved, hard_moved = x.clone(), x.clone()
    easy_moved[:, :2] += 1
    hard_moved[:, 2:] += 1
    phi = model.features(x)
    assert torch.equal(model.features(easy_moved)[:, 1], phi[:, 1])
    assert torch.equal(model.features(hard_moved)[:, 0], phi[:, 0])
    assert not torch.equal(model.features(easy_moved)[:, 0], phi[:, 0])


@pytest.mark.parametrize("height, width, entries", [(64, 32, 4096), (28, 28, 2048), (17, 9, 768)])
def test_conv_net_fits_its_head_to_the_image_size(height: int, width: int, entries: int) -> None:
    model = ConvNet(classes=5, in_channels=1, height=height, width=width)
    x = torch.randn(2, 1, height, width)
    assert model.features(x).shape == (2, entries) and model(x).shape == (2, 5)
    assert torch.equal(model(x), model.head(model.features(x)))


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
def test_bad_argument_is_one_line_that_names_it(build, name: str, refuses) -> None:
    refuses(ValueError, build, match=f"^{name} must ")
