"""The reference engine: the same training in plain torch, all models batched, on any device; gradients by automatic
differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import device as devices
from lib.toy.nets import Model, Record, batch_order, points, stops, unpack
from lib.toy.setting import CHOICES, ToySetting

MODELS_AT_ONCE = 512


class TorchEngine:
    """Trains batches of models that take the same number of equal steps."""

    def __init__(self, device: str = "auto") -> None:
        """device: as `lib.device.pick`."""
        self.device = devices.pick(device)

    _shared = "width", "data.training_points", "data.test_points", "batch_size", "epochs"
    key = staticmethod(attrgetter(*_shared, "phantom_points", "phantom_shift"))
    at_once = MODELS_AT_ONCE

    def run(self, models: Sequence[Model], checkpoints: Sequence[float], trace_every: int, keep_nets: bool) -> Record:
        """Train `models` from start to end."""
        first = models[0].setting
        *sets, index = points(models)
        training, evaluation = (self._tensor(points_of) for points_of in sets)
        data_index = torch.as_tensor(index, device=self.device)
        seeds = sorted({model.seed for model in models})
        drawn = np.stack([batch_order(seed, training.shape[1], first.epochs) for seed in seeds])
        each = torch.arange(len(models), device=self.device)
        orders = torch.as_tensor(drawn, device=self.device, dtype=torch.long)
        order_index = torch.as_tensor([seeds.index(model.seed) for model in models], device=self.device)
        flat = np.stack([model.start() for model in models])  # (m, 2, size)
        nets = {name: self._tensor(part).requires_grad_() for name, part in unpack(flat).items()}
        head = self._tensor([model.setting.head for model in models]).requires_grad_()
        settings = [model.setting for model in models]
        rate = self._tensor([s.learning_rate for s in settings])
        loss = self._tensor([(s.smoothing, s.decoupling) for s in settings])
        fixed = self._tensor([(s.ratio, *s.rates) for s in settings])
        with_bias = self._tensor([s.bias is not None for s in settings])
        factors = torch.tensor([factor_indices(s) for s in settings], device=self.device).T
        first_steps, last_steps = torch.tensor([s.window for s in settings], device=self.device).T
        ascents = Ascents(settings, self._tensor)
        at = stops(first, checkpoints)
        record = Record.empty(models, len(at), trace_every, len(at) * keep_nets, flat.shape[-1])
        for step in range(first.steps + 1):
            for stop in np.flatnonzero(at == step):
                record.errors[:, stop] = self._errors(nets, head, training, evaluation, data_index)
                record.heads[:, stop] = head.detach().cpu().numpy()
                if keep_nets:
                    for name, part in unpack(record.nets[:, stop]).items():
                        part[...] = nets[name].detach().cpu().numpy()
            if step == first.steps:
                break
            epoch, start = divmod(step, first.steps // first.epochs)
            chosen = orders[order_index, epoch, start * first.batch_size : (start + 1) * first.batch_size]
            batch = training[data_index[:, None], chosen]  # (m, rows, 5)
            x, y = batch[..., :4], batch[..., 4]
            phi = features(nets, x)
            seen = phi.detach(), y
            if first.phantom_points or first.phantom_shift:
                ahead = (start + first.phantom_shift) * first.batch_size
                rows = np.arange(ahead, ahead + (first.phantom_points or first.batch_size)) % training.shape[1]
                others = training[data_index[:, None], orders[order_index, epoch][:, rows]]
                seen = features(nets, others[..., :4]).detach(), others[..., 4]
            ascending = (first_steps <= step) & (step < last_steps)
            phantom = head.detach() + ascents.move(head.detach(), *seen, loss, ascending)
            if trace_every and step % trace_every == 0:
                record.traces[:, step // trace_every] = torch.cat([head.detach(), phantom], dim=1).cpu().numpy()
            chosen_heads = candidates(head.detach(), phantom, fixed)[factors * ascending, each]
            surrogate(phi, head, chosen_heads, y, loss).sum().backward()
            with torch.no_grad():
                for name, parameter in (*nets.items(), ("head", head)):
                    assert parameter.grad is not None  # all take part in the loss
                    moved = rate * with_bias if name.startswith("b") else rate
                    parameter -= moved.view(-1, *[1] * (parameter.dim() - 1)) * parameter.grad
                    parameter.grad = None
        finite = torch.stack([torch.isfinite(p).flatten(1).all(dim=1) for p in (*nets.values(), head)]).all(dim=0)
        return record._replace(diverged=~finite.cpu().numpy())

    def _tensor(self, values) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _errors(
        self, nets: dict[str, Tensor], head: Tensor, training: Tensor, evaluation: Tensor, data_index: Tensor
    ) -> np.ndarray:
        """(m, split, feature): errors of sign(w_e f_e), sign(w_h f_h) and sign(F)."""
        rows = []
        for data in (training[data_index], *evaluation[data_index].unbind(1)):
            margins = data[..., 4:] * features(nets, data[..., :4]) * head[:, None]  # (m, n, 2)
            margins = torch.cat([margins, margins.sum(dim=-1, keepdim=True)], dim=-1)
            rows.append((~(margins > 0)).float().mean(dim=1))
        return torch.stack(rows, dim=1).cpu().numpy()


def features(nets: dict[str, Tensor], x: Tensor) -> Tensor:
    """phi(x) = (f_e, f_h): x (m, n, 4) -> (m, n, 2), for weights with axes (model, feature, ...)."""
    m, n, _ = x.shape
    hidden = x.view(m, n, 2, 2).transpose(1, 2).reshape(2 * m, n, 2)  # each feature's net sees its own two coordinates
    part = {name: weights.flatten(0, 1) for name, weights in nets.items()}
    hidden = torch.baddbmm(part["b1"][:, None], hidden, part["W1"]).relu()
    hidden = torch.baddbmm(part["b2"][:, None], hidden, part["W2"]).relu()
    return torch.baddbmm(part["b3"][:, None, None], hidden, part["w3"][..., None]).view(m, 2, n).transpose(1, 2)


def importance_weight(margins: Tensor, loss: Tensor) -> Tensor:
    """The size of the loss's slope in the logit: margins y F (..., m, n); loss (m, 2), smoothing and decoupling."""
    smoothing, decoupling = loss[:, None].unbind(-1)
    penalty = torch.where(decoupling > 0, decoupling * margins, 0.0)
    return torch.sigmoid(-margins) - penalty - smoothing / 2


class Ascents:
    """w~ - w of m models, from step to step."""

    def __init__(self, settings: Sequence[ToySetting], tensor: Callable[[Any], Tensor]) -> None:
        self.rho = tensor([s.rho for s in settings])[:, None]
        self.keep = 1 - 1 / tensor([s.memory for s in settings])[:, None]
        average, displaced = ([s.average for s in settings], [s.displaced for s in settings])
        self.scaled, self.biased = (
            tensor([one == name for one in average])[:, None] > 0 for name in ("scaled", "biased")
        )
        self.displaced = tensor([(one != "hard", one != "easy") for one in displaced])
        self.mean, self.missing = torch.zeros_like(self.displaced), torch.ones_like(self.rho)

    def move(self, head: Tensor, phi: Tensor, y: Tensor, loss: Tensor, ascending: Tensor) -> Tensor:
        """This step's, (m, 2), from features phi (m, n, 2) and labels y (m, n); 0 where not `ascending` (m,)."""
        ascending = ascending[:, None]
        mean = self.keep * self.mean + (1 - self.keep) * self.rho * direction(phi, head, y, loss)
        self.mean = torch.where(ascending, mean, self.mean)
        self.missing = torch.where(ascending, self.keep * self.missing, self.missing)
        found = torch.where(self.biased, mean, mean / (1 - self.missing))
        found = torch.where(self.scaled, self.rho * unit(mean), found)
        return torch.where(ascending, self.displaced * found, 0.0)


def direction(phi: Tensor, head: Tensor, y: Tensor, loss: Tensor) -> Tensor:
    """Equation (5): g / |g|, with g the gradient of the mean loss in the head (m, 2); 0 where g is 0."""
    weight = importance_weight(y * (phi * head[:, None]).sum(-1), loss)
    return unit(-((y * weight)[..., None] * phi).mean(dim=1))


def unit(vector: Tensor) -> Tensor:
    """Vectors (m, 2) of length 1, or 0.

    Divided by the largest entry first: the square of a tiny float32 is zero, and MPS has no float64.
    """
    largest = vector.abs().amax(dim=1, keepdim=True)
    vector = torch.where(largest > 0, vector / largest, 0.0)
    return torch.where(largest > 0, vector / vector.norm(dim=1, keepdim=True), 0.0)


def surrogate(phi: Tensor, head: Tensor, chosen: Tensor, y: Tensor, loss: Tensor) -> Tensor:
    """A loss a model, (m,), whose gradient is that of `ToySetting`: importance weights and effective heads are
    constants in it.

    phi (m, n, 2), head (m, 2), y (m, n), loss as in `importance_weight`, chosen (3, m, 2): the heads of the importance
    weight, of the effective rate and of the importance weight of the head's own gradient.
    """
    margins = y * (phi.detach() * chosen[[0, 2], :, None]).sum(-1)  # (2, m, n)
    importance, head_importance = importance_weight(margins, loss)
    nets_part = importance * (phi * chosen[1][:, None]).sum(-1)
    head_part = head_importance * (phi.detach() * head[:, None]).sum(-1)
    return -(y * (nets_part + head_part)).mean(dim=1)


def candidates(real: Tensor, phantom: Tensor, fixed: Tensor) -> Tensor:
    """(6, m, 2): the real head, the phantom, the heads of fixed ratio (equation (7)) that hold w_e, w_h or the norm,
    and the one at constant rates; fixed (m, 3): the ratio and the two rates."""
    w_easy, w_hard = real.unbind(1)
    ratio, rates = fixed[:, 0], fixed[:, 1:]
    scale = real.norm(dim=1) / (1 + ratio**2).sqrt()
    of_ratio = [(w_easy, ratio * w_easy), (w_hard / ratio, w_hard), (scale, ratio * scale)]
    return torch.stack([real, phantom, *(torch.stack(pair, dim=1) for pair in of_ratio), rates * real])


def factor_indices(setting: ToySetting) -> list[int]:
    """Where in `candidates` the importance, effective and head-importance heads of `setting` stand."""
    order = "real", "phantom", *CHOICES["anchor"], "constant"
    sources = setting.importance, setting.effective, setting.head_importance or setting.importance
    return [order.index(setting.anchor if source == "fixed" else source) for source in sources]
