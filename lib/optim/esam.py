"""Efficient SAM: a part of the weights is perturbed, a part of the batch descended on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import SGD, Optimizer

from lib.optim.ascent import check
from lib.optim.constants import CONSTANTS
from lib.optim.sam import SAM


class ESAM(SAM):
    """Efficient SAM (Du et al. 2022, Algorithm 1), of two parts:

        stochastic weight perturbation:   epsilon = (rho / beta) m g / ||g||,   m ~ Bernoulli(beta) per weight
        data selection:                   descent on the examples whose loss rose most from w to w + epsilon,
                                          a share gamma of the batch (rounded up)

    so that the mean of epsilon is SAM's. The second backward pass saves the share 1 - gamma of the batch;
    finding those examples costs a forward pass of all of it. `seed` and the step's number, which is part of
    `state_dict`, decide the masks. Other arguments: SAM's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] = SGD,
        rho: float = 0.05,
        beta: float = CONSTANTS.esam_beta,
        gamma: float = CONSTANTS.esam_gamma,
        seed: int = 0,
        perturb: Iterable[Tensor] | None = None,
        clip_norm: float | None = None,
        **base_kwargs: Any,
    ) -> None:
        check("beta", beta, 0, 1, above=True)
        check("gamma", gamma, 0, 1, above=True)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, not {seed!r}")
        super().__init__(params, base, rho, perturb, clip_norm, **base_kwargs)
        self.defaults |= {"beta": float(beta), "gamma": float(gamma), "seed": seed}

    def step(
        self, closure: Callable[[Tensor | slice], Tensor] | None = None, scaler: GradScaler | None = None
    ) -> Tensor:
        """One step; returns the batch's mean loss at w, detached.

        `closure` differs from SAM's: given which examples of the batch (indices, or a slice of all), it
        returns their losses (n,) and leaves the backward pass, and a scaler's scaling, to this method.
        Raises ValueError where there is no closure.
        """
        if not callable(closure):
            raise ValueError(f"closure must be a function of which examples, not {closure!r}")
        at_weights: list[Tensor] = []

        def descend_on(losses: Tensor) -> Tensor:
            mean = losses.mean()
            (mean if scaler is None else scaler.scale(mean)).backward()
            return mean.detach()

        def first() -> Tensor:
            losses = closure(slice(None))
            at_weights.append(losses.detach())
            return descend_on(losses)

        def second() -> None:
            descend_on(closure(self._selected(closure, at_weights[0])))

        loss = super().step(first, scaler, second)
        self.param_groups[0]["steps"] = self.param_groups[0].get("steps", 0) + 1
        return loss

    def _selected(self, closure: Callable[[Tensor | slice], Tensor], before: Tensor) -> Tensor | slice:
        """Which examples' losses rose most from `before` to where the weights are now."""
        count = math.ceil(self.defaults["gamma"] * len(before))
        if count == len(before):
            return slice(None)
        with torch.no_grad():
            return (closure(slice(None)) - before).topk(count).indices

    def _offsets(self) -> Iterator[tuple[Tensor, Tensor]]:
        beta = self.defaults["beta"]
        steps = [self.defaults["seed"], self.param_groups[0].get("steps", 0)]
        number = int(np.random.SeedSequence(steps).generate_state(1)[0])
        draws: dict[torch.device, torch.Generator] = {}
        for p, offset in super()._offsets():
            if beta < 1:
                if p.device not in draws:
                    draws[p.device] = torch.Generator(p.device).manual_seed(number)
                mask = torch.empty_like(offset).bernoulli_(beta, generator=draws[p.device])
                offset.mul_(mask).div_(beta)
            yield p, offset
