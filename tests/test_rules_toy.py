"""The rules of C1, C2, C5 and C6 on made data, on both sides of each border (chapter 05: test_mechanism.py), and the
curves of chapter 06.

A rule's outcomes are written as one letter a check: holds, undecided, contradicted, not run; a trivial one in brackets.
"""

import numpy as np
import pytest

from book import interventions, rebalancing, toy
from book.claims import Check
from book.interventions import Compared, at, distance, falls_to, mean_height, quotient
from lib.data.toy import ToyConstants
from lib.stats import estimate

RHOS = [0.0, 0.7, 1.4]
SEEDS = 8
MARGIN = 0.005  # of a probing error
SPREAD = np.tile([1.0, -0.6], SEEDS // 2)  # mean 0.2, interval from below 0


def same(*means: float) -> np.ndarray:
    """(mean, seed): seeds that all have this mean, so that the interval is the mean."""
    return np.repeat(np.array(means)[:, None], SEEDS, axis=1)


def outcomes(checks: list[Check]) -> str:
    letters = (check.outcome.value[0] for check in checks)
    return "".join(f"({letter})" if check.trivial else letter for letter, check in zip(letters, checks))


def mains(checks: list[Check]) -> list[int]:
    return [i for i, check in enumerate(checks) if check.main]


def c1(hard=None, easy=None, training=None) -> list[Check]:
    """C1 at two complexities; all of it holds unless told otherwise for the second one, (rho, seed)."""
    usual = {"hard": same(0.3, 0.2, 0.1), "easy": same(0.05, 0.05, 0.05), "training": same(0, 0, 0)}
    given = {"hard": hard, "easy": easy, "training": training}
    both = {name: np.stack([usual[name], usual[name] if one is None else one]) for name, one in given.items()}
    return toy.checks(RHOS, 2, **both)


def test_spread_has_a_mean_above_zero_and_an_interval_that_reaches_below():
    effect = estimate(SPREAD)
    assert effect.low < 0 < effect.mean


def test_c1_holds_where_all_its_parts_do_by_the_gain():
    assert outcomes(c1()) == "hh(h)(h)" and mains(c1()) == [0]


@pytest.mark.parametrize(
    ("training", "fit"),
    [
        (same(0.005, 0, 0.005), "(h)"),
        (same(0.0051, 0, 0), "c"),  # a failure counts
        (same(0, 0, 0.0051), "c"),
        (same(0, 0.5, 0), "(h)"),  # a radius that is not compared
        (same(0, 0, 0.004) + 0.004 * np.sign(SPREAD), "(h)"),  # the mean fits, whatever the interval
        (np.where(np.arange(SEEDS) == 2, np.nan, same(0, 0, 0)), "c"),  # a net diverged
    ],
)
def test_a_net_fits_up_to_half_a_per_cent(training, fit):
    assert outcomes(c1(training=training)) == f"hh{fit}(h)"


@pytest.mark.parametrize(
    ("hard", "found"),
    [
        (same(0.3, 0.3, 0.3), "cu(h)(h)"),  # nothing gained, no trend
        (same(0.3, 0.2, 0.25), "hh(h)(h)"),
        (same(0.3, 0.1, 0.3 - MARGIN - 1e-9), "hh(h)(h)"),
        (same(0.3, 0.1, 0.3 - MARGIN + 1e-9), "ch(h)(h)"),  # too little to matter
        (same(0.3, 0.1, 0.3), "cu(h)(h)"),
        (same(0.1, 0.2, 0.3), "cc(h)(h)"),  # the trend rises
        (np.stack([*same(0.5, 0.45), 0.45 - 0.2 * SPREAD]), "uu(h)(h)"),
        (same(0.06, 0.05, 0.02) + 0.3 * SPREAD, "hh(h)(u)"),
    ],
)
def test_c1_by_the_whole_interval_of_gain_and_trend(hard, found):
    assert outcomes(c1(hard)) == found


def test_c1_is_judged_where_the_spiral_is_the_hard_feature_only():
    equal = c1(hard=same(0.2, 0.3, 0.4), easy=same(0.2, 0.2, 0.2), training=same(1, 1, 1))
    assert outcomes(equal) == "hh(h)(h)" and "(1 of 1)" not in equal[1].what
    assert toy.checks(RHOS, 2, *(same(0.1, 0.1, 0.1)[None] for _ in range(3))) == []


def c2(phantom: np.ndarray, real: np.ndarray) -> list[Check]:
    """C2 by what the ratios change by at rho, (complexity, seed) or (seed,)."""
    phantom, real = np.atleast_2d(phantom), np.atleast_2d(real)
    ratios = [np.stack([np.ones_like(change), 1 + change / 2, 1 + change], axis=1) for change in (phantom, real)]
    return rebalancing.checks_c2(RHOS, 2, *ratios)


@pytest.mark.parametrize(("change", "found"), [(0, "h"), (0.999, "h"), (1.001, "c"), (0.7 + SPREAD, "u")])
@pytest.mark.parametrize("sign", [1, -1])
def test_c2_real_ratio_hardly_moves_by_less_than_a_third_up_or_down(sign, change, found):
    assert outcomes(c2(same(3)[0], sign * change * np.ones(SEEDS))) == "hh" + found


@pytest.mark.parametrize(
    ("phantom", "found"), [(same(1e-9)[0], "hh"), (SPREAD, "uu"), (same(0)[0], "uu"), (same(-0.1)[0], "cc")]
)
def test_c2_phantom_ratio_grows_beyond_its_interval_at_every_complexity(phantom, found):
    for changes in (phantom, np.stack([same(0.3)[0], phantom])):
        checks = c2(changes, np.zeros_like(changes))
        assert outcomes(checks)[:2] == found and mains(checks) == [0]
        assert checks[1].effect == estimate(1 + phantom - 1)


def test_c2_compares_with_the_radius_that_is_asked_for():
    phantom = np.stack([same(1, 2, 0.9)])
    found = [rebalancing.checks_c2(RHOS, chosen, phantom, np.ones_like(phantom))[1] for chosen in (1, 2)]
    assert outcomes(found) == "hc" and "ρ = 0.7" in found[0].what


@pytest.mark.parametrize(
    ("easy", "hard", "found"),
    [
        (same(1 - 1e-9, 0.6), same(1 + 1e-9, 1.2), "h(h)"),
        (same(1, 0.6), same(1, 1.2), "uu"),
        (same(1 + 1e-9, 0.6), same(1 - 1e-9, 1.2), "cc"),
        (np.stack([1 - SPREAD, *same(0.6)]), np.stack([1 + SPREAD, *same(1.2)]), "uu"),
        (np.where(np.arange(SEEDS) == 1, np.nan, same(0.5, 0.6)), same(1.1, np.nan), "uu"),
    ],
)
def test_c5_hard_rate_is_above_one_and_the_easy_one_counts_only_where_it_is_not_below(easy, hard, found):
    for order in (1, -1):
        rates = (np.stack([0 * one, 0 * one, one], axis=1)[::order] for one in (easy, hard))
        checks = rebalancing.checks_c5(RHOS, 2, *rates)
        assert outcomes(checks) == found and mains(checks) == [0]


def test_c2_and_c5_without_a_complexity_to_judge_are_not_run():
    assert rebalancing.checks_c2(RHOS, 2, *np.ones((2, 0, 3, SEEDS))) == []
    assert rebalancing.checks_c5(RHOS, 2, *np.ones((2, 0, 3, SEEDS))) == []


def test_readings_of_an_effective_rate_differ_by_what_it_is_measured_against():
    head = np.array([[3.0, 4.0, 0.6, 0.8], [1.0, 1.0, 0.5, 1.0]])
    sgd = np.array([[1.0, 2.0, 1.0, 2.0], [1.0, 4.0, 1.0, 4.0]])
    own, against, share, unit = rebalancing.readings(head, sgd).values()
    np.testing.assert_allclose(own, [0.35, 0.6])
    np.testing.assert_allclose(against, [0.55, 0.325])
    np.testing.assert_allclose(share, [1.1 / 2.9 - 4 / 9, 1.8 / 2.9 - 5 / 9])
    np.testing.assert_allclose(unit, [(1 + 0.5 * (8 / 5) ** 0.5) / 2, (1 + (8 / 5) ** 0.5) / 2])


RATIOS, PLACES = [0.5, 1.0, 4.0], [0.5, 1.0, 4.0]


def c6(importance=None, rate=None, both=None, lsam=None, sgd=None) -> list[Check]:
    """C6 by gains of constant curves over SGD, (seed,), and the errors of both together, of LSAM and of SGD."""
    sgd = same(1)[0] if sgd is None else sgd
    gains = (same(0.5)[0] if one is None else one for one in (importance, rate))
    both, lsam = (same(0.4)[0] if one is None else one for one in (both, lsam))
    curves = dict(zip(("importance", "learning_rate", "both"), [*(sgd - gain for gain in gains), both]))
    curves = {name: np.stack([curve] * 3) for name, curve in curves.items()}
    return interventions.checks(Compared(RATIOS, curves, np.stack([sgd, lsam, lsam]), PLACES))


@pytest.mark.parametrize(
    ("importance", "rate", "found"),
    [
        (same(1)[0], same(2 - 1e-6)[0], "hhh"),
        (same(2 - 1e-6)[0], same(1)[0], "hhh"),
        (same(1)[0], same(2 + 1e-6)[0], "hhc"),
        (same(2 + 1e-6)[0], same(1)[0], "hhc"),
        (same(1)[0], 1.8 - SPREAD, "hhu"),  # 0.4 in the mean, its interval reaches below 0
        (same(1)[0], 0.9 + 0.6 * np.sign(SPREAD), "hhu"),  # the smaller is so in the mean
        (SPREAD, same(0.2)[0], "uhu"),
        (same(0.2)[0], SPREAD, "huu"),
        (same(MARGIN + 1e-9)[0], same(MARGIN - 1e-9)[0], "hch"),
        (same(MARGIN - 1e-9)[0], same(MARGIN + 1e-9)[0], "chh"),
        (same(-1)[0], same(-1)[0], "ccc"),
    ],
)
def test_c6_gains_matter_and_are_comparable_within_a_factor_of_two(importance, rate, found):
    checks = c6(importance, rate)
    assert outcomes(checks) == "h" + found and mains(checks) == [0]


@pytest.mark.parametrize(
    ("both", "lsam", "found"),
    [
        (same(0.4499)[0], None, "h"),
        (same(0.4501)[0], None, "c"),
        (0.44 + 0.1 * SPREAD, None, "u"),
        (None, same(1 - 0.0501)[0], "c"),
        (same(0.96)[0], same(1 - 0.0501)[0], "h"),
        (same(0.96)[0], same(1 - 0.0499)[0], "n"),  # SGD itself would match
        (same(0.4)[0], same(1.0)[0], "n"),
    ],
)
def test_c6_matches_lsam_by_the_whole_interval_where_lsam_gains(both, lsam, found):
    check = c6(both=both, lsam=lsam)[0]
    assert outcomes([check]) == found and check.effect is not None


def test_a_match_means_nothing_where_sgd_is_as_near_as_a_match_may_be(monkeypatch):
    monkeypatch.setattr(interventions, "TOLERANCE", 0.0625)  # which a sum of floats does not miss
    to_match = (Compared(RATIOS, {}, same(0.5, error, error), PLACES).to_match for error in (0.4375, 0.4374))
    assert list(to_match) == [False, True]


def test_c6_is_judged_from_sgds_ratio_and_at_those_of_lsam():
    curves = dict.fromkeys(("importance", "learning_rate"), same(0.5, 0.4, 0.2)) | {"both": same(0.5, 0.4, 0.2)}
    found = interventions.checks(Compared(RATIOS, curves, same(0.5, 0.3, 0.25), [1.0, 2.0, 4.0]))
    assert found[0].effect.mean == pytest.approx(0.025) and found[1].effect.mean == pytest.approx(0.2)


def test_a_sweep_has_its_errors_and_heads_by_constants_radius_and_seed_and_interventions_those_of_the_same_nets():
    small = {"data": ToyConstants(training_points=20, test_points=50, complexity=90.0), "epochs": 2}
    swept = toy.sweep([0.0, 0.5], [small, small], range(3), trace_every=2)
    assert swept.names == ["90°", "90°"] and swept.heads.shape == (2, 2, 3, 4, 4)
    np.testing.assert_array_equal(swept.error("hard"), swept.result.error("hard")[..., -1].reshape(2, 2, 3))
    one, heads, kept = interventions.trained([0.0, 0.5], [1.0, 2.0], range(3), small, every=2)
    assert kept.all() and np.array_equal(heads, swept.heads[0])
    np.testing.assert_array_equal(one.swept, swept.error("hard")[0])
    phantom, real = (ratio[0].mean(axis=-1) for ratio in toy.sweep([0.0, 0.5], [small], range(3), 2).ratios)
    np.testing.assert_allclose(one.places, phantom)
    assert phantom[0] == pytest.approx(real[0]) and phantom[1] != pytest.approx(real[1])
    assert {name: curve.shape for name, curve in one.curves.items()} == dict.fromkeys(interventions.NAMES, (2, 3))


GRID = np.array([0.5, 1.0, 2.0, 8.0])


def seeds_of(curve: list[float], seeds: int = 30, noise: float = 0.0) -> np.ndarray:
    """(points, seeds): `curve` with independent noise."""
    generator = np.random.default_rng(0)
    return np.array(curve)[:, None] + noise * generator.normal(size=(len(curve), seeds))


def test_a_curve_passes_through_its_points_and_is_constant_beyond_them():
    curves = seeds_of([4, 3, 2, 1], noise=0.1)
    assert np.allclose(at(GRID, curves, GRID), curves)
    assert np.allclose(at(GRID, curves, [0.1, 100]), curves[[0, -1]])
    assert at(GRID, seeds_of([4, 3, 2, 0]), 4.0)[0] == pytest.approx(1), "straight on the logarithmic axis"


def test_a_mean_height_is_that_of_the_straight_line_and_of_two_parts_their_lengths_mean():
    line = seeds_of(list(np.log(GRID)))
    assert mean_height(GRID, line, 0.5, 8) == pytest.approx(np.log(0.5 * 8) / 2)
    assert mean_height(GRID, line, 1.5, 3) == pytest.approx(np.log(1.5 * 3) / 2)
    curves = seeds_of([4, 1, 3, 2], noise=1)
    parts = [mean_height(GRID, curves, *ends) for ends in ((0.5, 1.3), (1.3, 8))]
    lengths = np.log([1.3 / 0.5, 8 / 1.3])
    assert mean_height(GRID, curves, 0.5, 8) == pytest.approx((lengths @ parts) / lengths.sum())


def test_a_distance_does_not_cancel_where_curves_cross():
    first, second = seeds_of([0, 1]), seeds_of([1, 0])
    assert distance(first, second).mean == pytest.approx(1)
    assert distance(first, first).mean == distance(first, first).high == 0


def test_a_distance_is_symmetric_paired_and_its_interval_holds_a_clear_one():
    first, second = seeds_of([0, 0, 0], noise=0.05), seeds_of([1, -2, 3])
    result = distance(first, second)
    assert result.low <= 2 <= result.high and result.high - result.low < 0.1 and distance(second, first) == result
    assert result.spread == pytest.approx((first - second).mean(0).std(ddof=1))
    shifted = distance(first + 0.5, first)
    assert shifted.high - shifted.low == pytest.approx(0, abs=1e-12)


def test_a_quotient_is_of_means_not_a_mean_of_quotients():
    first, second = np.array([1.0, 3.0]), np.array([1.0, 1e-9])
    assert quotient(first, second).mean == pytest.approx(4)
    values = np.random.default_rng(0).uniform(1, 2, size=20)
    assert (quotient(3 * values, values).low, quotient(3 * values, values).high) == pytest.approx((3, 3))


def test_a_falling_curve_reaches_its_goal_where_the_line_does_for_good():
    curves = seeds_of([4, 3, 2, 0])
    for goal, ratio in ((1.0, 4), (5.0, 0.5), (-1.0, np.inf)):
        result = falls_to(GRID, curves, np.full(30, goal))
        assert (result.mean, result.low, result.high) == pytest.approx((ratio,) * 3)
    assert falls_to(GRID, seeds_of([4, 0, 4, 0]), np.full(30, 1.0)).mean > 2, "a goal that is left again"


def test_ends_of_a_mean_height_must_rise():
    for ends in ((2, 1), (1, 1), (0, 1)):
        with pytest.raises(ValueError, match="low must lie between 0 and high"):
            mean_height(GRID, seeds_of([1, 1, 1, 1]), *ends)
