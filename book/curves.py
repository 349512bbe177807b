"""Curves of chapter 06 against a positive ratio, one for each seed: heights, mean heights, distances, crossings.

A curve is straight between its points on a logarithmic axis and constant beyond the first and the last.
"""

import math
from collections.abc import Callable

import numpy as np

from lib.stats import LEVEL, Estimate, bootstrap_means, spread


def at(ratios: np.ndarray, curves: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Heights (places, seeds) at the ratios `where` (places,) of `curves` (points, seeds) over rising `ratios`
    (points,)."""
    where = np.log(np.atleast_1d(where))
    return np.stack([np.interp(where, np.log(ratios), curve) for curve in np.asarray(curves).T], axis=1)


def mean_height(ratios: np.ndarray, curves: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean of each seed's curve between two ratios, (seeds,): area on the logarithmic axis over length.

    Raises ValueError where `low` is not below `high`.
    """
    if not 0 < low < high:
        raise ValueError(f"low must lie between 0 and high, not {low!r} with high {high!r}")
    ratios = np.asarray(ratios)
    knots = np.array([low, *ratios[(low < ratios) & (ratios < high)], high])
    return np.trapezoid(at(ratios, curves, knots), np.log(knots), axis=0) / np.log(high / low)


def distance(first: np.ndarray, second: np.ndarray) -> Estimate:
    """How far two curves (points, seeds) are apart: the mean over points of |difference of means|.

    The interval is the bootstrap's over seeds, paired. Noise alone keeps a distance above 0: that it is
    small can be a finding, that its interval leaves 0 out cannot. The spread is that of each seed's
    signed mean difference.
    """
    gaps = np.subtract(first, second)
    return of_means(lambda means: np.abs(means).mean(axis=0), gaps, spread(gaps.mean(axis=0)))


def quotient(first: np.ndarray, second: np.ndarray) -> Estimate:
    """The mean of `first` over that of `second`, both (seeds,), paired; the spread is of the seeds' quotients."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return of_means(lambda means: means[0] / means[1], np.stack([first, second]), spread(first / second))


def falls_to(ratios: np.ndarray, curves: np.ndarray, goal: np.ndarray) -> Estimate:
    """From which ratio on the mean curve stays at or below the mean of `goal` (seeds,).

    The first ratio where the whole curve does, infinite where its end does not. The interval is the
    bootstrap's over seeds; a single seed need not cross, so no spread is given (NaN).
    """

    def crossing(means: np.ndarray) -> float:
        above = np.flatnonzero(means[:-1] > means[-1])
        if not len(above):
            return ratios[0]
        if above[-1] == len(ratios) - 1:
            return math.inf
        ends = [above[-1] + 1, above[-1]]
        return np.exp(np.interp(means[-1], means[ends], np.log(np.asarray(ratios)[ends])))

    return of_means(lambda means: np.apply_along_axis(crossing, 0, means), np.vstack([curves, goal]))


def of_means(
    statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray, over_seeds: float = math.nan
) -> Estimate:
    """A statistic of the means over seeds of `values` (..., seed), and its spread where a single seed has one.

    `statistic` takes means (...) or, with one more axis, (..., draw). The interval is the percentile bootstrap's, for
    Student's is one of means themselves; its ends were drawn, so that an infinite one does no harm.
    """
    drawn = statistic(bootstrap_means(values))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Estimate(values.shape[-1], float(statistic(values.mean(axis=-1))), over_seeds, float(low), float(high))
