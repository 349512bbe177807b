"""The toy trained in stacks of nets with torch: SAM's variants and two explicit re-weightings of the training points on
the CPU, and `ToySetting` on any device, by `lib.toy.reference`.

The optimizers of `lib.optim` train one net; here a stack of nets takes their steps at once, each net with norms of its
own. Both follow the same definitions, which stand with the optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lib import check
from lib import device as devices
from lib.data.toy import sample
from lib.optim.variants import VARIANTS, take_step
from lib.toy import reweighting
from lib.toy.nets import Model, Record, batch_order, net_size, points, stops, unpack
from lib.toy.reference import Reference
from lib.toy.rules import RULES, WITHOUT_RADIUS, Variant
from lib.toy.setting import ToySetting, Training
from lib.toy.stack import errors, initial, mistakes, module

METHODS = (*RULES, *(name for name in VARIANTS if name not in RULES))
# The real head, the phantom's, the share of ||epsilon||^2 that falls on the head, and epsilon's length there.
ASCENTS = ("w_easy", "w_hard", "phantom_easy", "phantom_hard", "head_share", "head_radius")


@dataclass(frozen=True)
class VariantSetting(Training):
    """How one toy net is trained: `method` is one of `METHODS`, the rest is as in `lib.toy.setting`.

    Weight decay is the base optimizer's but for "sam_decay_inside". Of `lib.toy.reweighting`, `upweight` and
    `identification` (steps of the first model) belong to Just Train Twice, `step_size` and `groups` to GroupDRO. Raises
    ValueError for a value that is not allowed.
    """

    method: str
    rho: float = 0.0
    weight_decay: float = 0.0
    upweight: int = 1
    identification: int = 0
    step_size: float = 0.0
    groups: str = "easy"

    def __post_init__(self) -> None:
        check.choice("method", self.method, METHODS)
        check.choice("groups", self.groups, reweighting.GROUPS)
        check.whole("identification", self.identification)
        check.whole("upweight", self.upweight, 1)
        for name in ("weight_decay", "step_size", "bias"):
            check.number(name, getattr(self, name), 0)
        super().__post_init__()
        if self.rho and self.method in WITHOUT_RADIUS:
            raise ValueError(f"rho must be 0 where method is {self.method!r}, not {self.rho:g}")
        if (points := self.data.training_points) % self.batch_size:
            raise ValueError(f"batch_size must divide the {points} training points, not {self.batch_size!r}")


class StackEngine:
    """Trains stacks of nets that take the same number of equal steps.

    All methods of one seed share data, initial weights and, but for Just Train Twice and GroupDRO, which draw points
    unequally, the order of the batches.
    """

    at_once = 512

    def __init__(self, device: str = "cpu") -> None:
        """device: as `lib.device.pick`."""
        self.device = devices.pick(device)

    @staticmethod
    def key(setting: Any) -> tuple:
        """Settings that share this can be stacked."""
        names = ["width", "epochs", "batch_size", "data.training_points", "data.test_points"]
        if isinstance(setting, ToySetting):
            return attrgetter(*names, "phantom_points", "phantom_shift")(setting)
        return attrgetter(*names, "method", "groups", "identification")(setting), bool(setting.weight_decay)

    def run(self, models: Sequence[Model], checkpoints: Sequence[float], trace_every: int, keep_nets: bool) -> Record:
        """Train `models` from start to end; traces of variants have the columns `ASCENTS`, NaN where a step has no
        ascent."""
        devices.reuse_memory()
        at, size = stops(models[0].setting, checkpoints), net_size(models[0].setting.width)
        columns = 4 if isinstance(models[0].setting, ToySetting) else len(ASCENTS)
        record = Record.empty(models, len(at), trace_every, len(at) * keep_nets, size, columns)
        theta = trained(models, Watch(record, at, trace_every, models), self.device)
        return record._replace(diverged=~theta.isfinite().all(dim=2).all(dim=1).cpu().numpy())


class Watch:
    """Records a stack's training: called with theta at a step, and then with each phantom of that step."""

    def __init__(self, record: Record, at: np.ndarray, trace_every: int, models: Sequence[Model]) -> None:
        self.record, self.at, self.every = record, at, trace_every
        training, evaluation, index = points(models)
        self.sets = training[index], *evaluation[index].swapaxes(0, 1)

    def __call__(self, step: int, theta: Tensor, phantom: Tensor | None = None) -> None:
        of_sets, heads, nets, traces, _ = self.record
        for stop in np.flatnonzero(self.at == step) if phantom is None else ():
            of_sets[:, stop] = np.stack([errors(theta, points) for points in self.sets], axis=1)
            heads[:, stop] = theta[..., -1].cpu()
            if nets.size:
                nets[:, stop] = theta[..., :-1].cpu()
        if phantom is None or not self.every or step % self.every or np.isfinite(traces[:, step // self.every]).any():
            return  # of a step's phantoms only the first is recorded
        row = torch.cat([theta[..., -1], phantom[..., -1]], dim=1)
        if traces.shape[2] == len(ASCENTS):
            squares = (phantom - theta).double().square()
            on_head = squares[..., -1].sum(dim=1)
            row = torch.cat([row, torch.stack([on_head / squares.sum(dim=(1, 2)), on_head.sqrt()], dim=1)], dim=1)
            row = row.where(row.isfinite().all(dim=1, keepdim=True), torch.nan)
        traces[:, step // self.every] = row.cpu()


def _unseen(step: int, theta: Tensor, phantom: Tensor | None = None) -> None:
    """Records nothing."""


Descent = Callable[[int, Tensor, Tensor], Tensor]  # (step, theta, points (m, b) of the batch) -> as theta


def trained(
    models: Sequence[Model], watch: Callable[..., None] = _unseen, device: torch.device = torch.device("cpu")
) -> Tensor:
    """theta after the last step of models that can be stacked."""
    first, seeds = models[0].setting, [model.seed for model in models]
    drawn, _, index = points(models)
    training, theta = torch.from_numpy(drawn[index]).to(device), initial(models).to(device)
    rows = np.stack([batch_order(seed, training.shape[1], first.epochs).ravel() for seed in seeds])
    if isinstance(first, ToySetting):
        return run(theta, models, rows, Reference(models, training, rows, watch), watch)
    groups = None
    if first.method == "jtt":
        identifying = rows[:, : first.identification * first.batch_size]
        identified = run(theta.clone(), models, identifying, Variant(models, training))
        upweight = [model.setting.upweight for model in models]
        rows = reweighting.upsampled(list(mistakes(identified, drawn[index])[:, 2]), upweight, seeds, rows.shape[1])
    elif first.method == "group_dro":
        latents = [sample(model.setting.data, model.seed) for model in models]
        groups = reweighting.GroupDRO(latents, first.groups, [model.setting.step_size for model in models])
        rows = reweighting.balanced(list(groups.groups.numpy()), seeds, rows.shape[1])
    if first.method in RULES:
        return run(theta, models, rows, Variant(models, training, watch, groups), watch)
    return run(theta, models, rows, _alone(theta, models, training, watch), watch)


@torch.no_grad()
def run(
    theta: Tensor, models: Sequence[Model], rows: np.ndarray, descent: Descent, watch: Callable[..., None] = _unseen
) -> Tensor:
    """Take steps on theta, in place; rows (m, epochs * n): the points in order of use, an epoch's last batch may be
    smaller."""
    n, size = models[0].setting.data.training_points, models[0].setting.batch_size
    rate = torch.tensor([model.setting.learning_rate for model in models])[:, None, None]
    if any(model.setting.bias is None for model in models):
        rate = rate.repeat(1, 2, theta.shape[2])
        for of_net, model in zip(rate, models):
            for name in ("b1", "b2", "b3") if model.setting.bias is None else ():
                unpack(of_net[:, :-1])[name][...] = 0
    rate, step = rate.to(theta.device), 0
    for epoch in range(0, rows.shape[1], n):
        for start in range(epoch, min(epoch + n, rows.shape[1]), size):
            watch(step, theta)
            chosen = rows[:, start : min(start + size, epoch + n)].astype(np.int64)
            theta.addcmul_(descent(step, theta, torch.from_numpy(chosen).to(theta.device)), -rate)
            step += 1
    watch(step, theta)
    return theta


def _alone(theta: Tensor, models: Sequence[Model], training: Tensor, watch: Callable[..., None]) -> Descent:
    """For a method without a rule: the optimizer that `lib.optim.variants` lists takes the steps itself, with one net
    after another, whose memory is theta's. That takes some hundred times as long."""
    nets, optimizers = [module(own) for own in theta], []
    visited: list[Tensor] = []  # where a net was evaluated in the current step
    for net, own, s in zip(nets, theta, (model.setting for model in models)):
        optimizers.append(VARIANTS[s.method](net, s.rho, {"lr": s.learning_rate, "weight_decay": s.weight_decay}))
        net.register_forward_pre_hook(lambda *_, own=own: visited.append(own.clone()))

    def descent(step: int, theta: Tensor, chosen: Tensor) -> Tensor:
        before, phantom = theta.clone(), theta.clone()
        for number, (net, optimizer) in enumerate(zip(nets, optimizers)):
            visited.clear()
            batch = training[number, chosen[number]]
            take_step(net, optimizer, batch[:, :4], batch[:, 4], _logistic)
            if len(visited) > 1:
                phantom[number] = visited[1]
        watch(step, before, phantom)
        return torch.zeros(())

    return descent


def _logistic(logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    losses = softplus(-y * logits)
    return losses.mean() if reduction == "mean" else losses
