"""Heights, distances and crossings of curves over seeds."""

import numpy as np
import pytest

from book.interventions import at, distance, falls_to, mean_height, quotient

RATIOS = np.array([0.5, 1.0, 2.0, 8.0])


def seeds_of(curve: list[float], seeds: int = 30, noise: float = 0.0) -> np.ndarray:
    """(points, seeds): `curve` with independent noise."""
    generator = np.random.default_rng(0)
    return np.array(curve)[:, None] + noise * generator.normal(size=(len(curve), seeds))


def test_a_curve_passes_through_its_points_and_is_constant_beyond_them():
    curves = seeds_of([4, 3, 2, 1], noise=0.1)
    assert np.allclose(at(RATIOS, curves, RATIOS), curves)
    assert np.allclose(at(RATIOS, curves, [0.1, 100]), curves[[0, -1]])
    assert at(RATIOS, seeds_of([4, 3, 2, 0]), 4.0)[0] == pytest.approx(1), "straight on the logarithmic axis"


def test_a_mean_height_is_that_of_the_straight_line_and_of_two_parts_their_lengths_mean():
    line = seeds_of(list(np.log(RATIOS)))
    assert mean_height(RATIOS, line, 0.5, 8) == pytest.approx(np.log(0.5 * 8) / 2)
    assert mean_height(RATIOS, line, 1.5, 3) == pytest.approx(np.log(1.5 * 3) / 2)
    curves = seeds_of([4, 1, 3, 2], noise=1)
    parts = [mean_height(RATIOS, curves, *ends) for ends in ((0.5, 1.3), (1.3, 8))]
    lengths = np.log([1.3 / 0.5, 8 / 1.3])
    assert mean_height(RATIOS, curves, 0.5, 8) == pytest.approx((lengths @ parts) / lengths.sum())


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
        result = falls_to(RATIOS, curves, np.full(30, goal))
        assert (result.mean, result.low, result.high) == pytest.approx((ratio,) * 3)
    assert falls_to(RATIOS, seeds_of([4, 0, 4, 0]), np.full(30, 1.0)).mean > 2, "a goal that is left again"


def test_ends_of_a_mean_height_must_rise():
    for ends in ((2, 1), (1, 1), (0, 1)):
        with pytest.raises(ValueError, match="low must lie between 0 and high"):
            mean_height(RATIOS, seeds_of([1, 1, 1, 1]), *ends)
