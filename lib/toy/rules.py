"""The rules of SAM's variants on a stack of toy nets: from a batch's first gradient to that of the descent.

The definitions stand with the optimizers of `lib.optim`, which take the same steps with one net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.optim import variants
from lib.optim.variants import CONSTANTS as C
from lib.toy.nets import Model
from lib.toy.reweighting import GroupDRO
from lib.toy.stack import Weights, evaluate, norm, orthogonal, unit

REWEIGHTINGS = ("jtt", "group_dro")
WITHOUT_RADIUS = (*variants.WITHOUT_RADIUS, *REWEIGHTINGS)
MASKS = 0xE5  # makes the masks' stream of a seed another than its data's


class Variant:
    """The steps of a method: called with a step, theta and the points (m, b) of the batch, of `training` (m, n, 5), it
    gives the direction of descent. A rule finds in it the stack's settings, the batch, and what it kept."""

    def __init__(
        self, models: Sequence[Model], training: Tensor, watch: Callable | None = None, groups: GroupDRO | None = None
    ) -> None:
        method = models[0].setting.method
        self.rule, self.training, self.watch, self.groups = RULES[method], training, watch, groups
        settings = [(model.setting.rho, model.setting.weight_decay) for model in models]
        self.rho, self.decay = torch.tensor(settings).T[..., None, None]
        self.outside = bool(self.decay.any()) and method != "sam_decay_inside"
        self.adam = Adam() if method.endswith("adam") else None
        self.seeds, self.each = [model.seed for model in models], torch.arange(len(models))[:, None]
        self.draws = {seed: np.random.Generator(np.random.SFC64([seed, MASKS])) for seed in self.seeds}
        self.kept: dict[str, Tensor] = {}

    def __call__(self, step: int, theta: Tensor, chosen: Tensor) -> Tensor:
        self.step, self.theta, self.batch = step, theta, self.training[self.each, chosen]
        losses, g = self.at(theta, None if self.groups is None else partial(self.groups.weights, chosen=chosen))
        g = self.rule(self, theta, losses, g)
        if self.outside:
            g = torch.addcmul(g, theta, self.decay)
        return g if self.adam is None else self.adam(g)

    def at(self, point: Tensor, weights: Weights = None, gradient: bool = True) -> tuple[Tensor, Any]:
        """Losses and gradient of the batch, as `lib.toy.stack.evaluate`."""
        if point is not self.theta and self.watch is not None:
            self.watch(self.step, self.theta, point)
        return evaluate(point, self.batch[..., :4], self.batch[..., 4], weights, gradient)

    def masks(self, shape: Sequence[int], share: float) -> Tensor:
        """A random part of the weights of every net, (m, *shape): `share` of them in the mean. It depends on the net's
        seed and the steps before, so that settings are paired and the stack plays no part."""
        drawn = {seed: draw.random(tuple(shape), dtype=np.float32) < share for seed, draw in self.draws.items()}
        return torch.from_numpy(np.stack([drawn[seed] for seed in self.seeds]))


# From theta, the batch's losses and gradient there to the gradient of the descent.
Rule = Callable[[Variant, Tensor, Tensor, Tensor], Tensor]


def _sgd(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    return g


def _sam(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    return of.at(theta + unit(g, of.rho))[1]


def _lsam(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    head = torch.zeros_like(g)
    head[..., -1] = g[..., -1]
    return _sam(of, theta, losses, head)


def _asam(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    scale = theta.abs() + C.asam_floor
    return of.at(torch.addcmul(theta, scale, unit(scale * g, of.rho)))[1]


def _gsam(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    phantom = _sam(of, theta, losses, g)
    return phantom - C.gsam_alpha * orthogonal(g, phantom)


def _esam(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    mask = of.masks(theta.shape[1:], C.esam_beta)
    phantom = torch.addcmul(theta, mask, unit(g, of.rho / C.esam_beta))
    rise = of.at(phantom, gradient=False)[0] - losses
    chosen = rise.topk(int(np.ceil(C.esam_gamma * losses.shape[1])), dim=1).indices
    share = losses.shape[1] / chosen.shape[1]
    return of.at(phantom, torch.zeros_like(losses).scatter_(1, chosen, share))[1]


def _looksam(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    if of.step % C.looksam_period:
        return torch.addcmul(g, of.kept["g_v"], (C.looksam_alpha * norm(g)).float())
    phantom = _sam(of, theta, losses, g)
    # At rho = 0 the orthogonal part is rounding error, and no direction.
    of.kept["g_v"] = unit(orthogonal(phantom, g), (of.rho > 0).double())
    return phantom


def _friendly(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    mean = of.kept["mean"] = torch.lerp(g, of.kept.get("mean", torch.zeros_like(g)), C.friendly_decay)
    return _sam(of, theta, losses, g - C.friendly_sigma * mean)


def _sam_decay_inside(of: Variant, theta: Tensor, losses: Tensor, g: Tensor) -> Tensor:
    phantom = theta + unit(torch.addcmul(g, theta, of.decay), of.rho)
    return torch.addcmul(of.at(phantom)[1], phantom, of.decay)


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
