"""What chapter 05 measures, and its rules on made data, on both sides of each border."""

from dataclasses import replace

import numpy as np
import pytest
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
    trained,
)
from lib.data.toy import ToyConstants
from lib.importance import worst_share
from lib.toy.ensemble import lsam, sgd, train


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
