"""The gradient of `ToySetting` for a stack of nets in plain torch, on any device, by automatic differentiation.

The compiled engine must agree with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.toy.nets import Model, unpack
from lib.toy.setting import CHOICES

HEADS = "real", "phantom", *CHOICES["anchor"], "constant"  # the order of `Reference._heads`


class Reference:
    """Called with a step, theta and the points (m, b) of its batch, of `training` (m, n, 5), it gives the gradient, and
    `watch` the phantom. rows (m, epochs * n): the points in order of use. It keeps the mean of the ascents."""

    def __init__(self, models: Sequence[Model], training: Tensor, rows: np.ndarray, watch: Callable[..., None]) -> None:
        settings, device = [model.setting for model in models], training.device
        self.setting, self.training, self.rows, self.watch = settings[0], training, rows, watch

        def tensor(values: Any) -> Tensor:
            return torch.tensor(np.asarray(values), dtype=torch.float32, device=device)

        self.rho = tensor([s.rho for s in settings])[:, None]
        self.keep = 1 - 1 / tensor([s.memory for s in settings])[:, None]
        self.scaled, self.biased = (
            tensor([s.average == name for s in settings])[:, None] > 0 for name in ("scaled", "biased")
        )
        self.displaced = tensor([(s.displaced != "hard", s.displaced != "easy") for s in settings])
        self.mean, self.missing = torch.zeros_like(self.displaced), torch.ones_like(self.rho)
        self.loss = tensor([(s.smoothing, s.decoupling) for s in settings])
        self.fixed = tensor([(s.ratio, *s.rates) for s in settings])
        self.first, self.last = tensor([s.window for s in settings]).T
        sources = [(s.importance, s.effective, s.head_importance or s.importance, s.anchor) for s in settings]
        factors = [[HEADS.index(anchor if one == "fixed" else one) for one in three] for *three, anchor in sources]
        self.factors = torch.tensor(factors, device=device).T
        self.each = torch.arange(len(settings), device=device)[:, None]

    def __call__(self, step: int, theta: Tensor, chosen: Tensor) -> Tensor:
        """The gradient, shaped as theta."""
        batch, others, real = self.training[self.each, chosen], self._others(step), theta
        theta = theta.detach().requires_grad_()
        y, head, ascending = batch[..., 4], real[..., -1], (self.first <= step) & (step < self.last)
        with torch.enable_grad():
            phi = features(theta, batch[..., :4])
        seen = (phi.detach(), y) if others is None else (features(real, others[..., :4]), others[..., 4])
        phantom = head + self._ascent(head, *seen, ascending[:, None])
        u, g, v = self._heads(head, phantom)[self.factors * ascending, self.each[:, 0]][:, :, None]  # each (m, 1, 2)
        importance, of_head = (self._weight(y * (phi.detach() * one).sum(-1)) for one in (u, v))
        with torch.enable_grad():  # importance weights and effective heads are constants in this surrogate of the loss
            parts = importance * (phi * g).sum(-1) + of_head * (phi.detach() * theta[:, None, :, -1]).sum(-1)
            surrogate = -(y * parts).mean(dim=1).sum()
        self.watch(step, real, phantom[..., None])
        return torch.autograd.grad(surrogate, theta)[0]

    def _others(self, step: int) -> Tensor | None:
        """The points of the phantom at a step, where they are not the batch's."""
        s, n = self.setting, self.training.shape[1]
        if not (s.phantom_points or s.phantom_shift):
            return None
        epoch, batch = divmod(step, s.steps // s.epochs)
        start = (batch + s.phantom_shift) * s.batch_size
        ahead = self.rows[:, epoch * n + np.arange(start, start + (s.phantom_points or s.batch_size)) % n]
        return self.training[self.each, torch.from_numpy(ahead.astype(np.int64)).to(self.training.device)]

    def _weight(self, margins: Tensor) -> Tensor:
        """The importance weight, the size of the loss's slope in the logit, at margins y F (m, n)."""
        smoothing, decoupling = self.loss[:, None].unbind(-1)
        penalty = torch.where(decoupling > 0, decoupling * margins, 0.0)
        return torch.sigmoid(-margins) - penalty - smoothing / 2

    def _ascent(self, head: Tensor, phi: Tensor, y: Tensor, ascending: Tensor) -> Tensor:
        """w~ - w (m, 2) of equation (5) from features phi (m, n, 2), or its mean; 0 where not `ascending`."""
        weight = self._weight(y * (phi * head[:, None]).sum(-1))
        own = self.rho * unit(-((y * weight)[..., None] * phi).mean(dim=1))
        mean = self.keep * self.mean + (1 - self.keep) * own
        self.mean = torch.where(ascending, mean, self.mean)
        self.missing = torch.where(ascending, self.keep * self.missing, self.missing)
        found = torch.where(self.biased, mean, mean / (1 - self.missing))
        found = torch.where(self.scaled, self.rho * unit(mean), found)
        return torch.where(ascending, self.displaced * found, 0.0)

    def _heads(self, real: Tensor, phantom: Tensor) -> Tensor:
        """(6, m, 2), in the order of `HEADS`: of fixed ratio (equation (7)), w_e, w_h or the norm held."""
        (w_easy, w_hard), ratio = real.unbind(1), self.fixed[:, 0]
        scale = real.norm(dim=1) / (1 + ratio**2).sqrt()
        of_ratio = [(w_easy, ratio * w_easy), (w_hard / ratio, w_hard), (scale, ratio * scale)]
        held = (torch.stack(pair, dim=1) for pair in of_ratio)
        return torch.stack([real, phantom, *held, self.fixed[:, 1:] * real])


def features(theta: Tensor, x: Tensor) -> Tensor:
    """phi(x) = (f_e, f_h): theta (m, 2, size + 1) as in `lib.toy.stack`, x (m, n, 4) -> (m, n, 2)."""
    (m, n, _), part = x.shape, {name: w.flatten(0, 1) for name, w in unpack(theta[..., :-1]).items()}
    hidden = x.view(m, n, 2, 2).transpose(1, 2).reshape(2 * m, n, 2)  # each feature's net sees its own two coordinates
    for bias, weight in (("b1", "W1"), ("b2", "W2")):
        hidden = torch.relu(torch.baddbmm(part[bias][:, None], hidden, part[weight]))
    return torch.baddbmm(part["b3"][:, None, None], hidden, part["w3"][..., None]).view(m, 2, n).transpose(1, 2)


def unit(vector: Tensor) -> Tensor:
    """Vectors (m, 2) of length 1, or 0. By the largest entry first: the square of a tiny float32 is zero."""
    largest = vector.abs().amax(dim=1, keepdim=True)
    return normalize(torch.where(largest > 0, vector / largest, 0.0), dim=1)
