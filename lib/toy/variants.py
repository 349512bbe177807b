"""The toy trained with SAM's variants, and with two explicit re-weightings of the training points.

The optimizers of `lib.optim` train one net; here a stack of nets takes their steps at once, each net with norms of its
own. Both follow the same definitions, which stand with the optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import attrgetter
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus
from tqdm import tqdm

from lib import check, device
from lib.data.toy import SPLITS, ToyConstants, ToySample, sample
from lib.optim.variants import VARIANTS, take_step
from lib.toy import reweighting
from lib.toy.ensemble import FEATURES
from lib.toy.nets import batch_order
from lib.toy.rules import RULES, WITHOUT_RADIUS, Adam, State
from lib.toy.setting import Training, check_trained
from lib.toy.stack import Weights, errors, evaluate, initial, mistakes, module

METHODS = (*RULES, *(name for name in VARIANTS if name not in RULES))
WATCHED = 60  # steps from one record of the phantom to the next
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


@dataclass(frozen=True)
class VariantResult:
    """Of every net, after its last step; leading axes (setting, seed).

    errors (..., split, feature) as in `lib.toy.ensemble.ToyResult`, NaN where diverged; heads (..., 2), the real (w_e,
    w_h); diverged; ascents (..., 6), the means through training named by `ASCENTS`, NaN where the method has no ascent.
    """

    errors: np.ndarray
    heads: np.ndarray
    diverged: np.ndarray
    ascents: np.ndarray

    def error(self, feature: str, split: str = "test") -> np.ndarray:
        """(setting, seed): probing error of "easy" or "hard", or the "model"'s own error."""
        return self.errors[..., SPLITS.index(split), FEATURES.index(feature)]


def train(settings: Iterable[VariantSetting], seeds: Iterable[int], progress: bool = True) -> VariantResult:
    """Train every setting from every seed.

    All methods of one seed share data, initial weights and, but for Just Train Twice and GroupDRO, which draw points
    unequally, the order of the batches. Raises ValueError for what is not allowed.
    """
    settings, seeds = check_trained(settings, VariantSetting, seeds)
    device.reuse_memory()
    shape = len(settings), len(seeds)
    found, heads = np.empty((*shape, len(SPLITS), 3)), np.empty((*shape, 2))
    diverged, ascents = np.empty(shape, dtype=bool), np.empty((*shape, len(ASCENTS)))
    stacks: dict[tuple, list[int]] = {}
    for at, setting in enumerate(settings):
        stacks.setdefault(_stackable(setting), []).append(at)
    for stack in stacks.values():
        nets = [Net(settings[at], seed) for at in stack for seed in seeds]
        theta, seen = trained(nets, progress)
        rows = np.stack([errors(theta, [net.points(split) for net in nets]) for split in SPLITS], axis=1)
        found[stack] = rows.reshape(-1, len(seeds), *rows.shape[1:])
        heads[stack] = theta[..., -1].reshape(-1, len(seeds), 2)
        ascents[stack] = seen.means().reshape(-1, len(seeds), len(ASCENTS))
        diverged[stack] = ~theta.isfinite().all(dim=2).all(dim=1).reshape(-1, len(seeds)).numpy()
    found[diverged] = np.nan
    return VariantResult(found, heads, diverged, ascents)


@dataclass(frozen=True)
class Net:
    """One net of a stack."""

    setting: VariantSetting
    seed: int

    def points(self, split: str = "train") -> ToySample:
        """Its points."""
        return _points(self.setting.data, self.seed, split)


@lru_cache(maxsize=256)
def _points(constants: ToyConstants, seed: int, split: str) -> ToySample:
    return sample(constants, seed, split)


def _stackable(setting: VariantSetting) -> tuple:
    """Settings that share this can be stacked."""
    shared = (
        "method",
        "width",
        "epochs",
        "batch_size",
        "head",
        "gain",
        "bias",
        "groups",
        "identification",
        "data.training_points",
    )
    return attrgetter(*shared)(setting), bool(setting.weight_decay)


def trained(nets: Sequence[Net], progress: bool = False) -> tuple[Tensor, Ascents]:
    """theta after the last step of nets that can be stacked, and their ascents."""
    first, points = nets[0].setting, nets[0].setting.data.training_points
    rows = np.stack([batch_order(net.seed, points, first.epochs).ravel() for net in nets])
    start = initial([net.seed for net in nets], first)
    training = [net.points() for net in nets]
    groups = None
    if first.method == "jtt":
        identified, _ = run(start.clone(), "sgd", nets, rows[:, : first.identification * first.batch_size])
        wrong, upweight = mistakes(identified, training), [net.setting.upweight for net in nets]
        rows = reweighting.upsampled(wrong, upweight, [net.seed for net in nets], rows.shape[1])
    elif first.method == "group_dro":
        groups = reweighting.GroupDRO(training, first.groups, [net.setting.step_size for net in nets])
        rows = reweighting.balanced(list(groups.groups.numpy()), [net.seed for net in nets], rows.shape[1])
    if first.method in RULES:
        return run(start, first.method, nets, rows, groups, progress)
    return run_alone(start, first.method, nets, rows, progress)


@torch.no_grad()
def run(
    theta: Tensor,
    method: str,
    nets: Sequence[Net],
    rows: np.ndarray,
    groups: reweighting.GroupDRO | None = None,
    progress: bool = False,
) -> tuple[Tensor, Ascents]:
    """Take the steps of `method` on theta, in place; rows (m, steps * batch): the points in order of use."""
    size, rule = nets[0].setting.batch_size, RULES[method]
    x, y = _points_of(nets)
    rho, rate, decay = (
        torch.tensor([getattr(net.setting, name) for net in nets])[:, None, None]
        for name in ("rho", "learning_rate", "weight_decay")
    )
    outside = decay if decay.any() and method != "sam_decay_inside" else None
    state, adam = State(rho, decay, [net.seed for net in nets]), Adam() if method.endswith("adam") else None
    each, ascents = torch.arange(len(nets))[:, None], Ascents(len(nets))
    for step in _steps(method, rows.shape[1] // size, progress):
        chosen = torch.from_numpy(rows[:, step * size : (step + 1) * size].astype(np.int64))
        batch = x[each, chosen], y[each, chosen]

        def at(point: Tensor, weights: Weights = None, gradient: bool = True) -> tuple[Tensor, Tensor]:
            if point is not theta and step % WATCHED == 0:
                ascents.add(step, theta, point)
            return cast(tuple[Tensor, Tensor], evaluate(point, *batch, weights, gradient))  # none asked for: none used

        losses, g = at(theta, None if groups is None else partial(groups.weights, chosen=chosen))
        state.step = step
        g = rule(at, theta, losses, g, state)
        if outside is not None:
            g = torch.addcmul(g, theta, outside)
        theta.addcmul_(g if adam is None else adam(g), -rate)
    return theta, ascents


def run_alone(
    theta: Tensor, method: str, nets: Sequence[Net], rows: np.ndarray, progress: bool = False
) -> tuple[Tensor, Ascents]:
    """As `run`, for a method without a rule: the optimizer that `lib.optim.variants` lists takes the steps, with one
    net after another. That takes some hundred times as long."""
    size, ascents = nets[0].setting.batch_size, Ascents(len(nets))
    x, y = _points_of(nets)
    models = [module(own) for own in theta]
    settings = [{"lr": net.setting.learning_rate, "weight_decay": net.setting.weight_decay} for net in nets]
    optimizers = [VARIANTS[method](model, net.setting.rho, own) for model, net, own in zip(models, nets, settings)]
    visited: list[Tensor] = []  # where a net was evaluated in the current step
    for model, own in zip(models, theta):
        model.register_forward_pre_hook(lambda *_, own=own: visited.append(own.clone()))
    for step in _steps(method, rows.shape[1] // size, progress):
        before, phantom = theta.clone(), theta.clone()
        for number, chosen in enumerate(rows[:, step * size : (step + 1) * size]):
            visited.clear()
            take_step(models[number], optimizers[number], x[number, chosen], y[number, chosen], _logistic)
            if len(visited) > 1:
                phantom[number] = visited[1]
        if step % WATCHED == 0:
            ascents.add(step, before, phantom)
    return theta, ascents


def _points_of(nets: Sequence[Net]) -> tuple[Tensor, Tensor]:
    """The training points of every net: x (m, n, 4), y (m, n)."""
    points = [net.points() for net in nets]
    return torch.from_numpy(np.stack([one.x for one in points])), torch.from_numpy(np.stack([one.y for one in points]))


def _logistic(logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    losses = softplus(-y * logits)
    return losses.mean() if reduction == "mean" else losses


def _steps(method: str, count: int, progress: bool) -> Iterable[int]:
    return tqdm(range(count), desc=f"toy {method}", delay=2, unit="step", disable=None if progress else True)


class Ascents:
    """Where the phantoms of m nets were in the steps watched."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.rows: dict[int, np.ndarray] = {}

    def add(self, step: int, theta: Tensor, phantom: Tensor) -> None:
        """Record the phantom of a step; of several evaluations there only the first."""
        if step not in self.rows:
            squares = (phantom - theta).double().square()
            on_head = squares[..., -1].sum(dim=1)
            of_ascent = torch.stack([on_head / squares.sum(dim=(1, 2)), on_head.sqrt()], dim=1)
            self.rows[step] = torch.cat([theta[..., -1], phantom[..., -1], of_ascent], dim=1).numpy()

    def means(self) -> np.ndarray:
        """(m, 6), as named by `ASCENTS`: over the steps watched, those without an ascent left out."""
        rows = np.array(list(self.rows.values())).reshape(-1, self.count, len(ASCENTS))
        moved = np.isfinite(rows).all(axis=2, keepdims=True)
        with np.errstate(invalid="ignore"):
            return np.where(moved, rows, 0.0).sum(axis=0) / moved.sum(axis=0)
