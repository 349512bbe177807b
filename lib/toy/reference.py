"""The reference engine: the same training in plain torch, all models batched, on any device; gradients by automatic
differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from lib import device as devices
from lib.toy.nets import Model, Record, batch_order, initial_nets, points, stops, unpack
from lib.toy.setting import ANCHORS, FACTORS, ToySetting

MODELS_AT_ONCE = 512


class TorchEngine:
    """Trains batches of models that take the same number of equal steps."""

    def __init__(self, device: str = "auto") -> None:
        """device: as `lib.device.pick`."""
        self.device = devices.pick(device)

    key = staticmethod(attrgetter("width", "data.training_points", "data.test_points", "batch_size", "epochs"))
    at_once = MODELS_AT_ONCE

    def run(self, models: Sequence[Model], checkpoints: Sequence[float], trace_every: int, keep_nets: bool) -> Record:
        """Train `models` from start to end."""
        first = models[0].setting
        *sets, index = points(models)
        training, evaluation = (self._tensor(points_of) for points_of in sets)
        data_index = torch.as_tensor(index, device=self.device)
        seeds = sorted({model.seed for model in models})
        drawn = np.stack([batch_order(seed, training.shape[1], first.epochs) for seed in seeds])
        orders = torch.as_tensor(drawn, device=self.device, dtype=torch.long)
        order_index = torch.as_tensor([seeds.index(model.seed) for model in models], device=self.device)
        flat = np.stack([initial_nets(model.seed, first.width) for model in models])  # (m, 2, size)
        nets = {name: self._tensor(part).requires_grad_() for name, part in unpack(flat).items()}
        head = self._tensor([model.setting.head for model in models]).requires_grad_()
        names = "rho", "learning_rate", "ratio", "memory"
        rho, rate, ratio, memory = (self._tensor([getattr(model.setting, name) for model in models]) for name in names)
        rho, memory = rho[:, None], memory[:, None]
        mean_ascent = torch.zeros_like(head, requires_grad=False)
        factors = torch.tensor([factor_indices(model.setting) for model in models], device=self.device).T
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
            ascent = phantom_head(phi.detach(), head.detach(), y, rho) - head.detach()
            mean_ascent = (1 - 1 / memory) * mean_ascent + ascent / memory
            phantom = head.detach() + mean_ascent
            if trace_every and step % trace_every == 0:
                record.traces[:, step // trace_every] = torch.cat([head.detach(), phantom], dim=1).cpu().numpy()
            surrogate(phi, head, phantom, y, ratio, factors).sum().backward()
            with torch.no_grad():
                for parameter in (*nets.values(), head):
                    assert parameter.grad is not None  # all take part in the loss
                    parameter -= rate.view(-1, *[1] * (parameter.dim() - 1)) * parameter.grad
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


def phantom_head(phi: Tensor, head: Tensor, y: Tensor, rho: Tensor) -> Tensor:
    """Equation (5): head + rho g / |g|, with g the gradient of the mean logistic loss in the head (m, 2); g = 0 leaves
    the head."""
    weight = torch.sigmoid(-y * (phi * head[:, None]).sum(-1))
    gradient = -((y * weight)[..., None] * phi).mean(dim=1)
    # Divided by its largest entry first: the square of a tiny float32 is zero, and MPS has no float64.
    largest = gradient.abs().amax(dim=1, keepdim=True)
    gradient = torch.where(largest > 0, gradient / largest, 0.0)
    return head + rho * torch.where(largest > 0, gradient / gradient.norm(dim=1, keepdim=True), 0.0)


def surrogate(phi: Tensor, head: Tensor, phantom: Tensor, y: Tensor, ratio: Tensor, factors: Tensor) -> Tensor:
    """A loss a model, (m,), whose gradient is that of `ToySetting`: importance weights and effective heads are
    constants in it.

    phi (m, n, 2), heads (m, 2), y (m, n), ratio (m,), factors (3, m): which of `candidates` gives the importance
    weight, the effective head and the importance weight of the head's own gradient.
    """
    each = torch.arange(len(head), device=head.device)
    chosen = candidates(head.detach(), phantom, ratio)[factors, each]  # (3, m, 2)
    margins = -y * (phi.detach() * chosen[[0, 2], :, None]).sum(-1)  # (2, m, n)
    importance, head_importance = torch.sigmoid(margins)
    nets_part = importance * (phi * chosen[1][:, None]).sum(-1)
    head_part = head_importance * (phi.detach() * head[:, None]).sum(-1)
    return -(y * (nets_part + head_part)).mean(dim=1)


def candidates(real: Tensor, phantom: Tensor, ratio: Tensor) -> Tensor:
    """(5, m, 2): the real head, the phantom, and the heads of fixed ratio (equation (7)) that hold w_e, w_h or the
    norm."""
    w_easy, w_hard = real.unbind(1)
    scale = real.norm(dim=1) / (1 + ratio**2).sqrt()
    fixed = [(w_easy, ratio * w_easy), (w_hard / ratio, w_hard), (scale, ratio * scale)]
    return torch.stack([real, phantom, *(torch.stack(pair, dim=1) for pair in fixed)])


def factor_indices(setting: ToySetting) -> list[int]:
    """Where in `candidates` the importance, effective and head-importance heads of `setting` stand."""
    sources = setting.importance, setting.effective, setting.head_importance or setting.importance
    return [2 + ANCHORS.index(setting.anchor) if source == "fixed" else FACTORS.index(source) for source in sources]
