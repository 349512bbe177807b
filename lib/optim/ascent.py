"""Variants of SAM that climb in another direction: ASAM, Friendly SAM, and SAM with weight decay inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import SGD, Optimizer

from lib.optim.constants import CONSTANTS
from lib.optim.sam import SAM, unit


class ASAM(SAM):
    """Adaptive SAM (Kwon et al. 2021, Algorithm 1 with p = 2 and the element-wise operator):

        epsilon = rho T^2 g / ||T g||,   T = |w| + eta,

    so that ||T^-1 epsilon|| = rho, and scaling two layers against each other changes nothing at eta = 0.
    T applies to weights and biases alike; the authors' code leaves it out for parameters not named "weight".
    Other arguments: SAM's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.5,
        eta: float = CONSTANTS.asam_floor,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        check("eta", eta, 0, math.inf)
        super().__init__(params, base, rho, perturb, clip_norm, **base_kwargs)
        self.defaults["eta"] = float(eta)

    def _offsets(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rho, params in by_rho(self._movable()):
            scales = [p.detach().abs().add_(self.defaults["eta"]) for p in params]
            scaled = unit([p.grad.to_dense() * scale for p, scale in zip(params, scales)])
            for p, scale, direction in zip(params, scales, scaled):
                yield p, direction.mul_(scale).mul_(rho)


class FriendlySAM(SAM):
    """Friendly SAM (Li et al. 2024, Algorithm 1): it climbs along the noise of the batch's gradient,

        m <- lambda m + (1 - lambda) g,   epsilon = rho d / ||d||,   d = g - sigma m,

    with m, the moving average, in place of the full gradient; m is 0 before the first step and part of
    `state_dict`. It moves on where a step is completed. A scaler is refused: m would mix scales. Other
    arguments: SAM's.
    """

    _pending: Mapping[Tensor, Tensor] = MappingProxyType({})

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        sigma: float = CONSTANTS.friendly_sigma,
        decay: float = CONSTANTS.friendly_decay,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        check("sigma", sigma, 0, math.inf)
        check("decay", decay, 0, 1)
        super().__init__(params, base, rho, perturb, clip_norm, **base_kwargs)
        self.defaults |= {"sigma": float(sigma), "decay": float(decay)}

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        scaler: None = None,
        phantom_closure: Callable[[], Any] | None = None,
    ) -> Any:
        """As SAM's. Raises ValueError for a scaler."""
        if scaler is not None:
            raise ValueError(f"scaler must be None, not {scaler!r}: the moving average would mix scales")
        return super().step(closure, None, phantom_closure)

    def _offsets(self) -> Iterator[tuple[Tensor, Tensor]]:
        sigma, decay = self.defaults["sigma"], self.defaults["decay"]
        pending = self._pending = {}
        for rho, params in by_rho(self._movable()):
            for p in params:
                average = self.state.get(p, {}).get("mean_gradient", torch.zeros_like(p))
                pending[p] = torch.lerp(p.grad.to_dense(), average, decay)
            noise = unit([p.grad.to_dense() - sigma * pending[p] for p in params])
            for p, direction in zip(params, noise):
                yield p, direction.mul_(rho)

    def _descend(self, scaler: GradScaler | None) -> None:
        super()._descend(scaler)
        # After the base optimizer's step: Adam takes a state that is not empty for one of its own.
        for p, average in self._pending.items():
            self.state[p]["mean_gradient"] = average
        self._pending = {}


class DecayedSAM(SAM):
    """SAM of the loss with its penalty, L_B + decay/2 ||w||^2: weight decay inside the ascent,

        epsilon = rho (g + decay w) / ||g + decay w||,   descent along g~ + decay (w + epsilon),

    as where the penalty is part of the loss. SAM with the base optimizer's ``weight_decay`` leaves it
    outside: epsilon without it, descent along g~ + decay w. Other arguments: SAM's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        decay: float = 0.0,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        check("decay", decay, 0, math.inf)
        if base_kwargs.get("weight_decay"):
            raise ValueError(f"weight_decay must be 0 (decay replaces it), not {base_kwargs['weight_decay']}")
        super().__init__(params, base, rho, perturb, clip_norm, **base_kwargs)
        self.defaults["decay"] = float(decay)

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        scaler: GradScaler | None = None,
        phantom_closure: Callable[[], Any] | None = None,
    ) -> Any:
        """As SAM's; the closures compute the loss without its penalty, and the loss returned has none."""
        if not callable(closure):
            return super().step(closure)
        scale = self.defaults["decay"] * (1.0 if scaler is None else scaler.get_scale())

        def penalised(evaluate: Callable[[], Any]) -> Any:
            loss = evaluate()
            with torch.no_grad():
                for p in self._parameters():
                    if p.grad is not None:
                        p.grad = p.grad.to_dense().add_(p, alpha=scale)
            return loss

        return super().step(lambda: penalised(closure), scaler, lambda: penalised(phantom_closure or closure))


def by_rho(movable: Iterable[tuple[float, Tensor]]) -> list[tuple[float, list[Tensor]]]:
    """The parameters that have a gradient, together where they share their rho and so one norm."""
    groups: dict[float, list[Tensor]] = {}
    for rho, p in movable:
        if p.grad is not None:
            groups.setdefault(rho, []).append(p)
    return list(groups.items())


def check(name: str, value: object, low: float, high: float, above: bool = False) -> None:
    """Raise ValueError unless `value` is a finite number from `low` (or `above` it) to `high`."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or above and value == low:
        least = f"above {low:g}" if above else f"at least {low:g}"
        most = f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a finite number {least}{most}, not {value!r}")
