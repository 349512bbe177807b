"""The toy trained with SAM's variants, and with two explicit re-weightings of the training points.

The optimizers of `lib.optim` train one net; here a stack of nets takes their steps at once, each net with norms of its
own. Both follow the same definitions, which stand with the optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lib import check, device
from lib.data.toy import sample
from lib.optim.variants import VARIANTS, take_step
from lib.toy import reweighting
from lib.toy.nets import Model, Record, batch_order, net_size, points, stops
from lib.toy.rules import RULES, WITHOUT_RADIUS, Adam, State
from lib.toy.setting import Training
from lib.toy.stack import Weights, errors, evaluate, initial, mistakes, module

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
        if self.data.training_points % self.batch_size:
            raise ValueError(
                f"batch_size must divide the {self.data.training_points} training points, not {self.batch_size!r}"
            )


class StackEngine:
    """Trains stacks of nets by the rules of SAM's variants, on the CPU.

    All methods of one seed share data, initial weights and, but for Just Train Twice and GroupDRO, which draw points
    unequally, the order of the batches.
    """

    _shared = "method", "width", "epochs", "batch_size", "groups", "identification"
    at_once = 512

    @classmethod
    def key(cls, setting: VariantSetting) -> tuple:
        """Settings that share this can be stacked."""
        of_data = "data.training_points", "data.test_points"
        return attrgetter(*cls._shared, *of_data)(setting), bool(setting.weight_decay)

    def run(self, models: Sequence[Model], checkpoints: Sequence[float], trace_every: int, keep_nets: bool) -> Record:
        """Train `models` from start to end; their traces have the columns `ASCENTS`, NaN where a step has no ascent."""
        device.reuse_memory()
        at, size = stops(models[0].setting, checkpoints), net_size(models[0].setting.width)
        record = Record.empty(models, len(at), trace_every, len(at) * keep_nets, size)
        traces = np.full((*record.traces.shape[:2], len(ASCENTS)), np.nan)
        watch = Watch(record._replace(traces=traces), at, trace_every, models)
        theta = trained(models, watch)
        return watch.record._replace(diverged=~theta.isfinite().all(dim=2).all(dim=1).numpy())


class Watch:
    """Records a stack's training: called with theta at a step, and then with each phantom of that step."""

    def __init__(self, record: Record, at: np.ndarray, trace_every: int, models: Sequence[Model]) -> None:
        self.record, self.at, self.every = record, at, trace_every
        training, evaluation, index = points(models)
        self.sets = training[index], *evaluation[index].swapaxes(0, 1)

    def __call__(self, step: int, theta: Tensor, phantom: Tensor | None = None) -> None:
        errors_, heads, nets, traces, _ = self.record
        for stop in np.flatnonzero(self.at == step) if phantom is None else ():
            errors_[:, stop] = np.stack([errors(theta, points) for points in self.sets], axis=1)
            heads[:, stop] = theta[..., -1]
            if nets.size:
                nets[:, stop] = theta[..., :-1]
        if phantom is None or not self.every or step % self.every or np.isfinite(traces[:, step // self.every]).any():
            return  # of a step's phantoms only the first is recorded
        squares = (phantom - theta).double().square()
        on_head = squares[..., -1].sum(dim=1)
        of_ascent = torch.stack([on_head / squares.sum(dim=(1, 2)), on_head.sqrt()], dim=1)
        row = torch.cat([theta[..., -1], phantom[..., -1], of_ascent], dim=1)
        traces[:, step // self.every] = row.where(row.isfinite().all(dim=1, keepdim=True), torch.nan)


def _unseen(step: int, theta: Tensor, phantom: Tensor | None = None) -> None:
    """Records nothing."""


def trained(models: Sequence[Model], watch: Callable[..., None] = _unseen) -> Tensor:
    """theta after the last step of models that can be stacked."""
    first, seeds = models[0].setting, [model.seed for model in models]
    count, size = first.data.training_points, first.batch_size
    rows = np.stack([batch_order(seed, count, first.epochs).ravel() for seed in seeds])
    start, groups = initial(models), None
    if first.method == "jtt":
        training, _, index = points(models)
        identified = run(start.clone(), "sgd", models, rows[:, : first.identification * size])
        upweight = [model.setting.upweight for model in models]
        rows = reweighting.upsampled(mistakes(identified, training[index]), upweight, seeds, rows.shape[1])
    elif first.method == "group_dro":
        latents = [sample(model.setting.data, model.seed) for model in models]
        groups = reweighting.GroupDRO(latents, first.groups, [model.setting.step_size for model in models])
        rows = reweighting.balanced(list(groups.groups.numpy()), seeds, rows.shape[1])
    if first.method in RULES:
        return run(start, first.method, models, rows, watch, groups)
    return run_alone(start, first.method, models, rows, watch)


@torch.no_grad()
def run(
    theta: Tensor,
    method: str,
    models: Sequence[Model],
    rows: np.ndarray,
    watch: Callable[..., None] = _unseen,
    groups: reweighting.GroupDRO | None = None,
) -> Tensor:
    """Take the steps of `method` on theta, in place; rows (m, steps * batch): the points in order of use."""
    size, rule = models[0].setting.batch_size, RULES[method]
    training = _training(models)
    rho, rate, decay = (
        torch.tensor([getattr(model.setting, name) for model in models])[:, None, None]
        for name in ("rho", "learning_rate", "weight_decay")
    )
    outside = decay if decay.any() and method != "sam_decay_inside" else None
    state = State(rho, decay, [model.seed for model in models])
    adam, each = Adam() if method.endswith("adam") else None, torch.arange(len(models))[:, None]
    steps = rows.shape[1] // size
    for step in range(steps):
        watch(step, theta)
        chosen = torch.from_numpy(rows[:, step * size : (step + 1) * size].astype(np.int64))
        batch = training[each, chosen]

        def at(point: Tensor, weights: Weights = None, gradient: bool = True) -> tuple[Tensor, Tensor]:
            if point is not theta:
                watch(step, theta, point)
            found = evaluate(point, batch[..., :4], batch[..., 4], weights, gradient)
            return cast(tuple[Tensor, Tensor], found)  # none asked for: none used

        losses, g = at(theta, None if groups is None else partial(groups.weights, chosen=chosen))
        state.step = step
        g = rule(at, theta, losses, g, state)
        if outside is not None:
            g = torch.addcmul(g, theta, outside)
        theta.addcmul_(g if adam is None else adam(g), -rate)
    watch(steps, theta)
    return theta


def run_alone(
    theta: Tensor, method: str, models: Sequence[Model], rows: np.ndarray, watch: Callable[..., None] = _unseen
) -> Tensor:
    """As `run`, for a method without a rule: the optimizer that `lib.optim.variants` lists takes the steps, with one
    net after another. That takes some hundred times as long."""
    size, training = models[0].setting.batch_size, _training(models)
    nets, steps = [module(own) for own in theta], rows.shape[1] // size
    settings = [{"lr": model.setting.learning_rate, "weight_decay": model.setting.weight_decay} for model in models]
    optimizers = [VARIANTS[method](net, model.setting.rho, own) for net, model, own in zip(nets, models, settings)]
    visited: list[Tensor] = []  # where a net was evaluated in the current step
    for net, own in zip(nets, theta):
        net.register_forward_pre_hook(lambda *_, own=own: visited.append(own.clone()))
    for step in range(steps):
        watch(step, theta)
        before, phantom = theta.clone(), theta.clone()
        for number, chosen in enumerate(rows[:, step * size : (step + 1) * size]):
            visited.clear()
            batch = training[number, chosen]
            take_step(nets[number], optimizers[number], batch[:, :4], batch[:, 4], _logistic)
            if len(visited) > 1:
                phantom[number] = visited[1]
        watch(step, before, phantom)
    watch(steps, theta)
    return theta


def _training(models: Sequence[Model]) -> Tensor:
    """The training points of every net, (m, n, 5): x and y."""
    training, _, index = points(models)
    return torch.from_numpy(training[index])


def _logistic(logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    losses = softplus(-y * logits)
    return losses.mean() if reduction == "mean" else losses
