"""Chapter 10's trials: LSAM at every batch size (Appendix H.2, Figure 10), and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib.data.toy import ToyConstants
from lib.selection import whole_seeds
from lib.stats import LEVEL, Estimate, bootstrap_means
from lib.toy.ensemble import lsam
from lib.trials.toy import ToyTrial, errors

SIZES = (1, 2, 5, 10, 20, 50, 100, 300)  # 300 is the whole training set: gradient descent
RADII = (0.0, 0.7, 1.4, 2.0, 2.8, 4.0)  # 0 is SGD
BUDGETS = ("epochs", "steps")
EPOCHS = 200  # where the epochs are fixed: the book's
STEPS = 12_000  # where the steps are: what 200 epochs of batch 5, the paper's, come to
SEEDS = 20
NAME = "batch-size"


def epochs_of(budget: str, size: int, amount: int, points: int = ToyConstants().training_points) -> int:
    """How many epochs `amount` of a budget is at one batch size.

    Raises ValueError for an unknown budget, or where that many steps are no whole number of epochs.
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, not {budget!r}")
    if budget == "epochs":
        return amount
    of_an_epoch = -(-points // size)
    if amount < 1 or amount % of_an_epoch:
        raise ValueError(
            f"steps must be a multiple of the {of_an_epoch} of an epoch at batch size {size}, not {amount}"
        )
    return amount // of_an_epoch


def plan(
    budget: str,
    amount: int | None = None,
    radii: Sequence[float] = RADII,
    sizes: Sequence[int] = SIZES,
    seeds: int = SEEDS,
    first_seed: int = 100,
) -> list[ToyTrial]:
    """One trial for every batch size and radius, the radius running fastest; `amount` of epochs or steps."""
    amount = (EPOCHS if budget == "epochs" else STEPS) if amount is None else amount
    epochs = {size: epochs_of(budget, size, amount) for size in sizes}
    return [
        ToyTrial((lsam(radius, batch_size=size, epochs=epochs[size]),), seeds, first_seed, name=NAME)
        for size in sizes
        for radius in radii
    ]


def by_size(records: Sequence[dict], radii: Sequence[float], feature: str, split: str) -> np.ndarray:
    """Errors (size, radius, seed) of the records of a plan with these radii.

    A seed of which some net diverged is left out everywhere.
    """
    found = whole_seeds(np.stack([errors(record, feature, split)[0] for record in records]))
    return found.reshape(-1, len(radii), found.shape[-1])


def best_draws(validation: np.ndarray, seed: int = 0) -> np.ndarray:
    """The setting of the lowest mean validation error in each bootstrap draw of the seeds.

    validation: (..., setting, seed); returns indices (..., draw). Leading axes share their draws.
    """
    return np.round(bootstrap_means(validation, seed), 9).argmin(axis=-2)


def largest_over_smallest(radii: np.ndarray, validation: np.ndarray, seed: int = 0, level: float = LEVEL) -> Estimate:
    """The largest of the sizes' best radii over the smallest, with its bootstrap interval over seeds.

    radii: (radius,), above 0; validation: (size, radius, seed). A single seed's ratio is mostly noise: no
    spread is given (NaN).
    """

    def ratio(best: np.ndarray) -> np.ndarray:
        return np.asarray(radii)[best].max(axis=0) / np.asarray(radii)[best].min(axis=0)

    drawn = ratio(best_draws(validation, seed))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    point = ratio(np.round(validation.mean(axis=-1), 9).argmin(axis=-1))
    return Estimate(validation.shape[-1], float(point), float("nan"), float(low), float(high))


def sensitivity(errors: np.ndarray) -> np.ndarray:
    """How far the batch size moves the error: standard deviation over sizes of errors (size, ...)."""
    return np.std(errors, axis=0, ddof=1)


def more_sensitive(errors: np.ndarray, large: np.ndarray, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Mean sensitivity at the `large` radii less that at the others, of the mean error over seeds.

    errors: (size, radius, seed); large: (radius,) of booleans. The interval is the bootstrap's over seeds; a
    single seed's sensitivity holds its noise too: no spread is given (NaN).
    Raises ValueError where all radii are large, or none is.
    """
    large = np.asarray(large, dtype=bool)
    if large.all() or not large.any():
        raise ValueError(f"large must name some of the radii, but not all, not {large.tolist()}")

    def difference(means: np.ndarray) -> np.ndarray:
        spread = sensitivity(means)  # (radius, ...)
        return spread[large].mean(axis=0) - spread[~large].mean(axis=0)

    drawn = difference(bootstrap_means(errors, seed))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    point = difference(errors.mean(axis=-1))
    return Estimate(errors.shape[-1], float(point), float("nan"), float(low), float(high))
