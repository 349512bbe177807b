"""Chapter 09's trials: LSAM where the training features are noisy (Appendix H.1, Figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib.data.toy import NOISY, ToyConstants
from lib.selection import whole_seeds
from lib.toy.ensemble import lsam
from lib.trials.toy import ToyTrial, errors

LEVELS = {  # of each kind of noise, above 0 (the ranges are the paper's)
    "label_noise": (0.025, 0.05, 0.075, 0.1),
    "gaussian_noise": (0.25, 0.5, 0.75, 1.0),
    "dropout": (0.1, 0.2, 0.3, 0.4),
}
RADII = (0.0, 0.4, 0.7, 1.0, 1.4, 2.0, 2.8)  # 0 is SGD
SEEDS = 20
NAME = "noise"


def conditions(levels: Mapping[str, Sequence[float]] = LEVELS) -> list[ToyConstants]:
    """The clean data, then every kind, target and level of noise, the level running fastest.

    Raises ValueError for a kind that is not in `LEVELS`, or a level of 0: that is the clean data.
    """
    for kind, values in levels.items():
        if kind not in LEVELS:
            raise ValueError(f"levels must be of {', '.join(LEVELS)}, not of {kind!r}")
        if not all(value > 0 for value in values):
            raise ValueError(f"levels of {kind} must be above 0, not {tuple(values)!r}")
    return [
        ToyConstants(),
        *(
            ToyConstants(noisy=target, **{kind: level})
            for kind, values in levels.items()
            for target in NOISY
            for level in values
        ),
    ]


def plan(
    radii: Sequence[float] = RADII,
    levels: Mapping[str, Sequence[float]] = LEVELS,
    seeds: int = SEEDS,
    first_seed: int = 100,
) -> list[ToyTrial]:
    """One trial for every condition and radius, the radius running fastest; 0 among the radii is SGD."""
    return [
        ToyTrial((lsam(radius, data=data),), seeds, first_seed, name=NAME)
        for data in conditions(levels)
        for radius in radii
    ]


def by_condition(
    records: Sequence[dict], radii: Sequence[float], levels: Mapping[str, Sequence[float]], feature: str, split: str
) -> dict[str, np.ndarray]:
    """Errors of the records of a plan with these radii and levels: kind -> (target, level, radius, seed).

    The first level is the clean data, the same for every kind and target. A seed of which some net diverged
    is left out everywhere, so that all that is compared is paired.
    """
    found = whole_seeds(np.stack([errors(record, feature, split)[0] for record in records]))
    found = found.reshape(-1, len(radii), found.shape[-1])  # (condition, radius, seed)
    clean, start, kinds = found[:1], 1, {}
    for kind, values in levels.items():
        of_targets = []
        for _ in NOISY:
            of_targets.append(np.concatenate([clean, found[start : start + len(values)]]))
            start += len(values)
        kinds[kind] = np.stack(of_targets)
    return kinds
