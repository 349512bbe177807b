"""Choosing settings on validation data, seed by seed, and which seeds can be compared at all."""

import numpy as np


def whole_seeds(errors: np.ndarray) -> np.ndarray:
    """Errors (..., seed) of the seeds of which no net diverged; ValueError where there is none."""
    kept = np.isfinite(errors).all(axis=tuple(range(errors.ndim - 1)))
    if not kept.any():
        raise ValueError(f"errors must have a seed of which no net diverged, not {len(kept)} of the others")
    return errors[..., kept]


def choose(validation: np.ndarray) -> np.ndarray:
    """For every seed the setting of the lowest validation error in the mean over the *other* seeds.

    validation: (..., setting, seed), without NaN; returns indices (..., seed); of a tie the first. A net's
    validation and test errors go together: a choice by its own would flatter its test error.
    Raises ValueError for a single seed.
    """
    validation = np.asarray(validation, dtype=float)
    if validation.shape[-1] < 2:
        raise ValueError(f"validation must have two seeds or more, not shape {validation.shape}")
    others = validation.sum(axis=-1, keepdims=True) - validation
    return np.round(others, 9).argmin(axis=-2)  # rounded: a tie stays one whatever the order of the sum


def at_choice(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Each seed's value at its chosen setting: (..., seed) of values (..., setting, seed)."""
    return np.take_along_axis(values, chosen[..., None, :], axis=-2)[..., 0, :]
