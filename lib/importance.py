"""Importance weights, how evenly they are spread, and which points get them (Section 6.2 of the paper).

The importance weight of an example is the size of the loss gradient in the logit of its true class:
sigma(-y F(x)) for labels -1 and +1, equation (6), and 1 - p_y(x) for several classes, which is the same
number for two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binned_statistic_2d
from torch import Tensor

from lib.optim import SAM
from lib.optim.side_effects import kept_buffers


def importance_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """lambda, shape (n,), between 0 and 1, of logits (n,) with labels in {-1, +1}, or logits (n, classes) with labels
    0, 1, ... Raises ValueError for other shapes and labels."""
    if labels.ndim != 1 or logits.shape[:1] != labels.shape or logits.ndim > 2 or logits.shape[1:] == (1,):
        shapes = f"not {tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"logits must have shape (n,) or (n, 2 classes or more), and labels (n,), {shapes}")
    known = labels.abs() == 1 if logits.ndim == 1 else (labels >= 0) & (labels < logits.shape[1])
    if not known.all() or (logits.ndim == 2 and labels.is_floating_point()):
        words = "-1 or 1" if logits.ndim == 1 else f"whole numbers from 0 to {logits.shape[1] - 1}"
        found = labels.unique().tolist()
        raise ValueError(f"labels must be {words} where logits are {tuple(logits.shape)}, not {found}")
    if logits.ndim == 1:
        return torch.sigmoid(-labels * logits)
    # The sum over the other classes, not 1 - p_y: that would be 0 for every well-fitted example.
    return torch.softmax(logits, dim=1).scatter(1, labels[:, None], 0.0).sum(dim=1)


def real_and_phantom_weights(
    model: torch.nn.Module,
    optimizer: SAM,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Importance weights lambda at w and lambda~ at w~, each (n,), of `batches` of inputs and labels: every batch has
    its own perturbation.

    `optimizer` says what is perturbed and how far; no step is taken: weights, gradients and batch-norm statistics stay
    as they were, in training mode too.
    """
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters]
    real, phantom = [], []
    try:
        for x, y in batches:
            for p in parameters:
                p.grad = None
            with kept_buffers(model):
                logits = model(x)
                real.append(importance_weights(logits.detach(), y))
                loss(logits, y).backward()
                with optimizer.at_phantom(), torch.no_grad():
                    phantom.append(importance_weights(model(x), y))
    finally:
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
    return torch.cat(real), torch.cat(phantom)


def lorenz_curve(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of all importance that the top k of n points hold, against k / n (Figure 3): (n + 1,) fractions and
    (..., n + 1) shares of `weights` (..., n). Raises ValueError where one is negative or all are zero."""
    ordered = -np.sort(-_checked(weights), axis=-1)
    shares = np.cumsum(ordered, axis=-1) / ordered.sum(axis=-1, keepdims=True)
    shares = np.insert(shares, 0, 0, axis=-1)
    return np.linspace(0, 1, shares.shape[-1]), shares


def gini(weights: np.ndarray) -> np.ndarray:
    """Gini coefficient over the last axis of `weights` (..., n): 0 where all are equal, (n - 1) / n where
    one point has everything. Raises ValueError as `lorenz_curve`."""
    ordered = np.sort(_checked(weights), axis=-1)
    n = ordered.shape[-1]
    return ordered @ (2 * np.arange(1, n + 1) - n - 1) / (n * ordered.sum(axis=-1))


def _checked(weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, dtype=float)
    if not (np.isfinite(weights) & (weights >= 0)).all() or not (weights.sum(axis=-1) > 0).all():
        raise ValueError("weights must be finite and not negative, and not all zero")
    return weights


def worst_share(contribution: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of all importance held by the quarter of the points (last axis) with the smallest signed contribution."""
    worst = contribution <= np.quantile(contribution, 0.25, axis=-1, keepdims=True)
    return (weights * worst).sum(axis=-1) / weights.sum(axis=-1)


@dataclass(frozen=True)
class WeightMap:
    """Median weight in a grid of signed contributions (Figure 5); axes (easy bin, hard bin), NaN in an empty bin."""

    median: np.ndarray
    count: np.ndarray
    easy_edges: np.ndarray
    hard_edges: np.ndarray


def weight_map(
    easy: np.ndarray, hard: np.ndarray, weights: np.ndarray, easy_edges: np.ndarray, hard_edges: np.ndarray
) -> WeightMap:
    """Median of `weights` by signed contributions y w_e f_e and y w_h f_h (or y v.phi), each (n,); points
    outside the edges are left out."""
    bins = [easy_edges, hard_edges]
    count = binned_statistic_2d(easy, hard, None, "count", bins=bins).statistic
    median = binned_statistic_2d(easy, hard, weights, "median", bins=bins).statistic
    return WeightMap(median, count.astype(int), np.asarray(easy_edges), np.asarray(hard_edges))
