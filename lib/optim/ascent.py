"""Variants of SAM that climb in another direction: ASAM, Friendly SAM, and SAM with weight decay inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import SGD, Optimizer

from lib import check
from lib.optim.constants import CONSTANTS as C
from lib.optim.sam import SAM, Base, Closure, Kept, Params, unit


class ASAM(SAM):
    """Adaptive SAM (Kwon et al. 2021, Algorithm 1 with p = 2 and the element-wise operator):

        epsilon = rho T^2 g / ||T g||,   T = |w| + eta,

    so that ||T^-1 epsilon|| = rho, and scaling two layers against each other changes nothing at eta = 0.
    T applies to weights and biases alike; the authors' code leaves it out for parameters not named "weight".
    Other arguments: SAM's.
    """

    own = ("eta",)

    def __init__(
        self, params: Params, base: Base = SGD, rho: float = 0.5, eta: float = C.asam_floor, **others: Any
    ) -> None:
        self.eta = check.number("eta", eta, 0)
        super().__init__(params, base, rho, **others)

    def _offsets(self, kept: Kept) -> Iterator[tuple[Tensor, Tensor]]:
        for rho, gradients in self._by_rho():
            scales = [p.detach().abs().add_(self.eta) for p in gradients]
            scaled = unit([g * scale for g, scale in zip(gradients.values(), scales)])
            for p, scale, direction in zip(gradients, scales, scaled):
                yield p, direction.mul_(scale).mul_(rho)


class FriendlySAM(SAM):
    """Friendly SAM (Li et al. 2024, Algorithm 1): it climbs along the noise of the batch's gradient,

        m <- lambda m + (1 - lambda) g,   epsilon = rho d / ||d||,   d = g - sigma m,

    with m, the moving average, in place of the full gradient; m is 0 before the first step and part of
    `state_dict`. It moves on where a step is taken. A scaler is refused: m would mix scales. Other
    arguments: SAM's.
    """

    own = ("sigma", "decay")

    def __init__(
        self,
        params: Params,
        base: Base = SGD,
        rho: float = 0.05,
        sigma: float = C.friendly_sigma,
        decay: float = C.friendly_decay,
        **others: Any,
    ) -> None:
        self.sigma, self.decay = check.number("sigma", sigma, 0), check.number("decay", decay, 0, 1)
        super().__init__(params, base, rho, **others)

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        if scaler is not None:
            raise ValueError(f"scaler must be None, not {scaler!r}: the moving average would mix scales")
        return closure, at_phantom

    def _offsets(self, kept: Kept) -> Iterator[tuple[Tensor, Tensor]]:
        for rho, gradients in self._by_rho():
            for p, g in gradients.items():
                kept[p] = torch.lerp(g, self.memory[p].get("mean_gradient", torch.zeros_like(g)), self.decay)
            for p, direction in zip(gradients, unit([g - self.sigma * kept[p] for p, g in gradients.items()])):
                yield p, direction.mul_(rho)

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        return {"mean_gradient": kept}


class DecayedSAM(SAM):
    """SAM of the loss with its penalty, L_B + decay/2 ||w||^2: weight decay inside the ascent,

        epsilon = rho (g + decay w) / ||g + decay w||,   descent along g~ + decay (w + epsilon),

    as where the penalty is part of the loss; the loss that `step` returns is without it. SAM with the base optimizer's
    ``weight_decay`` leaves it outside: epsilon without it, descent along g~ + decay w. A base or a group with a
    weight decay of its own is refused. Other arguments: SAM's.
    """

    own = ("decay",)

    def __init__(
        self, params: Iterable[Any], base: type[Optimizer] = SGD, rho: float = 0.05, decay: float = 0.0, **others: Any
    ) -> None:
        self.decay = check.number("decay", decay, 0)
        super().__init__(params, base, rho, **others)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group.get("weight_decay"):
            raise ValueError(f"weight_decay must be 0 (decay replaces it), not {group['weight_decay']}")

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        scale = self.decay * (1.0 if scaler is None else scaler.get_scale())

        def penalised(evaluate: Callable[..., Any]) -> Any:
            loss = evaluate()
            with torch.no_grad():
                for p in self._parameters():
                    if p.grad is not None:
                        p.grad = p.grad.to_dense().add_(p, alpha=scale)
            return loss

        return lambda: penalised(closure), lambda: penalised(at_phantom)
