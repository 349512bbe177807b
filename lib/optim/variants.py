"""SAM's variants, each by what it changes of a step: how the loss is evaluated, where the ascent goes, what the descent
makes of the gradients and remembers; and every method by its name, with what builds its optimizer and takes its steps.

The variants take SAM's arguments and their own settings, which stand in `own` with their defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Adam, Optimizer

from lib import check
from lib.optim.sam import LSAM, SAM, Base, Closure, Kept, Params, orthogonal, unit


@dataclass(frozen=True)
class VariantConstants:
    """What the variants are set to besides the radius, here and in the toy. "Paper" is the variant's own, "ours" chosen
    here."""

    asam_floor: float = 0.01  # eta, added to |w| in ASAM's operator T (paper)
    gsam_alpha: float = 0.4  # weight of the orthogonal ascent in GSAM (ours: the default of public code)
    looksam_period: int = 5  # k, steps from one SAM gradient to the next in LookSAM (paper)
    looksam_alpha: float = 0.7  # weight of the kept direction in LookSAM (paper)
    friendly_sigma: float = 1.0  # share of the mean gradient that Friendly SAM takes out (paper)
    friendly_decay: float = 0.9  # lambda of its moving average (ours: the default of public code)
    esam_beta: float = 0.6  # share of the weights that ESAM perturbs (paper, CIFAR)
    esam_gamma: float = 0.5  # share of the batch that ESAM descends on (paper, CIFAR)


CONSTANTS = C = VariantConstants()

NOT_NEGATIVE = partial(check.number, low=0)
SHARE = partial(check.number, low=0, high=1, above=True)
Settings = Mapping[str, Any]  # the base optimizer's: lr, momentum, weight_decay
Loss = Callable[..., Tensor]
Builder = Callable[[nn.Module, float, Settings], Optimizer]


class ASAM(SAM):
    """Adaptive SAM (Kwon et al. 2021, Algorithm 1 with p = 2 and the element-wise operator):

        epsilon = rho T^2 g / ||T g||,   T = |w| + eta,

    so that ||T^-1 epsilon|| = rho, and scaling two layers against each other changes nothing at eta = 0.
    T applies to weights and biases alike; the authors' code leaves it out for parameters not named "weight".
    """

    own = {"eta": (C.asam_floor, NOT_NEGATIVE)}

    def __init__(self, params: Params, base: Base = SGD, rho: float = 0.5, **others: Any) -> None:
        super().__init__(params, base, rho, **others)

    def _directions(self, gradients: Kept, kept: Kept) -> list[Tensor]:
        scales = [p.detach().abs().add_(self.eta) for p in gradients]
        scaled = unit([g * scale for g, scale in zip(gradients.values(), scales)])
        return [direction.mul_(scale) for direction, scale in zip(scaled, scales)]


class FriendlySAM(SAM):
    """Friendly SAM (Li et al. 2024, Algorithm 1): it climbs along the noise of the batch's gradient,

        m <- lambda m + (1 - lambda) g,   epsilon = rho d / ||d||,   d = g - sigma m,

    with m, the moving average by lambda = `decay`, in place of the full gradient; m is 0 before the first step and part
    of `state_dict`. It moves on where a step is taken. A scaler is refused: m would mix scales.
    """

    own = {"sigma": (C.friendly_sigma, NOT_NEGATIVE), "decay": (C.friendly_decay, partial(NOT_NEGATIVE, high=1))}

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        if scaler is not None:
            raise ValueError(f"scaler must be None, not {scaler!r}: the moving average would mix scales")
        return closure, at_phantom

    def _directions(self, gradients: Kept, kept: Kept) -> list[Tensor]:
        for p, g in gradients.items():
            kept[p] = torch.lerp(g, self.memory[p].get("mean_gradient", torch.zeros_like(g)), self.decay)
        return unit([g - self.sigma * kept[p] for p, g in gradients.items()])

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        return {"mean_gradient": kept}


class DecayedSAM(SAM):
    """SAM of the loss with its penalty, L_B + decay/2 ||w||^2: weight decay inside the ascent,

        epsilon = rho (g + decay w) / ||g + decay w||,   descent along g~ + decay (w + epsilon),

    as where the penalty is part of the loss; the loss that `step` returns is without it. SAM with the base optimizer's
    ``weight_decay`` leaves it outside: epsilon without it, descent along g~ + decay w. A base or a group with a
    weight decay of its own is refused.
    """

    own = {"decay": (0.0, NOT_NEGATIVE)}

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group.get("weight_decay"):
            raise ValueError(f"weight_decay must be 0 (decay replaces it), not {group['weight_decay']}")

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        scale = self.decay * (1.0 if scaler is None else scaler.get_scale())

        def penalised(evaluate: Closure) -> Any:
            loss = evaluate()
            with torch.no_grad():
                for p in self._parameters():
                    if p.grad is not None:
                        p.grad = p.grad.to_dense().add_(p, alpha=scale)
            return loss

        return partial(penalised, closure), partial(penalised, at_phantom)


class ESAM(SAM):
    """Efficient SAM (Du et al. 2022, Algorithm 1), of two parts:

        stochastic weight perturbation:   epsilon = (rho / beta) m g / ||g||,   m ~ Bernoulli(beta) per weight
        data selection:                   descent on the examples whose loss rose most from w to w + epsilon,
                                          a share gamma of the batch (rounded up)

    so that the mean of epsilon is SAM's. The second backward pass saves the share 1 - gamma of the batch;
    finding those examples costs a forward pass of all of it. `seed` and the number of steps taken, which is part of
    `state_dict`, decide the masks.

    The closure of `step` differs from SAM's: given which examples of the batch (indices, or a slice of all), it returns
    their losses (n,) and leaves the backward pass, and a scaler's scaling, to this optimizer. `step` returns the
    batch's mean loss at w, detached.
    """

    own = {"beta": (C.esam_beta, SHARE), "gamma": (C.esam_gamma, SHARE), "seed": (0, check.whole)}

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        before: list[Tensor] = []

        def descend_on(losses: Tensor) -> Tensor:
            mean = losses.mean()
            (mean if scaler is None else scaler.scale(mean)).backward()
            return mean.detach()

        def first() -> Tensor:
            losses = closure(slice(None))
            before.append(losses.detach())
            return descend_on(losses)

        def second() -> Tensor:
            which: Tensor | slice = slice(None)
            if (count := math.ceil(self.gamma * len(before[0]))) < len(before[0]):
                with torch.no_grad():
                    which = (at_phantom(slice(None)) - before[0]).topk(count).indices
            return descend_on(at_phantom(which))

        return first, second

    def _offsets(self, kept: Kept) -> Iterator[tuple[Tensor, Tensor]]:
        number = int(np.random.SeedSequence([self.seed, self.steps]).generate_state(1)[0])
        draws: dict[torch.device, torch.Generator] = {}
        for p, offset in super()._offsets(kept):
            draw = draws.setdefault(p.device, torch.Generator(p.device).manual_seed(number))
            yield p, offset.mul_(torch.empty_like(offset).bernoulli_(self.beta, generator=draw)).div_(self.beta)


class _TwoGradients(SAM):
    """SAM that still has the gradient at w, as averaged over processes, when it descends."""

    def _offsets(self, kept: Kept) -> Iterator[tuple[Tensor, Tensor]]:
        kept.update({p: p.grad.to_dense().clone() for p in self._parameters() if p.grad is not None})
        if self.per_rank:  # each process has the gradient of its own examples
            for g in kept.values():
                distributed.all_reduce(g)
                g.div_(distributed.get_world_size())
        return super()._offsets(kept)

    @staticmethod
    def _both(kept: Kept) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parameters that have a gradient both at w and now, and the two, dense."""
        params = [p for p in kept if p.grad is not None]
        return params, [kept[p] for p in params], [cast(Tensor, p.grad).to_dense() for p in params]


class GSAM(_TwoGradients):
    """Surrogate-gap guided SAM (Zhuang et al. 2022, Algorithm 1): descent along

        g~ - alpha g_perp,   g_perp = g - (<g, g~> / ||g~||^2) g~,

    g the gradient at w and g~ at the phantom: it lowers the loss at the phantom as SAM does and, without a
    first-order change to that, raises the loss at w, which narrows the gap between the two. rho stays as it
    is; the paper has it follow the learning rate, which a scheduler of the group's ``rho`` would do.
    """

    own = {"alpha": (C.gsam_alpha, NOT_NEGATIVE)}

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        params, real, phantom = self._both(kept)
        for p, g, part in zip(params, phantom, orthogonal(real, phantom)):
            _set_gradient(p, g.sub(part, alpha=self.alpha))
        return {}


class LookSAM(_TwoGradients):
    """LookSAM (Liu et al. 2022, Algorithm 1): a SAM gradient at every k-th step only.

        at steps 0, k, 2k, ...:   descent along g~;   g_v = g~ - (<g~, g> / ||g||^2) g is kept
        between:                  descent along g + alpha ||g|| g_v / ||g_v||, with one evaluation

    Norms run over all parameters. The number of steps taken and g_v's direction are part of `state_dict`. Between,
    nothing is perturbed: `phantom_norm` is 0.
    """

    own = {"k": (C.looksam_period, partial(check.whole, least=1)), "alpha": (C.looksam_alpha, NOT_NEGATIVE)}

    def _movable(self) -> list[tuple[float, Tensor]]:
        return [] if self.steps % self.k else super()._movable()

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        if kept:
            params, real, phantom = self._both(kept)
            directions = unit(orthogonal(phantom, real))
            return {"g_v": {p: direction.to(p.dtype) for p, direction in zip(params, directions)}}
        steered = {p: p.grad.to_dense() for p in self._parameters() if p.grad is not None and "g_v" in self.memory[p]}
        length = self.alpha * get_total_norm(list(steered.values())) if steered else 0.0
        for p, g in steered.items():
            _set_gradient(p, g + length * self.memory[p]["g_v"])
        return {}


def _set_gradient(p: Tensor, gradient: Tensor) -> None:
    """Give p this gradient, sparse where it had a sparse one: some base optimizers take no other."""
    if p.grad is not None and p.grad.is_sparse:
        gradient = gradient.to_sparse(p.grad.sparse_dim())
    p.grad = gradient


def _build(variant: type[SAM] | None, base: Base, model: nn.Module, rho: float, settings: Settings) -> Optimizer:
    """`variant` around `base`, or `base` alone; Adam has no momentum to be set."""
    names = {"weight_decay": "decay"} if variant is DecayedSAM else {}
    own = {names.get(name, name): value for name, value in settings.items() if base is SGD or name != "momentum"}
    if variant is None:
        return base(model.parameters(), **own)
    if variant is LSAM:
        return LSAM(model, base, rho, **own)
    return variant(model.parameters(), base, rho, model=model, **own)


# The one table of methods: name, display name, variant and base. Image trials, and every comparison and the cost table
# of the variants' chapter, take what is listed here. Weight decay is the base optimizer's affair (outside the ascent)
# but for "sam_decay_inside".
_TABLE: dict[str, tuple[str, type[SAM] | None, Base]] = {
    "sgd": ("SGD", None, SGD),
    "sam": ("SAM", SAM, SGD),
    "lsam": ("LSAM", LSAM, SGD),
    "asam": ("ASAM", ASAM, SGD),
    "gsam": ("GSAM", GSAM, SGD),
    "esam": ("ESAM", ESAM, SGD),
    "looksam": ("LookSAM", LookSAM, SGD),
    "friendly": ("Friendly SAM", FriendlySAM, SGD),
    "sam_decay_inside": ("SAM, decay inside", DecayedSAM, SGD),
    "adam": ("Adam", None, Adam),
    "sam_adam": ("SAM around Adam", SAM, Adam),
}
TITLES = {name: title for name, (title, _, _) in _TABLE.items()}
VARIANTS: dict[str, Builder] = {name: partial(_build, variant, base) for name, (_, variant, base) in _TABLE.items()}
WITHOUT_RADIUS = ("sgd", "adam")  # methods that have no rho: it is 0


def take_step(
    model: nn.Module, optimizer: Optimizer, inputs: Tensor, labels: Tensor, loss: Loss = F.cross_entropy
) -> Tensor:
    """One update on one batch; returns the mean loss at the parameters before it.

    loss: of logits and labels, with `reduction` as torch's losses have it.
    """
    if isinstance(optimizer, LSAM):
        return optimizer.step_fused(inputs, lambda logits: loss(logits, labels))
    if isinstance(optimizer, ESAM):
        return optimizer.step(lambda which: loss(model(inputs[which]), labels[which], reduction="none"))

    def closure() -> Any:
        optimizer.zero_grad()
        mean = loss(model(inputs), labels)
        mean.backward()
        return mean

    return cast(Tensor, optimizer.step(closure))
