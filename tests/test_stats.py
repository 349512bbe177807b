"""Means with their intervals, paired differences, and settings chosen on validation data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

from book.claims import seeds_needed
from book.selection import at_choice, choose, whole_seeds
from lib import stats
from lib.stats import FEW, Estimate, estimate, mean_interval

DRAWS = {
    "normal": (lambda random, shape: random.normal(3, 2, shape), 3),
    "skewed": (lambda random, shape: random.exponential(1, shape), 1),
    "two values": (lambda random, shape: (random.random(shape) < 0.3).astype(float), 0.3),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [FEW, 20])
def test_interval_covers_the_true_mean_about_as_often_as_it_says(name, n):
    draw, truth = DRAWS[name]
    _, low, high = mean_interval(draw(np.random.default_rng(0), (2000, n)))
    assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.995


@pytest.mark.parametrize("n", [2, FEW - 1])
def test_interval_of_few_seeds_is_students(n):
    values = np.random.default_rng(1).normal(size=(2, 50, n))
    mean, low, high = mean_interval(values)
    for found, expected in zip((low, high), student.interval(0.95, n - 1, mean, values.std(-1, ddof=1) / n**0.5)):
        np.testing.assert_allclose(found, expected)


def test_from_eight_seeds_on_the_wider_of_both_intervals_counts_at_either_end():
    values = np.random.default_rng(2).exponential(size=FEW)
    mean, low, high = mean_interval(values)
    ends = student.interval(0.95, FEW - 1, mean, values.std(ddof=1) / FEW**0.5)
    assert low == pytest.approx(ends[0]) and high > ends[1] * 1.05  # skewed upwards: only there it is wider
    assert mean_interval(-values)[1] == pytest.approx(-high)
    assert mean_interval(np.full(FEW, 0.1)) == (0.1, 0.1, 0.1) and mean_interval(np.array([0.1])) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("noise", [1e-16, 0.001, 0.01])
def test_resamples_without_the_rare_value_do_not_widen_the_interval(noise):
    correlations = np.r_[0.2, -1 + noise * np.arange(19)]  # of ranks: one seed against the others
    effect = estimate(correlations)
    students = student.interval(0.95, 19, effect.mean, effect.spread / 20**0.5)
    assert effect.low == pytest.approx(students[0], abs=0.05) and effect.high < students[1] + 0.1


def test_resamples_with_a_quarter_of_the_spread_count_and_others_do_not():
    values, n = np.r_[np.arange(7) * 0.1, 2.0], 8
    spread, ratios = values.std(ddof=1), []
    for counts in np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=4000):
        drawn = np.repeat(values, counts)
        if drawn.std(ddof=1) > 0.25 * spread:
            ratios.append((drawn.mean() - values.mean()) / drawn.std(ddof=1))
    assert mean_interval(values)[2] == pytest.approx(values.mean() - np.quantile(ratios, 0.025) * spread)


def seen(mean: float, n: int = 4) -> Estimate:
    """An effect of spread 1 over n seeds, with Student's interval."""
    reach = student.ppf(0.975, n - 1) / n**0.5 if n > 1 else 0.0
    return Estimate(n, mean, 1.0, mean - reach, mean + reach)


@pytest.mark.parametrize(("mean", "border", "n"), [(1.0, 0.0, 8), (0.5, 0.0, 18), (0.5, 1.0, 18), (-0.5, 0.0, 18)])
def test_seeds_needed_is_the_least_number_whose_interval_leaves_the_border_out(mean, border, n):
    assert seeds_needed(seen(mean), border) == seeds_needed(seen(mean, 12), border) == n
    reach = [student.ppf(0.975, k - 1) / k**0.5 for k in (n - 1, n)]
    assert reach[1] < abs(mean - border) and (n == FEW or abs(mean - border) <= reach[0])


def test_seeds_needed_follow_the_end_towards_the_border_and_may_be_too_many():
    skewed = Estimate(20, 0.5, 1.0, -0.2, 0.6)  # wider than Student's below
    assert seeds_needed(skewed, 0) > 20 > seeds_needed(skewed, 1.0)
    assert seeds_needed(seen(0.0), 0) is None and seeds_needed(seen(0.01), 0) is None
    assert seeds_needed(seen(0.02), 0) < 10_000
    assert seeds_needed(seen(1.0, 1), 0) == FEW


def test_an_estimate_has_mean_spread_and_interval_and_of_one_seed_the_value_alone():
    values = np.random.default_rng(1).normal(0, 1, size=2000)
    result, half = estimate(values), 1.96 * values.std() / np.sqrt(2000)
    assert result.n == 2000 and result.mean == pytest.approx(values.mean())
    assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.06)
    assert estimate([1.0, 3.0]).spread == pytest.approx(2**0.5)
    assert estimate([0.5]) == Estimate(1, 0.5, 0, 0.5, 0.5)
    assert stats.paired_difference(values + 1, values).low == pytest.approx(1)


def test_rank_correlation_is_spearmans_and_zero_without_variation():
    x = np.array([0.0, 0.2, 0.5, 1.0, 2.0])
    values = np.random.default_rng(4).normal(size=(5, 6)).round(1)
    expected = [spearmanr(x, column).statistic for column in values.T]
    np.testing.assert_allclose(stats.rank_correlation(x, values), expected)
    assert stats.rank_correlation(x, np.zeros((5, 2))).tolist() == [0, 0]


# Newcombe (1998), Statistics in Medicine 17, 857-872, Table I, method 3; the last is the mirror of the third.
WILSON = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize("errors, examples, low, high", [*WILSON, (20, 20, 0.8389, 1)])
def test_wilson_interval_against_published_values(errors, examples, low, high):
    assert np.allclose(stats.wilson_interval(errors, examples), (low, high), atol=5e-5)


def test_seeds_of_which_a_net_diverged_are_left_out():
    errors = np.array([[0.1, np.nan, 0.3], [0.4, 0.5, 0.6]])
    assert np.array_equal(whole_seeds(errors), [[0.1, 0.3], [0.4, 0.6]])


def test_a_seed_gets_what_is_best_for_the_others_though_not_for_itself():
    validation = np.array([[0.0, 0.3, 0.3], [0.2, 0.2, 0.2]])  # by all three seeds, a tie
    chosen = choose(validation)
    assert chosen.tolist() == [1, 0, 0]
    assert at_choice(np.arange(6.0).reshape(2, 3), chosen).tolist() == [3, 1, 2]


def test_of_a_tie_the_first_is_chosen_whatever_the_order_of_the_sum():
    assert choose([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]).tolist() == [1, 0, 0], "0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1"


def test_a_choice_among_equals_does_not_flatter():
    values = np.random.default_rng(0).normal(size=(2000, 7, 10))  # noise: no setting is better than another
    assert at_choice(values, choose(values)).mean() > -0.02
    assert values.mean(axis=-1).min(axis=-1).mean() < -0.3  # what a choice by the same seeds would report


REFUSED = {
    "at least one seed": lambda: stats.bootstrap_means(np.zeros((3, 0))),
    "at least one seed along": lambda: mean_interval(np.zeros((3, 0))),
    "shapes .* differ": lambda: stats.paired_difference([1, 2], [1]),
    r"shape \(seeds,\), not \(2, 2\)": lambda: estimate(np.zeros((2, 2))),
    "not -1 of 5": lambda: stats.wilson_interval(-1, 5),
    "not 6 of 5": lambda: stats.wilson_interval(6, 5),
    "not 0 of 0": lambda: stats.wilson_interval(0, 0),
    "errors must have a seed": lambda: whole_seeds(np.array([[np.nan, 0.1], [0.1, np.nan]])),
    "validation must have two seeds or more": lambda: choose(np.zeros((3, 1))),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_allowed_is_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
