"""Bootstrap intervals and paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from lib.stats import bootstrap_band, bootstrap_means, estimate, paired_difference, rank_correlation


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    values = np.random.default_rng(0).normal(3, 2, size=(400, 30))
    _, low, high = bootstrap_band(values)
    assert 0.90 <= ((low < 3) & (3 < high)).mean() <= 0.97


def test_interval_agrees_with_the_normal_one_for_many_seeds():
    values = np.random.default_rng(1).normal(0, 1, size=2000)
    result = estimate(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert result.n == 2000 and result.mean == pytest.approx(values.mean())
    assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.06)


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
