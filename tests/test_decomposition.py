"""Equation (6): importance weight times the sum of feature gradients is the gradient, for every way of
training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from book.mechanism import decompose, phantom_heads
from lib.data.toy import ToyConstants, sample
from lib.toy.ensemble import ToySetting, batch_order, features, intervention, lsam, sgd, train, unpack

SMALL = ToyConstants(training_points=60, test_points=50)
RATE = 0.05
HEADS = {  # setting and, by its equation, the importance head u and the effective head g from (w, w~, c)
    "sgd (6)": (sgd(data=SMALL, epochs=1), lambda w, t, c: (w, w)),
    "lsam (6) at the phantom": (lsam(0.5, data=SMALL, epochs=1), lambda w, t, c: (t, t)),
    "importance (8)": (
        intervention("importance", 2.5, data=SMALL, epochs=1),
        lambda w, t, c: (w[0] * np.array([1, c]), w),
    ),
    "learning rate (9)": (
        intervention("learning_rate", 2.5, data=SMALL, epochs=1),
        lambda w, t, c: (w, w[0] * np.array([1, c])),
    ),
    "both (10)": (intervention("both", 2.5, data=SMALL, epochs=1), lambda w, t, c: (w[0] * np.array([1, c]),) * 2),
    "constant rates": (
        ToySetting(importance="real", effective="constant", rates=(0.1, 1.2), data=SMALL, epochs=1),
        lambda w, t, c: (w, w * np.array([0.1, 1.2])),
    ),
}


def feature_gradients(net: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """f(x_b) and its gradient in every weight of the flat `net`, for each row, by automatic
    differentiation."""
    flat = torch.tensor(net, dtype=torch.float64, requires_grad=True)
    part, start = {}, 0
    for name, value in unpack(net).items():
        part[name] = flat[start : start + value.size].view(value.shape)
        start += value.size
    values, gradients = [], []
    for row in torch.tensor(x, dtype=torch.float64):
        hidden = torch.relu(torch.relu(row @ part["W1"] + part["b1"]) @ part["W2"] + part["b2"])
        value = hidden @ part["w3"] + part["b3"]
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, flat, retain_graph=True)[0].numpy())
    return np.array(values), gradients


@pytest.mark.parametrize("engine", ["compiled", "torch"])
@pytest.mark.parametrize("name", HEADS)
def test_a_step_is_importance_weight_times_sum_of_feature_gradients(name, engine):
    setting, heads = HEADS[name]
    steps = setting.steps
    result = train([setting], [3], (0, 1 / steps), keep_nets=True, engine=engine)
    before, after = result.nets[0][0].astype(float)
    w = result.heads[0, 0, 0]
    points, batch = sample(SMALL, 3), batch_order(3, 60, 1)[0, :5]
    x, y = points.x[batch], points.y[batch].astype(float)
    f_easy, easy_gradients = feature_gradients(before[0], x[:, :2])
    f_hard, hard_gradients = feature_gradients(before[1], x[:, 2:])
    f = np.stack([f_easy, f_hard], axis=1)
    u, g = heads(w, phantom_heads(f, w, y, setting.rho), setting.ratio)
    weights = expit(-y * (f @ u))
    for i, gradients in enumerate((easy_gradients, hard_gradients)):
        gradient = -np.mean(
            [label * weight * g[i] * one for label, weight, one in zip(y, weights, gradients, strict=True)], axis=0
        )
        np.testing.assert_allclose((before[i] - after[i]) / RATE, gradient, atol=2e-5)
    head_gradient = -(y * weights) @ f / 5
    np.testing.assert_allclose((w - result.heads[0, 0, 1]) / RATE, head_gradient, atol=1e-5)


def test_decomposition_is_that_of_the_traced_training_step():
    setting = lsam(0.5, data=SMALL, epochs=1)
    result = train([setting], range(3), (0,), keep_nets=True, trace_every=1)
    parts = decompose(result, 0, 0, rho=0.5)
    for s, seed in enumerate(result.seeds):
        first = batch_order(seed, 60, 1)[0, :5]
        real, phantom = result.traces[0][s, 0].reshape(2, 2)
        for rates, expected in zip((parts.easy_rate, parts.hard_rate), phantom / real):
            np.testing.assert_allclose(rates[s, first], expected, atol=1e-5)
    margins = parts.easy + parts.hard
    np.testing.assert_allclose(parts.real, expit(-margins))
    assert decompose(result, 0, 0, rho=0.0).phantom == pytest.approx(parts.real)


def test_contributions_are_signed_by_the_label():
    result = train([ToySetting(data=SMALL, epochs=1)], [0], (1,), keep_nets=True)
    parts = decompose(result, 0, 0, rho=0.1)
    points = sample(SMALL, 0)
    f_hard = features(result.nets[0][0, 0, 1], points.x[:, 2:])
    np.testing.assert_allclose(parts.hard[0], points.y * result.heads[0, 0, 0, 1] * f_hard, rtol=1e-5, atol=1e-7)


def test_a_zero_gradient_leaves_the_head_where_it_is():
    head = np.array([1.0, 2.0])
    assert np.array_equal(phantom_heads(np.zeros((5, 2)), head, np.ones(5), 0.7), head)


def test_nets_are_needed():
    with pytest.raises(ValueError, match="keep_nets"):
        decompose(train([sgd(data=SMALL, epochs=1)], [0]), 0, 0, 0.1)
