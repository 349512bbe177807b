"""Importance weights, Lorenz curve, Gini coefficient and the weight map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.importance import gini, importance_weights, lorenz_curve, real_and_phantom_weights, weight_map
from lib.models import ToyNet
from lib.optim import LSAM, SAM

WEIGHTS = arrays(float, st.integers(2, 40), elements=st.floats(0, 1)).filter(lambda weights: weights.sum() > 1e-6)


def test_importance_weight_is_the_gradient_in_the_true_logit():
    logits = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(20) % 4
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    expected = -logits.grad[torch.arange(20), labels]
    torch.testing.assert_close(importance_weights(logits.detach(), labels), expected)


def test_two_classes_and_one_logit_give_the_same_weight():
    logit = torch.linspace(-30, 30, 61, dtype=torch.float64)
    pair = torch.stack([torch.zeros_like(logit), logit], dim=1)
    for y, label in ((1.0, 1), (-1.0, 0), (1, 1), (-1, 0)):
        of_pair = importance_weights(pair, torch.full((61,), label))
        torch.testing.assert_close(importance_weights(logit, torch.full((61,), y)), of_pair)


def test_a_well_fitted_example_keeps_its_tiny_weight_in_float32():
    weight = importance_weights(torch.tensor([[30.0, 0.0]]), torch.tensor([0]))
    assert weight.item() == pytest.approx(np.exp(-30), rel=1e-4, abs=0)


@pytest.mark.parametrize(
    "optimizer", [lambda net: SAM(net.parameters(), rho=0.3, lr=0.1), lambda net: LSAM(net, rho=0.3, lr=0.1)]
)
def test_phantom_weights_are_those_of_the_perturbed_net_and_nothing_stays_changed(optimizer):
    torch.manual_seed(0)
    net, x = ToyNet(8), torch.randn(12, 4)
    y = torch.where(torch.arange(12) % 2 == 0, 1.0, -1.0)
    sam = optimizer(net)
    before = [p.detach().clone() for p in net.parameters()]

    def loss(logits, labels):
        return torch.nn.functional.softplus(-labels * logits).mean()

    real, phantom = real_and_phantom_weights(net, sam, list(zip(x.split(5), y.split(5))), loss)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(net.parameters(), before, strict=True))
    torch.testing.assert_close(real, torch.sigmoid(-y * net(x)).detach())
    moved = net.head.weight if isinstance(sam, LSAM) else None
    chosen = [moved] if moved is not None else list(net.parameters())
    gradients = torch.autograd.grad(loss(net(x[5:10]), y[5:10]), chosen)
    norm = torch.sqrt(sum((g**2).sum() for g in gradients))
    with torch.no_grad():
        for p, g in zip(chosen, gradients, strict=True):
            p += 0.3 * g / norm
        torch.testing.assert_close(phantom[5:10], torch.sigmoid(-y[5:10] * net(x[5:10])), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_measuring_weights_leaves_batch_norm_and_gradients_whatever_its_mode(known):
    """A part that is frozen, and an optimizer that knows its model or does not."""
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3).eval())
    net[1].weight.grad = torch.ones(3, 4)
    before = [buffer.clone() for buffer in net.buffers()]
    optimizer = SAM(net.parameters(), model=net if known else None)
    batches = [(torch.randn(6, 4), torch.arange(6) % 3)] * 2
    real_and_phantom_weights(net, optimizer, batches, torch.nn.functional.cross_entropy)
    assert net.training and not net[2].training and net[1].bias.grad is None and (net[1].weight.grad == 1).all()
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before, strict=True))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(4), [0, 1, 0, 1], r"labels must be -1 or 1 where logits are \(4,\), not \[0, 1\]"),
        (torch.zeros(4), [0.5, 1.0, 1.0, 1.0], "labels must be -1 or 1"),
        (torch.zeros(4, 1), [0, 0, 0, 0], "2 classes or more"),
        (torch.zeros(4, 2), [-1, 1, -1, 1], r"whole numbers from 0 to 1 where logits are \(4, 2\), not \[-1, 1\]"),
        (torch.zeros(4, 3), [0.0, 1.0, 2.0, 1.0], "whole numbers from 0 to 2"),
        (torch.zeros(4, 3), [0, 1, 3, 1], "whole numbers from 0 to 2"),
        (torch.zeros(4, 2, 2), [0, 1, 0, 1], "logits must have shape"),
        (torch.zeros(3), [1, 1, 1, 1], "logits must have shape"),
    ],
)
def test_codes_of_labels_must_be_those_of_the_logits(logits, labels, message, refuses):
    refuses(ValueError, importance_weights, logits, torch.tensor(labels), match=message)


def test_gini_of_equal_weights_of_a_single_point_and_of_a_pareto_sample_is_its_closed_form():
    np.testing.assert_allclose(gini(np.full((3, 2, 50), 0.3)), np.zeros((3, 2)), atol=1e-9)
    fractions, shares = lorenz_curve(np.full((3, 2, 50), 0.3))
    np.testing.assert_allclose(shares, np.broadcast_to(fractions, (3, 2, 51)))
    assert gini(np.eye(50)[7]) == pytest.approx(49 / 50)
    quantiles = (np.arange(200_000) + 0.5) / 200_000
    assert gini((1 - quantiles) ** (-1 / 3)) == pytest.approx(1 / 5, abs=1e-3)  # shape 3: 1 / (2 a - 1)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_gini_is_twice_the_area_between_lorenz_curve_and_diagonal(weights):
    fractions, shares = lorenz_curve(weights)
    assert 2 * (np.trapezoid(shares, fractions) - 0.5) == pytest.approx(float(gini(weights)), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_lorenz_curve_rises_from_zero_to_one_above_the_diagonal_and_bends_down(weights):
    fractions, shares = lorenz_curve(weights)
    assert shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert np.all(shares >= fractions - 1e-9) and np.all(np.diff(shares, 2) <= 1e-9)


@pytest.mark.parametrize(
    "weights", [np.zeros(4), np.array([1.0, -0.1]), np.array([1.0, np.nan]), np.eye(4)[:2] * [[0], [1]]]
)
def test_weights_without_meaning_are_refused(weights):
    for function in (gini, lorenz_curve):
        with pytest.raises(ValueError, match="weights"):
            function(weights)


def test_weight_map_holds_median_and_count_and_marks_empty_bins():
    easy, hard = np.array([0.5, 0.5, 0.5, 1.5, 9.0]), np.array([0.5, 0.5, 0.5, 1.5, 0.5])
    table = weight_map(easy, hard, np.array([1.0, 2.0, 9.0, 4.0, 7.0]), np.arange(3.0), np.arange(3.0))
    assert table.count.tolist() == [[3, 0], [0, 1]]
    assert table.median[0, 0] == 2 and table.median[1, 1] == 4 and np.isnan(table.median[0, 1])
