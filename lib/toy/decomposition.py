"""What drives a toy net's gradient, equation (6): importance weights, signed contributions, effective heads, at chosen
checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from lib.data.toy import sample
from lib.toy.ensemble import ToyResult
from lib.toy.nets import batch_order, features


@dataclass(frozen=True)
class Decomposition:
    """Of the training points of each seed's net: arrays (seeds, n), heads (seeds, n, 2).

    easy, hard: signed contributions y w_e f_e and y w_h f_h at the real head. real, phantom: importance weights lambda
    and lambda~.
    phantom_head: w~ of the batch that the point falls in.
    """

    easy: np.ndarray
    hard: np.ndarray
    real: np.ndarray
    phantom: np.ndarray
    phantom_head: np.ndarray


def phantom_heads(phi: np.ndarray, head: np.ndarray, y: np.ndarray, rho: float) -> np.ndarray:
    """Equation (5) for batches: phi (..., rows, 2), head (..., 2), y (..., rows) -> w~ (..., 2); w where the gradient
    is zero."""
    weight = expit(-y * np.einsum("...bi,...i->...b", phi, head))
    gradient = -np.einsum("...b,...bi->...i", y * weight, phi)
    norm = np.linalg.norm(gradient, axis=-1, keepdims=True)
    return head + rho * np.divide(gradient, norm, out=np.zeros_like(gradient), where=norm > 0)


def decompose(result: ToyResult, setting: int, checkpoint: int, rho: float) -> Decomposition:
    """The nets of one setting at one checkpoint (indices into `result`), perturbed at radius `rho`.

    The phantom is taken batch by batch, with batches of the size used in training, in the order of each seed's first
    epoch. Raises ValueError where the result holds no nets.
    """
    if result.nets is None:
        raise ValueError("result must hold nets: train with keep_nets=True")
    config = result.settings[setting]
    n, size = config.data.training_points, min(config.batch_size, config.data.training_points)
    parts = {name: np.empty((len(result.seeds), n)) for name in ("easy", "hard", "real", "phantom")}
    heads = np.empty((len(result.seeds), n, 2))
    for s, seed in enumerate(result.seeds):
        points = sample(config.data, seed)
        net, head = result.nets[setting][s, checkpoint], result.heads[setting, s, checkpoint]
        phi = np.stack([features(net[i], points.x[:, 2 * i : 2 * i + 2]) for i in range(2)], axis=1).astype(float)
        order = batch_order(seed, n, 1)[0]
        for start in range(0, n, size):
            batch = order[start : start + size]
            heads[s, batch] = phantom_heads(phi[batch], head, points.y[batch], rho)
        parts["easy"][s], parts["hard"][s] = (points.y[:, None] * phi * head).T
        parts["real"][s] = expit(-points.y * (phi @ head))
        parts["phantom"][s] = expit(-points.y * (phi * heads[s]).sum(axis=1))
    return Decomposition(**parts, phantom_head=heads)
