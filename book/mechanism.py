"""Which points the update listens to, at the real and the phantom head: what chapter 05 measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from scipy.special import expit

from lib.importance import gini
from lib.toy.decomposition import Decomposition, decompose
from lib.toy.ensemble import ToyResult

PARTS = tuple(field.name for field in fields(Decomposition))


def through_training(
    result: ToyResult, rho: float, settings: Sequence[int] = (0, 1)
) -> tuple[Decomposition, np.ndarray]:
    """The decomposition at every checkpoint, arrays (net, checkpoint, seed, n), and the real heads (net,
    checkpoint, seed, 2).

    A seed is left out where any of the result's nets diverged, so that all comparisons stay paired.
    """
    kept = ~result.diverged.any(axis=0)
    parts = [[decompose(result, i, c, rho) for c in range(len(result.checkpoints))] for i in settings]
    stacked = {name: np.array([[getattr(part, name)[kept] for part in row] for row in parts]) for name in PARTS}
    return Decomposition(**stacked), result.heads[list(settings)][:, kept].swapaxes(1, 2)


def at(parts: Decomposition, *index: int | slice) -> Decomposition:
    """`parts` at an index of its leading axes: net, checkpoint."""
    return Decomposition(**{name: getattr(parts, name)[index] for name in PARTS})


def log_ratio_slopes(parts: Decomposition) -> np.ndarray:
    """Least squares of log(lambda~ / lambda) on both signed contributions over the points of a net: slopes
    (..., 2), easy and hard.

    Each is the change of the log ratio for one unit more of that contribution, the other being equal.
    """
    values = parts.easy, parts.hard, np.log(parts.phantom) - np.log(parts.real)
    easy, hard, ratio = (value - value.mean(axis=-1, keepdims=True) for value in values)
    x = np.stack([easy, hard], axis=-2)
    return np.linalg.solve(x @ x.swapaxes(-1, -2), x @ ratio[..., None])[..., 0]


def head_change(parts: Decomposition, head: np.ndarray) -> np.ndarray:
    """1 - w~_i / w_i in the mean over the batches of a net (..., 2), head (..., 2): what equation (6) gives
    for `log_ratio_slopes` where weights are small."""
    return 1 - (parts.phantom_head / head[..., None, :]).mean(axis=-2)


def half_phantom(parts: Decomposition, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Importance weights (..., n) where only w_e, and where only w_h, is moved to the phantom."""
    easy, hard = np.moveaxis(parts.phantom_head / head[..., None, :], -1, 0)
    return expit(-(easy * parts.easy + parts.hard)), expit(-(parts.easy + hard * parts.hard))


def against_rho(result: ToyResult) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """At the end of training, for every radius of `result` (settings: SGD, then LSAM at each): differences of
    Gini coefficients, real minus phantom, each (rho, seed), and the slopes in the LSAM-trained nets
    (rho, seed, 2)."""
    radii = [(k, setting.rho) for k, setting in enumerate(result.settings)][1:]
    parts = [at(through_training(result, rho, (0, k))[0], slice(None), -1) for k, rho in radii]
    real, phantom = (np.array([gini(getattr(part, name)) for part in parts]) for name in ("real", "phantom"))
    differences = {
        "SGD-trained": real[:, 0] - phantom[:, 0],
        "LSAM-trained": real[:, 1] - phantom[:, 1],
        "SGD real − LSAM phantom": real[:, 0] - phantom[:, 1],
    }
    return differences, np.array([log_ratio_slopes(at(part, 1)) for part in parts])
