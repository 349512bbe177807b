"""How every comparison of the book is reported: means with 95 % intervals, paired differences, rates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import binomtest, rankdata
from scipy.stats import t as student

RESAMPLES = 4000
LEVEL = 0.95
FEW = 8  # paired seeds; fewer decide nothing, and are too few for a bootstrap
SOME = 0.25  # of the values' spread, which a resample must have to say something of the mean's error


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its spread and interval."""

    n: int
    mean: float
    spread: float  # standard deviation over seeds (n - 1); 0 for one seed
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def bootstrap_means(values: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Means (..., resamples) of draws with replacement along the last axis (seeds) of `values`, the same draws for any
    leading index, so that differences between settings stay paired. Raises ValueError where there is no seed at all."""
    values = _of_seeds(values)
    return values @ _draws(values.shape[-1], resamples).T / values.shape[-1]


def _of_seeds(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"values must have at least one seed along the last axis, not shape {values.shape}")
    return values


@cache
def _draws(n: int, resamples: int) -> np.ndarray:
    """How often each of n seeds is drawn in each resample, (resamples, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) over the last axis (seeds) of `values`, each of the leading shape.

    Student's t interval; from FEW seeds on, at either end the wider of it and the bootstrap-t interval (Efron and
    Tibshirani, 1993, chapter 12), which follows skewed values. Resamples with less than SOME of the values' spread,
    from which a rare value is missing, would make it as wide as one likes and are left out. Chapter 02 simulates what
    it covers at which n. One seed, or equal ones: the mean alone.
    """
    values = _of_seeds(values)
    mean, n = values.mean(-1), values.shape[-1]
    if n == 1:
        return mean, mean, mean
    deviations = values - mean[..., None]
    error = np.sqrt((deviations**2).sum(-1) / (n - 1) / n)
    reach = error * student.ppf((1 + LEVEL) / 2, n - 1)
    low, high = mean - reach, mean + reach
    if n >= FEW:
        away = bootstrap_means(values) - mean[..., None]
        errors = np.sqrt(np.maximum(bootstrap_means(deviations**2) - away**2, 0) / (n - 1))
        some = errors > SOME * error[..., None]
        ratio = np.where(some, away / np.where(some, errors, 1), np.nan)
        ratio = np.where(error[..., None] > 0, ratio, 0)
        below, above = np.nanquantile(ratio, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
        low, high = np.minimum(low, mean - above * error), np.maximum(high, mean - below * error)
    return mean, low, high


def spread(values: np.ndarray) -> float:
    """Standard deviation (n - 1) of `values` (seeds,); 0 for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def estimate(values: np.ndarray) -> Estimate:
    """Mean, spread and interval of one quantity over seeds; `values` has shape (seeds,), else ValueError."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"values must have shape (seeds,), not {values.shape}")
    mean, low, high = mean_interval(values)
    return Estimate(len(values), float(mean), spread(values), float(low), float(high))


def paired_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Mean of first - second over the seeds that they share, (seeds,) each, in the same order; else ValueError."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"first and second must share their seeds: shapes {first.shape} and {second.shape} differ")
    return estimate(first - second)


def rank_correlation(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Spearman's correlation of x (points,) with each seed's values (points, seeds), shape (seeds,); 0 where a seed's
    values are all equal."""
    ranks, x_ranks = rankdata(values, axis=0), rankdata(x)
    ranks, x_ranks = ranks - ranks.mean(axis=0), x_ranks - x_ranks.mean()
    norm = np.linalg.norm(ranks, axis=0) * np.linalg.norm(x_ranks)
    return np.divide(x_ranks @ ranks, norm, out=np.zeros(ranks.shape[1]), where=norm > 0)


def wilson_interval(errors: int, examples: int) -> tuple[float, float]:
    """Wilson's 95 % score interval for a rate; ValueError unless 0 <= `errors` <= `examples` > 0."""
    if examples < 1 or not 0 <= errors <= examples:
        raise ValueError(f"errors must lie between 0 and examples > 0, not {errors} of {examples}")
    interval = binomtest(errors, examples).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def rate(wrong: Any) -> dict[str, Any]:
    """The share of wrong answers (n,), an array or a tensor, with its `wilson_interval`, as plain values."""
    mistakes, examples = int(wrong.sum()), len(wrong)
    low, high = wilson_interval(mistakes, examples)
    return {"error": mistakes / examples, "low": low, "high": high, "examples": examples}
