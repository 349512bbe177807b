"""The rules of SAM's variants on a stack of toy nets: from a batch's first gradient to that of the descent.

The definitions stand with the optimizers of `lib.optim`, which take the same steps with one net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lib.optim import variants
from lib.optim.variants import CONSTANTS as C
from lib.toy.stack import norm, orthogonal, unit

REWEIGHTINGS = ("jtt", "group_dro")
WITHOUT_RADIUS = (*variants.WITHOUT_RADIUS, *REWEIGHTINGS)
MASKS = 0xE5  # makes the masks' stream of a seed another than its data's


@dataclass
class State:
    """What a rule finds besides theta and the first gradient: the stack's settings, and what it kept."""

    rho: Tensor  # (m, 1, 1)
    decay: Tensor  # (m, 1, 1), weight decay
    seeds: Sequence[int]  # each net's
    step: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    draws: dict[int, np.random.Generator] = field(init=False)  # of random masks, one for each seed

    def __post_init__(self) -> None:
        self.draws = {seed: np.random.Generator(np.random.SFC64([seed, MASKS])) for seed in self.seeds}

    def masks(self, shape: Sequence[int], share: float) -> Tensor:
        """A random part of the weights of every net, (m, *shape): `share` of them in the mean. It depends on the net's
        seed and the steps before, so that settings are paired and the stack plays no part."""
        drawn = {seed: draw.random(tuple(shape), dtype=np.float32) < share for seed, draw in self.draws.items()}
        return torch.from_numpy(np.stack([drawn[seed] for seed in self.seeds]))


# (losses, gradient) of the batch at given parameters, with given weights of its examples.
At = Callable[..., tuple[Tensor, Tensor]]
Rule = Callable[[At, Tensor, Tensor, Tensor, State], Tensor]


def _sgd(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    return g


def _sam(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    return at(theta + unit(g, state.rho))[1]


def _lsam(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    head = torch.zeros_like(g)
    head[..., -1] = g[..., -1]
    return _sam(at, theta, losses, head, state)


def _asam(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    scale = theta.abs() + C.asam_floor
    return at(torch.addcmul(theta, scale, unit(scale * g, state.rho)))[1]


def _gsam(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    phantom = _sam(at, theta, losses, g, state)
    return phantom - C.gsam_alpha * orthogonal(g, phantom)


def _esam(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    mask = state.masks(theta.shape[1:], C.esam_beta)
    phantom = torch.addcmul(theta, mask, unit(g, state.rho / C.esam_beta))
    rise = at(phantom, gradient=False)[0] - losses
    chosen = rise.topk(int(np.ceil(C.esam_gamma * losses.shape[1])), dim=1).indices
    share = losses.shape[1] / chosen.shape[1]
    return at(phantom, torch.zeros_like(losses).scatter_(1, chosen, share))[1]


def _looksam(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    if state.step % C.looksam_period:
        return torch.addcmul(g, state.kept["g_v"], (C.looksam_alpha * norm(g)).float())
    phantom = _sam(at, theta, losses, g, state)
    # At rho = 0 the orthogonal part is rounding error, and no direction.
    state.kept["g_v"] = unit(orthogonal(phantom, g), (state.rho > 0).double())
    return phantom


def _friendly(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    mean = state.kept["mean"] = torch.lerp(g, state.kept.get("mean", torch.zeros_like(g)), C.friendly_decay)
    return _sam(at, theta, losses, g - C.friendly_sigma * mean, state)


def _sam_decay_inside(at: At, theta: Tensor, losses: Tensor, g: Tensor, state: State) -> Tensor:
    phantom = theta + unit(torch.addcmul(g, theta, state.decay), state.rho)
    return torch.addcmul(at(phantom)[1], phantom, state.decay)


RULES: dict[str, Rule] = {
    "sgd": _sgd,
    "sam": _sam,
    "lsam": _lsam,
    "asam": _asam,
    "gsam": _gsam,
    "esam": _esam,
    "looksam": _looksam,
    "friendly": _friendly,
    "sam_decay_inside": _sam_decay_inside,
    "adam": _sgd,
    "sam_adam": _sam,
    "jtt": _sgd,
    "group_dro": _sgd,
}


class Adam:
    """Adam's direction from a gradient (Kingma and Ba 2015, Algorithm 1), with torch's default constants."""

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> None:
        self.betas, self.epsilon, self.steps = betas, epsilon, 0
        self.moments: tuple[Tensor, Tensor] | None = None

    def __call__(self, g: Tensor) -> Tensor:
        first, second = self.moments or (torch.zeros_like(g), torch.zeros_like(g))
        self.steps += 1
        first.lerp_(g, 1 - self.betas[0])
        second.mul_(self.betas[1]).addcmul_(g, g, value=1 - self.betas[1])
        self.moments = first, second
        unbiased = [1 - beta**self.steps for beta in self.betas]
        return first / unbiased[0] / ((second / unbiased[1]).sqrt_() + self.epsilon)
