"""Variants of SAM that make something else of the two gradients: GSAM and LookSAM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.utils import get_total_norm
from torch.optim import SGD

from lib import check
from lib.optim.constants import CONSTANTS as C
from lib.optim.sam import SAM, Base, Kept, Params, unit


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
    def _both(kept: Kept) -> dict[Tensor, Tensor]:
        """The dense gradients at hand of the parameters that had one at w too."""
        return {p: p.grad.to_dense() for p in kept if p.grad is not None}


class GSAM(_TwoGradients):
    """Surrogate-gap guided SAM (Zhuang et al. 2022, Algorithm 1): descent along

        g~ - alpha g_perp,   g_perp = g - (<g, g~> / ||g~||^2) g~,

    g the gradient at w and g~ at the phantom: it lowers the loss at the phantom as SAM does and, without a
    first-order change to that, raises the loss at w, which narrows the gap between the two. rho stays as it
    is; the paper has it follow the learning rate, which a scheduler of the group's ``rho`` would do. Other
    arguments: SAM's.
    """

    own = ("alpha",)

    def __init__(
        self, params: Params, base: Base = SGD, rho: float = 0.05, alpha: float = C.gsam_alpha, **others: Any
    ) -> None:
        self.alpha = check.number("alpha", alpha, 0)
        super().__init__(params, base, rho, **others)

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        phantom = self._both(kept)
        rejected = orthogonal([kept[p] for p in phantom], list(phantom.values()))
        for (p, g), part in zip(phantom.items(), rejected):
            _set_gradient(p, g.sub(part, alpha=self.alpha))
        return {}


class LookSAM(_TwoGradients):
    """LookSAM (Liu et al. 2022, Algorithm 1): a SAM gradient at every k-th step only.

        at steps 0, k, 2k, ...:   descent along g~;   g_v = g~ - (<g~, g> / ||g||^2) g is kept
        between:                  descent along g + alpha ||g|| g_v / ||g_v||, with one evaluation

    Norms run over all parameters. The number of steps taken and g_v's direction are part of `state_dict`. Between,
    nothing is perturbed: `phantom_norm` is 0. Other arguments: SAM's.
    """

    own = ("k", "alpha")

    def __init__(
        self,
        params: Params,
        base: Base = SGD,
        rho: float = 0.05,
        k: int = C.looksam_period,
        alpha: float = C.looksam_alpha,
        **others: Any,
    ) -> None:
        self.k, self.alpha = check.whole("k", k, 1), check.number("alpha", alpha, 0)
        super().__init__(params, base, rho, **others)

    def _movable(self) -> list[tuple[float, Tensor]]:
        return [] if self.steps % self.k else super()._movable()

    def _redirect(self, kept: Kept) -> dict[str, Kept]:
        if kept:
            phantom = self._both(kept)
            directions = unit(orthogonal(list(phantom.values()), [kept[p] for p in phantom]))
            return {"g_v": {p: direction.to(p.dtype) for p, direction in zip(phantom, directions)}}
        steered = {p: p.grad.to_dense() for p in self._parameters() if p.grad is not None and "g_v" in self.memory[p]}
        length = self.alpha * get_total_norm(list(steered.values())) if steered else 0.0
        for p, g in steered.items():
            _set_gradient(p, g + length * self.memory[p]["g_v"])
        return {}


def orthogonal(vectors: list[Tensor], to: list[Tensor]) -> list[Tensor]:
    """The part of `vectors`, taken as one real vector, that is orthogonal to `to`."""
    along = unit(to)
    component: Tensor | float = sum((torch.sum(v * u.conj()).real for v, u in zip(vectors, along)), 0.0)
    return [v - component * u for v, u in zip(vectors, along)]


def _set_gradient(p: Tensor, gradient: Tensor) -> None:
    """Give p this gradient, sparse where it had a sparse one: some base optimizers take no other."""
    if p.grad is not None and p.grad.is_sparse:
        gradient = gradient.to_sparse(p.grad.sparse_dim())
    p.grad = gradient
