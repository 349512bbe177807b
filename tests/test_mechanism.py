"""What chapter 05 measures, and its rules on made data, on both sides of each border."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from book import mechanism
from book.mechanism import (
    Decomposition,
    Effects,
    at,
    carried_share,
    checks_c3,
    checks_c4,
    checks_c9,
    decompose,
    effects,
    half_phantom,
    head_change,
    log_ratio_slopes,
    phantom_heads,
    trained,
)
from lib.data.toy import ToyConstants, sample
from lib.importance import worst_share
from lib.toy.ensemble import ToySetting, batch_order, features, intervention, lsam, sgd, train, unpack


@pytest.fixture
def well_fitted() -> Decomposition:
    """Nets (seeds, n) whose batches all have 0.6 of w_e and 1.1 of w_h at the phantom."""
    rng = np.random.default_rng(0)
    easy, hard = rng.uniform(15, 30, (3, 200)), rng.uniform(-2, 2, (3, 200))
    rates = np.full((3, 200), 0.6), np.full((3, 200), 1.1)
    return Decomposition(easy, hard, expit(-(easy + hard)), expit(-(0.6 * easy + 1.1 * hard)), *rates)


def test_slopes_of_well_fitted_points_are_the_change_of_the_head(well_fitted):
    np.testing.assert_allclose(head_change(well_fitted), [[0.4] * 3, [-0.1] * 3])
    np.testing.assert_allclose(log_ratio_slopes(well_fitted), [[0.4] * 3, [-0.1] * 3], atol=1e-3)


def test_half_phantoms_are_the_phantom_where_the_other_half_does_not_move(well_fitted):
    only_easy, only_hard = half_phantom(well_fitted)
    still = np.ones((3, 200))
    assert np.array_equal(half_phantom(well_fitted._replace(hard_rate=still))[0], only_easy)
    np.testing.assert_allclose(half_phantom(well_fitted._replace(hard_rate=still))[1], well_fitted.real)
    np.testing.assert_allclose(
        np.log(only_easy) + np.log(only_hard) - np.log(well_fitted.real), np.log(well_fitted.phantom), atol=1e-4
    )


def test_seeds_with_a_diverged_net_are_left_out_of_every_net(monkeypatch):
    small = {"data": ToyConstants(training_points=20, test_points=20), "epochs": 2}
    result = train([sgd(**small), lsam(0.5, **small)], range(3), (0, 0.5, 1), keep_nets=True)
    diverged = np.arange(6).reshape(2, 3) == 4
    monkeypatch.setattr(mechanism, "train", lambda *given, **how: replace(train(*given, **how), diverged=diverged))
    parts, heads = trained(0.5, (0, 1, 2), range(3), small)
    assert parts.real.shape == (2, 3, 2, 20) and heads.shape == (2, 3, 2, 2)
    for found, expected in zip(at(parts, 1, -1), decompose(result, 1, 2, 0.5), strict=True):
        assert np.array_equal(found, expected[[0, 2]])
    assert np.array_equal(heads[0, 1], result.heads[0, [0, 2], 1])


SEEDS = 8
MARGIN, EVEN = 0.005, 0.01  # of a share of all importance, and of a Gini coefficient
SPREAD = np.tile([1.0, -0.6], SEEDS // 2)  # mean 0.2, interval from below 0


def made() -> Effects:
    """Two nets at three checkpoints: everything that C3, C4 and C9 say holds."""
    low, high = np.full((2, 3, SEEDS), 0.25), np.full((2, 3, SEEDS), 0.75)
    pairs = (high, low), (low, high), (high, low), (low, high), (np.ones((2, 3, SEEDS)), -np.ones((2, 3, SEEDS)))
    return Effects(*map(np.stack, pairs))


def judged(found: Effects, epochs: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """Outcomes of C3, C4 and C9, a letter a check."""
    last = found.since(-1)
    claims = checks_c3(last.even), checks_c4(last.changes), checks_c9(found, epochs)
    return ["".join(check.outcome.value[0] for check in checks) for checks in claims]


def test_the_claims_hold_where_every_effect_has_its_sign_by_main_checks_that_are_named():
    assert judged(made()) == ["hh", "hhhhhh", "hhhhhhhh"]
    last = made().since(-1)
    c4 = checks_c4(last.changes, "birds: ", reduced=True)
    assert [check.main for check in checks_c3(last.even, "SAM") + c4] == [True, False, True] + [False] * 5
    assert [check.main for check in checks_c9(made(), (0, 1, 2))] == [True] + [False] * 7
    assert [check.trivial for check in c4] == [False] * 4 + [True] * 2
    assert all(check.reduced and check.what.startswith("birds: ") for check in c4)
    assert "SAM-trained phantom" in checks_c3(last.even, "SAM")[1].what


def test_where_the_group_was_not_measured_the_slopes_lead():
    changes = made().since(-1).changes
    found = checks_c4({name: values for name, values in changes.items() if name != "share carried"})
    assert [check.main for check in found] == [True] + [False] * 4 and found[0].what.startswith("slope on the easy")


@pytest.mark.parametrize(
    ("gap", "outcome"), [(EVEN + 1e-9, "h"), (EVEN - 1e-9, "c"), (0.0, "c"), (-0.2, "c"), (SPREAD, "u")]
)
@pytest.mark.parametrize("net", [0, 1, None])
def test_weights_are_more_even_beyond_the_interval_and_the_margin(net, gap, outcome):
    found = made()
    if net == 1:  # the real coefficient
        found.even[0, 1, -1] = found.even[1, 1, -1] + gap
    else:  # the phantom's; of one net: between the nets stays what it is
        found.even[1, net if net == 0 else slice(None), -1] = found.even[0, 0, -1] - gap
    between = outcome if net is None else "h"
    assert judged(found) == [outcome + between, "hhhhhh", outcome + between + "hhhhhh"]


@pytest.mark.parametrize(
    ("change", "outcome"), [(MARGIN + 1e-9, "h"), (MARGIN - 1e-9, "c"), (0.0, "c"), (-0.2, "c"), (SPREAD, "u")]
)
@pytest.mark.parametrize("net", [0, 1])
@pytest.mark.parametrize(("name", "sign", "part"), [("carried", 1, 0), ("easy", -1, 2), ("hard", 1, 3)])
def test_each_share_is_judged_alone_in_each_net(name, sign, part, net, change, outcome):
    found = made()
    shares = getattr(found, name)
    shares[1, net, -1] = shares[0, net, -1] + sign * change
    c3, c4, c9 = judged(found)
    expected = "".join(outcome if i == part else "h" for i in range(6))
    assert (c3, c4, c9) == ("hh", expected, "hh" + expected)
    assert checks_c9(found, (0, 1, 2))[2 + part].what.endswith("(3 of 4)" if outcome != "h" else "(4 of 4)")


@pytest.mark.parametrize(
    ("easy", "hard", "outcomes"),  # of the difference, and of the two slopes
    [
        (1.0, 0.5, "hhc"),
        (0.5, 0.5 - 1e-9, "hhc"),
        (0.5, 0.5 + 1e-9, "chc"),
        (-0.5, -1.0, "hch"),
        (SPREAD, -1.0, "huh"),
        (1.0, 1.0 - SPREAD, "uhu"),
    ],
)
def test_slopes_are_judged_by_their_difference_and_count_for_nothing_else(easy, hard, outcomes):
    found = made()
    found.slopes[:, 1, -1] = easy + 0 * SPREAD, hard + 0 * SPREAD
    assert judged(found)[1] == f"h{outcomes[0]}hh{outcomes[1:]}"
    assert [check.counts for check in checks_c4(found.since(-1).changes)] == [True] * 4 + [False] * 2


def test_through_training_is_judged_after_the_first_step_only():
    found = made()
    found.even[1, :, 0], found.slopes[:, :, 0] = 0.9, -found.slopes[:, :, 0]
    assert judged(found) == ["hh", "hhhhhh", "hhhhhhhh"]
    assert judged(found, (1, 2, 3))[2] == "cchchhcc"
    found.carried[1, 1, 1] = 0.0  # an early checkpoint counts for C9, not for C4
    assert judged(found)[1:] == ["hhhhhh", "hhchhhhh"]


def test_points_that_only_the_easy_feature_fits_well_are_in_its_better_and_the_others_worse_half():
    easy, hard = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 4.0, 1.0, 2.0, 3.0])
    assert carried_share(easy, hard, np.eye(5)).tolist() == [0, 0, 0, 1, 0]  # the medians: above, and at or below
    assert carried_share(easy, hard, np.ones(5)) == pytest.approx(0.2)


def test_effects_are_of_real_and_phantom_weights(well_fitted):
    nets = at(well_fitted, None)
    found = effects(nets)
    assert found.even.shape == found.easy.shape == (2, 1, 3) and found.slopes.shape == (2, 1, 3)
    np.testing.assert_array_equal(found.carried[1], carried_share(nets.easy, nets.hard, nets.phantom))
    np.testing.assert_array_equal(found.hard[1], worst_share(nets.hard, nets.phantom))
    np.testing.assert_array_equal(found.easy[0], worst_share(nets.easy, nets.real))


# Equation (6): importance weight times the sum of feature gradients is the gradient, for every way of training.

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
