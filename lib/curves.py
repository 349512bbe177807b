"""Curves against a positive ratio, one for each seed: heights, mean heights, distances, crossings.

A curve is straight between its points on a logarithmic axis and constant beyond the first and the last.
"""

from __future__ import annotations

import numpy as np

from lib.stats import LEVEL, Estimate, bootstrap_means, spread


def at(ratios: np.ndarray, curves: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Heights (places, seeds) at `where` (places,) of `curves` (points, seeds) over `ratios` (points,).

    Raises ValueError where ratios do not increase from above 0, or are not as many as the points.
    """
    ratios, curves = _measured(ratios, curves)
    where = np.atleast_1d(np.asarray(where, dtype=float))
    if not np.all(where > 0):
        raise ValueError(f"where must be positive ratios, not {where!r}")
    return np.stack([np.interp(np.log(where), np.log(ratios), curve) for curve in curves.T], axis=1)


def mean_height(ratios: np.ndarray, curves: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean of each seed's curve between two ratios, (seeds,): area on the logarithmic axis over length.

    Raises ValueError where `low` is not below `high`, and as `at`.
    """
    ratios, curves = _measured(ratios, curves)
    if not 0 < low < high:
        raise ValueError(f"low must lie between 0 and high, not {low!r} with high {high!r}")
    knots = np.array([low, *ratios[(low < ratios) & (ratios < high)], high])
    return np.trapezoid(at(ratios, curves, knots), np.log(knots), axis=0) / np.log(high / low)


def distance(first: np.ndarray, second: np.ndarray, seed: int = 0, level: float = LEVEL) -> Estimate:
    """How far two curves (points, seeds) are apart: the mean over points of |difference of means|.

    The interval is the bootstrap's over seeds, paired. Noise alone keeps a distance above 0: that it is
    small can be a finding, that its interval leaves 0 out cannot. The spread is that of each seed's
    signed mean difference. Raises ValueError where the shapes differ.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 2:
        shapes = f"{first.shape} and {second.shape}"
        raise ValueError(f"first and second must share their (points, seeds), not have shapes {shapes}")
    gaps = first - second
    low, high = _interval(np.abs(bootstrap_means(gaps, seed)).mean(axis=0), level)
    mean = float(np.abs(gaps.mean(axis=1)).mean())
    return Estimate(gaps.shape[1], mean, spread(gaps.mean(axis=0)), low, high)


def quotient(first: np.ndarray, second: np.ndarray, seed: int = 0, level: float = LEVEL) -> Estimate:
    """The mean of `first` over that of `second`, both (seeds,), paired; spread: of the seeds' quotients.

    Raises ValueError where the shapes differ.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1:
        shapes = f"{first.shape} and {second.shape}"
        raise ValueError(f"first and second must share their seeds, not have shapes {shapes}")
    above, below = bootstrap_means(np.stack([first, second]), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _interval(above / below, level)
        return Estimate(len(first), float(first.mean() / second.mean()), spread(first / second), low, high)


def falls_to(ratios: np.ndarray, curves: np.ndarray, goal: np.ndarray, seed: int = 0, level: float = LEVEL) -> Estimate:
    """From which ratio on the mean curve stays at or below the mean of `goal` (seeds,).

    The first ratio where the whole curve does, infinite where its end does not. The interval is the
    bootstrap's over seeds; a single seed need not cross, so no spread is given (NaN).
    Raises ValueError where curves and goal do not share their seeds, and as `at`.
    """
    ratios, curves = _measured(ratios, curves)
    goal = np.asarray(goal, dtype=float)
    if goal.shape != curves.shape[1:]:
        raise ValueError(f"goal must have the curves' {curves.shape[1]} seeds, not shape {goal.shape}")
    together = np.vstack([curves, goal])
    draws, means = bootstrap_means(together, seed).T, together.mean(axis=1)
    crossings = [_crossing(np.log(ratios), draw[:-1], draw[-1]) for draw in draws]
    mean = float(np.exp(_crossing(np.log(ratios), means[:-1], means[-1])))
    return Estimate(len(goal), mean, float("nan"), *_interval(np.exp(crossings), level))


def _crossing(places: np.ndarray, heights: np.ndarray, goal: float) -> float:
    above = np.flatnonzero(heights > goal)
    if not len(above):
        return places[0]
    last = above[-1]
    if last == len(places) - 1:
        return np.inf
    fraction = (heights[last] - goal) / (heights[last] - heights[last + 1])
    return places[last] + fraction * (places[last + 1] - places[last])


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Percentiles that are themselves drawn values, so that an infinite one does no harm."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


def _measured(ratios: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ratios, curves = np.asarray(ratios, dtype=float), np.asarray(curves, dtype=float)
    if ratios.ndim != 1 or not len(ratios) or ratios[0] <= 0 or np.any(np.diff(ratios) <= 0):
        raise ValueError(f"ratios must increase from above 0, not {ratios!r}")
    if curves.ndim != 2 or len(curves) != len(ratios):
        raise ValueError(f"curves must have shape ({len(ratios)} points, seeds), not {curves.shape}")
    return ratios, curves
