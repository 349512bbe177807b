"""The rules of C1, C2, C5 and C6 on made data, on both sides of each border (chapter 05: test_mechanism.py)."""

import numpy as np
import pytest

from book import interventions, rebalancing, toy
from lib.stats import Estimate, estimate

RHOS = [0.0, 0.7, 1.4]
SPREAD = np.array([1.0, -0.6, 1.0, -0.6])  # over four seeds: mean 0.2, interval from -0.6 to 1


def same(*means: float) -> np.ndarray:
    """(mean, seed): four seeds that all have this mean, so that the interval is the mean."""
    return np.repeat(np.array(means)[:, None], 4, axis=1)


def outcomes(checks) -> list[bool]:
    return [check.holds for check in checks]


def c1(hard=None, easy=None, training=None, rho: float = 1.4):
    """C1 at two complexities; all of it holds unless told otherwise for the second one, (rho, seed)."""
    usual = {"hard": same(0.3, 0.2, 0.1), "easy": same(0.05, 0.05, 0.05), "training": same(0, 0, 0)}
    given = {"hard": hard, "easy": easy, "training": training}
    both = {name: np.stack([usual[name], usual[name] if one is None else one]) for name, one in given.items()}
    return toy.checks(RHOS, rho, **both)


def test_spread_has_a_mean_above_zero_and_an_interval_that_reaches_below():
    effect = estimate(SPREAD)
    assert effect.low < 0 < effect.mean


def test_c1_holds_where_all_its_parts_do():
    assert outcomes(c1()) == [True] * 4
    assert [check.main for check in c1()] == [False, False, True, False]


@pytest.mark.parametrize(
    ("training", "holds"),
    [
        (same(0.005, 0, 0.005), True),
        (same(0.0051, 0, 0), False),
        (same(0, 0, 0.0051), False),
        (same(0, 0.5, 0), True),  # a radius that is not compared
        (same(0, 0, 0.004) + 0.004 * np.array([1, -1, 1, -1]), True),  # the mean fits, whatever the interval
        (np.where(np.arange(4) == 2, np.nan, same(0, 0, 0)), False),  # a net diverged
    ],
)
def test_a_net_fits_up_to_half_a_per_cent(training, holds):
    assert outcomes(c1(training=training)) == [holds, True, True, True]


@pytest.mark.parametrize(
    ("hard", "easy", "holds"),
    [
        (same(0.3, 0.2, 0.1) + 0.3 * SPREAD, same(0.3, 0, 0), [True, False, True, True]),  # interval touches
        (same(0.3, 0.3, 0.3), None, [True, True, False, False]),  # nothing gained, no trend
        (same(0.3, 0.2, 0.25), None, [True, True, True, True]),
        (same(0.3, 0.1, 0.3), None, [True, True, False, False]),
        (same(0.1, 0.2, 0.3), None, [True, True, False, False]),  # the trend rises
        (np.stack([*same(0.5, 0.45), 0.45 - 0.2 * SPREAD]), None, [True, True, False, False]),
    ],
)
def test_c1_needs_the_whole_interval_on_its_side(hard, easy, holds):
    if easy is None:
        easy = same(0.05, 0.05, 0.05)
    assert outcomes(c1(hard, easy)) == holds


def test_c1_is_judged_where_the_spiral_is_the_hard_feature_only():
    equal = c1(hard=same(0.2, 0.3, 0.4), easy=same(0.2, 0.2, 0.2), training=same(1, 1, 1))
    assert outcomes(equal) == [True] * 4 and "(1 of 1)" not in equal[1].what
    nowhere = toy.checks(RHOS, 1.4, *(same(0.1, 0.1, 0.1)[None] for _ in range(3)))
    assert nowhere == []


def c2(phantom: np.ndarray, real: np.ndarray):
    """C2 by what the ratios change by at rho, (complexity, seed) or (seed,)."""
    phantom, real = np.atleast_2d(phantom), np.atleast_2d(real)
    ratios = [np.stack([np.ones_like(change), 1 + change / 2, 1 + change], axis=1) for change in (phantom, real)]
    return rebalancing.checks_c2(RHOS, 1.4, *ratios)


@pytest.mark.parametrize(
    ("change", "holds"), [(0, True), (0.96, True), (1, False), (1.04, False), (0.7 + SPREAD, False)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_c2_real_ratio_hardly_moves_by_less_than_a_third_up_or_down(sign, change, holds):
    effect = c2(same(3)[0], sign * change * np.ones(4))[2]
    assert effect.holds is holds


@pytest.mark.parametrize(
    ("phantom", "holds"), [(same(0.1)[0], True), (same(0)[0], False), (SPREAD, False), (same(-0.1)[0], False)]
)
def test_c2_phantom_ratio_grows_beyond_its_interval(phantom, holds):
    checks = c2(phantom, np.zeros(4))
    assert outcomes(checks)[:2] == [holds, holds]


def test_c2_shows_the_complexity_of_the_lowest_interval_and_needs_every_one():
    strong, weak, wide = same(0.3)[0], same(0.1)[0], 0.5 + SPREAD
    assert c2(np.stack([strong, weak]), np.zeros((2, 4)))[0].effect.mean == pytest.approx(0.1)
    checks = c2(np.stack([strong, wide]), np.zeros((2, 4)))
    assert checks[0].effect == estimate(1 + wide - 1) and not checks[0].holds


def test_c2_compares_with_the_radius_that_is_asked_for():
    phantom = np.stack([same(1, 2, 1)])
    assert rebalancing.checks_c2(RHOS, 0.7, phantom, np.ones_like(phantom))[0].holds
    assert not rebalancing.checks_c2(RHOS, 1.4, phantom, np.ones_like(phantom))[0].holds


@pytest.mark.parametrize(
    ("easy", "hard", "holds"),
    [
        (same(0.99, 0.6), same(1.01, 1.2), [True, True]),
        (same(1, 0.6), same(1, 1.2), [False, False]),
        (same(1.01, 0.6), same(0.99, 1.2), [False, False]),
        (np.stack([1 - SPREAD, *same(0.6)]), np.stack([1 + SPREAD, *same(1.2)]), [False, False]),
        (np.where(np.arange(4) == 1, np.nan, same(0.5, 0.6)), same(1.1, np.nan), [False, False]),
    ],
)
def test_c5_needs_the_easy_rate_below_and_the_hard_rate_above_one_at_every_complexity(easy, hard, holds):
    assert outcomes(rebalancing.checks_c5(1.4, easy, hard)) == holds
    assert outcomes(rebalancing.checks_c5(1.4, easy[::-1], hard[::-1])) == holds


def test_c2_and_c5_without_a_complexity_to_judge_are_not_run():
    assert rebalancing.checks_c2(RHOS, 1.4, np.ones((0, 3, 4)), np.ones((0, 3, 4))) == []
    assert rebalancing.checks_c5(1.4, np.ones((0, 4)), np.ones((0, 4))) == []


def test_windows_hold_every_record_once():
    values = np.random.default_rng(0).normal(size=(3, 1200))
    edges, middles = rebalancing.windows(1200, epochs=200)
    assert edges[0] == 0 and edges[-1] == 1200 and edges[1] == 6 and middles[0] == 0.5
    np.testing.assert_allclose(rebalancing.in_windows(values, edges) @ np.diff(edges), values.sum(axis=1))


def c6(importance: np.ndarray, rate: np.ndarray, mean: float = 0.01, high: float = 0.02):
    return interventions.checks({"importance": importance, "learning_rate": rate}, Estimate(4, mean, 0, 0, high))


@pytest.mark.parametrize(
    ("importance", "rate", "holds"),
    [
        (same(1)[0], same(1.9)[0], [True, True, True]),
        (same(1.9)[0], same(1)[0], [True, True, True]),
        (same(1)[0], same(2)[0], [True, True, False]),  # twice exactly
        (same(2)[0], same(1)[0], [True, True, False]),
        (same(1)[0], 1.8 - SPREAD, [True, True, False]),  # 0.4 in the mean, its interval reaches below 0
        (same(1)[0], np.array([1.5, 0.3, 1.5, 0.3]), [True, True, False]),  # the smaller is so in the mean
        (SPREAD, same(0.2)[0], [False, True, False]),
        (same(0.2)[0], SPREAD, [True, False, False]),
        (same(0)[0], same(0)[0], [False, False, False]),
        (same(-1)[0], same(-1)[0], [False, False, False]),
    ],
)
def test_c6_gains_are_above_zero_and_comparable_within_a_factor_of_two(importance, rate, holds):
    assert outcomes(c6(importance, rate)) == [*holds, True]


@pytest.mark.parametrize(
    ("mean", "high", "holds"), [(0.01, 0.05, True), (0.01, 0.0501, False), (0.049, 0.06, False), (0.06, 0.07, False)]
)
def test_c6_matches_where_the_upper_end_is_within_the_tolerance(mean, high, holds):
    check = c6(same(1)[0], same(1)[0], mean, high)[3]
    assert check.holds is holds and check.effect.high == high


def test_c6_gains_are_over_sgd_from_its_own_ratio_to_the_largest():
    curves = {"importance": same(0.5, 0.4, 0.2)}
    gain = interventions.gains([0.5, 1, 4], curves, same(0.5)[0], low=1.0)
    np.testing.assert_allclose(gain["importance"], 0.2)


def test_c6_distance_is_taken_at_the_ratios_of_lsam():
    apart = interventions.apart([0.5, 1, 4], same(0.5, 0.4, 0.2), [1, 4], same(0.3, 0.4))
    assert apart.mean == pytest.approx(0.15) and apart.high == pytest.approx(0.15)
