"""Efficient SAM: a part of the weights is perturbed, a part of the batch descended on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import SGD

from lib import check
from lib.optim.constants import CONSTANTS as C
from lib.optim.sam import SAM, Base, Closure, Kept, Params


class ESAM(SAM):
    """Efficient SAM (Du et al. 2022, Algorithm 1), of two parts:

        stochastic weight perturbation:   epsilon = (rho / beta) m g / ||g||,   m ~ Bernoulli(beta) per weight
        data selection:                   descent on the examples whose loss rose most from w to w + epsilon,
                                          a share gamma of the batch (rounded up)

    so that the mean of epsilon is SAM's. The second backward pass saves the share 1 - gamma of the batch;
    finding those examples costs a forward pass of all of it. `seed` and the number of steps taken, which is part of
    `state_dict`, decide the masks. Other arguments: SAM's.

    The closure of `step` differs from SAM's: given which examples of the batch (indices, or a slice of all), it returns
    their losses (n,) and leaves the backward pass, and a scaler's scaling, to this optimizer. `step` returns the
    batch's mean loss at w, detached.
    """

    own = ("beta", "gamma", "seed")

    def __init__(
        self,
        params: Params,
        base: Base = SGD,
        rho: float = 0.05,
        beta: float = C.esam_beta,
        gamma: float = C.esam_gamma,
        seed: int = 0,
        **others: Any,
    ) -> None:
        self.beta, self.gamma = (check.number(n, v, 0, 1, above=True) for n, v in (("beta", beta), ("gamma", gamma)))
        self.seed = check.whole("seed", seed)
        super().__init__(params, base, rho, **others)

    def _evaluations(self, closure: Closure, at_phantom: Closure, scaler: GradScaler | None) -> tuple[Closure, Closure]:
        at_weights: list[Tensor] = []

        def descend_on(losses: Tensor) -> Tensor:
            mean = losses.mean()
            (mean if scaler is None else scaler.scale(mean)).backward()
            return mean.detach()

        def first() -> Tensor:
            losses = closure(slice(None))
            at_weights.append(losses.detach())
            return descend_on(losses)

        def second() -> Tensor:
            return descend_on(at_phantom(self._selected(at_phantom, at_weights[0])))

        return first, second

    def _selected(self, closure: Callable[..., Any], before: Tensor) -> Tensor | slice:
        """Which examples' losses rose most from `before` to where the weights are now."""
        count = math.ceil(self.gamma * len(before))
        if count == len(before):
            return slice(None)
        with torch.no_grad():
            return (closure(slice(None)) - before).topk(count).indices

    def _offsets(self, kept: Kept) -> Iterator[tuple[Tensor, Tensor]]:
        number = int(np.random.SeedSequence([self.seed, self.steps]).generate_state(1)[0])
        draws: dict[torch.device, torch.Generator] = {}
        for p, offset in super()._offsets(kept):
            if self.beta < 1:
                if p.device not in draws:
                    draws[p.device] = torch.Generator(p.device).manual_seed(number)
                mask = torch.empty_like(offset).bernoulli_(self.beta, generator=draws[p.device])
                offset.mul_(mask).div_(self.beta)
            yield p, offset
