"""Means with their intervals, and paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats import t as student

from lib.stats import (
    FEW,
    Estimate,
    bootstrap_means,
    estimate,
    mean_interval,
    paired_difference,
    rank_correlation,
    seeds_needed,
)

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


@pytest.mark.parametrize("n", [2, 3, 4, FEW - 1])
def test_interval_of_few_seeds_is_students(n):
    values = np.random.default_rng(1).normal(size=(2, 50, n))
    mean, low, high = mean_interval(values)
    for found, expected in zip((low, high), student.interval(0.95, n - 1, mean, values.std(-1, ddof=1) / n**0.5)):
        np.testing.assert_allclose(found, expected)


def test_from_eight_seeds_on_the_wider_of_both_intervals_counts_at_either_end():
    values = np.random.default_rng(2).exponential(size=FEW)
    mean, low, high = mean_interval(values)
    ends = student.interval(0.95, FEW - 1, mean, values.std(ddof=1) / FEW**0.5)
    assert (
        low == pytest.approx(ends[0]) and high > ends[1] * 1.05
    )  # skewed upwards: only there the bootstrap-t is wider
    assert mean_interval(-values)[1] == pytest.approx(-high)
    assert mean_interval(np.full(FEW, 0.1)) == (0.1, 0.1, 0.1) and mean_interval(np.array([0.1])) == (0.1, 0.1, 0.1)


def seen(mean: float, n: int = 4) -> Estimate:
    """An effect of spread 1 over n seeds, with Student's interval."""
    reach = student.ppf(0.975, n - 1) / n**0.5 if n > 1 else 0.0
    return Estimate(n, mean, 1.0, mean - reach, mean + reach)


@pytest.mark.parametrize(("mean", "border", "n"), [(1.0, 0.0, 8), (0.5, 0.0, 18), (0.5, 1.0, 18), (-0.5, 0.0, 18)])
def test_seeds_needed_is_the_least_number_whose_interval_leaves_the_border_out(mean, border, n):
    assert seeds_needed(seen(mean), border) == seeds_needed(seen(mean, 12), border) == n
    reach = [student.ppf(0.975, k - 1) / k**0.5 for k in (n - 1, n)]
    assert reach[1] < abs(mean - border) and (n == FEW or abs(mean - border) <= reach[0])


def test_seeds_needed_are_more_than_there_are_where_the_border_is_within_the_interval():
    skewed = Estimate(20, 0.5, 1.0, -0.2, 0.6)  # wider than Student's below
    assert seeds_needed(skewed, 0) > 20 > seeds_needed(skewed, 1.0)


def test_no_number_of_seeds_decides_an_effect_at_the_border():
    assert seeds_needed(seen(0.0), 0) is None and seeds_needed(seen(0.01), 0) is None
    assert seeds_needed(seen(0.02), 0) < 10_000
    assert seeds_needed(seen(1.0, 1), 0) == FEW


def test_interval_agrees_with_the_normal_one_for_many_seeds():
    values = np.random.default_rng(1).normal(0, 1, size=2000)
    result = estimate(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert result.n == 2000 and result.mean == pytest.approx(values.mean())
    assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.06)


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


def test_same_values_same_interval():
    values = np.random.default_rng(2).normal(size=(3, 10))
    assert np.array_equal(bootstrap_means(values), bootstrap_means(values))


def test_pairing_removes_what_seeds_share():
    generator = np.random.default_rng(3)
    shared = generator.normal(0, 10, size=20)
    first, second = shared + 1, shared + generator.normal(0, 0.1, size=20)
    result = paired_difference(first, second)
    assert result.low > 0.9 and result.high < 1.1


def test_spread_is_the_standard_deviation_of_a_sample():
    assert estimate([1.0, 3.0]).spread == pytest.approx(2**0.5)


def test_one_seed_has_no_spread():
    assert estimate([0.5]).spread == 0 and estimate([0.5]).low == estimate([0.5]).high == 0.5


def test_rank_correlation_is_spearmans_and_zero_without_variation():
    x = np.array([0.0, 0.2, 0.5, 1.0, 2.0])
    values = np.random.default_rng(4).normal(size=(5, 6)).round(1)
    expected = [spearmanr(x, column).statistic for column in values.T]
    np.testing.assert_allclose(rank_correlation(x, values), expected)
    assert rank_correlation(x, np.zeros((5, 2))).tolist() == [0, 0]


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="at least one seed"):
        bootstrap_means(np.zeros((3, 0)))
    with pytest.raises(ValueError, match="differ"):
        paired_difference([1, 2], [1])
    with pytest.raises(ValueError, match="shape"):
        estimate(np.zeros((2, 2)))
